//! The flight recorder: a fixed ring of packet digests, linked backwards along each flow.
//!
//! Writing is one sequential store. Reading walks from a flow's newest digest to older ones until the chain ends or
//! the ring has overwritten it; nothing is ever freed.

use super::Digest;

/// The place of a digest in the stream of all digests ever written; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Mark(pub(super) u64);

impl Mark {
    /// True if there is no digest.
    #[inline]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

#[derive(Clone, Copy, Default)]
struct Entry {
    before: Mark,
    digest: Digest,
}

/// See the module.
pub struct Recorder {
    /// Grows up to its capacity, for which memory was reserved, and turns round then.
    ring: Vec<Entry>,
    capacity: usize,
    next: u64,
}

impl Recorder {
    /// A ring of at least `capacity` digests (rounded up to a power of two, at least 64).
    pub fn new(capacity: usize) -> Recorder {
        let capacity = capacity.max(64).next_power_of_two();
        Recorder { ring: Vec::with_capacity(capacity), capacity, next: 1 }
    }

    /// The memory of the ring: address and length.
    pub fn memory(&self) -> (usize, usize) {
        (self.ring.as_ptr() as usize, self.capacity * size_of::<Entry>())
    }

    /// Stores `digest` as the newest of the flow whose newest was `before`; returns its mark.
    #[inline]
    pub fn push(&mut self, before: Mark, digest: &Digest) -> Mark {
        let mark = Mark(self.next);
        let at = (self.next - 1) as usize & (self.capacity - 1);
        if at >= self.ring.len() {
            self.grow();
        }
        let place = &mut self.ring[at];
        place.before = before;
        place.digest = *digest;
        self.next += 1;
        mark
    }

    /// One more place, of those that were reserved.
    #[cold]
    fn grow(&mut self) {
        self.ring.push(Entry::default());
    }

    /// The mark that the next digest will get.
    #[inline]
    pub fn next(&self) -> Mark {
        Mark(self.next)
    }

    /// One digest and the mark of the one before it in its flow; `None` if it is overwritten.
    #[inline]
    pub fn get(&self, mark: Mark) -> Option<(Digest, Mark)> {
        let entry = self.entry(mark)?;
        Some((entry.digest, entry.before))
    }

    #[inline]
    fn entry(&self, mark: Mark) -> Option<&Entry> {
        if mark.0 == 0 || self.next - mark.0 > self.capacity as u64 {
            return None;
        }
        self.ring.get((mark.0 - 1) as usize & (self.capacity - 1))
    }

    /// Up to `limit` digests of the chain that ends at `newest`, oldest first. Those already overwritten are missing.
    pub fn chain(&self, newest: Mark, limit: usize) -> Vec<Digest> {
        let (mut count, mut mark) = (0, newest);
        while count < limit
            && let Some(entry) = self.entry(mark)
        {
            count += 1;
            mark = entry.before;
        }
        // Gone through twice, for a list of the right size from the first.
        let mut out = Vec::with_capacity(count);
        mark = newest;
        while out.len() < count
            && let Some(entry) = self.entry(mark)
        {
            out.push(entry.digest);
            mark = entry.before;
        }
        out.reverse();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Seq;

    fn digest(n: u32) -> Digest {
        Digest { seq: Seq(n), ..Digest::default() }
    }

    #[test]
    fn a_flows_packets_come_back_in_order_between_those_of_others() {
        let mut r = Recorder::new(64);
        let (mut a, mut b) = (Mark::default(), Mark::default());
        for n in 0..10 {
            a = r.push(a, &digest(n));
            b = r.push(b, &digest(100 + n));
        }
        let seqs = |m, l| r.chain(m, l).iter().map(|d| d.seq.0).collect::<Vec<_>>();
        assert_eq!(seqs(a, 4), [6, 7, 8, 9]);
        assert_eq!(seqs(b, 99), (100..110).collect::<Vec<_>>());
        assert_eq!(seqs(Mark::default(), 9), [0; 0]);
    }

    #[test]
    fn overwritten_digests_are_missing_and_never_another_flows() {
        let mut r = Recorder::new(64);
        let mut old = Mark::default();
        for n in 0..5 {
            old = r.push(old, &digest(n));
        }
        let mut other = Mark::default();
        for n in 0..62 {
            other = r.push(other, &digest(1000 + n));
        }
        assert_eq!(r.chain(old, 99).iter().map(|d| d.seq.0).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(r.chain(other, 99).len(), 62);
    }
}
