//! One worker: batches of packets in, events out. The same code for live rings and for captures.
//!
//! It owns its flows, recorder and rules; it takes no lock, makes no system call and allocates nothing but the
//! anomalies it hands over. Time comes with the packets.

use super::event::{Event, LifeOver, Outlet, Place, What};
use super::latency::Interval;
use crate::bpf::Known;
use crate::capture::{BATCH, Packet, PortSet};
use crate::detect::{Anomaly, Listener, Sight, View, rules};
use crate::flow::{Class, Digest, Endpoint, FlowId, FlowKey, Recorder, Seed, Side, Table, Tunnels, Wheel};
use crate::track::{Ended, Flow, Outcome, SegClass, State, Step, seen};
use crate::wire::{self, Body, Decoded, IcmpError, Malformed, Nanos, Segment, TcpFlags, Way};

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

/// What a worker needs to know at start.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Flows there is room for.
    pub max_flows: usize,
    /// Packet digests in the flight recorder.
    pub recorder: usize,
    /// The secret of the flow table's hash.
    pub seed: Seed,
    /// Packets with neither port in the set are passed over.
    pub ports: PortSet,
    /// Hand over each life that is over, not only what was found in it.
    pub lives: bool,
    /// Responders whose figures are kept apart.
    pub responders: Vec<Endpoint>,
    /// Tap points at which they are taken, a bit a point: with both sides of a gateway tapped, one of them.
    pub figures_at: u32,
    /// Told which tuples are open, for the kernel side to keep when it sheds; `None` where nothing sheds.
    pub known: Option<Known>,
}

impl Default for WorkerConfig {
    fn default() -> WorkerConfig {
        WorkerConfig {
            max_flows: 65_536,
            recorder: 65_536,
            seed: Seed::FIXED,
            ports: PortSet::all(),
            lives: false,
            responders: Vec::new(),
            figures_at: u32::MAX,
            known: None,
        }
    }
}

impl WorkerConfig {
    /// Memory that a worker takes for all this, bytes: some per cent more than it is.
    pub fn bytes(&self) -> u64 {
        const PROBE: usize = 1024;
        let flow = Table::<Flow>::new(PROBE, self.seed).bytes_per_flow() as u64;
        // The index and the recorder round up to a power of two; the wheel has 12 bytes a flow.
        let recorder = (self.recorder as u64).next_power_of_two() * (size_of::<Digest>() as u64 + 8);
        (self.max_flows as u64).saturating_mul(flow + 16 + 12).saturating_add(recorder)
    }
}

/// What a worker counted: plain fields, read between batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerCounters {
    /// Packets handed in.
    pub packets: u64,
    /// Of these, TCP segments on chosen ports.
    pub segments: u64,
    /// ARP packets and neighbour messages.
    pub arp: u64,
    /// Fragments that are not the first.
    pub later_fragments: u64,
    /// Packets of other protocols or ports.
    pub others: u64,
    /// Undecodable packets, by [`Malformed`].
    pub malformed: [u64; Malformed::COUNT],
    /// Flows begun: lives of tuples, not tuples.
    pub flows: u64,
    /// Flows given up for room before their time.
    pub evicted: u64,
    /// Of these, open connections: there was nothing less to give up.
    pub evicted_open: u64,
    /// Flows in the table now.
    pub live: u64,
    /// Handshakes that were answered with a SYN-ACK.
    pub handshakes: u64,
    /// Attempts to open that ended, well or not.
    pub attempts: u64,
    /// Attempts that led to nothing: refused, given up, never answered.
    pub failed: u64,
    /// Resets on open flows.
    pub resets: u64,
}

impl WorkerCounters {
    /// Adds another worker's.
    pub fn add(&mut self, o: &WorkerCounters) {
        self.packets += o.packets;
        self.segments += o.segments;
        self.arp += o.arp;
        self.later_fragments += o.later_fragments;
        self.others += o.others;
        for (a, b) in self.malformed.iter_mut().zip(o.malformed) {
            *a += b;
        }
        self.flows += o.flows;
        self.evicted += o.evicted;
        self.evicted_open += o.evicted_open;
        self.live += o.live;
        self.handshakes += o.handshakes;
        self.attempts += o.attempts;
        self.failed += o.failed;
        self.resets += o.resets;
    }
}

/// A packet of the batch after decoding: where its flow is, and by which end it was sent.
#[derive(Clone, Copy)]
struct Lookup {
    key: FlowKey,
    hash: u64,
    end: Side,
    tcp: bool,
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

    fn sight(&mut self, sight: Sight) {
        self.say(What::Sight(sight));
    }
}

/// See the module.
pub struct Worker {
    table: Table<Flow>,
    wheel: Wheel,
    recorder: Recorder,
    tunnels: Tunnels,
    ports: PortSet,
    lives: bool,
    events: u64,
    decoded: Box<[Decoded; BATCH]>,
    lookups: Box<[Lookup; BATCH]>,
    counters: WorkerCounters,
    interval: Box<Interval>,
    figures_at: u32,
    known: Option<Known>,
    now: Nanos,
}

impl Worker {
    /// Takes all its memory.
    pub fn new(config: &WorkerConfig) -> Worker {
        let table = Table::new(config.max_flows, config.seed);
        let empty = Lookup { key: FlowKey::default(), hash: 0, end: Side::Orig, tcp: false };
        Worker {
            wheel: Wheel::new(table.capacity()),
            table,
            recorder: Recorder::new(config.recorder),
            tunnels: Tunnels::default(),
            ports: config.ports.clone(),
            lives: config.lives,
            events: 0,
            decoded: Box::new([Decoded::NOTHING; BATCH]),
            lookups: Box::new([empty; BATCH]),
            counters: WorkerCounters::default(),
            interval: Box::new(Interval::of(&config.responders)),
            figures_at: config.figures_at,
            known: config.known.clone(),
            now: Nanos(0),
        }
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

    /// Works through one batch: decode all, hash all, touch all, then look up and step one by one.
    pub fn batch(&mut self, packets: &[Packet<'_>], out: &mut dyn Outlet) {
        for chunk in packets.chunks(BATCH) {
            let mut touched = 0u32;
            for (i, p) in chunk.iter().enumerate() {
                let d = wire::decode(p.link, p.bytes, p.wire_len, p.vlan);
                let look = &mut self.lookups[i];
                look.tcp = false;
                if let Body::Tcp(seg) = &d.body
                    && (self.ports.contains(seg.sport) || self.ports.contains(seg.dport))
                {
                    let src = Endpoint { addr: seg.src, port: seg.sport };
                    let dst = Endpoint { addr: seg.dst, port: seg.dport };
                    let (key, end) = FlowKey::new(src, dst, p.point.0);
                    let hash = self.table.hash(&key);
                    *look = Lookup { key, hash, end, tcp: true };
                    touched ^= self.table.touch(hash);
                }
                self.decoded[i] = d;
            }
            std::hint::black_box(touched);
            for (i, p) in chunk.iter().enumerate() {
                self.advance(p.now, out);
                self.packet(i, p, out);
            }
        }
        self.counters.live = self.table.len() as u64;
    }

    /// Lets time go on without packets.
    pub fn idle(&mut self, now: Nanos, out: &mut dyn Outlet) {
        self.advance(now, out);
        self.counters.live = self.table.len() as u64;
    }

    /// Lets all that is due by `now` fire, which [`Worker::idle`] may do a tick of the wheel later.
    pub fn settle(&mut self, now: Nanos, out: &mut dyn Outlet) {
        self.advance(now, out);
        while let Some(id) = self.wheel.advance(now.add(Wheel::TICK_NS)) {
            self.due(id, now, out);
        }
        self.counters.live = self.table.len() as u64;
    }

    /// Concludes everything at `now`, the end of a recording; another may follow.
    pub fn finish(&mut self, now: Nanos, out: &mut dyn Outlet) {
        let now = now.max(self.now);
        self.settle(now, out);
        while let Some(id) = self.table.first() {
            let age = self.table.get(id).first;
            if let Some(ended) = self.table.get_mut(id).finish(now) {
                self.silence(id, &ended, now, age, out);
            }
            self.forget(id, now, age, out);
        }
        self.counters.live = 0;
        // Another recording may follow, with times of its own.
        self.now = Nanos(0);
        self.wheel.rewind();
    }

    fn packet(&mut self, i: usize, p: &Packet<'_>, out: &mut dyn Outlet) {
        self.counters.packets += 1;
        let point = p.point.0;
        let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: 0, events: &mut self.events };
        match self.decoded[i].body {
            Body::Tcp(seg) if self.lookups[i].tcp => {
                self.counters.segments += 1;
                self.segment(i, &seg, p, out);
            }
            Body::Arp(arp) => {
                self.counters.arp += 1;
                to.sight(Sight::Arp { arp, src_mac: self.decoded[i].src_mac, point, way: p.way });
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

    fn segment(&mut self, i: usize, seg: &Segment, p: &Packet<'_>, out: &mut dyn Outlet) {
        let Lookup { key, hash, end, .. } = self.lookups[i];
        let found = self.table.find(&key, hash);
        let id = match found {
            Some(id) => {
                // A deadline that lies before this packet is met before it, whatever the wheel's tick.
                if self.table.get(id).deadline <= p.now && !self.wake(id, p.now, out) {
                    self.open(key, hash, i, p.ts, out)
                } else {
                    id
                }
            }
            None => self.open(key, hash, i, p.ts, out),
        };
        let digest = digest(&self.decoded[i], seg, p, end);
        if self.again(id, &key, hash, &digest, out) {
            self.table.get_mut(id).again(seg, end);
            return;
        }
        let flow = self.table.get_mut(id);
        flow.newest = self.recorder.push(flow.newest, digest);
        let before = flow.deadline;
        let was_known = is_known(flow);
        let mut began = false;
        let (recorder, tunnels, lives) = (&self.recorder, &self.tunnels, self.lives);
        let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: hash, events: &mut self.events };
        let step = flow.step(seg, end, p.ts, |old| {
            began = true;
            let view = View { key: &key, flow: old, recorder, tunnels };
            rules::over(&view, p.ts, &mut to);
            if lives {
                let tunnel = tunnels.get(old.tunnel);
                to.say(What::Life(Box::new(LifeOver { key, flow: old.clone(), tunnel })));
            }
        });
        let class = class_of(flow.state);
        let deadline = flow.deadline;
        let known = is_known(flow);
        if known != was_known {
            self.tell_known(&key, known);
        }
        self.count(&key, &step, began);
        if deadline < before || before.0 == 0 {
            self.wheel.arm(id, deadline);
        }
        self.table.set_class(id, class);
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
        if let Some(ended) = self.table.get_mut(id).icmp(end, error.seq, p.ts) {
            self.counters.attempts += 1;
            self.counters.failed += 1;
            self.figures(&key, &ended);
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
        c.resets += u64::from(step.reset.is_some());
        if let Some(ended) = &step.ended {
            c.attempts += 1;
            if ended.outcome == Outcome::Accepted {
                c.handshakes += 1;
                self.interval.syn_acks.record(ended.at.since(ended.attempt.first));
            }
            c.failed += u64::from(failed(ended));
        }
    }

    fn open(&mut self, key: FlowKey, hash: u64, i: usize, at: Nanos, out: &mut dyn Outlet) -> FlowId {
        while let Some(victim) = self.table.victim(hash) {
            self.counters.evicted += 1;
            self.counters.evicted_open += u64::from(self.table.get(victim).state.is_open());
            self.forget(victim, at, Nanos(0), out);
        }
        self.counters.flows += 1;
        let id = self.table.insert(key, hash);
        let tunnel = self.tunnels.id(&self.decoded[i].tunnel);
        let flow = self.table.get_mut(id);
        flow.vlan = self.decoded[i].vlans.id().map_or(0, |v| v + 1);
        flow.tunnel = tunnel;
        id
    }

    /// Fires what is due by `now`.
    fn advance(&mut self, now: Nanos, out: &mut dyn Outlet) {
        if now <= self.now {
            return;
        }
        self.now = now;
        while let Some(id) = self.wheel.advance(now) {
            self.due(id, now, out);
        }
    }

    /// A flow that the wheel offers.
    fn due(&mut self, id: FlowId, now: Nanos, out: &mut dyn Outlet) {
        if self.wake(id, now, out) {
            let deadline = self.table.get(id).deadline;
            self.wheel.arm(id, deadline);
        }
    }

    /// Lets a flow's timers fire up to `now`, each at its own time; false if that was the end of it.
    fn wake(&mut self, id: FlowId, now: Nanos, out: &mut dyn Outlet) -> bool {
        loop {
            let due = self.table.get(id).deadline;
            if due > now {
                return true;
            }
            match self.table.get_mut(id).timer(due) {
                None => {
                    self.forget(id, due, Nanos(0), out);
                    return false;
                }
                Some(step) => {
                    if let Some(ended) = step.ended {
                        self.silence(id, &ended, due, Nanos(0), out);
                    }
                }
            }
        }
    }

    /// The figures of the responder that the attempt asked.
    fn figures(&mut self, key: &FlowKey, ended: &Ended) {
        if self.interval.responders.is_empty() || self.figures_at >> key.point() & 1 == 0 {
            return;
        }
        let tuple = key.tuple();
        let responder = if ended.attempt.from == Side::Orig { tuple.dst } else { tuple.src };
        let answered = (ended.outcome == Outcome::Accepted).then(|| ended.at.since(ended.attempt.first));
        if ended.outcome != Outcome::Unfinished {
            self.interval.attempt(&responder, answered, failed(ended));
        }
    }

    fn silence(&mut self, id: FlowId, ended: &Ended, at: Nanos, age: Nanos, out: &mut dyn Outlet) {
        self.counters.attempts += 1;
        self.counters.failed += u64::from(failed(ended));
        let key = *self.table.key(id);
        self.figures(&key, ended);
        let (key, flow) = (self.table.key(id), self.table.get(id));
        let view = View { key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
        let mut to = Speaker { out, at, age, lane: self.table.hash(key), events: &mut self.events };
        rules::silence(&view, ended, &mut to);
    }

    fn forget(&mut self, id: FlowId, at: Nanos, age: Nanos, out: &mut dyn Outlet) {
        let (key, flow) = (self.table.key(id), self.table.get(id));
        let view = View { key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
        let mut to = Speaker { out, at, age, lane: self.table.hash(key), events: &mut self.events };
        rules::over(&view, at, &mut to);
        if self.lives {
            let tunnel = self.tunnels.get(flow.tunnel);
            to.say(What::Life(Box::new(LifeOver { key: *key, flow: flow.clone(), tunnel })));
        }
        if is_known(flow) {
            self.tell_known(key, false);
        }
        self.wheel.disarm(id);
        self.table.remove(id);
    }

    /// Tells the kernel side that a tuple is open, or that nothing is known of it any more.
    fn tell_known(&self, key: &FlowKey, open: bool) {
        let Some(known) = &self.known else { return };
        let tuple = key.tuple();
        let (src, dst) = ((tuple.src.addr, tuple.src.port), (tuple.dst.addr, tuple.dst.port));
        if open { known.insert(src, dst, key.point()) } else { known.remove(src, dst, key.point()) }
    }
}

/// Whether both ends have shown that they are there: the originator has the responder's initial sequence number, or each has
/// sent data. A forged SYN, answered or not, shows neither.
fn is_known(flow: &Flow) -> bool {
    let t = &flow.tallies;
    let completed = t.acked_at.0 != 0 && !t.final_ack_wrong && !t.differed;
    completed || flow.ends.iter().all(|e| e.has(seen::DATA))
}

fn failed(ended: &Ended) -> bool {
    !matches!(ended.outcome, Outcome::Accepted | Outcome::Unfinished)
}

fn class_of(state: State) -> Class {
    match state {
        State::New | State::SynSent | State::SynCrossed | State::SynRecv => Class::HalfOpen,
        State::LastAck | State::TimeWait | State::Reset => Class::Closed,
        State::Established | State::FinWait | State::HalfClosed => Class::Open,
    }
}

/// What the flight recorder keeps of a packet. `end` is the end of the key that sent it.
fn digest(d: &Decoded, seg: &Segment, p: &Packet<'_>, end: Side) -> Digest {
    let (tsval, tsecr) = seg.options.ts.unwrap_or((0, 0));
    let syn = matches!(SegClass::of(seg.flags), SegClass::Syn | SegClass::SynAck);
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
