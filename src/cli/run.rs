//! `syntap run`: taps interfaces of this machine.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::Fail;
use super::losses::Losses;
use super::mirror_file::MirrorFile;
use super::output::{Output, Summary, hinted, host_name};
use super::status::Status;
use crate::capture::tap::PointInfo;
use crate::capture::{Mode, PortSet, Source, Tap, TapConfig, TapInterface, TapStats};
use crate::flow::Seed;
use crate::pipeline::{CopySink, Desk, Pipeline, Plan, WorkerConfig, WorkerCounters};
use crate::record::{Context, Interface};

/// How often losses and the clocks are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the control thread wakes: a Ctrl-C is answered within this.
const WAKE_EVERY: Duration = Duration::from_millis(50);

/// Clones on their way from a hook into a ring are a softirq away.
const SETTLE: Duration = Duration::from_millis(20);

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Interface to tap, with its role: `inside` or `outside` of the gateway, `span` for one that only receives
    /// copies. Commas and repeats add more.
    #[arg(short, long = "interface", value_name = "IF[=ROLE]", required = true, value_delimiter = ',')]
    interfaces: Vec<String>,

    /// Ports to follow, on either end: numbers and ranges. All of them if not given.
    #[arg(short, long, value_name = "PORTS")]
    ports: Vec<PortSet>,

    /// Directory for the records; it must exist.
    #[arg(short, long, value_name = "DIR")]
    write: PathBuf,

    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,

    /// Flows there is room for; the least valuable are given up beyond that.
    #[arg(long, value_name = "N", default_value_t = super::MAX_FLOWS)]
    max_flows: usize,

    /// Workers, each with a ring and a CPU of its own (inline interfaces only; a span has one for each queue).
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u16,

    /// Packets a second and CPU that may be mirrored; beyond that whole tuples are shed and counted.
    #[arg(long, value_name = "PACKETS", default_value_t = crate::bpf::load::BUDGET_PPS)]
    budget: u64,

    /// Seconds between status lines; 0 prints none.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    status: u64,

    /// Also write each mirrored packet to this file, as pcapng.
    #[arg(long, value_name = "FILE")]
    mirror_to: Option<PathBuf>,

    /// Let the rings be polled by the workers instead of by interrupts: less latency, a busy CPU.
    #[arg(long)]
    busy_poll: bool,

    /// Tap as `span` even an interface that carries traffic: this CUTS IT OFF.
    #[arg(long)]
    force: bool,
}

/// An interface as it was named on the command line.
fn parse_interface(arg: &str) -> Result<(TapInterface, Interface), Fail> {
    let (name, role) = match arg.split_once('=') {
        Some((n, r)) => (n, Some(r)),
        None => (arg, None),
    };
    let mode = match role {
        // Without a word an interface is taken for one that carries traffic: the mode that cannot cut anything off.
        None | Some("inside" | "outside") => Some(Mode::Inline),
        Some("span") => Some(Mode::Span),
        Some(other) => {
            return Err(Fail::new(format!("unknown role '{other}' of interface {name}"))
                .hint("a role is inside, outside or span"));
        }
    };
    Ok((
        TapInterface { name: name.to_owned(), mode },
        Interface { name: name.to_owned(), role: role.map(str::to_owned) },
    ))
}

/// Runs it.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut taps = Vec::new();
    let mut interfaces = Vec::new();
    for arg in &args.interfaces {
        let (tap, interface) = parse_interface(arg)?;
        taps.push(tap);
        interfaces.push(interface);
    }
    let ports = PortSet::union(&args.ports);
    let host = host_name();
    // What can fail without touching an interface is tried first.
    let mut output = Output::new();
    output.shards_in(&args.write, &host)?;
    let mirror = match &args.mirror_to {
        None => None,
        Some(path) => Some(Box::new(MirrorFile::create(path, &interfaces)?) as Box<dyn CopySink>),
    };
    let signals = Signals::install().context("cannot catch signals")?;

    let config = TapConfig {
        interfaces: taps,
        ports: ports.clone(),
        shards: args.workers.max(1),
        budget_pps: args.budget,
        force: args.force,
        busy_poll: args.busy_poll,
        ..TapConfig::default()
    };
    let (mut tap, sources) = Tap::open(&config).map_err(|e| hinted(&e, e.hint()))?;
    let err = io::stderr();
    for point in tap.points() {
        writeln!(err.lock(), "syntap: {}", describe(point))?;
    }
    writeln!(err.lock(), "syntap: following ports {ports}; records go to {}", args.write.display())?;

    let clock = tap.clock().clone();
    let packet_clock = clock.clone();
    let context = Context { host, interfaces, clock_offset_ns: Some(clock.ns()) };
    let cpus: Vec<usize> = (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
    let count = sources.len().max(1);
    let worker = WorkerConfig {
        max_flows: args.max_flows / count,
        recorder: args.max_flows / count,
        seed: Seed::random(),
        ports,
        lives: false,
    };
    let sources = sources.into_iter().map(|s| Box::new(s) as Box<dyn Source + Send>).collect();
    let plan = Plan { worker, cpus: &cpus, clock: Arc::new(move || packet_clock.now()), copies: mirror };
    let mut pipeline = Pipeline::start(sources, move || Ok(Desk::new(context, output)), plan)?;

    let mut status = Status::new();
    let mut losses = Losses::new(&stats(&tap)?, clock.now());
    let started = Instant::now();
    let (mut looked, mut told) = (started, started);
    let mut counters = WorkerCounters::default();
    let until = args.duration.map(Duration::from_secs);
    while !signals.stop() && until.is_none_or(|d| started.elapsed() < d) && !pipeline.failed() {
        std::thread::sleep(WAKE_EVERY);
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            clock.refresh();
            losses.look(&stats(&tap)?, &mut pipeline);
            counters = pipeline.gather(status.latencies());
        }
        if args.status > 0 && told.elapsed() >= Duration::from_secs(args.status) {
            told = Instant::now();
            status.print(&mut err.lock(), &counters, &losses)?;
        }
    }

    // First the hooks, so that nothing new comes; then the rings are worked off; then they are closed.
    let failed = pipeline.failed();
    tap.detach();
    std::thread::sleep(SETTLE);
    let drained = pipeline.drain(status.latencies());
    let counted = stats(&tap)?;
    losses.look(&counted, &mut pipeline);
    drop(tap);
    let (output, tally) = pipeline.finish().context("cannot write the records")?;
    let counters = drained?;
    output.close()?;
    let live = losses.summary(&counted, status.total());
    Summary { counters: &counters, tally: &tally, live: Some(&live) }.print(&mut err.lock())?;
    if failed {
        return Err(Fail::new("a worker stopped before its time").into());
    }
    Ok(ExitCode::SUCCESS)
}

fn stats(tap: &Tap) -> anyhow::Result<TapStats> {
    Ok(tap.stats().map_err(|e| hinted(&e, e.hint()))?)
}

/// One line on how an interface is tapped.
fn describe(p: &PointInfo) -> String {
    let mut text = format!("tapping {} {}", p.name, p.mode.name());
    match &p.xdp {
        None => text.push_str(": tcx ingress and egress clone what is selected; every packet goes on"),
        Some((mode, why)) => {
            text.push_str(&format!(": XDP in {} mode, {} rings", mode.name(), p.rings));
            if let Some(why) = why {
                text.push_str(&format!(" (not native: {why})"));
            }
        }
    }
    match &p.zero_copy {
        Ok(()) => text.push_str("; zero-copy"),
        Err(why) => text.push_str(&format!("; frames are copied: {why}")),
    }
    text
}

/// SIGINT and SIGTERM: the first asks to stop, a second one ends the process at once with 130. Nothing stays attached
/// then either: the hooks and the private pair go with the process.
struct Signals {
    stop: Arc<AtomicBool>,
}

impl Signals {
    fn install() -> io::Result<Signals> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The order matters: only a second signal finds the flag set.
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
            signal_hook::flag::register(signal, stop.clone())?;
        }
        Ok(Signals { stop })
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
