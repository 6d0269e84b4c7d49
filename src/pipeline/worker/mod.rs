//! One worker: batches of packets in, events out. The same code for live rings and for captures.
//!
//! It owns its flows, recorder and rules; it takes no lock, makes no system call and allocates nothing but the
//! anomalies it hands over. Time comes with the packets.

mod config;
mod forget;
mod lines;
mod timers;

pub use config::{WorkerConfig, WorkerCounters};

use forget::is_known;
use lines::{LABELS, UNFOLDED};

use super::event::{Event, LifeOver, Outlet, Place, What};
use super::latency::Interval;
use crate::bpf::Known;
use crate::capture::{BATCH, Packet, PortSet};
use crate::detect::{Anomaly, Listener, Sight, View, rules};
use crate::flow::{
    Class, Digest, Endpoint, FlowId, FlowKey, Narrow, Phase, Recorder, Side, Table, TunnelId, Tunnels, Tuple,
    Wheel,
};
use crate::memory::{huge_pages, prefetch};
use crate::track::{Coverage, Ended, Flow, Outcome, SegClass, State, Step};
use crate::wire::{self, Body, Brief, Decoded, IcmpError, Nanos, Segment, TcpFlags, Way};

/// The same packet within this time is the same packet: crossing a hop takes microseconds, the shortest
/// retransmission timeout is 200 ms.
const SAME_PACKET_WITHIN: u64 = 10 * Nanos::MS;

/// With an IP identification, and other MACs and a smaller TTL or another VLAN, it is the same packet for longer: a retransmission gets an
/// identification of its own (RFC 6864), and a slow hop takes a second at most.
const SAME_ID_WITHIN: u64 = Nanos::SEC;

/// The very same packet, nothing changed, but for an identification that no two packets share: seen by two hooks of one
/// machine.
const COPY_WITHIN: u64 = Nanos::MS;

/// Hops that a packet without an identification can have lost between two looks at it.
const HOPS: u8 = 8;

/// A frame that went out and is back within this time came round a loop: a wire or a bridge away, no machine's answer.
const LOOP_WITHIN: u64 = Nanos::MS;

/// Packets of the flow that are compared with.
const LOOK_BACK: usize = 6;

/// A packet of the batch after decoding: where its flow is, and by which end it was sent.
#[derive(Clone, Copy)]
struct Lookup {
    /// Its key, unless it is `wide`.
    narrow: Narrow,
    hash: u64,
    end: Side,
    form: Form,
    /// Its flow, most likely.
    guess: Option<FlowId>,
    /// Its addresses are IPv6, for which a line has no room: its key is in `keys`.
    wide: bool,
    /// Its buckets.
    places: [u32; 2],
}

/// How far a packet was decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The common packet, in `briefs`.
    Brief,
    /// TCP on a chosen port, in `decoded`.
    Tcp,
    /// Anything else, in `decoded`.
    Other,
    /// The common packet on ports that were not chosen.
    PassedOver,
}

/// Gives what the rules say its place among all events.
struct Speaker<'a> {
    out: &'a mut dyn Outlet,
    at: Nanos,
    age: Nanos,
    lane: u64,
    events: &'a mut u64,
}

impl Speaker<'_> {
    #[inline(always)]
    fn say(&mut self, what: What) {
        *self.events += 1;
        let place = Place { at: self.at, age: self.age, lane: self.lane, count: *self.events };
        self.out.event(Event { place, what });
    }
}

impl Listener for Speaker<'_> {
    fn anomaly(&mut self, anomaly: Anomaly) {
        self.say(What::Anomaly(Box::new(anomaly)));
    }

    #[inline(always)]
    fn sight(&mut self, sight: Sight) {
        self.say(What::Sight(sight));
    }
}

/// What a tap point shows, by the bits of those that show a part of it.
fn covered(selected: u32, point: u8) -> Coverage {
    let bit = 1_u32.checked_shl(point.into()).unwrap_or(0);
    if selected & bit == 0 { Coverage::All } else { Coverage::Selected }
}

/// Counts a segment where it was seen.
#[inline]
fn count_flags(interval: &mut Interval, p: &Packet<'_>, flags: TcpFlags) {
    interval.at(p.point.0).flags.get_or_insert_default().count(p.way, flags);
}

/// See the module.
pub struct Worker {
    table: Table<Flow>,
    wheel: Wheel,
    recorder: Recorder,
    tunnels: Tunnels,
    ports: PortSet,
    lives: bool,
    lines: bool,
    /// VLAN identifiers plus 1 by label; label 0 is none.
    labels: Vec<u16>,
    /// Packets of a line that becomes whole.
    chain: Vec<Digest>,
    events: u64,
    briefs: Box<[Brief; BATCH]>,
    decoded: Box<[Decoded; BATCH]>,
    lookups: Box<[Lookup; BATCH]>,
    keys: Box<[FlowKey; BATCH]>,
    counters: WorkerCounters,
    interval: Box<Interval>,
    figures_at: u32,
    selected: u32,
    census: bool,
    known: Option<Known>,
    now: Nanos,
}

impl Worker {
    /// Takes all its memory.
    pub fn new(config: &WorkerConfig) -> Worker {
        let table = config.table();
        let recorder = Recorder::new(config.recorder);
        for range in table.memory().into_iter().chain([recorder.memory()]) {
            huge_pages(range);
        }
        let empty = Lookup {
            narrow: Narrow::default(),
            hash: 0,
            end: Side::Orig,
            form: Form::Other,
            guess: None,
            wide: false,
            places: [0; 2],
        };
        let mut labels = Vec::with_capacity(LABELS);
        labels.push(0);
        Worker {
            wheel: Wheel::new(table.capacity()),
            table,
            recorder,
            tunnels: Tunnels::default(),
            ports: config.ports.clone(),
            lives: config.lives,
            lines: config.keeps_lines(),
            labels,
            chain: Vec::with_capacity(UNFOLDED),
            events: 0,
            briefs: Box::new([Brief::default(); BATCH]),
            decoded: Box::new([Decoded::NOTHING; BATCH]),
            lookups: Box::new([empty; BATCH]),
            keys: Box::new([FlowKey::default(); BATCH]),
            counters: WorkerCounters::default(),
            interval: Box::new(Interval::of(&config.responders)),
            figures_at: config.figures_at,
            selected: config.selected,
            census: config.census,
            known: config.known.clone(),
            now: Nanos(0),
        }
    }

    /// Follows other ports from the next batch on. Flows of ports that are not among them any more are forgotten, and nothing is told of
    /// them: if their ports are chosen again later, nobody knows what became of them meanwhile.
    pub fn set_ports(&mut self, ports: PortSet) {
        self.ports = ports;
        let mut from = 0;
        while let Some(id) = self.table.first(from) {
            from = id.0 + 1;
            let key = self.table.key(id);
            let Tuple { src, dst } = key.tuple();
            if !self.ports.contains(src.port) && !self.ports.contains(dst.port) {
                self.tell_known(&key, false);
                self.table.remove(id);
            }
        }
        self.counters.live = self.table.len() as u64;
    }

    /// What it counted so far.
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Newest packet time seen.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Bytes taken for each flow there is room for.
    pub fn bytes_per_flow(&self) -> usize {
        self.table.bytes_per_flow()
    }

    /// The figures gathered since the last call.
    pub fn take_interval(&mut self) -> Box<Interval> {
        let fresh = Box::new(self.interval.fresh());
        std::mem::replace(&mut self.interval, fresh)
    }

    /// Works through one batch: decode all, hash all, touch all buckets, then all lines, then look up and step one by one.
    pub fn batch(&mut self, packets: &[Packet<'_>], out: &mut dyn Outlet) {
        for chunk in packets.chunks(BATCH) {
            self.read_all(chunk);
            self.guess_all(chunk.len());
            for (i, p) in chunk.iter().enumerate() {
                self.advance(p.now, out);
                if self.lookups[i].form != Form::Brief || !self.quick(i, p, out) {
                    self.packet(i, p, out);
                }
            }
        }
        self.counters.live = self.table.len() as u64;
        self.counters.untimed = self.wheel.unarmed();
    }

    /// Decodes a batch.
    #[inline(never)]
    fn read_all(&mut self, chunk: &[Packet<'_>]) {
        for (i, p) in chunk.iter().enumerate() {
            self.read(i, p);
        }
    }

    /// Has the lines fetched that the first `count` packets most likely belong to.
    #[inline(never)]
    fn guess_all(&mut self, count: usize) {
        for look in &mut self.lookups[..count] {
            if matches!(look.form, Form::Brief | Form::Tcp)
                && let Some(id) = self.table.guess(look.hash, look.places)
            {
                look.guess = Some(id);
                fetch(&self.table, id);
                if look.wide {
                    prefetch(self.table.wide(id));
                }
            }
        }
    }

    /// Decodes one packet of the batch as far as it needs, and has its buckets fetched.
    #[inline]
    fn read(&mut self, i: usize, p: &Packet<'_>) {
        let b = &mut self.briefs[i];
        if self.lines && wire::brief(p.link, p.bytes, p.vlan, b) {
            if !self.ports.contains(b.sport()) && !self.ports.contains(b.dport()) {
                self.lookups[i].form = Form::PassedOver;
                return;
            }
            if self.census {
                count_flags(&mut self.interval, p, b.digest.flags);
            }
            let d = &mut b.digest;
            (d.ts, d.point, d.way) = (p.ts, p.point.0, p.way);
            if !b.six {
                let (narrow, end) = Narrow::new(b.four, b.ports, p.point.0);
                b.digest.from = end;
                let hash = self.table.hash_narrow(&narrow);
                return self.look(i, narrow, hash, end, Form::Brief, false);
            }
            let src = Endpoint { addr: b.pair[0], port: b.sport() };
            let dst = Endpoint { addr: b.pair[1], port: b.dport() };
            let end = self.look_whole(i, src, dst, p.point.0, Form::Brief);
            self.briefs[i].digest.from = end;
            return;
        }
        let d = &mut self.decoded[i];
        *d = wire::decode(p.link, p.bytes, p.wire_len, p.vlan);
        self.lookups[i].form = Form::Other;
        if let Body::Tcp(seg) = &d.body
            && (self.ports.contains(seg.sport) || self.ports.contains(seg.dport))
        {
            if self.census {
                count_flags(&mut self.interval, p, seg.flags);
            }
            let src = Endpoint { addr: seg.src, port: seg.sport };
            let dst = Endpoint { addr: seg.dst, port: seg.dport };
            self.look_whole(i, src, dst, p.point.0, Form::Tcp);
        }
    }

    fn look_whole(&mut self, i: usize, src: Endpoint, dst: Endpoint, point: u8, form: Form) -> Side {
        let (key, end) = FlowKey::new(src, dst, point);
        self.keys[i] = key;
        match Narrow::of(&key) {
            Some(narrow) => self.look(i, narrow, self.table.hash_narrow(&narrow), end, form, false),
            None => self.look(i, Narrow::default(), self.table.hash_wide(&key), end, form, true),
        }
        end
    }

    #[inline]
    fn look(&mut self, i: usize, narrow: Narrow, hash: u64, end: Side, form: Form, wide: bool) {
        let places = self.table.places(hash);
        self.lookups[i] = Lookup { narrow, hash, end, form, guess: None, wide, places };
        for place in places {
            prefetch(self.table.bucket(place));
        }
    }

    /// The key of a packet that was looked up.
    #[inline]
    fn key(&self, i: usize) -> FlowKey {
        let look = &self.lookups[i];
        if look.wide { self.keys[i] } else { look.narrow.into() }
    }

    /// A common packet that has no short way: its flow is, or is to be, a whole one. Nothing more is read of it.
    fn brief(&mut self, i: usize, p: &Packet<'_>, out: &mut dyn Outlet) {
        self.keys[i] = self.key(i);
        self.counters.segments += 1;
        let Brief { mut digest, .. } = self.briefs[i];
        let seg = self.briefs[i].segment();
        if !opens(&seg) {
            (digest.mss, digest.wscale) = (0, 0);
        }
        self.segment(i, &seg, digest, p, out);
    }

    /// A packet that has no short way. In a function of its own, and said to be rare, so that those that have one are not slower for it.
    #[cold]
    #[inline(never)]
    fn packet(&mut self, i: usize, p: &Packet<'_>, out: &mut dyn Outlet) {
        self.counters.packets += 1;
        match self.lookups[i].form {
            Form::Brief => return self.brief(i, p, out),
            Form::PassedOver => {
                self.counters.others += 1;
                return;
            }
            Form::Tcp | Form::Other => {}
        }
        let point = p.point.0;
        let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: 0, events: &mut self.events };
        match self.decoded[i].body {
            Body::Tcp(seg) if self.lookups[i].form == Form::Tcp => {
                self.counters.segments += 1;
                let digest = digest(&self.decoded[i], &seg, p, self.lookups[i].end);
                self.segment(i, &seg, digest, p, out);
            }
            Body::Arp(arp) => {
                self.counters.arp += 1;
                let segment = self.decoded[i].vlans.segment();
                let src_mac = self.decoded[i].src_mac;
                to.sight(Sight::Arp { arp, src_mac, point, segment, way: p.way });
            }
            Body::LaterFragment => self.counters.later_fragments += 1,
            Body::Icmp(error) => self.icmp(&error, p, out),
            Body::Malformed(reason) => {
                self.counters.malformed[reason as usize] += 1;
                to.sight(Sight::Malformed { reason, point });
            }
            _ => self.counters.others += 1,
        }
    }

    /// A segment of a flow that is, or is to be, a whole one.
    fn segment(&mut self, i: usize, seg: &Segment, digest: Digest, p: &Packet<'_>, out: &mut dyn Outlet) {
        let Lookup { hash, end, guess, .. } = self.lookups[i];
        let key = self.keys[i];
        let found = guess.filter(|id| self.table.is(*id, &key)).or_else(|| self.table.find(&key, hash));
        let id = match found {
            Some(id) => {
                self.unfold(id, p.now, out);
                // A deadline that lies before this packet is met before it, whatever the wheel's tick.
                if self.table.get(id).deadline <= p.now && !self.wake(id, p.now, out) {
                    self.open(key, hash, i, digest.vlan, p.ts, out)
                } else {
                    id
                }
            }
            None => self.open(key, hash, i, digest.vlan, p.ts, out),
        };
        if self.again(id, &key, hash, &digest, out) {
            self.table.get_mut(id).again(seg, end);
            return;
        }
        let flow = self.table.get_mut(id);
        flow.newest = self.recorder.push(flow.newest, &digest);
        let before = flow.deadline;
        let was_known = is_known(flow);
        let mut began = false;
        let (recorder, tunnels, lives) = (&self.recorder, &self.tunnels, self.lives);
        let coverage = covered(self.selected, p.point.0);
        let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: hash, events: &mut self.events };
        let step = flow.step(seg, end, p.ts, coverage, |old| {
            began = true;
            let view = View { key: &key, flow: old, recorder, tunnels };
            rules::over(&view, p.ts, &mut to);
            if lives {
                let tunnel = tunnels.get(old.tunnel);
                to.say(What::Life(Box::new(LifeOver { key, flow: old.clone(), tunnel })));
            }
        });
        let (class, rank) = (class_of(flow), rank(flow));
        let deadline = flow.deadline;
        let known = is_known(flow);
        if known != was_known {
            self.tell_known(&key, known);
        }
        self.count(&key, &step, began);
        if deadline < before || before.0 == 0 {
            self.wheel.arm(id, deadline, &mut self.table.line_mut(id).armed);
        }
        self.table.set_class(id, class);
        self.table.set_rank(id, rank);
        self.table.line_mut(id).set_last(p.ts);
        let control = seg.flags.any(TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN);
        let met = found.is_none() && self.table.get(id).picked_up;
        let told = step.ended.is_some() || step.reset.is_some() || step.completed.is_some();
        if control || step.notes != 0 || told || met {
            let mut told = self.table.get(id).tallies.told;
            let flow = self.table.get(id);
            let view = View { key: &key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
            let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: hash, events: &mut self.events };
            rules::segment(&view, &step, seg, &digest, &mut told, &mut to);
            self.table.get_mut(id).tallies.told = told;
        }
        if step.completed.is_some() {
            self.settle_in_line(id);
        }
    }

    /// Compares with the newest packets of the flow: the same one again, on the other side of a hop, is no part of the
    /// conversation (true); another MAC at the same end is worth a word.
    fn again(&mut self, id: FlowId, key: &FlowKey, hash: u64, d: &Digest, out: &mut dyn Outlet) -> bool {
        let flow = self.table.get(id);
        let mut told = flow.tallies.told;
        let mut newest = flow.newest;
        let (mut twice, mut before, mut looped) = (None, None, None);
        for _ in 0..LOOK_BACK {
            let Some((other, older)) = self.recorder.get(newest) else { break };
            newest = older;
            if other.from != d.from {
                continue;
            }
            before = before.or(Some(other));
            let gap = d.ts.since(other.ts);
            if gap > SAME_ID_WITHIN {
                break;
            }
            let macs = other.src_mac != d.src_mac || other.dst_mac != d.dst_mac;
            let moved = other.ttl != d.ttl || macs || other.vlan != d.vlan;
            let hop = d.ip_id != 0 && (macs && other.ttl > d.ttl || other.vlan != d.vlan);
            let fewer_hops = (1..=HOPS).contains(&other.ttl.wrapping_sub(d.ttl));
            let same = (other.seq, other.ack, other.flags, other.len, other.win, other.ip_id)
                == (d.seq, d.ack, d.flags, d.len, d.win, d.ip_id);
            let returned = other.way == Way::Egress && d.way == Way::Ingress;
            if same && !moved && returned && d.ts.since(other.ts) <= LOOP_WITHIN {
                looped = Some(other);
                break;
            }
            let soon = gap <= SAME_PACKET_WITHIN && moved && (d.ip_id != 0 || fewer_hops);
            let copy = gap <= COPY_WITHIN && d.ip_id != 0 && !returned;
            if same && (soon || hop || copy) {
                twice = Some(other);
                break;
            }
        }
        let view = View { key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
        let mut to = Speaker { out, at: d.ts, age: Nanos(0), lane: hash, events: &mut self.events };
        if let Some(first) = looped {
            rules::looped(&view, &first, d, &mut told, &mut to);
        } else if let Some(first) = twice {
            rules::twice(&view, &first, d, &mut told, &mut to);
        } else if let Some(b) = before
            && b.src_mac != d.src_mac
            && !b.src_mac.is_zero()
            && !d.src_mac.is_zero()
            && b.way == d.way
            && flow.tallies.twice == 0
            && !flow.state.is_over()
        {
            rules::mac(&view, &b, d, &mut told, &mut to);
        }
        let tallies = &mut self.table.get_mut(id).tallies;
        tallies.told = told;
        tallies.twice += u32::from(twice.is_some());
        twice.is_some() || looped.is_some()
    }

    /// An ICMP error: it ends the attempt whose SYN it quotes.
    fn icmp(&mut self, error: &IcmpError, p: &Packet<'_>, out: &mut dyn Outlet) {
        self.counters.others += 1;
        let src = Endpoint { addr: error.src, port: error.sport };
        let dst = Endpoint { addr: error.dst, port: error.dport };
        let (key, end) = FlowKey::new(src, dst, p.point.0);
        let hash = self.table.hash(&key);
        let Some(id) = self.table.find(&key, hash) else { return };
        self.unfold(id, p.now, out);
        if let Some(ended) = self.table.get_mut(id).icmp(end, error.seq, p.ts) {
            self.counters.attempts += 1;
            self.counters.failed += 1;
            self.figures(&key, &ended);
            let rank = rank(self.table.get(id));
            self.table.set_rank(id, rank);
            let flow = self.table.get(id);
            let view = View { key: &key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
            let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: hash, events: &mut self.events };
            rules::icmp(&view, &ended, error, &mut to);
        } else {
            let flow = self.table.get(id);
            let mut told = flow.tallies.told;
            let view = View { key: &key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
            let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: hash, events: &mut self.events };
            rules::icmp_mid_flow(&view, error, p.ts, &mut told, &mut to);
            self.table.get_mut(id).tallies.told = told;
        }
    }

    fn count(&mut self, key: &FlowKey, step: &Step, began: bool) {
        if let Some(ns) = step.completed {
            self.interval.acks.record(ns);
        }
        if let Some(ended) = &step.ended {
            self.figures(key, ended);
        }
        let c = &mut self.counters;
        c.flows += u64::from(began);
        if step.reset.is_some() {
            c.resets += 1;
            self.interval.at(key.point()).resets += 1;
        }
        if let Some(ended) = &step.ended {
            c.attempts += 1;
            let here = self.interval.at(key.point());
            here.attempts += 1;
            here.failed += u64::from(failed(ended));
            if ended.outcome == Outcome::Accepted {
                c.handshakes += 1;
                let took = ended.at.since(ended.attempt.first);
                here.syn_acks.record(took);
                self.interval.syn_acks.record(took);
            }
            c.failed += u64::from(failed(ended));
        }
    }

    /// A new flow, a whole one.
    fn open(
        &mut self,
        key: FlowKey,
        hash: u64,
        i: usize,
        vlan: u16,
        at: Nanos,
        out: &mut dyn Outlet,
    ) -> FlowId {
        self.make_room(hash, at, out);
        self.make_room_for_a_whole(at, out);
        self.counters.flows += 1;
        let id = self.table.insert(key, hash);
        // What was read the short way is in no tunnel.
        let brief = self.lookups[i].form == Form::Brief;
        let tunnel = if brief { TunnelId::default() } else { self.tunnels.id(&self.decoded[i].tunnel) };
        let flow = self.table.make_whole(id);
        (flow.vlan, flow.tunnel) = (vlan, tunnel);
        id
    }

    fn make_room(&mut self, hash: u64, at: Nanos, out: &mut dyn Outlet) {
        while let Some(victim) = self.table.victim(hash, self.now.max(at)) {
            self.count_evicted(victim);
            if self.table.is_whole(victim) || self.table.line(victim).phase == Phase::HalfClosed {
                self.unfold(victim, at, out);
                self.forget(victim, at, Nanos(0), out);
            } else {
                self.over(victim, at, Nanos(0), out);
            }
        }
    }

    /// The figures of the responder that the attempt asked.
    fn figures(&mut self, key: &FlowKey, ended: &Ended) {
        let answered = (ended.outcome == Outcome::Accepted).then(|| ended.at.since(ended.attempt.first));
        if ended.outcome != Outcome::Unfinished {
            self.figure(key, &toward(key, ended.attempt.from).dst, answered, failed(ended));
        }
    }

    fn figure(&mut self, key: &FlowKey, responder: &Endpoint, answered: Option<u64>, failed: bool) {
        if !self.interval.responders.is_empty() && self.figures_at >> key.point() & 1 != 0 {
            self.interval.attempt(responder, answered, failed);
        }
    }
}

/// Has the line and the class of a flow fetched.
#[inline]
fn fetch(table: &Table<Flow>, id: FlowId) {
    prefetch(table.line(id));
    prefetch(table.class_of(id));
}

fn failed(ended: &Ended) -> bool {
    !matches!(ended.outcome, Outcome::Accepted | Outcome::Unfinished)
}

/// What a flow is worth. One of which packets of one end alone were met may be anything, a flood of ACKs too. One whose last ACK is
/// still to come is not over.
fn class_of(flow: &Flow) -> Class {
    let alone = flow.picked_up && flow.ends.iter().any(|e| e.packets == 0);
    match flow.state {
        State::New | State::SynSent | State::SynCrossed | State::SynRecv => Class::HalfOpen,
        State::TimeWait | State::Reset => Class::Closed,
        State::Established | State::FinWait | State::HalfClosed | State::LastAck if alone => Class::HalfOpen,
        State::Established | State::FinWait | State::HalfClosed | State::LastAck => Class::Open,
    }
}

/// What a whole flow is worth when there is no room for more of them. Those that wait for an answer stay longest, then those that are not
/// over; of the others the one that was quiet longest gives way.
fn rank(flow: &Flow) -> u64 {
    const TIME: u64 = (1 << 62) - 1;
    let kept = class_of(flow) != Class::Closed;
    u64::from(flow.attempt.pending) << 63 | u64::from(kept) << 62 | flow.last.0.min(TIME)
}

/// The tuple of a key, from the end that is the originator.
fn toward(key: &FlowKey, orig: Side) -> Tuple {
    if orig == Side::Orig { key.tuple() } else { key.tuple().reversed() }
}

/// Whether the options that are sent once are kept of it: with any other flags beside its SYN they mean nothing.
fn opens(seg: &Segment) -> bool {
    matches!(SegClass::of(seg.flags), SegClass::Syn | SegClass::SynAck)
}

/// What the flight recorder keeps of a packet. `end` is the end of the key that sent it.
fn digest(d: &Decoded, seg: &Segment, p: &Packet<'_>, end: Side) -> Digest {
    let (tsval, tsecr) = seg.options.ts.unwrap_or((0, 0));
    let syn = opens(seg);
    Digest {
        ts: p.ts,
        seq: seg.seq,
        ack: seg.ack,
        tsval,
        tsecr,
        len: seg.payload,
        flags: seg.flags,
        win: seg.win,
        ip_id: seg.ip_id,
        vlan: d.vlans.id().map_or(0, |v| v + 1),
        src_mac: d.src_mac,
        dst_mac: d.dst_mac,
        ttl: seg.ttl,
        point: p.point.0,
        way: p.way,
        from: end,
        has_ts: seg.options.ts.is_some(),
        mss: if syn { seg.options.mss.unwrap_or(0) } else { 0 },
        wscale: if syn { seg.options.wscale.map_or(0, |w| w.saturating_add(1)) } else { 0 },
    }
}
