//! `syntap export` into a directory: each run adds what is new, file by file, shard by shard.
//!
//! A file is named after its shard and the byte in it where the file's part begins (behind a damaged
//! stretch also the records there that were exported before). See [`ExportDir`] for what a crash can do: nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::export::{ExportArgs, Format, Sink, cannot_write, say};
use super::output::hinted;
use super::{Fail, many, named_shards, note, shard_notes};
use crate::record::export::{Captured, ExportDir, Position};
use crate::record::{Record, read_from};

/// Files of a shard that are written at the same time: an hour and the one before, of two hosts. Each may hold a row group.
const OPEN: usize = 4;

/// What one run did.
#[derive(Default)]
struct Done {
    records: u64,
    files: u64,
    captured: Option<Captured>,
}

/// Runs it.
pub fn run(args: &ExportArgs) -> Result<ExitCode, Fail> {
    if let Some(option) = args.filter.of_time() {
        return Err(Fail::new(format!(
            "{option} and a directory: later runs would never bring what it leaves out"
        ))
        .hint("let queries choose a time, or export into a file"));
    }
    let paths = distinct(named_shards(&args.paths)?)?;
    let mut dir = ExportDir::open(&args.output, &what(args)).map_err(|e| hinted(&e, e.hint()))?;
    let (mut done, mut failed, mut read) = (Done::default(), None, 0);
    for (name, path) in &paths {
        match shard(args, &mut dir, name, path, &mut done) {
            Ok(()) => read += 1,
            Err(Trouble::Write(e)) => return Err(cannot_write(&args.output, &e)),
            Err(Trouble::Read(fail)) => {
                if let Some(before) = failed.replace(fail) {
                    note(before);
                }
            }
        }
    }
    note(format!(
        "{}: {} in {} added",
        args.output.display(),
        many(done.records, "record"),
        many(done.files, "file")
    ));
    if let Some(captured) = done.captured {
        say(args, done.records, Some(captured));
    }
    match failed {
        Some(fail) => Err(fail),
        None if read == 0 => Err(Fail::new("nothing there can be read as a shard")),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What is exported, in words.
fn what(args: &ExportArgs) -> String {
    let format = match args.format {
        Format::Jsonl => "jsonl",
        Format::Csv => "csv",
        Format::Parquet => "parquet",
        Format::Pcapng => "pcapng",
    };
    let without = if args.no_packets { " --no-packets" } else { "" };
    let filters = args.filter.words();
    let space = if filters.is_empty() { "" } else { " " };
    format!("{format}{without}{space}{filters}")
}

/// Shards by name. One that was named twice is one; two of one name would be taken for one in the next run.
fn distinct(paths: Vec<PathBuf>) -> Result<BTreeMap<String, PathBuf>, Fail> {
    let mut all: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_owned());
        if let Some(other) = all.get(&name)
            && real(other) != real(&path)
        {
            return Err(Fail::new(format!("{} and {} have one name", other.display(), path.display()))
                .hint("shards are told apart by their names, which begin with that of their host: export each directory into one of its own"));
        }
        all.entry(name).or_insert(path);
    }
    Ok(all)
}

enum Trouble {
    Read(Fail),
    Write(io::Error),
}

/// Exports what is new of one shard.
fn shard(
    args: &ExportArgs,
    dir: &mut ExportDir,
    name: &str,
    path: &Path,
    done: &mut Done,
) -> Result<(), Trouble> {
    let unread = |e: io::Error| Fail::new(format!("cannot read {}: {e}", path.display()));
    match std::fs::metadata(path) {
        // It made room for others since it was listed.
        Err(_) if path.symlink_metadata().is_err() => return Ok(()),
        Err(e) => return Err(Trouble::Read(unread(e))),
        Ok(file) if file.is_file() => {}
        // A pipe would be waited for.
        Ok(_) => {
            return Err(Trouble::Read(Fail::new(format!("cannot read {}: it is no file", path.display()))));
        }
    }
    let before = dir.position(name).cloned().unwrap_or_default();
    if before.length > 0
        && std::fs::metadata(path).map_err(|e| Trouble::Read(unread(e)))?.len() == before.length
    {
        return Ok(());
    }
    if crc_of(path, before.bytes).map_err(|e| Trouble::Read(unread(e)))? != Some(before.crc) {
        let fail =
            Fail::new(format!("{} is not the shard of this name that was exported before", path.display()));
        return Err(Trouble::Read(fail.hint("export it into another directory")));
    }
    let mut batch = Batch {
        args,
        dir,
        stem: stem(name),
        begin: before.bytes,
        behind: before.records_behind,
        open: Vec::new(),
        parts: HashMap::new(),
        files: 0,
        captured: None,
    };
    let (mut skip, mut written, mut failed) = (before.records_behind, 0, Ok(()));
    // Records of each frame, by its offset.
    let mut frames: Vec<(u64, u64)> = Vec::new();
    let state = read_from(path, before.bytes, &mut |frame, r| {
        match frames.last_mut().filter(|f| f.0 == frame) {
            Some(f) => f.1 += 1,
            None => frames.push((frame, 1)),
        }
        if skip > 0 {
            skip -= 1;
        } else if failed.is_ok() && args.filter.passes(&r) {
            failed = batch.push(&r);
            written += 1;
        }
    });
    let state = state.map_err(|e| hinted(&e, None::<String>));
    let read = state.and_then(|state| {
        // Behind a torn stretch, which may be a frame that is being written, whole frames are counted; the stretch is looked at again.
        let end = state.lost_at.unwrap_or(state.end);
        let position = Position {
            bytes: end,
            records_behind: frames.iter().filter(|f| f.0 >= end).map(|f| f.1).sum(),
            length: state.end,
            crc: crc_of(path, end).map_err(unread)?.unwrap_or_default(),
            records: before.records + written,
        };
        Ok((state, position))
    });
    let (state, position) = match read {
        Ok(read) => read,
        Err(fail) => {
            batch.dir.give_up();
            return Err(Trouble::Read(fail));
        }
    };
    let files = failed.and_then(|()| batch.finish());
    let captured = batch.captured.take();
    let files = match files {
        Ok(files) => files,
        Err(e) => {
            dir.give_up();
            return Err(Trouble::Write(e));
        }
    };
    shard_notes(path, &state);
    dir.commit(name, position).map_err(Trouble::Write)?;
    done.records += written;
    done.files += files;
    if let Some(c) = captured {
        done.captured.get_or_insert_default().add(&c);
    }
    Ok(())
}

/// CRC of what a shard begins with, of at most `len` bytes; `None` if it is shorter.
fn crc_of(path: &Path, len: u64) -> io::Result<Option<u32>> {
    let mut head = Vec::new();
    File::open(path)?.take(len.min(4096)).read_to_end(&mut head)?;
    let shorter = std::fs::metadata(path)?.len() < len;
    Ok((!shorter).then(|| crc32fast::hash(&head)))
}

fn stem(name: &str) -> String {
    name.strip_suffix(".jsonl.zst").unwrap_or(name).to_owned()
}

/// The files of one shard's part.
struct Batch<'a> {
    args: &'a ExportArgs,
    dir: &'a mut ExportDir,
    stem: String,
    begin: u64,
    /// Records behind it that an earlier run exported.
    behind: u64,
    /// Directory of each and the file, the one used last at the end.
    open: Vec<(PathBuf, Sink<BufWriter<File>>)>,
    /// Files that each directory has had.
    parts: HashMap<PathBuf, u32>,
    files: u64,
    captured: Option<Captured>,
}

impl Batch<'_> {
    fn push(&mut self, r: &Record) -> io::Result<()> {
        let place = match self.args.format {
            Format::Parquet => partition(r),
            _ => PathBuf::new(),
        };
        match self.open.iter().position(|(p, _)| *p == place) {
            Some(n) => self.open[n..].rotate_left(1),
            None => {
                if self.open.len() == OPEN {
                    let (_, sink) = self.open.remove(0);
                    self.end(sink)?;
                }
                let sink = self.begin(&place)?;
                self.open.push((place, sink));
            }
        }
        self.open.last_mut().map_or(Ok(()), |(_, sink)| sink.push(r))
    }

    fn begin(&mut self, place: &Path) -> io::Result<Sink<BufWriter<File>>> {
        let extension = match self.args.format {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
            Format::Pcapng => "pcapng",
        };
        let n = self.parts.entry(place.to_owned()).or_default();
        let more = if *n > 0 { format!("-{n}") } else { String::new() };
        *n += 1;
        self.files += 1;
        let behind = if self.behind > 0 { format!("_{}", self.behind) } else { String::new() };
        let name = place.join(format!("{}-{:08}{behind}{more}.{extension}", self.stem, self.begin));
        Sink::new(self.args, BufWriter::with_capacity(256 * 1024, self.dir.begin(&name)?), &self.args.output)
    }

    fn end(&mut self, sink: Sink<BufWriter<File>>) -> io::Result<()> {
        if let Some(c) = sink.finish()? {
            self.captured.get_or_insert_default().add(&c);
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<u64> {
        for (_, sink) in std::mem::take(&mut self.open) {
            self.end(sink)?;
        }
        Ok(self.files)
    }
}

/// `host=H/date=D/hour=HH` of the time when the record's rule could be sure, UTC.
fn partition(r: &Record) -> PathBuf {
    let time = crate::record::rfc3339(crate::wire::Nanos(r.ts_ns));
    let mut host = String::new();
    for b in r.host.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => host.push(b.into()),
            // As Hive has it.
            _ => host.push_str(&format!("%{b:02X}")),
        }
    }
    if host.is_empty() {
        host.push_str("__HIVE_DEFAULT_PARTITION__");
    }
    let (date, hour) = (time.get(..10).unwrap_or_default(), time.get(11..13).unwrap_or_default());
    PathBuf::from(format!("host={host}/date={date}/hour={hour}"))
}
