//! `syntap export`: records for other tools.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::filter::Filter;
use super::{Fail, ShardsRead, export_dir, many, note, shards_of};
use crate::record::Record;
use crate::record::export::{CaptureExport, Captured, CsvExport, ParquetExport, nameless};
use crate::wire::Origin;

/// What records can be exported to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Records as they are stored, a line each.
    Jsonl,
    /// Flat columns, nested fields as JSON text (RFC 4180).
    Csv,
    /// Columns for DuckDB, Spark and others; nested fields stay nested.
    Parquet,
    /// The records' packets for Wireshark: headers rebuilt, in order of time, what was found as comments.
    Pcapng,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to write.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) format: Format,

    /// The file to write; one that exists is replaced once the new one is whole. `-` is standard output. A directory, or a name that
    /// ends with `/`, is exported into file by file: each run adds what is new since the last one (Parquet: partitioned by host,
    /// date and hour).
    #[arg(short, long, value_name = "PATH")]
    pub(super) output: PathBuf,

    /// Leave out the column `packets` (most of a record's size).
    #[arg(long)]
    pub(super) no_packets: bool,

    #[command(flatten)]
    pub(super) filter: Filter,

    /// Directories of shards, or shards.
    #[arg(required = true, value_name = "DIR|SHARD")]
    pub(super) paths: Vec<PathBuf>,
}

/// Rows or packets on their way into one file.
pub(super) enum Sink<W: Write + Send> {
    Lines(W, Vec<u8>),
    Csv(Box<CsvExport<W>>),
    Parquet(Box<ParquetExport<W>>),
    Capture(Box<CaptureExport>, W),
}

impl<W: Write + Send> Sink<W> {
    pub(super) fn new(args: &ExportArgs, to: W, dir: &Path) -> io::Result<Sink<W>> {
        let packets = !args.no_packets;
        Ok(match args.format {
            Format::Jsonl => Sink::Lines(to, Vec::new()),
            Format::Csv => Sink::Csv(Box::new(CsvExport::new(to, packets)?)),
            Format::Parquet => Sink::Parquet(Box::new(ParquetExport::new(to, packets)?)),
            Format::Pcapng => Sink::Capture(Box::new(CaptureExport::new(nameless(dir.into()))), to),
        })
    }

    pub(super) fn push(&mut self, r: &Record) -> io::Result<()> {
        match self {
            Sink::Lines(to, line) => {
                line.clear();
                r.write_line(line);
                to.write_all(line)
            }
            Sink::Csv(csv) => csv.push(r),
            Sink::Parquet(parquet) => parquet.push(r),
            Sink::Capture(capture, _) => capture.push(r),
        }
    }

    /// Writes the rest; what became of packets.
    pub(super) fn finish(self) -> io::Result<Option<Captured>> {
        match self {
            Sink::Lines(mut to, _) => to.flush().map(|()| None),
            Sink::Csv(csv) => csv.finish().map(|()| None),
            Sink::Parquet(parquet) => parquet.finish().map(|()| None),
            Sink::Capture(capture, mut to) => {
                let machine = nix::sys::utsname::uname().ok();
                let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
                let os = machine
                    .as_ref()
                    .map_or_else(String::new, |m| format!("{} {}", text(m.sysname()), text(m.release())));
                let hardware = machine.as_ref().map_or_else(String::new, |m| text(m.machine()));
                capture.finish(&mut to, &Origin { comment: "", hardware: &hardware, os: &os }).map(Some)
            }
        }
    }
}

/// Runs it.
pub fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    args.filter.makes_sense()?;
    if args.no_packets && matches!(args.format, Format::Pcapng | Format::Jsonl) {
        let why = if args.format == Format::Pcapng {
            "is made of packets"
        } else {
            "is records as they are stored"
        };
        return Err(Fail::new(format!("--no-packets: this format {why}"))
            .hint("--no-packets goes with --format csv and parquet")
            .into());
    }
    if args.output.as_os_str() == "-" {
        let to = BufWriter::new(io::stdout());
        let (read, written) = write(args, to, &std::env::temp_dir())?;
        let (records, captured) = written?;
        say(args, records, captured);
        return Ok(read.exit_code());
    }
    let path = &args.output;
    if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return export_dir::run(args).map_err(Into::into);
    }
    let failed = |e: io::Error| cannot_write(path, &e);
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map_or_else(|| "export".into(), |n| n.to_string_lossy().into_owned());
    // Nobody takes half a file for a whole one: neither a pattern of names nor a look at the directory finds this.
    let part = Part(dir.join(format!(".{name}.{}.part", std::process::id())));
    let file = File::options().write(true).create(true).truncate(true).open(&part.0).map_err(failed)?;
    let to = BufWriter::with_capacity(256 * 1024, file.try_clone().map_err(failed)?);
    let (read, written) = write(args, to, dir)?;
    let (records, captured) = written.map_err(failed)?;
    file.sync_all().and_then(|()| std::fs::rename(&part.0, path)).map_err(failed)?;
    say(args, records, captured);
    Ok(read.exit_code())
}

/// What is said of a file that cannot be written.
pub(super) fn cannot_write(path: &Path, e: &io::Error) -> Fail {
    let fail = Fail::new(format!("cannot write {}: {e}", path.display()));
    match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            fail.hint("make room on that file system, or write to another one")
        }
        Some(libc::ENOENT) => fail.hint("the directory of -o must exist"),
        _ => fail,
    }
}

/// A file that is not whole, and goes if it never becomes so.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

type Written = io::Result<(u64, Option<Captured>)>;

/// Reads and writes all; errors of reading apart from those of writing.
fn write<W: Write + Send>(args: &ExportArgs, to: W, dir: &Path) -> Result<(ShardsRead, Written), Fail> {
    let mut sink = match Sink::new(args, to, dir) {
        Ok(sink) => sink,
        Err(e) => return Ok((ShardsRead { paths: Vec::new(), failed: 0 }, Err(e))),
    };
    let (mut records, mut failed) = (0, Ok(()));
    let read = shards_of(&args.paths, args.filter.within(), &mut |r| {
        if failed.is_ok() && args.filter.passes(&r) {
            failed = sink.push(&r);
            records += 1;
        }
    })?;
    Ok((read, failed.and_then(|()| sink.finish()).map(|captured| (records, captured))))
}

/// Says what was written and what a capture had no place for.
pub(super) fn say(args: &ExportArgs, records: u64, captured: Option<Captured>) {
    let place = if args.output.as_os_str() == "-" {
        "standard output".into()
    } else {
        args.output.display().to_string()
    };
    let Some(c) = captured else {
        return note(format!("{place}: {}", many(records, "record")));
    };
    let again =
        if c.again > 0 { format!("; {} more times in another record", c.again) } else { String::new() };
    note(format!("{place}: {} of {}{again}", many(c.packets, "packet"), many(records, "record")));
    if !c.without.is_empty() {
        let kinds: Vec<_> = c.without.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        note(format!("records that hold no packets are not in it: {}", kinds.join(", ")));
    }
    if c.addressless > 0 {
        note(format!(
            "{} of which the records do not say whose they are left out",
            many(c.addressless, "packet")
        ));
    }
    if c.comments_cut > 0 {
        note(format!("{} beyond 32 on one packet left out", many(c.comments_cut, "comment")));
    }
}
