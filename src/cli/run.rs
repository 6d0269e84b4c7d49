//! `syntap run`: taps interfaces of this machine.

//!
//! However a run ends, it ends in one way: the hooks are taken off, the rings worked off, the records flushed, the
//! summary printed; then the first error is returned. That nobody reads standard error is no reason to end.

mod watched;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use rtrb::Producer;

use super::figures::FigureRecords;
use super::filter::{Choice, Filter};
use super::losses::Losses;
use super::metrics::{self, Metrics};
use super::mirror_file::{MirrorFile, cannot_write};
use super::notify::Manager;
use super::output::{Output, Summary, figures_at, hinted, host_name, kept_words};
use super::presence::Interfaces;
use super::progress::Progress;
use super::reload::{Reload, Settings};
use super::signals::Signals;
use super::status::Status;
use super::{Fail, budget, config, confine, conntrack, hand_over, many, note, say, values};
use crate::bpf::attach::HookKind;
use crate::capture::conntrack::EVENT_BUFFER;
use crate::capture::link::LinkEvents;
use crate::capture::tap::PointInfo;
use crate::capture::{
    ClockOffset, LiveSource, Mode, PortSet, Presence, Source, Tap, TapConfig, TapError, TapInterface,
    TapStats, Transport,
};
use crate::flow::{self, Seed};
use crate::guard::Reach;
use crate::pipeline::{CopySink, Desk, Interval, Pipeline, Plan, WorkerConfig, WorkerCounters};
use crate::record::{Context, Interface, Retention};
use crate::telemetry::Endpoint;

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
    pub(super) ports: Vec<PortSet>,

    /// Directory for the records; it must exist.
    #[arg(short, long, value_name = "DIR")]
    write: PathBuf,

    /// Keep so many bytes of this machine's records there (500M, 20G; powers of 1024): the oldest shards are removed beyond that. All
    /// are kept if neither this nor --keep-age is given.
    #[arg(long, value_name = "SIZE", value_parser = values::keep_bytes)]
    keep_bytes: Option<u64>,

    /// Keep this machine's records there so long (12h, 30d): shards that were last written before are removed.
    #[arg(long, value_name = "TIME", value_parser = values::keep_age)]
    keep_age: Option<Duration>,

    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = values::duration)]
    duration: Option<u64>,

    /// Flows there is room for; the least valuable are given up beyond that.
    #[arg(long, value_name = "N", default_value_t = super::MAX_FLOWS, value_parser = values::max_flows)]
    max_flows: usize,

    /// Workers, each with a ring and a CPU of its own (inline interfaces only; a span has one for each queue).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::workers)]
    workers: u16,

    /// What mirroring may cost on each interface: packets a second and CPU (200000 if not given), a share of each CPU such as
    /// 10%, or both. Beyond it whole tuples are shed and counted, those of open connections last. IF=... is for one interface,
    /// up to the next name; commas and repeats add more: 100000,25%,eth1=20000,5%.
    #[arg(long, value_name = "[IF=]PACKETS|SHARE%", value_parser = budget::budget)]
    pub(super) budget: Vec<budget::BudgetArg>,

    /// Responders (ADDRESS:PORT) whose figures are shown apart: connects, rate, how long they took, errors. Commas and repeats add
    /// more.
    #[arg(long = "responder", value_name = "ADDRESS:PORT", value_delimiter = ',', value_parser = values::responder)]
    responders: Vec<flow::Endpoint>,

    /// Listen to the kernel's connection tracking of this network namespace: which translations went while their connections lived,
    /// and how many SYNs it dropped. `auto`: if it is loaded.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = conntrack::When::Auto)]
    conntrack: conntrack::When,

    /// Room for events of connection tracking that wait to be read, KiB; the kernel takes twice as much, and only if they wait.
    #[arg(long, value_name = "KIB", default_value_t = EVENT_BUFFER >> 10, value_parser = values::conntrack_buffer)]
    conntrack_buffer: usize,

    /// Seconds between status lines; 0 prints none.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    status: u64,

    /// Also write each mirrored packet to this new file, as pcapng.
    #[arg(long, value_name = "FILE")]
    mirror_to: Option<PathBuf>,

    /// How packets of inline interfaces come into user space: `ringbuf` copies their headers into BPF ring buffers, `afxdp` clones
    /// them into a private veth pair with AF_XDP rings, which costs several times more and shows 256 bytes of each instead of 144.
    /// `auto` is the cheaper one.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = values::TransportChoice::Auto)]
    transport: values::TransportChoice,

    /// How the programs of inline interfaces are attached: `tcx`, which Linux has since 6.6, `classic` by clsact filters before that.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = values::HookChoice::Auto, hide = true)]
    hook: values::HookChoice,

    /// Hand packets over between the workers of a span with several queues, so that each connection is followed by one of them. `auto`: where
    /// the driver does not say that both directions of a connection come to one queue.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = hand_over::When::Auto)]
    hand_over: hand_over::When,

    /// Show metrics: an address (or a port alone, of this machine) for HTTP, a path that ends in .sock for a Unix socket, or in .prom for
    /// node_exporter's textfile collector. `syntap top` reads the first two. An address is open to every user of this machine, also what
    /// `top` shows, which names ends and anomalies; a socket is for its owner and group. Commas and repeats add more.
    #[arg(long, value_name = "ADDR|PATH", value_delimiter = ',', value_parser = metrics::endpoint)]
    metrics: Vec<Endpoint>,

    // Records that are written: all, or those that pass. What syntap itself lost or shed is written in any case, and so are figures.
    #[command(flatten)]
    pub(super) filter: Choice,

    /// Let the rings be polled by the workers instead of by interrupts: less latency, a busy CPU.
    #[arg(long)]
    busy_poll: bool,

    /// Tap in this network namespace: a name of `ip netns`, or a file such as /proc/PID/ns/net. For an overlay's, or a container's.
    #[arg(long, value_name = "NAME|FILE")]
    netns: Option<String>,

    /// Tap as `span` even an interface that carries traffic: this CUTS IT OFF.
    #[arg(long)]
    force: bool,

    /// If somebody takes the hooks off an inline interface, or puts another program into their place, hook it again. If this is not
    /// given that is said, and the interface is not seen any more.
    #[arg(long)]
    reattach: bool,

    /// Read options from this TOML file, under the names that they have here without dashes; what the command line says itself wins.
    /// SIGHUP takes ports, budget and filters from it again, without losing a packet.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    confine: confine::ConfineArgs,
}

/// What the interfaces on the command line mean.
#[derive(Debug)]
pub(super) struct Wanted {
    /// To the tap.
    pub taps: Vec<TapInterface>,
    /// To the records.
    pub interfaces: Vec<Interface>,
}

impl Wanted {
    /// Reads `NAME[=ROLE]` entries, each name once.
    pub fn parse(args: &[String]) -> Result<Wanted, Fail> {
        let mut wanted = Wanted { taps: Vec::new(), interfaces: Vec::new() };
        for arg in args {
            let (name, role) = match arg.split_once('=') {
                Some((n, r)) => (n, Some(r)),
                None => (arg.as_str(), None),
            };
            if name.is_empty() {
                return Err(Fail::new("an interface without a name").hint("write -i eth0 or -i eth0=inside"));
            }
            if wanted.taps.iter().any(|t| t.name == name) {
                return Err(Fail::new(format!("interface {name} is named twice"))
                    .hint("name it once, in one role: both directions of it are tapped"));
            }
            let mode = match role {
                // Without a word an interface is taken for one that carries traffic: the mode that cannot cut
                // anything off.
                None | Some("inside" | "outside") => Mode::Inline,
                Some("span") => Mode::Span,
                Some(other) => {
                    return Err(Fail::new(format!("unknown role '{other}' of interface {name}"))
                        .hint("a role is inside, outside or span"));
                }
            };
            wanted.taps.push(TapInterface { name: name.to_owned(), mode: Some(mode) });
            wanted.interfaces.push(Interface { name: name.to_owned(), role: role.map(str::to_owned) });
        }
        Ok(wanted)
    }
}

impl RunArgs {
    /// What they mean together, whatever machine this is.
    pub(super) fn meant(&self) -> Result<(Wanted, Settings), Fail> {
        let wanted = Wanted::parse(&self.interfaces)?;
        let settings = Settings::of(&self.ports, &self.budget, &self.filter, &wanted.taps)?;
        Ok((wanted, settings))
    }
}

/// Runs it.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    // What was typed wrong is said before what the machine lacks.
    let (Wanted { taps, interfaces }, first) = args.meant()?;
    confine::begin(&args.confine);
    let manager = Manager::from_env();
    let reload = args.config.as_ref().map(|_| Reload::of_process());
    let mut guard = confine::plan(&args.confine)?;
    let metrics = guard.as_user(|| metrics::open(&args.metrics))?;
    if let Some(name) = &args.netns {
        super::netns::enter(name)?;
    }
    let ports = first.ports.clone();
    let host = host_name();
    // What can fail without touching an interface is tried first.
    let rings = usize::from(args.workers);
    let mut worker = WorkerConfig {
        max_flows: args.max_flows / rings,
        recorder: args.max_flows / rings,
        seed: Seed::random(),
        ports: ports.clone(),
        responders: args.responders.clone(),
        figures_at: figures_at(&interfaces),
        // The kernel side chooses for all of them.
        selected: u32::MAX,
        ..WorkerConfig::default()
    };
    values::has_memory(&worker, rings)?;
    let cpus: Vec<usize> = (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
    if rings > cpus.len() {
        note(format!("{rings} workers share {} CPUs: more than one for each gain nothing", cpus.len()));
    }
    let mut output = Output::new();
    let filter = first.filter.words();
    let filters = output.only_by_ring(first.filter);
    let retention = Retention { max_bytes: args.keep_bytes, max_age: args.keep_age };
    // Before anything is written there; of one that is made now afterwards.
    let there = args.write.exists();
    if there {
        confine::private(&mut guard, &args.write)?;
    }
    guard
        .as_user(|| output.shards_in(&args.write, &host, retention))
        .map_err(|e| confine::whose(e, &guard))?;
    if !there {
        confine::private(&mut guard, &args.write)?;
    }
    if let Some(path) = &args.mirror_to {
        MirrorFile::is_free(path)?;
    }
    let mut conntrack = conntrack::open(args.conntrack, args.conntrack_buffer, &ports, &guard)?;
    let listens = conntrack.is_some();
    let signals = Signals::install(args.config.is_some()).context("cannot catch signals")?;

    let mut config = TapConfig {
        interfaces: taps,
        ports: ports.clone(),
        shards: args.workers,
        known: args.max_flows,
        force: args.force,
        reattach: args.reattach,
        busy_poll: args.busy_poll,
        transport: args.transport.meant(),
        hook: args.hook.meant(),
        ..TapConfig::default()
    };
    budget::set(&args.budget, &mut config)?;
    let (tap, sources) = Tap::open(&config).map_err(|e| match (&e, config::gives("interface")) {
        (TapError::Unknown { .. }, Some(path)) => {
            Fail::new(format!("{e} (with {})", path.display())).hint(e.hint().unwrap_or_default())
        }
        _ => hinted(&e, e.hint()),
    })?;
    if let Some(feed) = &mut conntrack {
        feed.watch = Some(tap.watch().map_err(|e| hinted(&e, e.hint()))?);
    }
    let link = match LinkEvents::open(tap.points().iter().map(|p| p.name.clone()).collect()) {
        Ok(link) => Some(link),
        Err(e) => {
            note(format!("going on without link-layer events: {e}"));
            None
        }
    };
    let stats = tap.stats().map_err(|e| hinted(&e, e.hint()))?;
    let copies = match &args.mirror_to {
        Some(path) => {
            let file = guard.as_user(|| MirrorFile::create(path, &interfaces))?;
            Some(Box::new(file) as Box<dyn CopySink>)
        }
        None => None,
    };
    let clock = tap.clock().clone();
    let packet_clock = clock.clone();
    let context = Context { host, interfaces, clock_offset_ns: Some(clock.ns()) };
    worker.max_flows = args.max_flows / sources.len().max(1);
    worker.recorder = worker.max_flows;
    worker.known = Some(tap.known());
    let hand_over = hand_over::between(&tap, args.hand_over);
    let plan = Plan {
        worker,
        cpus: &cpus,
        clock: Arc::new(move || packet_clock.now()),
        copies,
        conntrack,
        link,
        hand_over,
    };
    // Everything is set up, and no packet was looked at.
    let sealed = if guard.is_on() { tap.seal().map_err(|e| hinted(&e, e.hint())) } else { Ok(()) };
    let entered = sealed.and_then(|()| confine::enter(&guard, reach(args, &tap)));
    let confined_now = entered.is_ok() && guard.is_on();
    let confined = entered.and_then(|()| output.begin_shard());
    let begun = confined.map_err(anyhow::Error::from).and_then(|()| {
        let totals = output.totals();
        let (metrics, onlooker) = metrics
            .start(&context.host, &context.interfaces, args.max_flows, totals)
            .context("cannot start the metrics thread")?;
        let sources = sources.into_iter().map(boxed).collect();
        Pipeline::start(sources, move || Ok(Desk::new(context, output).told_to(onlooker)), plan)
            .context("cannot start its threads")
            .map(|pipeline| (metrics, pipeline))
    });
    let (metrics, pipeline) = match begun {
        Ok(begun) => begun,
        Err(e) => {
            if let Some(file) = &args.mirror_to {
                // Once it is confined its directory is out of reach.
                let gone = !confined_now && guard.as_user(|| std::fs::remove_file(file)).is_ok();
                if !gone {
                    note(format!("{} was begun, and stays there empty", file.display()));
                }
            }
            return Err(e);
        }
    };
    for point in tap.points() {
        note(describe(point));
        if let Some(text) = hand_over::told(point.mode, point.rings, point.hash, args.hand_over) {
            note(format!("{}: {text}", point.name));
        }
    }
    if listens {
        note("listening to connection tracking");
    }
    note(format!("following {}; records go to {}", words_for(&ports), args.write.display()));
    let losses = Losses::new(&stats, |name| config.budget_of(name), clock.now());
    let live = Live::new(tap, stats, losses, pipeline, clock, args.mirror_to.as_deref(), listens);
    Live { metrics, manager, ports, filters, filter, reload, taps: config.interfaces, ..live }
        .run(args, &signals)
}

/// What must be within reach while it runs: records, metrics in files, and its configuration, which an editor may put there anew.
fn reach(args: &RunArgs, tap: &Tap) -> Reach {
    let mut write = vec![args.write.clone()];
    write.extend(args.metrics.iter().filter_map(Endpoint::directory));
    let read = args.config.as_deref().map(|path| match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    });
    // A filter takes a capability that is gone by then; a link is made of descriptors.
    let by_link = |p: &PointInfo| p.hooks.is_some_and(|h| h.kind == HookKind::Tcx);
    let attach = tap.points().iter().any(by_link);
    Reach { write, read: read.into_iter().collect(), attach }
}

/// `all ports`, or `ports 443,8080`.
fn words_for(ports: &PortSet) -> String {
    if *ports == PortSet::all() { "all ports".into() } else { format!("ports {ports}") }
}

fn boxed(source: LiveSource) -> Box<dyn Source + Send> {
    Box::new(source)
}

/// A run from its beginning to its end.
struct Live<'a> {
    tap: Tap,
    pipeline: Pipeline<Output<'static>>,
    clock: ClockOffset,
    mirror_to: Option<&'a Path>,
    status: Status,
    losses: Losses,
    figures: FigureRecords,
    interfaces: Interfaces,
    /// What was counted at the last look.
    stats: TapStats,
    counters: WorkerCounters,
    /// It was said that the mirror file cannot be written.
    said: bool,
    /// Connection tracking is listened to.
    listens: bool,
    /// It was said that connection tracking is not heard any more.
    said_deaf: bool,
    /// The same of link-layer events, and that some were lost.
    said_link: [bool; 2],
    first_error: Option<anyhow::Error>,
    /// Whoever watches.
    metrics: Option<Metrics>,
    manager: Manager,
    progress: Progress,
    /// What may change, and where from.
    ports: PortSet,
    filters: Option<Producer<Filter>>,
    /// The present one, in words.
    filter: String,
    reload: Option<Reload>,
    taps: Vec<TapInterface>,
}

impl<'a> Live<'a> {
    fn new(
        tap: Tap,
        stats: TapStats,
        losses: Losses,
        pipeline: Pipeline<Output<'static>>,
        clock: ClockOffset,
        mirror_to: Option<&'a Path>,
        listens: bool,
    ) -> Live<'a> {
        Live {
            progress: Progress::new(pipeline.shared().pulse.beats().len(), Instant::now()),
            metrics: None,
            manager: Manager::default(),
            ports: PortSet::all(),
            filters: None,
            filter: String::new(),
            reload: None,
            taps: Vec::new(),
            losses,
            figures: FigureRecords::new(&stats, clock.now()),
            interfaces: Interfaces::new(&tap, clock.now()),
            tap,
            pipeline,
            clock,
            mirror_to,
            status: Status::new(),
            stats,
            counters: WorkerCounters::default(),
            said: false,
            listens,
            said_deaf: false,
            said_link: [false; 2],
            first_error: None,
        }
    }

    fn run(mut self, args: &RunArgs, signals: &Signals) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        let (mut looked, mut told) = (started, started);
        let until = args.duration.map(Duration::from_secs);
        let tell_every = Duration::from_secs(if args.status > 0 { args.status } else { 5 });
        self.look();
        self.ready();
        while !signals.stop() && until.is_none_or(|d| started.elapsed() < d) && self.goes_on() {
            std::thread::sleep(WAKE_EVERY);
            if signals.reload() {
                self.reload();
            }
            (0..self.tap.points().len()).for_each(|n| self.losses.kept(n, self.tap.kept(n)));
            if looked.elapsed() >= LOOK_EVERY || self.tap.unhooked() {
                looked = Instant::now();
                self.look();
            }
            if told.elapsed() >= tell_every {
                told = Instant::now();
                let conntrack = conntrack::figures(&self.pipeline.shared().conntrack);
                let kernel = format!("{}{conntrack}", self.losses);
                let lines = self.status.lines(&self.counters, &kernel);
                self.manager.status(lines.lines().next().unwrap_or(""));
                if args.status > 0 {
                    let _ = io::stderr().lock().write_all(lines.as_bytes());
                }
            }
        }
        self.end()
    }

    /// Set-up, or a reload, is done; a status line is due after a while, and until then what is tapped is one.
    fn ready(&mut self) {
        self.manager.ready();
        let names: Vec<&str> = self.tap.points().iter().map(|p| p.name.as_str()).collect();
        self.manager.status(&format!("follows {} on {}", words_for(&self.ports), names.join(", ")));
    }

    fn failed(&mut self, e: impl Into<anyhow::Error>) {
        self.first_error.get_or_insert(e.into());
    }

    fn goes_on(&mut self) -> bool {
        if self.stopped() {
            // Perhaps with its interface, which nobody has looked at since.
            self.look();
        }
        self.first_error.is_none() && !self.pipeline.failed() && !self.stopped()
    }

    /// Whether a worker has stopped for another reason than that the span interface it reads from is gone.
    fn stopped(&self) -> bool {
        self.pipeline.stopped().any(|n| !self.gone(n))
    }

    fn gone(&self, worker: usize) -> bool {
        let point = self.tap.point_of(worker);
        point.is_some_and(|n| self.tap.points()[n].presence == Presence::Gone)
    }

    fn count(&mut self) {
        match self.tap.stats() {
            Ok(stats) => {
                self.losses.look(&stats, &mut self.pipeline);
                self.stats = stats;
            }
            Err(e) => self.failed(hinted(&e, e.hint())),
        }
    }

    fn gathered(&mut self, interval: &Interval) {
        self.status.latencies().add(interval);
        self.figures.add(interval);
        if let Some(metrics) = &mut self.metrics {
            metrics.add(interval);
        }
    }

    fn look(&mut self) {
        if self.clock.refresh().is_some()
            && let Some(metrics) = &mut self.metrics
        {
            metrics.clock_stepped();
        }
        self.count();
        let mut interval = Interval::default();
        self.counters = self.pipeline.gather(&mut interval);
        self.gathered(&interval);
        self.figures.look(&self.stats, &mut self.pipeline);
        if let Err(e) = self.interfaces.look(&mut self.tap, &mut self.pipeline) {
            self.failed(e);
        }
        if let (Some(e), Some(path)) = (self.pipeline.shared().copy_error(), self.mirror_to)
            && !std::mem::replace(&mut self.said, true)
        {
            note(cannot_write(path, e));
        }
        if let Some(e) = self.pipeline.shared().conntrack.error()
            && !std::mem::replace(&mut self.said_deaf, true)
        {
            note(format!("connection tracking is not heard any more: {e}"));
        }
        let link = &self.pipeline.shared().link;
        if let Some(e) = link.error()
            && !std::mem::replace(&mut self.said_link[0], true)
        {
            note(format!("link-layer events are not heard any more: {e}"));
        }
        if link.lost.load(Ordering::Relaxed) > 0 && !std::mem::replace(&mut self.said_link[1], true) {
            note("the kernel had no room for some link-layer events: what is there now was listed instead");
        }
        self.show();
    }

    /// First the hooks, so that nothing new comes; then the rings are worked off; then they are closed.
    fn end(mut self) -> anyhow::Result<ExitCode> {
        self.manager.stopping();
        self.tap.detach();
        std::thread::sleep(SETTLE);
        let mut interval = Interval::default();
        let drained = self.pipeline.drain(&mut interval);
        self.gathered(&interval);
        self.count();
        self.figures.tell(&self.stats, &mut self.pipeline);
        self.interfaces.end(&self.tap, &mut self.pipeline);
        for (n, e) in drained.failed {
            if !self.gone(n) {
                self.failed(Fail::new(e.to_string()));
            }
        }
        let inline = self.tap.points().iter().find(|p| p.mode == Mode::Inline);
        let transport = inline.map(|p| ("transport".to_owned(), p.transport.name().to_owned()));
        let Live { tap, pipeline, mirror_to, mut status, losses, stats, mut first_error, listens, .. } = self;
        let refused = tap.known().refused();
        drop(tap);
        let finished = pipeline.finish();
        say::rest();
        let mut failed = |e: anyhow::Error| {
            first_error.get_or_insert(e);
        };
        let mut kept = None;
        let tally = match finished.written {
            Ok((output, tally)) => {
                kept = output.kept();
                output.close().unwrap_or_else(&mut failed);
                tally
            }
            Err(e) => {
                failed(Fail::new(format!("cannot write the records: {e}")).into());
                Default::default()
            }
        };
        if let (Some(e), Some(path)) = (finished.shared.copy_error(), mirror_to) {
            failed(cannot_write(path, e).into());
        }
        let mut live = losses.summary(&stats, &finished.shared);
        if refused > 0 {
            let text = format!("{} found no room among the known ones", many(refused, "open connection"));
            live.push(("known".into(), text));
        }
        if let Some(words) = kept.and_then(|k| kept_words(&k)) {
            live.push(("shards".into(), words));
        }
        live.extend(transport);
        live.extend(confine::refused());
        if listens {
            live.push(("conntrack".into(), conntrack::summary(&finished.shared.conntrack)));
        }
        let figures = status.total();
        let summary = Summary { counters: &drained.counters, tally: &tally, figures, live: &live };
        let _ = summary.print(&mut io::stderr().lock());
        first_error.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

/// One line on how an interface is tapped.
fn describe(p: &PointInfo) -> String {
    let mut text = format!("tapping {} {}", p.name, p.mode.name());
    match &p.xdp {
        None => {
            let how = match p.transport {
                Transport::Afxdp => "clone what is selected into AF_XDP rings (afxdp)",
                Transport::Ringbuf => "copy the headers of what is selected into BPF ring buffers (ringbuf)",
            };
            let classic = p.hooks.filter(|h| h.kind == HookKind::Classic);
            let hook = if classic.is_some() { "clsact filters on" } else { "tcx" };
            text.push_str(&format!(": {hook} ingress and egress {how}; every packet goes on"));
            if classic.is_some_and(|h| h.behind) {
                text.push_str("; filters that were there before run first, and what they drop is not seen");
            }
            if classic.is_some_and(|h| h.made_qdisc) {
                text.push_str(
                    "; its clsact qdisc was made, for which the kernel stops the queues some milliseconds, and stays",
                );
            }
        }
        Some((mode, why)) => {
            text.push_str(&format!(": XDP in {} mode, {}", mode.name(), many(p.rings.into(), "ring")));
            if let Some(why) = why {
                text.push_str(&format!(" (not native: {why})"));
            }
        }
    }
    match &p.zero_copy {
        _ if p.mode == Mode::Inline => {}
        Ok(()) => text.push_str("; zero-copy"),
        Err(why) => text.push_str(&format!("; frames are copied: {why}")),
    }
    text
}
