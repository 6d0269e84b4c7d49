//! The link layer over several tap points: MAC addresses that change ports, next hops that change under flows, and what went
//! silent at the same time.

use super::bounded::Bounded;
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::{Digest, Tuple};
use crate::wire::{Addr, IfName, Mac, Nanos, Way};

/// MAC addresses, next hops and addresses remembered: those of one link.
const MACS: usize = 8_192;

/// A MAC that is back at its port within this time goes to and fro; slower, a machine was moved.
const BACK_WITHIN: u64 = 60 * Nanos::SEC;

/// One record a MAC in this time, with the moves since.
const TELL_EVERY: u64 = 60 * Nanos::SEC;

/// A next hop counts as in use for so long after a SYN went to it: an ARP entry's life without confirmation on Linux is shorter.
const HOP_IN_USE: u64 = 600 * Nanos::SEC;

/// A bridge's word of a move that frames have shown comes within this time.
const SHOWN: u64 = Nanos::SEC;

/// Changes of a next hop remembered.
const CHANGED: usize = 256;

/// What went silent within this time of a finding about its address belongs to it.
const TIED: u64 = 60 * Nanos::SEC;

/// A port that leaves or joins a bridge changes its MAC address in the same moment; the kernel's two messages are read one after the other.
const PORT_WITHIN: u64 = Nanos::SEC;

/// A port that has left or joined a bridge.
#[derive(Clone, Copy, Debug)]
struct Port {
    name: IfName,
    left: bool,
    at: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    point: u8,
    before: Option<(u8, Nanos)>,
    moves: u64,
    first: Nanos,
    told: Option<Nanos>,
    /// The newest move that frames showed.
    by_frame: Option<Nanos>,
}

impl Place {
    fn at(point: u8, at: Nanos) -> Place {
        Place { point, before: None, moves: 0, first: at, told: None, by_frame: None }
    }

    /// Goes to another port; told if it was there before.
    fn moved(&mut self, mac: Mac, point: u8, way: Way, at: Nanos, out: &mut dyn FnMut(Anomaly)) {
        let back = self.before.is_some_and(|(was, since)| was == point && at.since(since) <= BACK_WITHIN);
        let from = self.point;
        (self.before, self.point) = (Some((from, at)), point);
        self.moves += 1;
        if self.moves == 1 {
            self.first = at;
        }
        if !back || self.told.is_some_and(|t| at.since(t) < TELL_EVERY) {
            return;
        }
        let span = at.since(self.first).max(TELL_EVERY) as f64 / 60e9;
        let per_minute = (self.moves as f64 / span * 10.0).round() / 10.0;
        let summary = format!(
            "frames from {mac} come in at two ports in turn, {} moves so far: two machines use that address, something answers in its owner's name, or the link has a loop",
            self.moves
        );
        let facts = vec![
            ("mac", Fact::Str(mac.to_string().into())),
            ("interfaces", Fact::List(vec![Fact::U64(from.into()), Fact::U64(point.into())])),
            ("moves", Fact::U64(self.moves)),
            ("per_minute", Fact::F64(per_minute)),
        ];
        let first = self.first;
        (self.told, self.moves) = (Some(at), 0);
        out(Anomaly {
            severity: Severity::Warning,
            verdict: Verdict::Network,
            certainty: Certainty::Likely,
            point: Some(point),
            way,
            facts,
            ..Anomaly::new(Kind::MacMoved, summary, first, at)
        });
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Silent {
    flows: u64,
    last: Nanos,
}

/// See the module.
#[derive(Debug)]
pub struct Links {
    macs: Bounded<Mac, Place>,
    /// SYNs that went to a next hop, by tap point.
    hops: Bounded<(u8, Mac), (u64, Nanos)>,
    /// Flows without an answer, by the address that they wanted.
    silent: Bounded<Addr, Silent>,
    /// Flows that were counted as silent, and when.
    counted: Bounded<Tuple, Nanos>,
    /// Addresses with a finding of the link layer: the kind, and when.
    doubtful: Bounded<Addr, (Kind, Nanos)>,
    /// Next hops whose change from one MAC to another was told: when, and whether by the kernel's word.
    changed: Bounded<(Mac, Mac), (Nanos, bool)>,
    /// The newest port that left or joined the bridge of a tap point.
    ports: Bounded<u8, Port>,
}

impl Default for Links {
    fn default() -> Self {
        Links {
            macs: Bounded::new(MACS),
            hops: Bounded::new(MACS),
            silent: Bounded::new(MACS),
            counted: Bounded::new(MACS),
            doubtful: Bounded::new(MACS),
            changed: Bounded::new(CHANGED),
            ports: Bounded::new(256),
        }
    }
}

impl Links {
    /// A frame came in at a tap point. `alike` says whether two tap points can be ports of one link: the inside and the outside
    /// of a gateway are not.
    pub fn came(
        &mut self,
        mac: Mac,
        point: u8,
        way: Way,
        at: Nanos,
        alike: &dyn Fn(u8, u8) -> bool,
        out: &mut dyn FnMut(Anomaly),
    ) {
        // What a bridge sends out of a port came in at another one.
        if way != Way::Ingress || mac.is_zero() {
            return;
        }
        let fresh = Place::at(point, at);
        let p = self.macs.entry(mac, || fresh);
        if p.point == point {
            return;
        }
        if !alike(p.point, point) {
            *p = fresh;
            return;
        }
        p.by_frame = Some(at);
        p.moved(mac, point, way, at, out);
    }

    /// A bridge learned a MAC at another port: from, to.
    pub fn learned(
        &mut self,
        mac: Mac,
        [from, to]: [u8; 2],
        at: Nanos,
        alike: &dyn Fn(u8, u8) -> bool,
        out: &mut dyn FnMut(Anomaly),
    ) {
        let p = self.macs.entry(mac, || Place::at(from, at));
        // The bridge's word comes after the frame's: where frames show the moves, they are counted once.
        let shown = p.by_frame.is_some_and(|t| at.since(t) <= SHOWN);
        if p.point == to || shown || !alike(p.point, to) {
            return;
        }
        p.moved(mac, to, Way::Ingress, at, out);
    }

    /// The kernel says that an interface of this machine at a tap point, or the bridge over it, has another MAC: before, after.
    pub fn changed(&mut self, point: u8, [before, after]: [Mac; 2], at: Nanos, out: &mut dyn FnMut(Anomaly)) {
        let Some(&(flows, last)) = self.hops.get(&(point, before)) else { return };
        if at.since(last) > HOP_IN_USE || self.told(before, after, at).is_some() {
            return;
        }
        self.changed.put((before, after), (at, true));
        let port = self.ports.get(&point).filter(|p| at.since(p.at) <= PORT_WITHIN);
        let why = match port {
            Some(Port { name, left: true, .. }) => format!(" as its port {name} left it"),
            Some(Port { name, left: false, .. }) => format!(" as {name} became a port of it"),
            None => String::new(),
        };
        let summary = format!(
            "the next hop of {} is this machine, which changed its MAC address from {before} to {after}{why}: what is still sent to the old one does not come to it as to a gateway: it is lost, or goes a bridge's own way",
            connections(flows)
        );
        let facts = vec![
            ("before", Fact::Str(before.to_string().into())),
            ("after", Fact::Str(after.to_string().into())),
            ("flows", Fact::U64(flows)),
            ("port", port.map_or(Fact::Null, |p| Fact::Str(p.name.to_string().into()))),
            ("port_left", port.map_or(Fact::Null, |p| Fact::Bool(p.left))),
        ];
        out(Anomaly {
            severity: Severity::Warning,
            verdict: Verdict::Gateway,
            point: Some(point),
            facts,
            ..Anomaly::new(Kind::NextHopChanged, summary, at, at)
        });
    }

    /// A port has left or joined the bridge of a tap point.
    pub fn port(&mut self, point: u8, name: IfName, left: bool, at: Nanos) {
        self.ports.put(point, Port { name, left, at });
    }

    /// Whether a change was told lately, and by the kernel's word or ARP's.
    fn told(&self, before: Mac, after: Mac, at: Nanos) -> Option<bool> {
        self.changed.get(&(before, after)).filter(|(t, _)| at.since(*t) <= TIED).map(|(_, kernel)| *kernel)
    }

    /// A SYN: its next hop is in use.
    pub fn syn(&mut self, d: &Digest) {
        if !d.dst_mac.is_zero() {
            let hop = self.hops.entry((d.point, d.dst_mac), || (0, d.ts));
            *hop = (hop.0 + 1, d.ts);
        }
    }

    /// Looks at a finding about an address of the link: a move of a next hop that flows use is more than a move, and flows that
    /// went silent with it make it an outage.
    pub fn finding(&mut self, a: &mut Anomaly) {
        let text = |name: &str| {
            a.facts.iter().find_map(|(n, f)| match f {
                Fact::Str(s) if *n == name => Some(s.to_string()),
                _ => None,
            })
        };
        let address = text("request").and_then(|t| t.parse::<std::net::IpAddr>().ok()).map(Addr::from);
        let told = a.kind == Kind::AddressMoved && self.next_hop(a);
        let doubtful = matches!(
            a.kind,
            Kind::ArpTwoAnswers | Kind::AddressConflict | Kind::AddressFlapping | Kind::NextHopChanged
        );
        if let Some(address) = address.filter(|_| told) {
            self.doubtful.put(address, (Kind::NextHopChanged, a.time));
        }
        let Some(address) = address.filter(|_| doubtful) else { return };
        self.doubtful.put(address, (a.kind, a.time));
        let silent = self.silent.get(&address).filter(|s| a.time.since(s.last) <= TIED);
        let flows = silent.map_or(0, |s| s.flows);
        a.facts.push(("silent_flows", Fact::U64(flows)));
        if flows > 0 {
            a.severity = Severity::Error;
            a.summary.push_str(&format!("; {} to {address} got no answer meanwhile", connections(flows)));
        }
    }

    /// True if it is a change that was told already: then it stays what it is.
    fn next_hop(&mut self, a: &mut Anomaly) -> bool {
        let Some(point) = a.point else { return false };
        let macs: Vec<String> = a
            .facts
            .iter()
            .filter_map(|(n, f)| match f {
                Fact::List(l) if *n == "macs" => Some(l),
                _ => None,
            })
            .flatten()
            .map(|f| if let Fact::Str(s) = f { s.to_string() } else { String::new() })
            .collect();
        let [before, after] = macs.as_slice() else { return false };
        let Some(mac) = parse_mac(before) else { return false };
        let Some(&(flows, last)) = self.hops.get(&(point, mac)) else { return false };
        if a.time.since(last) > HOP_IN_USE {
            return false;
        }
        if let Some(after) = parse_mac(after) {
            // ARP tells of each address that the next hop has.
            if self.told(mac, after, a.time) == Some(true) {
                return true;
            }
            self.changed.put((mac, after), (a.time, false));
        }
        a.kind = Kind::NextHopChanged;
        a.severity = Severity::Warning;
        let of = connections(flows);
        a.summary = format!(
            "the next hop of {of} changed its MAC address from {before} to {after}: what is still sent to the old one is lost"
        );
        a.facts.push(("before", Fact::Str(before.clone().into())));
        a.facts.push(("after", Fact::Str(after.clone().into())));
        a.facts.push(("flows", Fact::U64(flows)));
        false
    }

    /// Looks at a flow that went silent: a finding about the address that it wanted may be why.
    pub fn silence(&mut self, a: &mut Anomaly) {
        if !matches!(a.kind, Kind::SynUnanswered | Kind::BlackHole) {
            return;
        }
        let Some(tuple) = a.tuple else { return };
        let address = tuple.dst.addr;
        // Two tap points that its packets pass tell of one flow.
        let told = self.counted.put(tuple, a.time).is_some_and(|at| a.time.since(at) <= TIED);
        let s = self.silent.entry(address, Silent::default);
        let before = if a.time.since(s.last) > TIED { 0 } else { s.flows };
        s.flows = before + u64::from(!told);
        s.last = s.last.max(a.time);
        let found =
            self.doubtful.get(&address).filter(|(_, at)| a.time.since(*at).max(at.since(a.time)) <= TIED);
        if let Some((kind, _)) = found {
            a.facts.push(("link", Fact::Str(kind.name().into())));
            a.summary.push_str(&format!("; see {} of {address} at that time", kind.name()));
        }
    }
}

fn connections(n: u64) -> String {
    if n == 1 { "a connection".to_owned() } else { format!("{n} connections") }
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut out = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut out {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: Mac = Mac([2, 0, 0, 0, 0, 3]);

    fn run(steps: &[(u64, u8, Way)], alike: bool) -> Vec<Anomaly> {
        let (mut l, mut out) = (Links::default(), Vec::new());
        for (s, point, way) in steps {
            l.came(M, *point, *way, Nanos((100 + s) * Nanos::SEC), &|_, _| alike, &mut |a| out.push(a));
        }
        out
    }

    const AFTER: Mac = Mac([2, 0, 0, 0, 0, 4]);

    fn at(s: u64) -> Nanos {
        Nanos((100 + s) * Nanos::SEC)
    }

    /// A next hop that a SYN went to.
    fn in_use() -> Links {
        let mut l = Links::default();
        l.syn(&Digest { ts: at(0), point: 1, dst_mac: M, ..Digest::default() });
        l
    }

    /// What ARP shows of the same change.
    fn arp() -> Anomaly {
        let mut made = Vec::new();
        in_use().changed(1, [M, AFTER], at(2), &mut |a| made.push(a));
        let mut a = made.remove(0);
        let text = |t: String| Fact::Str(t.into());
        (a.kind, a.severity) = (Kind::AddressMoved, Severity::Info);
        a.facts = vec![
            ("request", text("10.9.0.1".into())),
            ("macs", Fact::List(vec![text(M.to_string()), text(AFTER.to_string())])),
        ];
        a
    }

    #[test]
    fn a_next_hop_of_this_machine_that_changes_is_told_once_whoever_says_it() {
        let mut l = in_use();
        let mut out = Vec::new();
        // Of another tap point's bridge.
        l.port(0, "eth7".into(), true, at(2));
        for (s, point, macs) in
            [(1, 0, [M, AFTER]), (1, 1, [AFTER, M]), (1, 1, [M, AFTER]), (2, 1, [M, AFTER])]
        {
            l.changed(point, macs, at(s), &mut |a| out.push(a));
        }
        assert_eq!(out.len(), 1, "only one that is in use, and once: {out:?}");
        assert_eq!((out[0].kind, out[0].verdict), (Kind::NextHopChanged, Verdict::Gateway));
        let text = |m: Mac| Fact::Str(m.to_string().into());
        let mut facts = vec![("before", text(M)), ("after", text(AFTER)), ("flows", Fact::U64(1))];
        facts.extend([("port", Fact::Null), ("port_left", Fact::Null)]);
        assert_eq!(out[0].facts, facts);
        let mut a = arp();
        l.finding(&mut a);
        assert_eq!((a.kind, a.severity), (Kind::AddressMoved, Severity::Info), "told before");
        l.changed(1, [M, AFTER], at(700), &mut |a| out.push(a));
        assert_eq!(out.len(), 1, "not in use any more");

        let (mut l, mut a) = (in_use(), arp());
        l.finding(&mut a);
        assert_eq!(a.kind, Kind::NextHopChanged);
        l.changed(1, [M, AFTER], at(3), &mut |_| panic!("ARP had shown it"));
    }

    #[test]
    fn the_port_that_a_bridge_lost_in_that_moment_is_named() {
        for (since_ms, named) in [(0, true), (900, true), (1_100, false)] {
            let (mut l, mut out) = (in_use(), Vec::new());
            l.port(1, "veth12".into(), true, Nanos(at(2).0 - since_ms * Nanos::MS));
            l.changed(1, [M, AFTER], at(2), &mut |a| out.push(a));
            assert_eq!(out[0].summary.contains("as its port veth12 left it"), named, "{}", out[0].summary);
            assert_eq!(out[0].facts[4].1 == Fact::Bool(true), named);
        }
    }

    #[test]
    fn a_mac_that_a_bridge_learns_to_and_fro_is_told_and_not_twice() {
        let learned = |l: &mut Links, steps: &[(u64, u8, u8)], alike: bool| {
            let mut out = Vec::new();
            for (s, from, to) in steps {
                l.learned(M, [*from, *to], at(*s), &|_, _| alike, &mut |a| out.push(a));
            }
            out
        };
        let to_and_fro = [(0, 0, 1), (2, 1, 0), (4, 0, 1), (6, 1, 0)];
        let told = learned(&mut Links::default(), &to_and_fro, true);
        assert_eq!(told.len(), 1, "once a minute");
        assert_eq!(told[0].kind, Kind::MacMoved);
        assert!(learned(&mut Links::default(), &to_and_fro, false).is_empty(), "two links");
        assert!(learned(&mut Links::default(), &[(0, 0, 1), (90, 1, 0)], true).is_empty(), "much later");

        let (mut l, mut out) = (Links::default(), Vec::new());
        for (s, point) in [(0, 0), (1, 1), (2, 0)] {
            l.came(M, point, Way::Ingress, at(s), &|_, _| true, &mut |a| out.push(a));
        }
        assert_eq!(out.len(), 1);
        assert!(learned(&mut l, &[(2, 0, 1), (2, 1, 0), (10, 0, 1), (12, 1, 0)], true).is_empty());
    }

    #[test]
    fn a_mac_that_goes_to_and_fro_between_ports_is_told_and_one_that_moved_once_is_not() {
        let i = Way::Ingress;
        let told = run(&[(0, 0, i), (1, 1, i), (2, 0, i), (3, 1, i), (4, 0, i)], true);
        assert_eq!(told.len(), 1, "once a minute");
        assert_eq!(told[0].kind, Kind::MacMoved);
        assert!(run(&[(0, 0, i), (1, 1, i), (9, 1, i)], true).is_empty());
        assert!(run(&[(0, 0, i), (1, 1, i), (90, 0, i)], true).is_empty(), "moved, and much later back");
        assert!(run(&[(0, 0, i), (1, 1, Way::Egress), (2, 0, i)], true).is_empty(), "a bridge passes it on");
        assert!(run(&[(0, 0, i), (1, 1, i), (2, 0, i)], false).is_empty(), "two links");
    }
}
