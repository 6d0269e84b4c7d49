//! A live tap: interfaces in, one source a ring out.
//!
//! `Inline` interfaces carry live traffic. tcx programs copy what is selected into ring buffers, or clone it into the
//! carrier; the original is never changed, delayed by more than that, or dropped. `Span` interfaces only receive copies. An XDP program
//! redirects what is selected and drops the rest.
//!
//! Everything is held by descriptors: links, the private namespace, the sockets. Dropping [`Tap`], or dying, takes
//! all of it back; an error in the middle of [`Tap::open`] does the same.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::clock::ClockOffset;
use super::ethtool::{self, QueueHash};
use super::interface::{Interface, Rtnetlink};
use super::live::{LiveSource, Transport};
pub use super::pair::is_carrier;
use super::pair::{FAR_NAME, Pair};
use super::ports::PortSet;
use super::presence::Seen;
pub use super::presence::{Change, Presence};
use super::ringbuf::{self, RingSource};
pub use super::tap_error::TapError;
use super::xsk::{FRAMES, RingConfig, RingSocket, RingStats, XskSource};
use crate::bpf::abi::{Census, Counters, RINGS, SLOTS};
use crate::bpf::attach::{self, Hook, HookKind, LiveHooks, TcxHook, XdpMode};
use crate::bpf::classic::Classic;
use crate::bpf::load::Readings;
use crate::bpf::{Budget, Kept, Kernel, Known, Options, Program, Watch};

/// How an interface is tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It carries live traffic: packets are cloned and go on.
    Inline,
    /// It only receives copies: selected packets are taken, the rest dropped.
    Span,
}

impl Mode {
    /// The word in options and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Inline => "inline",
            Mode::Span => "span",
        }
    }
}

/// One interface to tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapInterface {
    /// Its name.
    pub name: String,
    /// How, or `None` to go by what it is: span only if nothing says that it carries traffic.
    pub mode: Option<Mode>,
}

/// What to tap and how.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// Interfaces; their order numbers the points.
    pub interfaces: Vec<TapInterface>,
    /// Ports; a packet is chosen if either of its ports is in the set.
    pub ports: PortSet,
    /// Rings of the inline interfaces, at least 1: one source and one worker each.
    pub shards: u16,
    /// What each interface may take of a CPU,
    pub budget: Budget,
    /// but for these.
    pub budgets: Vec<(String, Budget)>,
    /// Open tuples there is room for, so that they are kept when others are shed.
    pub known: usize,
    /// Tap as span what carries live traffic.
    pub force: bool,
    /// Hook an inline interface again whose hooks somebody took off.
    pub reattach: bool,
    /// Workers spin in the kernel instead of sleeping.
    pub busy_poll: bool,
    /// UMEM frames a ring, rounded up to a power of two; a ring buffer has room for as many packets.
    pub frames: u32,
    /// How packets of inline interfaces come into user space.
    pub transport: Transport,
    /// How the programs of inline interfaces are attached, or `None` for the better way that the kernel has.
    pub hook: Option<HookKind>,
    /// Tuples under watch, in buckets of four.
    pub watch_buckets: u32,
    /// Bytes of a packet that are mirrored.
    pub snap: u32,
}

impl Default for TapConfig {
    fn default() -> TapConfig {
        let kernel = Options::default();
        TapConfig {
            interfaces: Vec::new(),
            ports: PortSet::all(),
            shards: 1,
            budget: kernel.budget,
            budgets: Vec::new(),
            known: kernel.known,
            force: false,
            reattach: false,
            busy_poll: false,
            frames: FRAMES,
            transport: Transport::default(),
            hook: None,
            watch_buckets: kernel.watch_buckets,
            snap: kernel.snap,
        }
    }
}

impl TapConfig {
    /// What an interface may take of a CPU.
    pub fn budget_of(&self, name: &str) -> Budget {
        let own = self.budgets.iter().find(|(of, _)| of == name);
        own.map_or(self.budget, |(_, budget)| *budget)
    }
}

/// What became of an interface.
#[derive(Clone, Debug)]
pub struct PointInfo {
    /// Name.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// How it is tapped.
    pub mode: Mode,
    /// Inline: how its programs are attached.
    pub hooks: Option<LiveHooks>,
    /// Span: where the XDP program runs, and why not in the driver if it does not.
    pub xdp: Option<(XdpMode, Option<String>)>,
    /// How its packets come into user space.
    pub transport: Transport,
    /// Whether frames arrive without a copy, or why they do not.
    pub zero_copy: Result<(), String>,
    /// Rings of this interface alone; 0 for an inline one, which shares them with the others.
    pub rings: u32,
    /// Whether both directions of a connection come over one ring.
    pub hash: QueueHash,
    /// What it was at the last look,
    pub presence: Presence,
    /// and what else was seen of it.
    pub(super) seen: Seen,
}

/// What a tap has counted.
#[derive(Clone, Debug, Default)]
pub struct TapStats {
    /// One a tap point, in order.
    pub points: Vec<PointStats>,
    /// What belongs to no point: packets of an interface that changed its index, strays in the carrier.
    pub stray: Counters,
    /// One a ring, in the order of the sources.
    pub rings: Vec<RingInfo>,
    /// Packets the carrier's near end dropped: what its ring could not hold.
    pub carrier_drops: u64,
}

/// A ring's losses.
#[derive(Clone, Debug)]
pub struct RingInfo {
    /// Interface and queue, or the ring buffer.
    pub name: String,
    /// From the kernel; all 0 for a ring buffer, which loses at the hook (`ring_full`).
    pub stats: RingStats,
}

/// Counters of one tap point.
#[derive(Clone, Debug, Default)]
pub struct PointStats {
    /// Interface.
    pub name: String,
    /// Into the machine.
    pub ingress: Counters,
    /// Out of it.
    pub egress: Counters,
    /// TCP flags on chosen ports, into the machine.
    pub ingress_census: Census,
    /// Out of it.
    pub egress_census: Census,
}

impl TapStats {
    /// All points and directions together.
    pub fn total(&self) -> Counters {
        let mut sum = self.stray;
        for point in &self.points {
            sum.add(&point.ingress);
            sum.add(&point.egress);
        }
        sum
    }

    /// All rings together.
    pub fn ring_total(&self) -> RingStats {
        self.rings.iter().fold(RingStats::default(), |sum, r| RingStats {
            dropped: sum.dropped + r.stats.dropped,
            invalid: sum.invalid + r.stats.invalid,
            ring_full: sum.ring_full + r.stats.ring_full,
            fill_empty: sum.fill_empty + r.stats.fill_empty,
        })
    }
}

/// An open tap. Fields are dropped in order: hooks first, then what they lead to.
pub struct Tap {
    /// Each with the interface it is on; `None` for the carrier's, and for one that holds somebody else's program by now.
    pub(super) hooks: Vec<(Option<u32>, Hook)>,
    /// For programs of live interfaces on a kernel without tcx.
    classic: Option<Arc<Classic>>,
    pub(super) points: Vec<PointInfo>,
    /// Of the interfaces' namespace.
    pub(super) rtnetlink: Rtnetlink,
    clock: ClockOffset,
    readings: Readings,
    /// One for each source; a ring buffer has no socket.
    rings: Vec<(String, Option<RingSocket>)>,
    key: [u64; 2],
    shards: u32,
    pub(super) reattach: bool,
    pub(super) kernel: Kernel,
    pair: Option<Pair>,
}

/// An interface and how it will be tapped.
struct Planned {
    interface: Interface,
    mode: Mode,
    queues: u32,
    ring: u32,
}

fn failed(operation: &'static str, object: &str) -> impl Fn(io::Error) -> TapError {
    move |source| TapError::System { operation, object: object.to_owned(), source }
}

impl Tap {
    /// Opens the tap: from the return on, packets arrive in the sources. The interfaces are those of the calling
    /// thread's network namespace.
    pub fn open(config: &TapConfig) -> Result<(Tap, Vec<LiveSource>), TapError> {
        let plan = plan(config)?;
        let inline = plan.iter().any(|p| p.mode == Mode::Inline);
        Tap::with_plan(config, plan, inline)
    }

    fn with_plan(
        config: &TapConfig,
        plan: Vec<Planned>,
        inline: bool,
    ) -> Result<(Tap, Vec<LiveSource>), TapError> {
        let shards = u32::from(config.shards.max(1));
        let rings = plan.iter().map(|p| p.queues).sum::<u32>() + if inline { shards } else { 0 };
        if rings > RINGS {
            return Err(TapError::TooManyRings { count: rings, most: RINGS });
        }

        // Before there is memory to share with it.
        let classic = match config.hook.unwrap_or_else(HookKind::best) {
            HookKind::Classic if inline => {
                Some(Classic::start().map_err(failed("start", "the supervisor of tc filters"))?)
            }
            _ => None,
        };
        let rtnetlink = Rtnetlink::open().map_err(failed("open", "an rtnetlink socket"))?;
        let carried = inline && config.transport == Transport::Afxdp;
        let copied = inline && config.transport == Transport::Ringbuf;
        let pair = if carried { Some(Pair::open(shards)?) } else { None };
        let key = random_key()?;
        let kernel = Kernel::load(&Options {
            key,
            ports: Box::new(*config.ports.words()),
            slots: plan.iter().map(|p| (p.interface.index, p.ring)).collect(),
            shards,
            carrier: pair.as_ref().map_or(0, |p| p.near),
            ring_bytes: if copied { ringbuf::ring_bytes(config.frames) } else { 0 },
            watch_buckets: config.watch_buckets,
            budgets: plan.iter().map(|p| config.budget_of(&p.interface.name)).collect(),
            known: config.known,
            snap: config.snap,
            programs: programs(inline, carried, plan.iter().any(|p| p.mode == Mode::Span)),
            ..Options::default()
        })?;
        let readings = kernel.readings()?;
        let mut tap = Tap {
            hooks: Vec::new(),
            classic,
            points: Vec::new(),
            rtnetlink,
            clock: ClockOffset::new(),
            readings,
            rings: Vec::new(),
            key,
            shards,
            reattach: config.reattach,
            kernel,
            pair,
        };
        let mut sources = Vec::new();
        if carried {
            tap.open_carrier(config, &mut sources)?;
        }
        if copied {
            tap.open_ring_buffers(config, &mut sources)?;
        }
        for planned in plan.iter().filter(|p| p.mode == Mode::Span) {
            let info = tap.open_span(config, planned, &mut sources)?;
            tap.points.push(info);
        }
        for planned in plan.iter().filter(|p| p.mode == Mode::Inline) {
            let Interface { name, index, .. } = &planned.interface;
            if let Some(classic) = &tap.classic {
                classic.clean_up(*index).map_err(failed("remove a dead tap's filters from", name))?;
            }
            let hooks = tap.hook_inline(name, *index)?;
            tap.points.push(PointInfo {
                name: name.clone(),
                ifindex: *index,
                mode: Mode::Inline,
                hooks: Some(hooks),
                xdp: None,
                transport: config.transport,
                zero_copy: Err("the original keeps its memory".into()),
                rings: 0,
                hash: QueueHash::Symmetric,
                presence: Presence::Up,
                seen: Seen::default(),
            });
        }
        // Each is where it belongs. None of them is attached again later: a span interface that comes back has other rings.
        tap.kernel.let_takers_go();
        let order = |p: &PointInfo| plan.iter().position(|q| q.interface.index == p.ifindex);
        tap.points.sort_by_key(order);
        Ok((tap, sources))
    }

    /// From now on no other filter is taken off for this tap than those that are there; to be called before a packet is looked at.
    /// Links need nothing of the sort.
    pub fn seal(&self) -> Result<(), TapError> {
        let sealed = self.classic.as_ref().map_or(Ok(()), |classic| classic.seal());
        sealed.map_err(failed("seal", "the supervisor of tc filters"))
    }

    fn ring_config(config: &TapConfig, zero_copy: bool) -> RingConfig {
        RingConfig { frames: config.frames, busy_poll: config.busy_poll, zero_copy }
    }

    fn add_ring(&mut self, ring: u32, source: &XskSource, socket: RingSocket) -> Result<(), TapError> {
        let set = self.kernel.set_ring(ring, socket.as_fd());
        set.map_err(|source| TapError::Map { operation: "put a socket into the map of rings", source })?;
        self.rings.push((source.name().to_owned(), Some(socket)));
        Ok(())
    }

    /// A reader for each shard's ring buffer.
    fn open_ring_buffers(
        &mut self,
        config: &TapConfig,
        sources: &mut Vec<LiveSource>,
    ) -> Result<(), TapError> {
        let bytes = ringbuf::ring_bytes(config.frames);
        for shard in 0..self.shards {
            let maps = self.kernel.ring_buffer(shard);
            let source = RingSource::open(maps, shard, bytes, config.busy_poll, self.clock.clone())
                .map_err(failed("map", "a ring buffer"))?;
            self.rings.push((source.name().to_owned(), None));
            sources.push(LiveSource::Ring(source));
        }
        Ok(())
    }

    /// The carrier's programs and rings.
    fn open_carrier(&mut self, config: &TapConfig, sources: &mut Vec<LiveSource>) -> Result<(), TapError> {
        let pair = self.pair.as_ref().expect("inline taps have a carrier");
        let (near, far, near_name) = (pair.near, pair.far, pair.near_name.clone());
        let ring_program = self.kernel.program(Program::Ring);
        let (shards, clock) = (self.shards, self.clock.clone());
        let ring_config = Tap::ring_config(config, false);
        let opened =
            pair.namespace.run(|| {
                let link = attach::xdp(&ring_program, far, XdpMode::Native).map_err(|source| {
                    TapError::Xdp { name: near_name.clone(), mode: XdpMode::Native, source }
                })?;
                let mut opened = Vec::new();
                for queue in 0..shards {
                    opened.push(
                        XskSource::bind(FAR_NAME, queue, ring_config, clock.clone())
                            .map_err(|source| TapError::Ring { name: near_name.clone(), queue, source })?,
                    );
                }
                Ok::<_, TapError>((link, opened))
            });
        let (link, opened) = opened.map_err(failed("enter", "the private network namespace"))??;
        self.hooks.push((None, Hook::Link(link)));
        for (ring, (source, socket)) in opened.into_iter().enumerate() {
            self.add_ring(ring as u32, &source, socket)?;
            sources.push(LiveSource::Xsk(Box::new(source)));
        }
        let carry = self.attach(Program::Carry, near, TcxHook::Egress);
        let carry = carry.map_err(|source| TapError::Tcx { name: near_name, hook: "egress", source })?;
        self.hooks.push((None, carry));
        Ok(())
    }

    fn attach(&self, program: Program, index: u32, hook: TcxHook) -> io::Result<Hook> {
        attach::live(&self.kernel.program(program), program.name(), index, hook, self.classic.as_ref())
    }

    /// The hooks of a live interface.
    pub(super) fn hook_inline(&mut self, name: &str, index: u32) -> Result<LiveHooks, TapError> {
        let kind = if self.classic.is_some() { HookKind::Classic } else { HookKind::Tcx };
        let mut hooks = LiveHooks::new(kind);
        // Egress first: a SYN-ACK without its SYN is a smaller riddle than a SYN that nothing answers.
        for (program, hook, word) in
            [(Program::Egress, TcxHook::Egress, "egress"), (Program::Ingress, TcxHook::Ingress, "ingress")]
        {
            let attached = self.attach(program, index, hook);
            let attached =
                attached.map_err(|source| TapError::Tcx { name: name.to_owned(), hook: word, source })?;
            hooks = hooks.with(&attached);
            // In front: hooks are dropped in order, and the live ones must go before the carrier's.
            self.hooks.insert(0, (Some(index), attached));
        }
        Ok(hooks)
    }

    fn open_span(
        &mut self,
        config: &TapConfig,
        planned: &Planned,
        sources: &mut Vec<LiveSource>,
    ) -> Result<PointInfo, TapError> {
        let name = &planned.interface.name;
        let index = planned.interface.index;
        let foreign = || attach::xdp_state(index).ok().and_then(|s| s.attached);
        if let Some(program) = foreign() {
            return Err(TapError::ForeignXdp { name: name.clone(), program });
        }
        let program = self.kernel.program(Program::Span);
        let (link, mode, why_not_native) = match attach::xdp(&program, index, XdpMode::Native) {
            Ok(link) => (link, XdpMode::Native, None),
            Err(native) => match attach::xdp(&program, index, XdpMode::Generic) {
                Ok(link) => (link, XdpMode::Generic, Some(native.to_string())),
                Err(source) => {
                    return Err(match foreign() {
                        Some(program) => TapError::ForeignXdp { name: name.clone(), program },
                        None => TapError::Xdp { name: name.clone(), mode: XdpMode::Generic, source },
                    });
                }
            },
        };
        self.hooks.push((Some(index), Hook::Link(link)));

        let mut zero_copy = match mode {
            XdpMode::Native => Ok(()),
            XdpMode::Generic => Err("zero-copy needs native XDP".to_owned()),
        };
        for queue in 0..planned.queues {
            let bind =
                |zero: bool| XskSource::bind(name, queue, Tap::ring_config(config, zero), self.clock.clone());
            let bound = if zero_copy.is_ok() {
                bind(true).or_else(|e| {
                    zero_copy = Err(e.to_string());
                    bind(false)
                })
            } else {
                bind(false)
            };
            let (source, socket) =
                bound.map_err(|source| TapError::Ring { name: name.clone(), queue, source })?;
            if zero_copy.is_ok() && !socket.zero_copy() {
                zero_copy = Err("the kernel chose so".to_owned());
            }
            self.add_ring(planned.ring + queue, &source, socket)?;
            sources.push(LiveSource::Xsk(Box::new(source)));
        }
        Ok(PointInfo {
            name: name.clone(),
            ifindex: index,
            mode: Mode::Span,
            hooks: None,
            xdp: Some((mode, why_not_native)),
            transport: Transport::Afxdp,
            zero_copy,
            rings: planned.queues,
            hash: if planned.queues == 1 { QueueHash::Symmetric } else { ethtool::queue_hash(name) },
            presence: Presence::Up,
            seen: Seen::default(),
        })
    }

    /// Whether inline interfaces are hooked again when somebody took their hooks off.
    pub fn reattaches(&self) -> bool {
        self.reattach
    }

    /// The tap points, in the order of the configuration.
    pub fn points(&self) -> &[PointInfo] {
        &self.points
    }

    /// The offset that turns stamps into epoch time; shared with the sources.
    pub fn clock(&self) -> &ClockOffset {
        &self.clock
    }

    /// Chooses other ports, while packets pass.
    pub fn set_ports(&mut self, ports: &PortSet) -> Result<(), TapError> {
        let set = self.kernel.set_ports(ports.words());
        set.map_err(|source| TapError::Map { operation: "choose other ports", source })
    }

    /// Gives the tap points other budgets, in their order, while packets pass.
    pub fn set_budgets(&mut self, budgets: &[Budget]) -> Result<(), TapError> {
        let set = self.kernel.set_budgets(budgets);
        set.map_err(|source| TapError::Map { operation: "set other budgets", source })
    }

    /// What puts tuples under watch from outside the kernel side.
    pub fn watch(&self) -> Result<Watch, TapError> {
        Ok(self.kernel.watch()?)
    }

    /// Secret of the tuple hash: with [`crate::bpf::hash::tuple`] it tells the ring of a tuple.
    pub fn key(&self) -> &[u64; 2] {
        &self.key
    }

    /// What tells the kernel side which tuples are open.
    pub fn known(&self) -> Known {
        self.kernel.known()
    }

    /// What the budget of a tap point lets through at this moment; all where it cannot be read.
    pub fn kept(&self, point: usize) -> Kept {
        self.readings.kept(point, ClockOffset::monotonic_ns()).unwrap_or(Kept::ALL)
    }

    /// The tap point that source number `source` serves alone; `None` for one that all inline interfaces share.
    pub fn point_of(&self, source: usize) -> Option<usize> {
        (0..self.points.len()).find(|n| self.sources_of(*n).contains(&source))
    }

    /// The numbers of the sources that serve a tap point alone.
    pub fn sources_of(&self, point: usize) -> Range<usize> {
        let rings = |points: &[PointInfo]| points.iter().map(|p| p.rings as usize).sum::<usize>();
        let first = self.rings.len() - rings(&self.points[point..]);
        first..first + self.points[point].rings as usize
    }

    /// Everything counted so far.
    pub fn stats(&self) -> Result<TapStats, TapError> {
        // Before the hooks' counters: what the pair drops and the hooks count must not look like more than that.
        let carrier_drops = match &self.pair {
            Some(pair) => pair.drops().map_err(failed("read the statistics of", &pair.near_name))?,
            None => 0,
        };
        let unreadable = |source| TapError::Map { operation: "read the counters", source };
        let lanes = self.readings.counters().map_err(unreadable)?;
        let mut points = Vec::with_capacity(self.points.len());
        for (slot, info) in self.points.iter().enumerate() {
            points.push(PointStats {
                name: info.name.clone(),
                ingress: lanes[slot * 2],
                egress: lanes[slot * 2 + 1],
                ingress_census: self.readings.census(slot * 2).map_err(unreadable)?,
                egress_census: self.readings.census(slot * 2 + 1).map_err(unreadable)?,
            });
        }
        let mut rings = Vec::with_capacity(self.rings.len());
        for (name, socket) in &self.rings {
            let stats = socket.as_ref().map_or(Ok(RingStats::default()), RingSocket::stats);
            let stats = stats.map_err(failed("read the statistics of", name))?;
            rings.push(RingInfo { name: name.clone(), stats });
        }
        Ok(TapStats { points, stray: lanes[SLOTS * 2], rings, carrier_drops })
    }

    /// Detaches every hook, so that nothing new is mirrored, while what is in the rings can still be read.
    pub fn detach(&mut self) {
        self.hooks.drain(..).for_each(drop);
    }

    /// Detaches, reads the counters a last time, and takes everything down.
    pub fn close(mut self) -> Result<TapStats, TapError> {
        self.detach();
        self.stats()
    }
}

/// Opens what an inline tap needs besides an interface, and takes it down again: a carrier and its ring, or a ring
/// buffer.
pub fn probe(transport: Transport) -> Result<(), TapError> {
    let config = TapConfig { frames: 64, transport, ..TapConfig::default() };
    let (tap, _sources) = Tap::with_plan(&config, Vec::new(), true)?;
    drop(tap);
    Ok(())
}

/// The programs that a tap attaches.
fn programs(inline: bool, carried: bool, span: bool) -> Vec<Program> {
    let of = |on: bool, list: &[Program]| if on { list.to_vec() } else { Vec::new() };
    [
        of(inline, &[Program::Ingress, Program::Egress]),
        of(carried, &[Program::Carry, Program::Ring]),
        of(span, &[Program::Span]),
    ]
    .concat()
}

/// Decides each interface's mode, and refuses what cannot be tapped before anything is touched.
fn plan(config: &TapConfig) -> Result<Vec<Planned>, TapError> {
    if config.interfaces.is_empty() {
        return Err(TapError::NoInterface);
    }
    if config.interfaces.len() > SLOTS {
        return Err(TapError::TooMany { count: config.interfaces.len(), most: SLOTS });
    }
    let known = Rtnetlink::open().and_then(|mut r| r.interfaces()).map_err(failed("list", "interfaces"))?;
    let shared = u32::from(config.shards.max(1));
    let mut seen = HashSet::new();
    if let Some(twice) = config.interfaces.iter().find(|i| !seen.insert(&i.name)) {
        return Err(TapError::Twice(twice.name.clone()));
    }
    let mut plan: Vec<Planned> = Vec::new();
    for wanted in &config.interfaces {
        let Some(interface) = known.iter().find(|i| i.name == wanted.name) else {
            return Err(TapError::Unknown {
                name: wanted.name.clone(),
                known: known.iter().map(|i| i.name.clone()).collect(),
            });
        };
        if !interface.ethernet {
            return Err(TapError::NotEthernet(wanted.name.clone()));
        }
        if interface.loopback {
            return Err(TapError::Loopback(wanted.name.clone()));
        }
        // Whether it carries traffic makes no difference to an inline tap.
        let live = match wanted.mode {
            Some(Mode::Inline) => None,
            _ => interface.live_because().map_err(failed("look at the routes over", &wanted.name))?,
        };
        let mode = wanted.mode.unwrap_or(if live.is_some() { Mode::Inline } else { Mode::Span });
        if mode == Mode::Span {
            if let Some(because) = live.filter(|_| !config.force) {
                return Err(TapError::Live { name: wanted.name.clone(), because });
            }
            if !interface.up {
                return Err(TapError::Down(wanted.name.clone()));
            }
        }
        let queues = match mode {
            Mode::Inline => 0,
            Mode::Span => ethtool::receive_queues(&wanted.name).ok().filter(|n| *n > 0).unwrap_or(1),
        };
        // The carrier's rings are the first ones; they are left free where there is none.
        let ring = plan.last().map_or(shared, |p| p.ring + p.queues);
        plan.push(Planned { interface: interface.clone(), mode, queues, ring });
    }
    // Without a carrier the first rings need not stay free.
    if plan.iter().all(|p| p.mode == Mode::Span) {
        plan.iter_mut().for_each(|p| p.ring -= shared);
    }
    Ok(plan)
}

fn random_key() -> Result<[u64; 2], TapError> {
    let mut bytes = [0u8; 16];
    io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").map_err(failed("open", "/dev/urandom"))?,
        &mut bytes,
    )
    .map_err(failed("read", "/dev/urandom"))?;
    let (a, b) = bytes.split_at(8);
    let word = |b: &[u8]| u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    Ok([word(a), word(b)])
}
