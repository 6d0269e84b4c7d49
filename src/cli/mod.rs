//! The command line: one file a command, and the only place that prints.

mod budget;
mod check;
mod config;
mod confine;
mod conntrack;
mod explain;
mod export;
mod export_dir;
mod fail;
mod figures;
mod filter;
mod hand_over;
mod losses;
mod metrics;
mod mirror_file;
mod net;
mod netns;
mod notify;
mod output;
mod pager;
mod presence;
mod progress;
mod reload;
mod replay;
mod report;
mod run;
mod say;
mod show;
mod signals;
mod status;
mod text;
mod top;
mod usage;
mod values;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::record::{Merged, Record, ShardError, ShardState, Wanted, shard_paths};
pub(crate) use crate::report::many;

pub use fail::{Fail, is_broken_pipe, words};
pub use usage::{Given, given, parse};

/// A packet tap for busy Linux gateways: names what went wrong with TCP connections, with the packets that prove it.
#[derive(Debug, Parser)]
#[command(name = "syntap", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// What a run begins with, as far as nothing of this machine is asked: options that fit each by itself may not fit together. Nothing for
    /// another command.
    pub fn settings(&self) -> Result<Option<impl std::fmt::Debug + use<>>, Fail> {
        match &self.command {
            Command::Run(args) => args.meant().map(Some),
            _ => Ok(None),
        }
    }
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 anomalies found (replay --check) or something lost (verify), 2 usage or operational error, 130 interrupted twice.

Examples:
  syntap check -i eth0
  syntap run -i eth0=inside -i eth1=outside -p 443,8080 -w /var/lib/syntap
  syntap run -i eth0 -w /var/lib/syntap --metrics 9477
  syntap top                                             (of that run, in another terminal)
  syntap replay --json capture.pcapng
  syntap show --follow /var/lib/syntap
  syntap report /var/lib/syntap
  syntap export --format pcapng -o evidence.pcapng /var/lib/syntap";

#[derive(Debug, Subcommand)]
enum Command {
    /// Tap interfaces of this machine and write records of what goes wrong.
    Run(run::RunArgs),
    /// Watch a running tap: rates, latency, anomalies as they come, and what the tap itself costs.
    Top(top::TopArgs),
    /// Run captures (pcap, pcapng) through the same pipeline; needs no root.
    Replay(replay::ReplayArgs),
    /// Print records, with their packets in tcpdump's words.
    Show(show::ShowArgs),
    /// Say what is wrong here, how often, since when, whose doing, and what to do.
    Report(report::ReportArgs),
    /// Write records for other tools: pcapng for Wireshark; JSON lines, CSV and Parquet for analysis.
    Export(export::ExportArgs),
    /// Read shards to their last byte and say what of them is lost.
    Verify(verify::VerifyArgs),
    /// Describe an anomaly: what it means, the rule, the usual causes, the fix.
    Explain(explain::ExplainArgs),
    /// Say whether this machine can be tapped, how, at what cost, and what is missing.
    Check(check::CheckArgs),
}

/// Flows by default: 262,144 of them with their part of recorder and index take about 40 MiB, and in a replay, where each may be whole,
/// 190.
pub(crate) const MAX_FLOWS: usize = 262_144;

/// Says something on standard error. That nobody reads it is no reason to stop.
pub(crate) fn note(text: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "syntap: {text}");
}

/// The shards that were named, or in directories that were.
fn named_shards(named: &[PathBuf]) -> Result<Vec<PathBuf>, Fail> {
    let paths = shard_paths(named).map_err(|e| output::hinted(&e, None::<String>))?;
    if paths.is_empty() {
        let dirs: Vec<_> = named.iter().map(|p| p.display().to_string()).collect();
        return Err(Fail::new(format!("no shards in {}", dirs.join(", ")))
            .hint("`syntap run -w DIR` writes them into DIR"));
    }
    Ok(paths)
}

/// What came of reading shards.
struct ShardsRead {
    /// Those that could be read.
    paths: Vec<PathBuf>,
    /// How many could not.
    failed: usize,
}

impl ShardsRead {
    /// What could not be read is no success, however much else was.
    fn exit_code(&self) -> ExitCode {
        if self.failed > 0 { ExitCode::from(2) } else { ExitCode::SUCCESS }
    }
}

/// Says what of shards could not be read: it hides nothing else. An error is that there is nothing else.
fn shards_read(
    states: impl IntoIterator<Item = (PathBuf, Result<ShardState, ShardError>)>,
) -> Result<ShardsRead, Fail> {
    let mut read = ShardsRead { paths: Vec::new(), failed: 0 };
    let (mut fails, mut empty) = (Vec::new(), Vec::new());
    let mut gone = 0;
    for (path, state) in states {
        match state {
            Ok(state) => {
                shard_notes(&path, &state);
                if state.is_empty() {
                    empty.push(path.clone());
                }
                if state.unread || state.is_empty() || state.frames + state.passed > 0 {
                    read.paths.push(path);
                }
            }
            Err(e) if is_gone(&e) => gone += 1,
            Err(e) => fails.push(output::hinted(&e, None::<String>)),
        }
    }
    read.failed = fails.len();
    if read.paths.is_empty() {
        let last = fails.pop();
        fails.iter().for_each(note);
        return match last {
            Some(fail) => Err(fail),
            None if gone > 0 => Err(Fail::new("all shards there were removed meanwhile")),
            None => Err(Fail::new("nothing there can be read as a shard")),
        };
    }
    fails.iter().for_each(note);
    if empty.len() == read.paths.len() {
        empty.iter().for_each(|path| note(format!("{}: {EMPTY}", path.display())));
    }
    Ok(read)
}

/// What is said of a shard of no bytes.
const EMPTY: &str = "begun, nothing written";

/// Whether a shard made room for others since it was listed.
fn is_gone(e: &ShardError) -> bool {
    // A link that leads nowhere is there.
    matches!(e, ShardError::Io { source, path, .. }
        if source.kind() == std::io::ErrorKind::NotFound && path.symlink_metadata().is_err())
}

/// Reads all shards that were named, each record in turn that may be of a time; in order of time.
fn shards_of(
    named: &[PathBuf],
    within: (u64, u64),
    each: &mut dyn FnMut(Record),
) -> Result<ShardsRead, Fail> {
    let mut merged = Merged::of(named_shards(named)?, Wanted { within, newest_first: false });
    merged.by_ref().for_each(|stored| each(stored.record));
    shards_read(merged.finish())
}

/// Says on standard error what of a shard could not be read.
fn shard_notes(path: &std::path::Path, state: &crate::record::ShardState) {
    if let Some(at) = state.lost_at {
        let records = if state.lost_records > 0 {
            format!(", {}", many(state.lost_records, "record"))
        } else {
            String::new()
        };
        note(format!(
            "{}: {} from byte {at} on belong to no whole frame{records}; {} read",
            path.display(),
            many(state.lost_bytes, "byte"),
            many(state.records, "record")
        ));
    }
    if state.odd_lines > 0 {
        note(format!("{}: {} of no record of this version", path.display(), many(state.odd_lines, "line")));
    }
}

/// Runs what was asked for.
pub fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Check(args) => check::run(&args),
    }
}
