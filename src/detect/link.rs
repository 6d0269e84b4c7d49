//! The link layer over several tap points: MAC addresses that change ports, next hops that change under flows, and what went
//! silent at the same time.

use super::bounded::Bounded;
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::{Digest, Tuple};
use crate::wire::{Addr, Mac, Nanos, Way};

/// MAC addresses, next hops and addresses remembered: those of one link.
const MACS: usize = 8_192;

/// A MAC that is back at its port within this time goes to and fro; slower, a machine was moved.
const BACK_WITHIN: u64 = 60 * Nanos::SEC;

/// One record a MAC in this time, with the moves since.
const TELL_EVERY: u64 = 60 * Nanos::SEC;

/// A next hop counts as in use for so long after a SYN went to it: an ARP entry's life without confirmation on Linux is shorter.
const HOP_IN_USE: u64 = 600 * Nanos::SEC;

/// What went silent within this time of a finding about its address belongs to it.
const TIED: u64 = 60 * Nanos::SEC;

#[derive(Clone, Copy, Debug)]
struct Place {
    point: u8,
    before: Option<(u8, Nanos)>,
    moves: u64,
    first: Nanos,
    told: Option<Nanos>,
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
    /// Flows that were counted, and when.
    told: Bounded<Tuple, Nanos>,
    /// Addresses with a finding of the link layer: the kind, and when.
    doubtful: Bounded<Addr, (Kind, Nanos)>,
}

impl Default for Links {
    fn default() -> Self {
        Links {
            macs: Bounded::new(MACS),
            hops: Bounded::new(MACS),
            silent: Bounded::new(MACS),
            told: Bounded::new(MACS),
            doubtful: Bounded::new(MACS),
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
        let fresh = Place { point, before: None, moves: 0, first: at, told: None };
        let p = self.macs.entry(mac, || fresh);
        if p.point == point {
            return;
        }
        if !alike(p.point, point) {
            *p = fresh;
            return;
        }
        let back = p.before.is_some_and(|(was, since)| was == point && at.since(since) <= BACK_WITHIN);
        let from = p.point;
        (p.before, p.point) = (Some((from, at)), point);
        p.moves += 1;
        if p.moves == 1 {
            p.first = at;
        }
        if !back || p.told.is_some_and(|t| at.since(t) < TELL_EVERY) {
            return;
        }
        let span = at.since(p.first).max(TELL_EVERY) as f64 / 60e9;
        let per_minute = (p.moves as f64 / span * 10.0).round() / 10.0;
        let summary = format!(
            "frames from {mac} come in at two ports in turn, {} moves so far: two machines use that address, or the link has a loop",
            p.moves
        );
        let facts = vec![
            ("mac", Fact::Str(mac.to_string().into())),
            ("interfaces", Fact::List(vec![Fact::U64(from.into()), Fact::U64(point.into())])),
            ("moves", Fact::U64(p.moves)),
            ("per_minute", Fact::F64(per_minute)),
        ];
        let first = p.first;
        (p.told, p.moves) = (Some(at), 0);
        out(Anomaly {
            kind: Kind::MacMoved,
            severity: Severity::Warning,
            verdict: Verdict::Network,
            certainty: Certainty::Likely,
            summary,
            time: at,
            first,
            last: at,
            count: 1,
            point: Some(point),
            way,
            tuple: None,
            vlan: None,
            tunnel: None,
            history: String::new(),
            conn_state: "",
            facts,
            packets: Vec::new(),
        });
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
        if a.kind == Kind::AddressMoved {
            self.next_hop(a);
        }
        let doubtful = matches!(
            a.kind,
            Kind::ArpTwoAnswers | Kind::AddressConflict | Kind::AddressFlapping | Kind::NextHopChanged
        );
        let Some(address) = address.filter(|_| doubtful) else { return };
        self.doubtful.put(address, (a.kind, a.time));
        let silent = self.silent.get(&address).filter(|s| a.time.since(s.last) <= TIED);
        let flows = silent.map_or(0, |s| s.flows);
        a.facts.push(("silent_flows", Fact::U64(flows)));
        if flows > 0 {
            a.severity = Severity::Error;
            a.summary.push_str(&format!(
                "; {} to {address} got no answer meanwhile",
                if flows == 1 { "a connection".to_owned() } else { format!("{flows} connections") }
            ));
        }
    }

    fn next_hop(&self, a: &mut Anomaly) {
        let Some(point) = a.point else { return };
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
        let [before, after] = macs.as_slice() else { return };
        let Some(mac) = parse_mac(before) else { return };
        let Some(&(flows, last)) = self.hops.get(&(point, mac)) else { return };
        if a.time.since(last) > HOP_IN_USE {
            return;
        }
        a.kind = Kind::NextHopChanged;
        a.severity = Severity::Warning;
        let of = if flows == 1 { "a connection".to_owned() } else { format!("{flows} connections") };
        a.summary = format!(
            "the next hop of {of} changed its MAC address from {before} to {after}: what is still sent to the old one is lost"
        );
        a.facts.push(("before", Fact::Str(before.clone().into())));
        a.facts.push(("after", Fact::Str(after.clone().into())));
        a.facts.push(("flows", Fact::U64(flows)));
    }

    /// Looks at a flow that went silent: a finding about the address that it wanted may be why.
    pub fn silence(&mut self, a: &mut Anomaly) {
        if !matches!(a.kind, Kind::SynUnanswered | Kind::BlackHole) {
            return;
        }
        let Some(tuple) = a.tuple else { return };
        let address = tuple.dst.addr;
        // Two tap points that its packets pass tell of one flow.
        let told = self.told.put(tuple, a.time).is_some_and(|at| a.time.since(at) <= TIED);
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
