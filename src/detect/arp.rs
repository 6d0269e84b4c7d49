//! Two answers to one question: who has this address? IPv6 neighbour advertisements count as ARP answers.
//!
//! The two answers of a duel between a proxy and the owner carry the same MAC and are bit-identical; only that there
//! are two tells (rule 8). Two answers with different MACs are two owners. Peers: Wireshark "Duplicate IP address
//! configured" (the second only), Snort 112:4; nobody reports the first.

use super::bounded::Bounded;
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::wire::{Addr, Arp, Mac, Nanos, Way};

/// An answer later than this belongs to another request. Linux asks three times, a second apart (`retrans_time_ms`), and a slow
/// owner answers all three at once.
const ANSWER_WITHIN: u64 = 4 * Nanos::SEC;

/// Answers to one request come together: a second one later than this is a matter of its own (rule 8).
const TOGETHER: u64 = Nanos::SEC;

/// A conflict waits this long for a sign that one of its two is a bridge that passes on answers in its own name.
const HOLD: u64 = Nanos::SEC;

/// Conflicts that wait, and bridges remembered, at most.
const HELD: usize = 64;
const RELAYS: usize = 64;

/// Answers that nobody asked for are remembered for as long as an ARP table keeps what they said, and so many at most.
const OVERWRITES_WITHIN: u64 = 60 * Nanos::SEC;
const UNASKED: usize = 64;

/// Answers to one request that come in at two ports do so within this time: microseconds were measured, and the next request
/// is a second away.
const PORTS_TOGETHER: u64 = 100 * Nanos::MS;

/// The same two answers, seen once more on their way out to the asker.
const SAME_ANSWERS: u64 = 5 * Nanos::MS;

/// One record an address and kind in this time; the rest is counted into the next.
const TELL_EVERY: u64 = 60 * Nanos::SEC;

/// Requests remembered. Direct-mapped: a collision forgets the older request, which loses a count and invents none.
const REQUESTS: usize = 1024;

/// Addresses with findings remembered, likewise.
const FINDINGS: usize = 256;

/// Points that answered one address within one window, at most this many are named.
const POINTS: usize = 8;

/// Where and when an ARP packet was seen. An address belongs to one machine of a broadcast domain; in another VLAN it is another's.
#[derive(Clone, Copy, Debug)]
pub struct ArpAt {
    /// Tap point.
    pub point: u8,
    /// The broadcast domain there: [`crate::wire::Vlans::segment`].
    pub segment: u32,
    /// Which way it went.
    pub way: Way,
    /// When.
    pub ts: Nanos,
}

#[derive(Clone, Copy, Default)]
struct Request {
    used: bool,
    asked: Addr,
    asker: Addr,
    point: u8,
    segment: u32,
    at: Nanos,
    /// The same request seen again (both sides of a hop, or asked again) before its answer.
    times: u32,
    answers: u32,
    way: Way,
    mac: Mac,
    first_answer: Nanos,
}

#[derive(Clone, Copy)]
struct Found {
    kind: Kind,
    asked: Addr,
    segment: u32,
    told: Nanos,
    first: Nanos,
    last: Nanos,
    count: u64,
    gap_ns: u64,
    macs: [Mac; 2],
    points: [u8; POINTS],
    npoints: u8,
    last_point: u8,
    /// Its answers came in at two ports that are both tapped.
    by_ports: bool,
    way: Way,
}

/// A to B and back to A within this time is flapping; slower it is two moves.
const FLAP_WITHIN: u64 = 60 * Nanos::SEC;

/// The same question or answer again within this time, with another sender MAC, is one that a bridge passes on in its
/// own name (wireless bridges do): no claim of an address.
const PASSED_ON_WITHIN: u64 = 100 * Nanos::MS;

/// Addresses whose MAC is remembered, likewise.
const BINDINGS: usize = 1024;

/// Who an address belongs to, by what senders of ARP say of themselves.
#[derive(Clone, Copy, Default)]
struct Binding {
    used: bool,
    ip: Addr,
    point: u8,
    segment: u32,
    mac: Mac,
    before: Mac,
    moved_at: Nanos,
    seen: Nanos,
    /// The newest packet: what it asked or answered.
    target: Addr,
    request: bool,
}

/// An answer that nobody asked for, sent to one machine and not to all as a gratuitous one is.
#[derive(Clone, Copy)]
struct Unasked {
    claimed: Addr,
    mac: Mac,
    at: ArpAt,
}

/// Two answers with different MACs, not told yet.
#[derive(Clone, Copy)]
struct Conflict {
    asked: Addr,
    gap_ns: u64,
    macs: [Mac; 2],
    at: ArpAt,
}

/// The table of requests, of bindings and of what was found.
///
/// | kind | peers |
/// | --- | --- |
/// | `arp_two_answers` | none |
/// | `address_conflict` | Wireshark "Duplicate IP address configured"; Snort 112:4 |
/// | `address_flapping`, `address_moved` | arpwatch "flip flop" and "changed ethernet address" |
/// | `arp_spoof_sign` | Snort 112:2 and 112:3; Zeek `bad_arp` |
pub struct ArpWatch {
    /// The newest answer for an address that came in at any port: its port, MAC, asker and time.
    came_in: Bounded<(Addr, u32), (u8, Mac, Addr, Nanos)>,
    /// The newest request for an address, at any port: an answer from before it answered another one.
    asked: Bounded<(Addr, u32), Nanos>,
    /// The newest answers that nobody asked for.
    unasked: std::collections::VecDeque<Unasked>,
    held: std::collections::VecDeque<Conflict>,
    /// MACs that passed on somebody else's request in their own name.
    relays: Vec<Mac>,
    bindings: Box<[Binding]>,
    requests: Box<[Request]>,
    found: Box<[Option<Found>]>,
}

impl Default for ArpWatch {
    fn default() -> Self {
        ArpWatch {
            came_in: Bounded::new(REQUESTS),
            asked: Bounded::new(REQUESTS),
            unasked: std::collections::VecDeque::with_capacity(UNASKED),
            held: std::collections::VecDeque::with_capacity(HELD),
            relays: Vec::with_capacity(RELAYS),
            bindings: vec![Binding::default(); BINDINGS].into_boxed_slice(),
            requests: vec![Request::default(); REQUESTS].into_boxed_slice(),
            found: vec![None; FINDINGS].into_boxed_slice(),
        }
    }
}

/// FNV-1a over the address, its segment and one more byte; addresses here are the local link's own.
fn place(addr: &Addr, segment: u32, with: u8, size: usize) -> usize {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for b in addr.0.iter().chain(&segment.to_le_bytes()).chain([&with]) {
        h = (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    }
    (h ^ h >> 32) as usize & (size - 1)
}

impl ArpWatch {
    /// Looks at one packet; `src_mac` is the Ethernet source.
    pub fn packet(&mut self, arp: &Arp, src_mac: Mac, at: ArpAt, out: &mut dyn FnMut(Anomaly)) {
        self.release(at.ts, out);
        // Several machines may answer for an anycast address, and a proxy for any.
        if arp.yields {
            return;
        }
        self.binding(arp, src_mac, at, out);
        if arp.request {
            self.request(arp, at);
        } else {
            self.answer(arp, at, out);
        }
    }

    /// Learns who has the sender's address, and whether that changed.
    fn binding(&mut self, arp: &Arp, src_mac: Mac, at: ArpAt, out: &mut dyn FnMut(Anomaly)) {
        let ArpAt { point, segment, ts, .. } = at;
        // Probes have no sender (RFC 5227); neighbour messages may carry no MAC.
        if arp.sender_ip == Addr::default() || arp.sender_ip == Addr::v4([0; 4]) || arp.sender_mac.is_zero() {
            return;
        }
        let b = &mut self.bindings[place(&arp.sender_ip, segment, point, BINDINGS)];
        let known = b.used && b.ip == arp.sender_ip && b.point == point && b.segment == segment;
        let now = Binding {
            used: true,
            ip: arp.sender_ip,
            point,
            segment,
            mac: arp.sender_mac,
            seen: ts,
            target: arp.target_ip,
            request: arp.request,
            ..Binding::default()
        };
        if !known {
            *b = now;
        } else if b.mac == arp.sender_mac {
            (b.seen, b.target, b.request) = (ts, arp.target_ip, arp.request);
        } else {
            let passed_on =
                b.target == arp.target_ip && b.request == arp.request && ts.since(b.seen) <= PASSED_ON_WITHIN;
            if passed_on {
                // Nobody but a bridge asks somebody else's question.
                if arp.request && !self.relays.contains(&arp.sender_mac) {
                    if self.relays.len() == RELAYS {
                        self.relays.remove(0);
                    }
                    self.relays.push(arp.sender_mac);
                }
                return;
            }
            let back = b.before == arp.sender_mac && ts.since(b.moved_at) <= FLAP_WITHIN;
            let (was, moved_at) = (b.mac, b.moved_at);
            *b = Binding { before: was, moved_at: ts, ..now };
            let kind = if back { Kind::AddressFlapping } else { Kind::AddressMoved };
            let first = if back { moved_at } else { ts };
            self.found(kind, arp.sender_ip, ts.since(first), [was, arp.sender_mac], &[point], at, out);
            return;
        }
        if !src_mac.is_zero() && src_mac != arp.sender_mac && !arp.ipv6 {
            self.found(Kind::ArpSpoofSign, arp.sender_ip, 0, [src_mac, arp.sender_mac], &[point], at, out);
        }
    }

    fn request(&mut self, arp: &Arp, ArpAt { point, segment, ts, .. }: ArpAt) {
        self.asked.put((arp.target_ip, segment), ts);
        let r = &mut self.requests[place(&arp.target_ip, segment, point, REQUESTS)];
        let here = r.used && r.point == point && r.segment == segment;
        let same = here && r.asked == arp.target_ip && r.asker == arp.sender_ip;
        if same && r.answers == 0 && ts.since(r.at) < ANSWER_WITHIN {
            r.times += 1;
        } else {
            *r = Request {
                used: true,
                asked: arp.target_ip,
                asker: arp.sender_ip,
                point,
                segment,
                at: ts,
                times: 1,
                ..Request::default()
            };
        }
    }

    fn answer(&mut self, arp: &Arp, at: ArpAt, out: &mut dyn FnMut(Anomaly)) {
        let ArpAt { point, segment, way, ts } = at;
        self.unasked(arp, at);
        if way == Way::Ingress && arp.solicited {
            let now = (point, arp.sender_mac, arp.target_ip, ts);
            let key = (arp.sender_ip, segment);
            if let Some((port, mac, asker, before)) = self.came_in.put(key, now)
                && port != point
                && asker == arp.target_ip
                && ts.since(before) <= PORTS_TOGETHER
                && self.asked.get(&key).is_none_or(|asked| *asked <= before)
            {
                let same = mac == arp.sender_mac;
                let kind = if same { Kind::ArpTwoAnswers } else { Kind::AddressConflict };
                let macs = [mac, arp.sender_mac];
                self.found(kind, arp.sender_ip, ts.since(before), macs, &[port, point], at, out);
                return;
            }
        }
        let r = &mut self.requests[place(&arp.sender_ip, segment, point, REQUESTS)];
        let mine = r.used && r.asked == arp.sender_ip && r.point == point && r.segment == segment;
        let mine = mine
            && match r.answers {
                0 => ts.since(r.at) <= ANSWER_WITHIN,
                _ => ts.since(r.first_answer) <= TOGETHER,
            };
        // Unsolicited (gratuitous ARP, an advertisement to all nodes) answers nobody.
        if !mine || !arp.solicited || (!arp.ipv6 && arp.target_ip != r.asker) {
            return;
        }
        r.answers += 1;
        if r.answers == 1 {
            (r.way, r.mac, r.first_answer) = (way, arp.sender_mac, ts);
            return;
        }
        // The same frame on its way in and on its way out is one answer.
        if r.way != way {
            r.answers -= 1;
            return;
        }
        let (kind, macs) = if r.mac != arp.sender_mac {
            (Kind::AddressConflict, [r.mac, arp.sender_mac])
        } else if r.answers > r.times {
            (Kind::ArpTwoAnswers, [r.mac, r.mac])
        } else {
            return;
        };
        let gap_ns = ts.since(r.first_answer);
        if kind == Kind::AddressConflict {
            if self.held.len() == HELD {
                self.tell(out);
            }
            self.held.push_back(Conflict { asked: arp.sender_ip, gap_ns, macs, at });
        } else {
            self.found(kind, arp.sender_ip, gap_ns, macs, &[point], at, out);
        }
    }

    /// Remembers an answer that nobody asked for, if the machine that it is sent to would be seen to ask here: other ARP packets
    /// of it were.
    fn unasked(&mut self, arp: &Arp, at: ArpAt) {
        let ArpAt { point, segment, ts, .. } = at;
        let r = &self.requests[place(&arp.sender_ip, segment, point, REQUESTS)];
        let asked = r.used
            && r.asked == arp.sender_ip
            && (r.point, r.segment) == (point, segment)
            && ts.since(r.at.max(r.first_answer)) <= ANSWER_WITHIN;
        let b = &self.bindings[place(&arp.target_ip, segment, point, BINDINGS)];
        let visible = b.used && b.ip == arp.target_ip && (b.point, b.segment) == (point, segment);
        if arp.ipv6 || !arp.solicited || asked || !visible {
            return;
        }
        if self.unasked.len() == UNASKED {
            self.unasked.pop_front();
        }
        let mac = arp.sender_mac;
        self.unasked.push_back(Unasked { claimed: arp.sender_ip, mac, at });
    }

    /// A flow's MAC changed: `arp_spoof_sign`, if it is the one that an answer claimed which nobody had asked for. A machine
    /// that takes over an address tells everybody; who tells one machine only means that one.
    pub fn flow_moved(&mut self, a: &Anomaly, out: &mut dyn FnMut(Anomaly)) {
        let is = |name: &str, mac: &Mac| {
            a.facts.iter().any(|(n, f)| *n == name && *f == Fact::Str(mac.to_string().into()))
        };
        let Some(before) = a.packets.iter().map(|p| p.src_mac).find(|m| is("before", m)) else { return };
        let claim = self.unasked.iter().rev().find(|u| {
            let lately = a.time.since(u.at.ts) <= OVERWRITES_WITHIN && u.at.ts <= a.time;
            is("after", &u.mac) && Some(u.at.point) == a.point && lately
        });
        if let Some(&Unasked { claimed, mac, at }) = claim {
            let (gap_ns, now) = (a.time.since(at.ts), ArpAt { ts: a.time, ..at });
            self.found(Kind::ArpSpoofSign, claimed, gap_ns, [before, mac], &[at.point], now, out);
        }
    }

    /// Tells the conflicts that waited long enough.
    pub fn release(&mut self, now: Nanos, out: &mut dyn FnMut(Anomaly)) {
        while self.held.front().is_some_and(|c| now.since(c.at.ts) >= HOLD) {
            self.tell(out);
        }
    }

    /// Tells the oldest conflict that waits, unless one of its two is a bridge.
    fn tell(&mut self, out: &mut dyn FnMut(Anomaly)) {
        let Some(c) = self.held.pop_front() else { return };
        if !c.macs.iter().any(|m| self.relays.contains(m)) {
            self.found(Kind::AddressConflict, c.asked, c.gap_ns, c.macs, &[c.at.point], c.at, out);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn found(
        &mut self,
        kind: Kind,
        asked: Addr,
        gap_ns: u64,
        macs: [Mac; 2],
        points: &[u8],
        at: ArpAt,
        out: &mut dyn FnMut(Anomaly),
    ) {
        let Some(&point) = points.last() else { return };
        let ArpAt { segment, way, ts, .. } = at;
        let slot = &mut self.found[place(&asked, segment, kind as u8, FINDINGS)];
        if slot.is_some_and(|f| (f.kind, f.asked, f.segment) != (kind, asked, segment))
            && let Some(old) = slot.take()
            && old.count > 0
        {
            out(old.anomaly());
        }
        let f = slot.get_or_insert(Found {
            kind,
            asked,
            segment,
            told: Nanos(0),
            first: ts,
            last: ts,
            count: 0,
            gap_ns,
            macs,
            points: [0; POINTS],
            npoints: 0,
            last_point: point,
            by_ports: false,
            way,
        });
        // Where the answers came in says more than where they went out.
        if f.by_ports && points.len() == 1 && ts.since(f.last) <= SAME_ANSWERS {
            return;
        }
        f.by_ports |= points.len() > 1;
        if f.count == 0 {
            f.first = ts;
        }
        f.count += 1;
        (f.last, f.gap_ns, f.macs, f.last_point, f.way) = (ts, gap_ns, macs, point, way);
        for point in points {
            if !f.points[..usize::from(f.npoints)].contains(point) && usize::from(f.npoints) < POINTS {
                f.points[usize::from(f.npoints)] = *point;
                f.npoints += 1;
            }
        }
        // The first at once, then one a minute with what came since.
        if f.told.0 == 0 || ts.since(f.told) >= TELL_EVERY {
            out(f.anomaly());
            f.told = ts;
            f.count = 0;
        }
    }

    /// What was counted and not told.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        while !self.held.is_empty() {
            self.tell(out);
        }
        for slot in &mut self.found {
            if let Some(f) = slot.take()
                && f.count > 0
            {
                out(f.anomaly());
            }
        }
    }
}

impl Found {
    fn anomaly(&self) -> Anomaly {
        let gap_us = self.gap_ns / 1_000;
        let times = if self.count == 1 { String::new() } else { format!(", {} times", self.count) };
        let conflict = self.kind == Kind::AddressConflict;
        let [a, b] = self.macs;
        let asked = self.asked;
        let summary = match self.kind {
            Kind::AddressConflict => format!(
                "{asked} is claimed by two machines, {a} and {b}: both answered one request, {gap_us} us apart{times}"
            ),
            Kind::AddressFlapping => format!(
                "{asked} went from {a} back to {b}, {:.1} s after it had left{times}: two machines claim it",
                self.gap_ns as f64 / 1e9
            ),
            Kind::AddressMoved => format!("{asked} moved from {a} to {b}{times}"),
            Kind::ArpSpoofSign if self.gap_ns > 0 => format!(
                "an answer that nobody asked for said that {asked} is at {b}, and {:.1} s later packets of connections came from there and no more from {a}{times}",
                self.gap_ns as f64 / 1e9
            ),
            Kind::ArpSpoofSign => format!("an ARP packet from {a} says that {asked} is at {b}{times}"),
            _ if self.count == 1 => format!(
                "a request for {asked} was answered twice with the same MAC {a}, {gap_us} us apart: two ports answer for it"
            ),
            _ => format!(
                "{} requests for {asked} were answered twice with the same MAC {a}, the last {gap_us} us apart: two ports answer for it",
                self.count
            ),
        };
        let severity = match self.kind {
            Kind::AddressConflict => Severity::Error,
            Kind::ArpSpoofSign if self.gap_ns > 0 => Severity::Warning,
            Kind::AddressMoved | Kind::ArpSpoofSign => Severity::Info,
            _ => Severity::Warning,
        };
        let span = self.last.since(self.first).max(TELL_EVERY) as f64 / 60e9;
        let mut facts = vec![
            ("request", Fact::Str(self.asked.to_string().into())),
            ("gap_us", Fact::U64(gap_us)),
            ("per_minute", Fact::F64((self.count as f64 / span * 10.0).round() / 10.0)),
        ];
        if self.kind != Kind::ArpTwoAnswers {
            let macs = self.macs.iter().map(|m| Fact::Str(m.to_string().into())).collect();
            facts.push(("macs", Fact::List(macs)));
        } else {
            facts.push(("mac", Fact::Str(self.macs[0].to_string().into())));
        }
        if self.kind == Kind::AddressFlapping {
            // Each time there and back.
            facts.push(("moves", Fact::U64(self.count * 2)));
        }
        let points =
            self.points[..usize::from(self.npoints)].iter().map(|p| Fact::U64((*p).into())).collect();
        facts.push(("interfaces", Fact::List(points)));
        facts.push(("last_interface", Fact::U64(self.last_point.into())));
        Anomaly {
            severity,
            verdict: Verdict::Network,
            certainty: if conflict { Certainty::Proven } else { Certainty::Likely },
            count: self.count,
            point: Some(self.last_point),
            way: self.way,
            vlan: Some((self.segment & 0x0fff) as u16).filter(|v| *v != 0),
            facts,
            ..Anomaly::new(self.kind, summary, self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests;
