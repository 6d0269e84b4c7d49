//! What the kernel's connection tracking says of translations: entries that went while their connections lived, and what it counted.
//!
//! A destroyed entry is no harm by itself: an ordinary flush is mended by the next packet, which gets the same translation again. It
//! is harm if what comes next is another entry: untranslated, with another port or address, or the wrong way round. Names are
//! nf_conntrack's: `original` from the one who opened, `reply` from the one who answers.

use std::collections::VecDeque;

use super::bounded::Bounded;
use crate::flow::Tuple;
use crate::wire::Nanos;

/// Destroyed entries remembered. A flush of a larger table forgets the first of them: their connections are then judged by packets alone.
const DESTROYED: usize = 1 << 16;

/// Entries of which all is heard. A gateway with more connections at one time forgets the oldest: of theirs it is not known whether they
/// are still there.
const HEARD: usize = 1 << 16;

/// Connection tracking's events are stamped when they are read, and may be read after the packets that they explain.
pub const LATE: u64 = Nanos::SEC;

/// A connection that has not sent for this long after its entry went may be any other one on its tuple.
pub const KEEPS_SENDING: u64 = 60 * Nanos::SEC;

/// A closing connection with this much time left had packets lately; FIN_WAIT has 120 s and CLOSE_WAIT 60 s after the last of them.
const LIVELY_S: u32 = 30;

/// Readings of the counters remembered, four a second: records that need them wait a few seconds.
const READINGS: usize = 256;

/// A packet stamped at the edge of two readings may be counted in either.
const EDGE: u64 = 10 * Nanos::MS;

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its first packet went through.
    New,
    /// It changed its state.
    Update,
    /// It is gone.
    Destroy,
    /// It was there when all were listed.
    Found,
}

/// How far an entry's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In its handshake.
    Opening,
    /// Open, or picked up in mid-stream.
    Open,
    /// One side has closed.
    Closing,
    /// Closed.
    Over,
    /// Reset.
    Reset,
    /// Not said.
    Unknown,
}

/// An entry, and what happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What happened.
    pub change: Change,
    /// From the one who opened it.
    pub original: Tuple,
    /// From the one who answers.
    pub reply: Tuple,
    /// How far it is.
    pub stage: Stage,
    /// The kernel's word for it; empty if not said.
    pub state: &'static str,
    /// Entries of other zones have nothing to do with it.
    pub zone: u16,
    /// Seconds left; of a destroyed one only if it went before its time.
    pub timeout_s: Option<u32>,
    /// Netlink port of the program that destroyed it, its process id as a rule; 0 for the kernel.
    pub by: u32,
}

impl Entry {
    /// The originator's tuple as it leaves.
    pub fn translated(&self) -> Tuple {
        self.reply.reversed()
    }

    fn is_translated(&self) -> bool {
        self.translated() != self.original
    }

    /// True if a living connection needs it: without it its packets leave untranslated, or go nowhere.
    pub fn is_needed(&self) -> bool {
        self.is_translated() && self.lives()
    }

    fn lives(&self) -> bool {
        match self.stage {
            Stage::Open => true,
            Stage::Closing => self.timeout_s.is_some_and(|s| s >= LIVELY_S),
            _ => false,
        }
    }
}

/// A destroyed entry whose connection may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destroyed {
    /// When.
    pub at: Nanos,
    /// From the one who opened it.
    pub original: Tuple,
    /// The originator's tuple as it left.
    pub translated: Tuple,
    /// The kernel's word for its state.
    pub state: &'static str,
    /// Its time was over: nobody had sent for as long.
    pub expired: bool,
    /// See [`Entry::by`].
    pub by: u32,
    zone: u16,
    /// The next entry was looked at.
    settled: bool,
}

/// What an entry says of one that was destroyed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequel {
    /// The same translation again.
    Healed(Destroyed),
    /// The connection goes on without translation.
    Untranslated(Destroyed),
    /// It goes on with another translation: this one.
    Remapped(Destroyed, Tuple),
    /// The responder spoke first: its packet went nowhere.
    WrongWay(Destroyed),
}

/// What was counted between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deltas {
    /// Entries that could not be confirmed: another one had taken their tuple.
    pub insert_failed: u64,
    /// Packets dropped with them, or for want of an entry.
    pub drop: u64,
    /// Entries given up in a full table.
    pub early_drop: u64,
    /// Packets that belong to no entry.
    pub invalid: u64,
    /// Lookups begun anew.
    pub search_restart: u64,
    /// Collisions that could be merged.
    pub clash_resolve: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Conntrack {
    /// By original tuple.
    destroyed: Bounded<Tuple, Destroyed>,
    /// Reply tuple to original tuple.
    replies: Bounded<Tuple, Tuple>,
    readings: VecDeque<(Nanos, Nanos, Deltas)>,
    /// Entries that were heard of since their first packet, by original tuple: since when, and when they went.
    heard: Bounded<Tuple, (Nanos, Option<Nanos>)>,
    /// No event up to then says that an entry is still there.
    lost: Nanos,
}

impl Default for Conntrack {
    fn default() -> Self {
        Conntrack {
            destroyed: Bounded::new(DESTROYED),
            replies: Bounded::new(DESTROYED),
            readings: VecDeque::with_capacity(READINGS),
            heard: Bounded::new(HEARD),
            lost: Nanos(0),
        }
    }
}

impl Conntrack {
    /// Takes a destroyed entry; gives it back if a translated connection may live on without it.
    pub fn destroy(&mut self, e: &Entry, at: Nanos) -> Option<Destroyed> {
        if let Some((_, gone)) = self.heard.get_mut(&e.original) {
            gone.get_or_insert(at);
        }
        if !e.is_needed() {
            return None;
        }
        let gone = Destroyed {
            at,
            original: e.original,
            translated: e.translated(),
            state: e.state,
            expired: e.timeout_s.is_none_or(|s| s == 0),
            by: e.by,
            zone: e.zone,
            settled: false,
        };
        self.destroyed.put(e.original, gone);
        self.replies.put(e.reply, e.original);
        Some(gone)
    }

    /// Takes an entry that is there, and says what it means to one that was destroyed before.
    pub fn there(&mut self, e: &Entry, at: Nanos) -> Option<Sequel> {
        if e.change == Change::New {
            *self.heard.entry(e.original, || (at, None)) = (at, None);
        }
        let wrong_way = !self.destroyed.get(&e.original).is_some_and(|d| d.awaits(e, at));
        let original = if wrong_way { *self.replies.get(&e.original)? } else { e.original };
        let gone = self.destroyed.get_mut(&original).filter(|d| d.awaits(e, at))?;
        if wrong_way && gone.translated != e.original.reversed() {
            return None;
        }
        // What opens anew is another connection, and the one before was over.
        let another = matches!(e.stage, Stage::Opening | Stage::Over);
        let same = match wrong_way {
            false => e.translated() == gone.translated,
            true => e.reply == gone.original,
        };
        // The wrong way round it is not settled: what the originator sends next says more.
        gone.settled = another || same || !wrong_way;
        let gone = *gone;
        if another {
            return None;
        }
        Some(match (same, wrong_way) {
            (true, _) => Sequel::Healed(gone),
            (false, true) => Sequel::WrongWay(gone),
            (false, false) if !e.is_translated() => Sequel::Untranslated(gone),
            (false, false) => Sequel::Remapped(gone, e.translated()),
        })
    }

    /// The destroyed entry of a connection, by its tuple on either side, if it is recent and nothing came after it.
    pub fn gone(&self, tuple: &Tuple, at: Nanos) -> Option<Destroyed> {
        let by_reply = || self.replies.get(&tuple.reversed()).and_then(|o| self.destroyed.get(o));
        let recent = |d: &&Destroyed| !d.settled && at.since(d.at) <= KEEPS_SENDING;
        let found = self.destroyed.get(tuple).filter(recent).or_else(|| by_reply().filter(recent))?;
        (found.original == *tuple || found.translated == *tuple).then_some(*found)
    }

    /// Events were lost, the last of them at `at`: which entries went is not known any more.
    pub fn events_lost(&mut self, at: Nanos) {
        self.lost = self.lost.max(at);
    }

    /// True if a connection's entry was there at `at`, by its original tuple: it was heard of since its first packet, nothing was lost
    /// since, its end did not come until well after, and somebody was listening then.
    pub fn was_there(&self, original: &Tuple, at: Nanos) -> bool {
        let there = self.heard.get(original).is_some_and(|&(since, gone)| {
            since <= at && since > self.lost && gone.is_none_or(|g| g.since(at) > LATE)
        });
        there && self.around(at).is_some()
    }

    /// Takes a reading.
    pub fn reading(&mut self, first: Nanos, last: Nanos, deltas: Deltas) {
        if self.readings.len() == READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back((first, last, deltas));
    }

    /// What was counted in the reading, or two, around a moment; `None` if nobody read then.
    pub fn around(&self, at: Nanos) -> Option<Deltas> {
        let near =
            |&&(first, last, _): &&(Nanos, Nanos, Deltas)| first.0 <= at.0 + EDGE && at.0 <= last.0 + EDGE;
        self.readings.iter().filter(near).fold(None, |sum: Option<Deltas>, (_, _, d)| {
            let s = sum.unwrap_or_default();
            Some(Deltas {
                insert_failed: s.insert_failed + d.insert_failed,
                drop: s.drop + d.drop,
                early_drop: s.early_drop + d.early_drop,
                invalid: s.invalid + d.invalid,
                search_restart: s.search_restart + d.search_restart,
                clash_resolve: s.clash_resolve + d.clash_resolve,
            })
        })
    }
}

impl Destroyed {
    fn awaits(&self, e: &Entry, at: Nanos) -> bool {
        !self.settled && self.zone == e.zone && at.since(self.at) <= KEEPS_SENDING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;

    fn end(text: &str) -> Endpoint {
        let s: std::net::SocketAddr = text.parse().expect("an endpoint");
        Endpoint { addr: s.ip().into(), port: s.port() }
    }

    fn tuple(src: &str, dst: &str) -> Tuple {
        Tuple { src: end(src), dst: end(dst) }
    }

    const CLIENT: &str = "10.77.0.11:33333";
    const SERVER: &str = "198.51.100.2:8080";
    const OUTSIDE: &str = "198.51.100.1:33333";

    fn entry(change: Change, original: Tuple, reply: Tuple) -> Entry {
        let timeout_s = Some(431_999);
        Entry { change, original, reply, stage: Stage::Open, state: "ESTABLISHED", zone: 0, timeout_s, by: 0 }
    }

    fn sequel(stage: Stage, zone: u16, original: Tuple, reply: Tuple, after: u64) -> Option<Sequel> {
        let mut c = Conntrack::default();
        let gone = entry(Change::Destroy, tuple(CLIENT, SERVER), tuple(SERVER, OUTSIDE));
        assert!(c.destroy(&gone, Nanos(0)).is_some());
        let new = Entry { stage, zone, ..entry(Change::New, original, reply) };
        c.there(&new, Nanos(after * Nanos::SEC))
    }

    #[test]
    fn what_comes_after_a_destroyed_entry_tells_what_became_of_its_connection() {
        let next = |original, reply| sequel(Stage::Open, 0, original, reply, 59);
        let orig = tuple(CLIENT, SERVER);
        assert!(matches!(next(orig, tuple(SERVER, OUTSIDE)), Some(Sequel::Healed(_))));
        assert!(matches!(next(orig, tuple(SERVER, CLIENT)), Some(Sequel::Untranslated(_))));
        let other = "203.0.113.1:33333";
        let remapped = next(orig, tuple(SERVER, other));
        assert!(matches!(remapped, Some(Sequel::Remapped(_, now)) if now == tuple(other, SERVER)));
        let back = next(tuple(SERVER, OUTSIDE), tuple(OUTSIDE, SERVER));
        assert!(matches!(back, Some(Sequel::WrongWay(_))));
        assert_eq!(next(tuple("10.77.0.12:33333", SERVER), tuple(SERVER, other)), None);
    }

    #[test]
    fn a_new_connection_another_zone_and_a_late_one_say_nothing() {
        let (orig, reply) = (tuple(CLIENT, SERVER), tuple(SERVER, CLIENT));
        assert_eq!(sequel(Stage::Opening, 0, orig, reply, 1), None);
        assert_eq!(sequel(Stage::Open, 7, orig, reply, 1), None);
        assert_eq!(sequel(Stage::Open, 0, orig, reply, 61), None);
    }

    #[test]
    fn only_translated_entries_of_living_connections_can_be_missed() {
        let mut c = Conntrack::default();
        let at = Nanos(0);
        let routed = entry(Change::Destroy, tuple(CLIENT, SERVER), tuple(SERVER, CLIENT));
        assert_eq!(c.destroy(&routed, at), None);
        let gone = entry(Change::Destroy, tuple(CLIENT, SERVER), tuple(SERVER, OUTSIDE));
        assert_eq!(c.destroy(&Entry { stage: Stage::Over, ..gone }, at), None);
        let closing = |timeout_s| Entry { stage: Stage::Closing, timeout_s, ..gone };
        assert_eq!(c.destroy(&closing(None), at), None, "its time was over");
        assert!(c.destroy(&closing(Some(100)), at).is_some());
        let expired = c.destroy(&Entry { timeout_s: None, ..gone }, at).expect("open");
        assert!(expired.expired);
        assert_eq!(c.gone(&tuple(OUTSIDE, SERVER), at), Some(expired), "known from outside, too");
        assert_eq!(c.gone(&tuple(CLIENT, SERVER), Nanos(61 * Nanos::SEC)), None);
    }

    #[test]
    fn the_wrong_way_round_is_not_the_last_word() {
        let mut c = Conntrack::default();
        let gone = entry(Change::Destroy, tuple(CLIENT, SERVER), tuple(SERVER, OUTSIDE));
        c.destroy(&gone, Nanos(0));
        let back = entry(Change::New, tuple(SERVER, OUTSIDE), tuple(OUTSIDE, SERVER));
        assert!(matches!(c.there(&back, Nanos(1)), Some(Sequel::WrongWay(_))));
        let on = entry(Change::New, tuple(CLIENT, SERVER), tuple(SERVER, "198.51.100.1:1024"));
        assert!(matches!(c.there(&on, Nanos(2)), Some(Sequel::Remapped(..))));
        assert_eq!(c.there(&on, Nanos(3)), None, "told once");
    }

    #[test]
    fn an_entry_is_there_from_its_first_packet_to_its_end_if_no_event_was_lost() {
        let orig = tuple(CLIENT, SERVER);
        let s = |n: u64| Nanos(n * Nanos::SEC);
        let new = Entry { stage: Stage::Opening, ..entry(Change::New, orig, tuple(SERVER, OUTSIDE)) };
        let heard = || {
            let mut c = Conntrack::default();
            (0..60).for_each(|n| c.reading(s(n), s(n + 1), Deltas::default()));
            c.there(&new, s(10));
            c
        };
        let mut c = heard();
        assert!(!c.was_there(&orig, s(9)) && c.was_there(&orig, s(20)));
        assert!(!c.was_there(&orig, s(70)), "nobody listened");
        assert!(!c.was_there(&tuple("10.77.0.12:33333", SERVER), s(20)), "older than the tap");
        c.destroy(&Entry { change: Change::Destroy, stage: Stage::Reset, ..new }, s(30));
        assert!(c.was_there(&orig, s(20)) && !c.was_there(&orig, Nanos(29_500_000_000)));
        let mut c = heard();
        c.events_lost(s(15));
        assert!(!c.was_there(&orig, s(20)));
        c.there(&new, s(16));
        assert!(c.was_there(&orig, s(20)), "heard of anew");
    }

    #[test]
    fn a_loss_is_counted_in_the_second_around_it_and_nobody_counted_is_not_zero() {
        let mut c = Conntrack::default();
        let deltas = |insert_failed| Deltas { insert_failed, drop: insert_failed, ..Deltas::default() };
        let s = |n: u64| Nanos(n * Nanos::SEC);
        c.reading(s(10), s(11), deltas(3));
        c.reading(s(11), s(12), deltas(0));
        c.reading(s(12), s(13), deltas(5));
        assert_eq!(c.around(Nanos(10_500_000_000)), Some(deltas(3)));
        assert_eq!(c.around(Nanos(11_500_000_000)), Some(deltas(0)));
        assert_eq!(c.around(s(12)), Some(deltas(5)), "at the edge both count");
        assert_eq!(c.around(s(9)), None);
        assert_eq!(c.around(s(14)), None);
    }
}
