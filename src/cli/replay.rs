//! `syntap replay`: captures through the same pipeline as live packets.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::Fail;
use super::output::{Output, Summary, hinted, host_name};
use crate::capture::{CaptureFile, Point, Polled, PortSet, ReplaySource, Source};
use crate::flow::{FlowKey, Seed};
use crate::pipeline::{Desk, Event, Outlet, Worker, WorkerConfig};
use crate::record::{ConnectionRecord, Context, Interface};
use crate::track::Flow;

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
    #[arg(long, value_name = "N", default_value_t = super::MAX_FLOWS)]
    max_flows: usize,

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

/// The desk at the end of a replay's pipeline, called straight from the worker.
struct Straight<'a> {
    desk: Desk<Output<'a>>,
    connections: Option<(BufWriter<io::Stdout>, Context)>,
    failed: io::Result<()>,
}

impl Outlet for Straight<'_> {
    fn event(&mut self, event: Event) {
        if self.failed.is_ok() {
            self.failed = self.desk.event(event);
        }
    }

    fn over(&mut self, key: &FlowKey, flow: &Flow) {
        let Some((out, context)) = &mut self.connections else { return };
        if self.failed.is_ok() {
            let record = ConnectionRecord::of(key, flow, context);
            self.failed = serde_json::to_writer(&mut *out, &record)
                .map_err(io::Error::from)
                .and_then(|()| out.write_all(b"\n"));
        }
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
    let host = host_name();
    if let Some(dir) = &args.write {
        output.shards_in(dir, &host)?;
    }
    let context = Context { host, interfaces, clock_offset_ns: None };
    let connections = args.connections.then(|| (BufWriter::new(io::stdout()), context.clone()));
    let mut straight = Straight { desk: Desk::new(context, output), connections, failed: Ok(()) };
    let mut worker = Worker::new(&WorkerConfig {
        max_flows: args.max_flows,
        recorder: args.max_flows,
        seed: Seed::FIXED,
        ports: PortSet::union(&args.ports),
    });
    let mut source = ReplaySource::new(files);
    loop {
        let polled = source.poll(0, &mut |packets| worker.batch(packets, &mut straight))?;
        if straight.failed.is_err() || polled == Polled::End {
            break;
        }
    }
    let end = source.end_time().unwrap_or(worker.now());
    worker.finish(end, &mut straight);
    straight.failed.context("cannot write a record")?;
    if let Some((mut out, _)) = straight.connections {
        out.flush()?;
    }
    let (output, tally) = straight.desk.finish().context("cannot write a record")?;
    output.close()?;

    let mut err = io::stderr().lock();
    for note in source.notes() {
        writeln!(err, "syntap: {note}")?;
    }
    Summary { counters: worker.counters(), tally: &tally, live: None }.print(&mut err)?;
    Ok(if args.check && tally.above_info() > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

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
