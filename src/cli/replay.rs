//! `syntap replay`: captures through the same pipeline as live packets.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::{Output, Summary, figures_at, hinted, host_name};
use super::{Fail, note, values};
use crate::capture::{BATCH, CaptureFile, Point, PortSet, ReplaySource};
use crate::flow::{Endpoint, Seed};
use crate::pipeline::{Desk, Rounds, RoundsError, Ticking as _, WorkerConfig};
use crate::record::{Context, Interface, Retention};

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

    /// Responders (ADDRESS:PORT) whose figures are shown apart: connects, how long they took, errors. Commas and repeats add more.
    #[arg(long = "responder", value_name = "ADDRESS:PORT", value_delimiter = ',', value_parser = values::responder)]
    responders: Vec<Endpoint>,

    /// Workers that share the work, by tuple; 0 takes one for each CPU. The result is the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: u16,

    /// Packets that a worker takes at once. The result is the same.
    #[arg(long, value_name = "N", default_value_t = BATCH, hide = true)]
    batch: usize,

    /// The machine that the captures come from, for records; this one if not given.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    filter: super::filter::Filter,

    /// Captures (pcap or pcapng), `-` for standard input. `NAME=FILE` names the interface, `NAME:ROLE=FILE` also says
    /// whether it is the gateway's `inside` or `outside`. Several are merged by time. Of a pcapng with several
    /// interfaces each is one by itself, under its own name.
    #[arg(required = true, value_name = "[NAME[:ROLE]=]FILE")]
    files: Vec<String>,
}

/// A capture as it was named on the command line.
struct Named {
    name: String,
    /// The name was typed, and does not come from the file's.
    given: bool,
    role: Option<String>,
    path: PathBuf,
}

fn parse_name(arg: &str) -> Named {
    let plain = |path: &str| {
        let path = PathBuf::from(path);
        let name = path.file_stem().map_or_else(|| "capture".into(), |s| s.to_string_lossy().into_owned());
        Named { name, given: false, role: None, path }
    };
    // A file that exists under the whole argument is meant, even with a `=` in its name.
    match arg.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() && !std::path::Path::new(arg).exists() => {
            let (name, role) = match name.split_once(':') {
                Some((n, r)) => (n, Some(r.to_owned())),
                None => (name, None),
            };
            Named { name: name.to_owned(), given: true, role, path: path.into() }
        }
        _ => plain(arg),
    }
}

/// Runs it.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    let mut interfaces = Vec::new();
    let mut selected = 0;
    for arg in &args.files {
        let named = parse_name(arg);
        if let Some(role) = &named.role
            && !matches!(role.as_str(), "inside" | "outside" | "span")
        {
            return Err(Fail::new(format!("unknown role '{role}' of {}", named.path.display()))
                .hint("a role is inside, outside or span")
                .into());
        }
        let file = match named.path.as_os_str() {
            dash if dash == "-" => CaptureFile::of(&spooled()?, "standard input".as_ref()),
            _ => CaptureFile::open(&named.path),
        };
        let file = file.map_err(|e| hinted(&e, e.hint()))?;
        let base = interfaces.len();
        interfaces.extend(points_of(&named, &file, MAX_POINTS.saturating_sub(base)));
        let points = (interfaces.len() - base) as u32;
        let point = u8::try_from(base).ok().filter(|_| interfaces.len() <= MAX_POINTS);
        let Some(point) = point else {
            return Err(Fail::new(format!("more than {MAX_POINTS} interfaces in one replay"))
                .hint("replay the captures in several runs")
                .into());
        };
        if file.is_own() {
            selected |= (base..interfaces.len()).fold(0, |bits, n| bits | 1 << n);
        }
        files.push((Point(point), points, file));
    }

    let written = args.json || args.connections || args.write.is_some();
    args.filter.makes_sense()?;
    if let Some(option) = args.filter.given().filter(|_| !written) {
        return Err(Fail::new(format!("{option} chooses nothing: no record is printed or written"))
            .hint("add --json to print records, or -w DIR to write them")
            .into());
    }
    if let Some(option) = args.filter.of_anomalies_only().filter(|_| args.connections) {
        return Err(Fail::new(format!("{option} is about anomalies, and --connections prints connections"))
            .hint("--tuple, --net, --interface, --community-id, --since and --until choose connections; --json prints anomalies")
            .into());
    }
    let mut output = Output::new();
    if args.json {
        output.json_to(Box::new(BufWriter::new(io::stdout())));
    }
    output.only(args.filter.clone());
    if args.connections {
        output.connections_to(Box::new(BufWriter::new(io::stdout())));
    }
    let host = args.host.clone().unwrap_or_else(host_name);
    if let Some(dir) = &args.write {
        output.shards_in(dir, &host, Retention::default())?;
    }
    let context = Context { host, interfaces, clock_offset_ns: None };
    let config = WorkerConfig {
        max_flows: args.max_flows,
        recorder: args.max_flows,
        seed: Seed::FIXED,
        ports: PortSet::union(&args.ports),
        lives: args.connections,
        responders: args.responders.clone(),
        figures_at: figures_at(&context.interfaces),
        selected,
        census: args.write.is_some(),
        // Nothing else needs the memory: every flow may be whole.
        wholes: args.max_flows,
        ..WorkerConfig::default()
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
    let figures = rounds.latencies();
    let summary = Summary { counters: &rounds.counters(), tally: &tally, figures: &figures, live: &[] };
    let _ = summary.print(&mut io::stderr().lock());
    closed?;
    Ok(if args.check && tally.above_info() > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The tap points of a capture, at most `room`.
fn points_of(named: &Named, file: &CaptureFile, room: usize) -> Vec<Interface> {
    let own = file.interfaces();
    let path = named.path.display();
    if file.is_own() && named.given && !own.is_empty() {
        note(format!("{path} was written by syntap: its own names and roles are used, not '{}'", named.name));
    }
    let several = own.len() > 1 || (file.is_own() && !own.is_empty());
    if several && own.len() > room.max(1) && !file.is_own() {
        note(format!("{path} has {} interfaces: they are taken for one", own.len()));
    } else if several {
        let name = |n: usize, own: Option<String>| own.unwrap_or_else(|| format!("{}-{n}", named.name));
        let role = |own: Option<String>| if file.is_own() { own } else { named.role.clone() };
        let each = own.into_iter().enumerate();
        return each.map(|(n, (i, r))| Interface { name: name(n, i), role: role(r) }).collect();
    }
    vec![Interface { name: named.name.clone(), role: named.role.clone() }]
}

/// Standard input, read to its end into a file without a name: captures are read in place, and more than once.
fn spooled() -> Result<File, Fail> {
    if io::stdin().is_terminal() {
        return Err(Fail::new("standard input is a terminal").hint("tcpdump -w - | syntap replay -"));
    }
    let dir = std::env::temp_dir();
    let failed = |e: io::Error| {
        Fail::new(format!("cannot keep standard input in {}: {e}", dir.display()))
            .hint("TMPDIR=DIR names a directory with more room")
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let path = dir.join(format!("syntap-stdin-{}", std::process::id()));
    let file = options.clone().custom_flags(libc::O_TMPFILE).mode(0o600).open(&dir).or_else(|_| {
        let file = options.create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path).map(|()| file)
    });
    let mut file = file.map_err(failed)?;
    io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)?;
    Ok(file)
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
