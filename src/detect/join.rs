//! Inside and outside of a gateway, joined: which packet there is which packet here.
//!
//! A translation changes addresses and ports and leaves the initial sequence number alone, so a SYN is looked for under its ISN
//! (32 bits) on the other side, within [`CROSS_WITHIN`], and must agree in all that a gateway does not change: payload, window,
//! timestamp, window scale, and in one end of its tuple (source NAT keeps the responder, destination NAT the originator, both at
//! once keep the window). At 100,000 SYNs a second a chance match of the ISN alone comes once in 860,000 SYNs; with the rest
//! agreeing too, never in practice.
//!
//! Routing keeps the tuple, and is joined the same way. A device that answers for the responder, or that rewrites sequence numbers,
//! cannot be joined: that is said (`nat_not_stitchable`), and nothing is concluded from what did not cross.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use smallvec::SmallVec;

use super::bounded::Bounded;
use super::sight::Seen;
use crate::flow::{Digest, Endpoint, Tuple};
use crate::wire::{Addr, Nanos, Seq, Way};

/// How long a gateway can hold a SYN: 6 to 18 us at the median, 862 us at most were measured; a queue that is full holds it for
/// milliseconds, and 50 ms are far below the shortest retransmission timeout.
pub const CROSS_WITHIN: u64 = 50 * Nanos::MS;

/// SYNs remembered: twelve seconds of 20,000 a second. Beyond that the oldest are forgotten, and their records have no `nat`.
const CROSSINGS: usize = 1 << 18;

/// Tuples whose other side is remembered.
const TUPLES: usize = 1 << 18;

/// SYNs of one attempt that are told apart.
const TRIES: usize = 8;

/// Crossings of one ISN at the same time.
const SAME_ISN: usize = 4;

/// Two SYNs to one responder from one source port within this time race for one outside port (rule 2: 4 us were measured, and 100 us
/// later none was lost).
pub const RIVAL_WITHIN: u64 = 100_000;

/// What a tap point is to the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing in particular.
    #[default]
    None,
    /// The side of the clients.
    Inside,
    /// The side of the Internet.
    Outside,
}

impl Role {
    /// From the word on the command line.
    pub fn from_name(name: Option<&str>) -> Role {
        match name {
            Some("inside") => Role::Inside,
            Some("outside") => Role::Outside,
            _ => Role::None,
        }
    }

    fn side(self) -> Option<usize> {
        match self {
            Role::Inside => Some(0),
            Role::Outside => Some(1),
            Role::None => None,
        }
    }
}

/// One SYN of an attempt: when it was seen inside and outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Try {
    /// By side: inside, outside.
    pub at: [Option<Nanos>; 2],
    /// The tap point where it was seen.
    points: [u8; 2],
}

/// An attempt to open, on both sides.
#[derive(Clone, Debug)]
pub struct Crossing {
    /// Its ISN.
    pub isn: Seq,
    /// Its tuple by side, originator to responder; the newest, if the gateway gave it several.
    pub tuples: [Option<Tuple>; 2],
    /// All tuples it had outside, newest last.
    pub outsides: SmallVec<[Given; 1]>,
    like: Like,
    /// Its SYNs.
    pub tries: SmallVec<[Try; 1]>,
    /// When its SYN-ACK was first seen, by side.
    pub syn_ack: [Option<Nanos>; 2],
    /// The side it came from: 0 inside, 1 outside.
    pub from: usize,
}

impl Crossing {
    /// True if it had this tuple outside.
    pub fn had(&self, outside: &Tuple) -> bool {
        self.outsides.iter().any(|g| g.outside == *outside)
    }
}

/// A tuple outside that the gateway gave to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The tuple.
    pub outside: Tuple,
    /// Whose it was before, inside, if it was another's. It may be somebody else's again by now.
    pub before: Option<Tuple>,
}

/// What a gateway does not change in a SYN. It may lower the MSS, and takes one from the TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Like {
    tsval: Option<u32>,
    win: u16,
    wscale: u8,
    len: u32,
}

impl Like {
    fn of(d: &Digest) -> Like {
        Like { tsval: d.has_ts.then_some(d.tsval), win: d.win, wscale: d.wscale, len: d.len }
    }

    /// True if `d` can be this SYN, or the same one sent again: a later timestamp.
    fn fits(&self, d: &Digest) -> bool {
        let other = Like::of(d);
        let ts = match (self.tsval, other.tsval) {
            (Some(a), Some(b)) => b.wrapping_sub(a) as i32 >= 0,
            (a, b) => a == b,
        };
        ts && (self.win, self.wscale, self.len) == (other.win, other.wscale, other.len)
    }
}

/// Whose a tuple outside is.
#[derive(Clone, Copy, Debug)]
struct Owner {
    /// The tuple inside.
    inside: Tuple,
    /// Another one that had it before.
    before: Option<Tuple>,
}

/// A SYN that crossed to a responder from a source port.
#[derive(Clone, Copy, Debug)]
struct Recent {
    isn: Seq,
    at: Nanos,
}

/// What is in use towards one responder.
#[derive(Debug, Default)]
struct Pool {
    /// Outside ports and their last SYN.
    ports: HashMap<u16, Nanos, foldhash::quality::RandomState>,
    /// When a port was last used that was not in use before.
    fresh: Nanos,
}

/// A tuple in use: NATs keep a closed one for two minutes (`nf_conntrack_tcp_timeout_time_wait`).
const IN_USE: u64 = 120 * Nanos::SEC;

/// Responders whose ports are remembered.
const POOLS: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Join {
    roles: Vec<Role>,
    /// Nearly all ISNs have one, which stands in the map itself: those of the last moments lie side by side.
    crossings: Bounded<Seq, SmallVec<[Crossing; 1]>>,
    /// The newest ISN of a tuple, by side.
    isns: [Bounded<Tuple, Seq>; 2],
    owners: Bounded<Tuple, Owner>,
    recent: Bounded<(Endpoint, u16), SmallVec<[Recent; 1]>>,
    pools: Bounded<Endpoint, Pool>,
    /// How long the gateway held a SYN, us.
    pub held: Histogram<u32>,
    /// SYNs that crossed.
    pub crossed: u64,
    /// Responders: SYNs from inside that crossed to them, and that did not and were answered all the same.
    responders: Bounded<Endpoint, Responder>,
    /// Addresses that answered without.
    without: Vec<Addr>,
    /// Addresses of responders to which SYNs crossed.
    reached: Bounded<Addr, ()>,
    /// When the first SYN crossed.
    crosses_since: Option<Nanos>,
    /// The newest SYN from inside to a responder, and when that was answered.
    asked: Bounded<Endpoint, (Nanos, Option<Nanos>)>,
    /// SYNs that left under a number of their own: at once after one from inside, or after that was answered.
    rewritten: u64,
    after_answer: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Responder {
    crossed: u32,
    without: u32,
}

/// A SYN that the gateway lost, and who went through instead.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// Its tuple inside.
    pub inside: Tuple,
    /// Its tuple outside.
    pub outside: Tuple,
    /// Time between the two, ns.
    pub gap_ns: u64,
}

impl Join {
    /// For tap points with these roles.
    pub fn new(roles: Vec<Role>) -> Join {
        let held = Histogram::new_with_bounds(1, 60_000_000, 2);
        Join {
            roles,
            crossings: Bounded::new(CROSSINGS),
            isns: [Bounded::new(TUPLES), Bounded::new(TUPLES)],
            owners: Bounded::new(TUPLES),
            recent: Bounded::new(TUPLES),
            pools: Bounded::new(POOLS),
            held: held.unwrap_or_else(|_| unreachable!("constant bounds")),
            crossed: 0,
            responders: Bounded::new(TUPLES),
            without: Vec::new(),
            reached: Bounded::new(TUPLES),
            crosses_since: None,
            asked: Bounded::new(POOLS),
            rewritten: 0,
            after_answer: 0,
        }
    }

    /// True if both sides are tapped.
    pub fn has_both(&self) -> bool {
        self.roles.contains(&Role::Inside) && self.roles.contains(&Role::Outside)
    }

    /// What a tap point is.
    pub fn role(&self, point: u8) -> Role {
        self.roles.get(usize::from(point)).copied().unwrap_or_default()
    }

    /// The first tap point with this role.
    pub fn point_of(&self, role: Role) -> Option<u8> {
        self.roles.iter().position(|r| *r == role).map(|n| n as u8)
    }

    /// The side of a tap point: 0 inside, 1 outside.
    pub fn side(&self, point: u8) -> Option<usize> {
        self.has_both().then_some(())?;
        self.roles.get(usize::from(point))?.side()
    }

    /// A SYN.
    pub fn syn(&mut self, seen: &Seen) {
        let d = &seen.digest;
        let Some(side) = self.side(d.point) else { return };
        let other = 1 - side;
        let (isn, at, tuple) = (d.seq, d.ts, seen.tuple);
        let list = self.crossings.entry(isn, SmallVec::new);
        // The other side's newest SYN, not seen here yet, a moment ago.
        let waits = |c: &Crossing| {
            c.tries.last().is_some_and(|t| {
                t.at[side].is_none() && t.at[other].is_some_and(|o| at.since(o) <= CROSS_WITHIN && o <= at)
            })
        };
        let kept = |c: &Crossing| {
            let o = c.tuples[other];
            c.tuples[side] == Some(tuple)
                || o.is_some_and(|o| o.dst == tuple.dst || o.src == tuple.src)
                || o.is_none()
        };
        let found = list
            .iter()
            .position(|c| waits(c) && c.like.fits(d) && kept(c))
            // Both ends translated: only the numbers are left.
            .or_else(|| list.iter().position(|c| waits(c) && c.like == Like::of(d)))
            .or_else(|| list.iter().position(|c| c.tuples[side] == Some(tuple) && c.like.fits(d)));
        let own_number = found.is_none() && side == 1 && d.way != Way::Ingress;
        let n = found.unwrap_or_else(|| {
            if list.len() == SAME_ISN {
                list.remove(0);
            }
            list.push(Crossing {
                isn,
                tuples: [None; 2],
                outsides: SmallVec::new(),
                like: Like::of(d),
                tries: SmallVec::new(),
                syn_ack: [None; 2],
                from: side,
            });
            list.len() - 1
        });
        let c = &mut list[n];
        c.like = Like::of(d);
        let crosses = waits(c);
        // Two tap points of one side see one SYN; the same SYN again at the same one was sent again.
        let passes =
            |t: &Try| t.at[side].is_some_and(|x| at.since(x) <= CROSS_WITHIN) && t.points[side] != d.point;
        if c.tries.last().is_some_and(passes) {
            return;
        }
        c.tuples[side] = Some(tuple);
        if side == 1 && c.outsides.last().is_none_or(|g| g.outside != tuple) {
            if c.outsides.len() == TRIES {
                c.outsides.remove(0);
            }
            c.outsides.push(Given { outside: tuple, before: None });
        }
        let crossing_ns = match c.tries.last_mut().filter(|_| crosses) {
            Some(t) => {
                (t.at[side], t.points[side]) = (Some(at), d.point);
                t.at[other].map(|o| at.since(o))
            }
            None => {
                if c.tries.len() == TRIES {
                    c.tries.remove(1);
                }
                let mut t = Try::default();
                (t.at[side], t.points[side]) = (Some(at), d.point);
                c.tries.push(t);
                None
            }
        };
        let (tuples, outbound) = (c.tuples, c.from == 0);
        self.isns[side].put(tuple, isn);
        if let Some(ns) = crossing_ns {
            self.crossed += 1;
            self.held.saturating_record((ns / 1_000).max(1));
        }
        if own_number && let Some((asked, answered)) = self.asked.get(&tuple.dst) {
            let soon = |t: Nanos| at.since(t) <= CROSS_WITHIN && t <= at;
            self.after_answer += u64::from(answered.is_some_and(soon));
            self.rewritten += u64::from(answered.is_none() && soon(*asked));
        }
        if side == 0 && outbound {
            self.asked.put(tuple.dst, (at, None));
            let list = self.recent.entry((tuple.dst, tuple.src.port), SmallVec::new);
            if list.len() == SAME_ISN {
                list.remove(0);
            }
            list.push(Recent { isn, at });
        }
        if let [Some(inside), Some(outside)] = tuples
            && crossing_ns.is_some()
        {
            self.crosses_since.get_or_insert(at);
            if outbound {
                self.reached.put(inside.dst.addr, ());
            }
            let before = self.owns(inside, outside, at, outbound);
            let c = self.crossings.get_mut(&isn).and_then(|list| list.get_mut(n));
            if let Some(given) = c.and_then(|c| c.outsides.last_mut()).filter(|g| g.outside == outside) {
                given.before = before;
            }
        }
    }

    /// Whose the tuple was before, if it was another's.
    fn owns(&mut self, inside: Tuple, outside: Tuple, at: Nanos, outbound: bool) -> Option<Tuple> {
        let owner = self.owners.entry(outside, || Owner { inside, before: None });
        if owner.inside != inside {
            *owner = Owner { inside, before: Some(owner.inside) };
        }
        let before = owner.before;
        if outbound {
            self.responders.entry(inside.dst, Responder::default).crossed += 1;
            let pool = self.pools.entry(outside.dst, Pool::default);
            let used = pool.ports.insert(outside.src.port, at);
            if used.is_none_or(|u| at.since(u) > IN_USE) {
                pool.fresh = at;
            }
        }
        before
    }

    /// A SYN-ACK.
    pub fn syn_ack(&mut self, seen: &Seen) {
        let d = &seen.digest;
        let Some(side) = self.side(d.point) else { return };
        let isn = Seq(d.ack.0.wrapping_sub(1));
        let Some(list) = self.crossings.get_mut(&isn) else { return };
        let Some(c) = list.iter_mut().find(|c| c.tuples[side] == Some(seen.tuple)) else { return };
        if c.syn_ack[side].is_none() {
            c.syn_ack[side] = Some(d.ts);
            let never_left = c.tries.iter().all(|t| t.at[1].is_none());
            if side == 0 && c.from == 0 && never_left {
                let at = seen.tuple.dst;
                if let Some(asked) = self.asked.get_mut(&at) {
                    asked.1.get_or_insert(d.ts);
                }
                self.responders.entry(at, Responder::default).without += 1;
                if self.without.len() < PROXIED && !self.without.contains(&at.addr) {
                    self.without.push(at.addr);
                }
            }
        }
    }

    /// The crossing of a tuple's newest SYN.
    pub fn crossing(&self, side: usize, tuple: &Tuple) -> Option<&Crossing> {
        let isn = self.isns[side].get(tuple)?;
        let list = self.crossings.get(isn)?;
        // The gateway may have given the attempt another tuple since.
        let had = |c: &&Crossing| side == 1 && c.had(tuple);
        list.iter().find(|c| c.tuples[side] == Some(*tuple)).or_else(|| list.iter().find(had))
    }

    /// The crossing of an inside tuple whose originator is inside.
    pub fn outbound(&self, inside: &Tuple) -> Option<&Crossing> {
        self.crossing(0, inside).filter(|c| c.from == 0)
    }

    /// The other side's tuple, if it is another one.
    pub fn nat(&self, point: u8, tuple: &Tuple) -> Option<Tuple> {
        let side = self.side(point)?;
        let reversed = tuple.reversed();
        let of = |t: &Tuple| self.crossing(side, t).and_then(|c| c.tuples[1 - side]);
        let other = of(tuple).or_else(|| of(&reversed).map(Tuple::reversed))?;
        (other != *tuple).then_some(other)
    }

    /// Who crossed in the place of a SYN that did not, seen inside at `at`.
    pub fn rival(&self, inside: &Tuple, isn: Seq, at: Nanos) -> Option<Rival> {
        let list = self.recent.get(&(inside.dst, inside.src.port))?;
        let near = |r: &&Recent| r.isn != isn && r.at.since(at).max(at.since(r.at)) <= RIVAL_WITHIN;
        list.iter().filter(near).find_map(|r| {
            let c =
                self.crossings.get(&r.isn)?.iter().find(|c| c.tries.iter().any(|t| t.at[0] == Some(r.at)))?;
            let crossed = c.tries.iter().any(|t| t.at[0] == Some(r.at) && t.at[1].is_some());
            let (Some(inside), Some(outside)) = (c.tuples[0], c.tuples[1]) else { return None };
            crossed.then_some(Rival { inside, outside, gap_ns: r.at.since(at).max(at.since(r.at)) })
        })
    }

    /// Outside ports in use towards a responder at `now`, and whether one that was free was given out since `since`.
    pub fn in_use(&self, responder: &Endpoint, since: Nanos, now: Nanos) -> (usize, bool) {
        let Some(pool) = self.pools.get(responder) else { return (0, false) };
        let used = pool.ports.values().filter(|u| now.since(**u) <= IN_USE).count();
        (used, pool.fresh >= since)
    }

    /// True if this responder answers SYNs that never cross: the gateway itself does, or something on it.
    pub fn answers_without(&self, responder: &Endpoint) -> bool {
        self.is_proxied()
            || self.responders.get(responder).is_some_and(|r| r.without > 0 && r.without >= r.crossed)
    }

    /// True if SYNs to this address leave by a tapped interface, and did so before `at`: then one that did not was lost. What takes
    /// another way out never crosses, nor does what came before the outside was tapped.
    pub fn is_reached(&self, responder: &Addr, at: Nanos) -> bool {
        self.reached.get(responder).is_some()
            && self.crosses_since.is_some_and(|since| since <= at.add(CROSS_WITHIN))
    }

    /// What it looks like if inside and outside cannot be joined.
    pub fn pattern(&self) -> &'static str {
        match (self.rewritten, self.after_answer) {
            (0, 0) => "proxy",
            (r, a) if r > a => "isn_rewritten",
            _ => "syn_proxy",
        }
    }

    /// True if connections to many addresses open here whose SYNs never cross: somebody answers for the responders, or rewrites
    /// sequence numbers.
    pub fn is_proxied(&self) -> bool {
        self.without.len() >= PROXIED
    }
}

/// Addresses that answer SYNs that did not cross that make a proxy: a gateway has a few of its own.
const PROXIED: usize = 8;
