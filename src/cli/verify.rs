//! `syntap verify`: what is in shards, and what of them is lost.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use serde_json::json;

use super::output::hinted;
use super::{EMPTY, is_gone, many, named_shards, note};
use crate::record::{Lost, Record, ShardError, ShardReader, ShardState, rfc3339};
use crate::wire::Nanos;

/// Threads at most: each holds a frame, and the disk is not faster for more.
const THREADS: usize = 8;

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all that was written is there, 1 something is lost, 2 usage or operational error."
)]
pub struct VerifyArgs {
    /// One line of JSON for each shard.
    #[arg(long)]
    json: bool,

    /// Directories of shards, or shards.
    #[arg(required = true, value_name = "DIR|SHARD")]
    paths: Vec<PathBuf>,
}

/// What was found in a shard.
#[derive(Default)]
struct Verified {
    state: ShardState,
    bytes: u64,
    /// Times of the records that were read, ns since the epoch.
    span: Option<(u64, u64)>,
    schemas: BTreeSet<u32>,
    hosts: BTreeSet<String>,
    /// Lines that are no record of this version.
    odd_lines: u64,
    losses: Vec<Loss>,
}

/// A loss, and the times that it lies between: of the lost frame by its head, or of the records on both sides.
struct Loss {
    lost: Lost,
    after_ns: Option<u64>,
    before_ns: Option<u64>,
}

/// Runs it.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let paths = named_shards(&args.paths)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut sum = ShardState { lost_exact: true, ..ShardState::default() };
    let (mut whole, mut damaged, mut unread) = (0, 0, 0);
    for (path, verified) in paths.iter().zip(all(&paths)) {
        let v = match verified {
            Ok(v) => v,
            Err(e) if is_gone(&e) => continue,
            Err(e) => {
                note(hinted(&e, None::<String>));
                unread += 1;
                continue;
            }
        };
        *if v.state.is_whole() { &mut whole } else { &mut damaged } += 1;
        sum.records += v.state.records;
        sum.lost_records += v.state.lost_records;
        sum.lost_exact &= v.state.lost_exact;
        if args.json {
            writeln!(out, "{}", v.json(path))?;
        } else {
            v.print(path, &mut out)?;
        }
    }
    if !args.json {
        let bad = if damaged > 0 { format!(", {damaged} damaged") } else { String::new() };
        let unreadable = if unread > 0 { format!(", {unread} cannot be read") } else { String::new() };
        let lost = if damaged > 0 {
            format!(", lost: {}", lost(sum.lost_records, sum.lost_exact))
        } else {
            String::new()
        };
        let all = many(whole + damaged + unread, "shard");
        writeln!(out, "{all}: {whole} whole{bad}{unreadable}; {} read{lost}", many(sum.records, "record"))?;
    }
    out.flush()?;
    Ok(match (damaged, unread) {
        (0, 0) => ExitCode::SUCCESS,
        (_, 0) => ExitCode::from(1),
        _ => ExitCode::from(2),
    })
}

/// Looks at all of them, by as many threads as there is work for; in their order.
fn all(paths: &[PathBuf]) -> Vec<Result<Verified, ShardError>> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < paths.len());
        std::iter::from_fn(take).map(|n| (n, verify(&paths[n]))).collect::<Vec<_>>()
    };
    let mut done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus.min(paths.len()).min(THREADS)).map(|_| scope.spawn(work)).collect();
        let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
            t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    done.sort_by_key(|d| d.0);
    done.into_iter().map(|d| d.1).collect()
}

/// Reads a shard to its last byte.
fn verify(path: &Path) -> Result<Verified, ShardError> {
    let reader = ShardReader::open(path)?;
    let index = reader.index()?;
    let mut v = Verified::default();
    let mut frames = reader.frames()?;
    for frame in frames.by_ref() {
        let frame = frame?;
        v.schemas.insert(frame.schema);
        for line in frame.lines() {
            match serde_json::from_slice::<Record>(line) {
                Ok(record) => {
                    v.state.records += 1;
                    if !v.hosts.contains(&record.host) {
                        v.hosts.insert(record.host);
                    }
                }
                Err(_) => v.odd_lines += 1,
            }
        }
        if frame.records > 0 {
            let (first, last) = v.span.unwrap_or((u64::MAX, 0));
            v.span = Some((first.min(frame.first_ns), last.max(frame.last_ns)));
        }
    }
    let records = v.state.records;
    v.state = ShardState { records, ..frames.state().clone() };
    v.bytes = v.state.end;
    let around = |lost: &Lost| {
        let own = index.frames.iter().find(|f| f.at == lost.at && lost.bytes > 0).and_then(|f| f.span());
        let behind = lost.at + lost.bytes;
        let before = index.frames.iter().rev().filter(|f| f.at < lost.at).find_map(|f| f.span());
        let after = index.frames.iter().filter(|f| f.at >= behind).find_map(|f| f.span());
        Loss {
            lost: *lost,
            after_ns: own.map(|s| s.0).or(before.map(|s| s.1)),
            before_ns: own.map(|s| s.1).or(after.map(|s| s.0)),
        }
    };
    v.losses = v.state.lost.iter().map(around).collect();
    Ok(v)
}

/// `3 records`, as far as it is known.
fn lost(records: u64, exact: bool) -> String {
    match (records, exact) {
        (n, true) => many(n, "record"),
        (0, false) => "nothing says how many records".into(),
        (n, false) => format!("at least {}", many(n, "record")),
    }
}

impl Verified {
    /// How the shard ends.
    fn end(&self) -> &'static str {
        match &self.state {
            s if s.closed => "closed",
            s if s.written => "being written",
            // Its end does not tell, and neither does that of a run that was killed.
            _ => "not closed",
        }
    }

    fn print(&self, path: &Path, to: &mut dyn Write) -> io::Result<()> {
        if self.state.is_empty() {
            let written = if self.state.written { ", being written" } else { "" };
            return writeln!(to, "{}: {EMPTY}{written}", path.display());
        }
        let whole = if self.state.is_whole() { "whole" } else { "damaged" };
        let (frames, records) = (many(self.state.frames, "frame"), many(self.state.records, "record"));
        write!(to, "{}: {whole}, {}: {frames}, {records}", path.display(), self.end())?;
        if !self.hosts.is_empty() {
            write!(to, " of {}", self.hosts.iter().cloned().collect::<Vec<_>>().join(", "))?;
        }
        if let Some((first, last)) = self.span {
            write!(to, ", {} to {}", rfc3339(Nanos(first)), rfc3339(Nanos(last)))?;
        }
        let schemas: Vec<String> = self.schemas.iter().map(u32::to_string).collect();
        if !schemas.is_empty() {
            write!(to, ", schema {}", schemas.join(" and "))?;
        }
        writeln!(to)?;
        if self.odd_lines > 0 {
            writeln!(to, "  {} of no record of this version", many(self.odd_lines, "line"))?;
        }
        for Loss { lost: l, after_ns, before_ns } in &self.losses {
            let what = match l.bytes {
                0 => "whole frames are gone".into(),
                n => many(n, "byte"),
            };
            write!(to, "  lost at byte {}: {what}, {}", l.at, lost(l.records, l.exact))?;
            if let Some(ns) = after_ns {
                write!(to, ", from {} on", rfc3339(Nanos(*ns)))?;
            }
            if let Some(ns) = before_ns {
                write!(to, ", up to {}", rfc3339(Nanos(*ns)))?;
            }
            writeln!(to)?;
        }
        let untold = self.state.losses - self.losses.len() as u64;
        if untold > 0 {
            writeln!(to, "  and in {untold} more places: {} in all", many(self.state.lost_bytes, "byte"))?;
        }
        Ok(())
    }

    fn json(&self, path: &Path) -> serde_json::Value {
        let s = &self.state;
        let loss = |l: &Loss| {
            let Lost { at, bytes, records, exact } = l.lost;
            json!({"at": at, "bytes": bytes, "records": records, "exact": exact, "after_ns": l.after_ns, "before_ns": l.before_ns})
        };
        json!({
            "shard": path.display().to_string(),
            "whole": s.is_whole(),
            "end": self.end(),
            "bytes": self.bytes,
            "frames": s.frames,
            "records": s.records,
            "odd_lines": self.odd_lines,
            "hosts": self.hosts,
            "schemas": self.schemas,
            "first_ns": self.span.map(|s| s.0),
            "last_ns": self.span.map(|s| s.1),
            "lost_bytes": s.lost_bytes,
            "lost_records": s.lost_records,
            "lost_exact": s.lost_exact,
            "losses": self.losses.iter().map(loss).collect::<Vec<_>>(),
        })
    }
}
