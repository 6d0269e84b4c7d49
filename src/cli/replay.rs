//! `syntap replay`: captures through the same pipeline as live packets.

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::{Output, Summary, hinted, host_name};
use super::status::latency;
use super::{Fail, note, values};
use crate::capture::{BATCH, CaptureFile, Point, PortSet, ReplaySource};
use crate::flow::Seed;
use crate::pipeline::{Desk, Rounds, RoundsError, Ticking as _, WorkerConfig};
use crate::record::{Context, Interface};

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Ports to look at, on either end: numbers and ranges. All of them if not given.
    #[arg(short, long, value_name = "PORTS")]
    ports: Vec<PortSet>,

    /// Write records into this directory, as `run` does.
    #[arg(short, long, value_name = "DIR")]
    write: Option<PathBuf>,

    /// Print each anomaly as one line of JSON on standard output.
    #[arg(long)]
    json: bool,

    /// Print each connection as one line of JSON instead: how it went, with Zeek's conn_state and history.
    #[arg(long, conflicts_with = "json")]
    connections: bool,

    /// Exit with 1 if there was any anomaly above `info`.
    #[arg(long)]
    check: bool,

    /// Flows there is room for; the least valuable are given up beyond that.
    #[arg(long, value_name = "N", default_value_t = super::MAX_FLOWS, value_parser = values::max_flows)]
    max_flows: usize,

    /// Workers that share the work, by tuple; 0 takes one for each CPU. The result is the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: u16,

    /// Packets that a worker takes at once. The result is the same.
    #[arg(long, value_name = "N", default_value_t = BATCH, hide = true)]
    batch: usize,

    #[command(flatten)]
    filter: super::show::Filter,

    /// Captures (pcap or pcapng). `NAME=FILE` names the interface, `NAME:ROLE=FILE` also says whether it is the
    /// gateway's `inside` or `outside`. Several are merged by time.
    #[arg(required = true, value_name = "[NAME[:ROLE]=]FILE")]
    files: Vec<String>,
}

/// A capture as it was named on the command line.
struct Named {
    name: String,
    role: Option<String>,
    path: PathBuf,
}

fn parse_name(arg: &str) -> Named {
    let plain = |path: &str| {
        let path = PathBuf::from(path);
        let name = path.file_stem().map_or_else(|| "capture".into(), |s| s.to_string_lossy().into_owned());
        Named { name, role: None, path }
    };
    // A file that exists under the whole argument is meant, even with a `=` in its name.
    match arg.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() && !std::path::Path::new(arg).exists() => {
            let (name, role) = match name.split_once(':') {
                Some((n, r)) => (n, Some(r.to_owned())),
                None => (name, None),
            };
            Named { name: name.to_owned(), role, path: path.into() }
        }
        _ => plain(arg),
    }
}

/// Runs it.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    let mut interfaces = Vec::new();
    for arg in &args.files {
        let named = parse_name(arg);
        if let Some(role) = &named.role
            && !matches!(role.as_str(), "inside" | "outside" | "span")
        {
            return Err(Fail::new(format!("unknown role '{role}' of {}", named.path.display()))
                .hint("a role is inside, outside or span")
                .into());
        }
        let file = CaptureFile::open(&named.path).map_err(|e| hinted(&e, e.hint()))?;
        let base = interfaces.len();
        let own = file.own_interfaces();
        if own.is_empty() {
            interfaces.push(Interface { name: named.name, role: named.role });
        } else {
            interfaces.extend(own.into_iter().map(|(name, role)| Interface { name, role }));
        }
        let point = u8::try_from(base).ok().filter(|_| interfaces.len() <= MAX_POINTS);
        let Some(point) = point else {
            return Err(Fail::new(format!("more than {MAX_POINTS} interfaces in one replay")).into());
        };
        files.push((Point(point), file));
    }

    let mut output = Output::new();
    if args.json {
        output.json_to(Box::new(BufWriter::new(io::stdout())), args.filter.clone());
    }
    if args.connections {
        output.connections_to(Box::new(BufWriter::new(io::stdout())));
    }
    let host = host_name();
    if let Some(dir) = &args.write {
        output.shards_in(dir, &host)?;
    }
    let context = Context { host, interfaces, clock_offset_ns: None };
    let config = WorkerConfig {
        max_flows: args.max_flows,
        recorder: args.max_flows,
        seed: Seed::FIXED,
        ports: PortSet::union(&args.ports),
        lives: args.connections,
    };
    let workers = match args.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS),
        n => usize::from(n),
    };
    values::has_memory(&config, 1)?;
    output.begin_shard()?;
    let mut rounds = Rounds::new(&config, workers, args.batch);
    let mut source = ReplaySource::new(files);
    let mut desk = Desk::new(context, output);
    rounds.run(&mut source, &mut desk).map_err(|RoundsError::Write(e)| e)?;
    if let Some(own) = desk.sink().tick()? {
        desk.anomaly(own)?;
    }
    let (output, tally) = desk.finish()?;
    let closed = output.close();

    source.notes().into_iter().for_each(note);
    let latency = [("latency".to_owned(), latency(&rounds.latencies()))];
    let summary = Summary { counters: &rounds.counters(), tally: &tally, live: Some(&latency) };
    let _ = summary.print(&mut io::stderr().lock());
    closed?;
    Ok(if args.check && tally.above_info() > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Workers taken unasked: reading the captures and the desk keep about eight busy.
const MOST_WORKERS: usize = 8;

/// Tap points in one replay: what a tap point's number has room for in the rules.
const MAX_POINTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_may_carry_a_name_and_a_role() {
        let n = parse_name("eth0:inside=/tmp/a.pcap");
        assert_eq!((n.name.as_str(), n.role.as_deref()), ("eth0", Some("inside")));
        assert_eq!(n.path, PathBuf::from("/tmp/a.pcap"));
        let n = parse_name("eth0=a.pcap");
        assert_eq!((n.name.as_str(), n.role), ("eth0", None));
        let n = parse_name("dir/b.pcapng");
        assert_eq!((n.name.as_str(), n.path), ("b", PathBuf::from("dir/b.pcapng")));
    }
}
