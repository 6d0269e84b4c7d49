//! A worker's mailboxes, one from each worker of its group and one from itself, read in order of time.

use rtrb::Consumer;

use super::slip::{self, HEAD, LONGEST, Slip};
use crate::capture::{BATCH, Packet};
use crate::wire::Nanos;

/// Up to when packets may be worked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon {
    /// Nothing earlier than this can come any more.
    pub passed: Nanos,
    /// What is this old is not held for others,
    pub most: u64,
    /// at this time.
    pub now: Nanos,
    /// Hold nothing at all.
    pub all: bool,
}

impl Horizon {
    #[inline]
    fn reaches(&self, ts: Nanos) -> bool {
        // Of a stamp from before a step of the clock nothing is known, so it waits for nobody.
        self.all || ts <= self.passed || self.now.0.abs_diff(ts.0) >= self.most
    }
}

/// See the module.
pub(super) struct Inbox {
    rings: Vec<Consumer<u8>>,
    /// The first packet of each ring, whose bytes are still in it.
    heads: Vec<Option<Slip>>,
    bytes: Box<[u8; BATCH * LONGEST]>,
    slips: Box<[(Slip, Nanos)]>,
    /// The latest stamp so far.
    latest: Nanos,
    late: u64,
}

impl Inbox {
    pub fn new(rings: Vec<Consumer<u8>>) -> Inbox {
        let nothing = (slip::read(&[0; HEAD]), Nanos(0));
        Inbox {
            heads: vec![None; rings.len()],
            rings,
            bytes: vec![0; BATCH * LONGEST].try_into().expect("of this length"),
            slips: vec![nothing; BATCH].into(),
            latest: Nanos(0),
            late: 0,
        }
    }

    /// Hands over the earliest packets, as far as the horizon reaches, one batch at most, and says how many. `horizon` must have been
    /// read before this is called.
    pub fn take(&mut self, horizon: &Horizon, sink: &mut dyn FnMut(&[Packet<'_>])) -> usize {
        self.look();
        let (mut count, mut end) = (0, 0);
        while count < BATCH
            && let Some((n, slip)) = self.earliest()
            && horizon.reaches(slip.ts)
        {
            // A slip is put into a ring with its bytes or not at all.
            let got = self.rings[n].pop_entire_slice(&mut self.bytes[end..end + slip.len]);
            debug_assert!(got.is_ok(), "a slip without its bytes");
            self.late += u64::from(slip.ts < self.latest);
            self.latest = self.latest.max(slip.ts);
            self.slips[count] = (slip, self.latest);
            (count, end) = (count + 1, end + slip.len);
            self.heads[n] = None;
            self.look_at(n);
        }
        if count > 0 {
            let mut packets = [Packet::NONE; BATCH];
            let mut at = 0;
            for (packet, (slip, now)) in packets.iter_mut().zip(&self.slips[..count]) {
                *packet = slip.packet(*now, &self.bytes[at..at + slip.len]);
                at += slip.len;
            }
            sink(&packets[..count]);
        }
        count
    }

    /// Whether nothing is in any ring.
    pub fn is_empty(&mut self) -> bool {
        self.look();
        !self.holds()
    }

    /// Whether something was there at the last look.
    pub fn holds(&self) -> bool {
        self.heads.iter().any(Option::is_some)
    }

    /// Whether a ring is more than half full: what is held must not make others drop.
    pub fn is_pressed(&self) -> bool {
        self.rings.iter().any(|r| r.slots() > r.buffer().capacity() / 2)
    }

    /// Packets since the last call that were worked after one with a later stamp.
    pub fn late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    #[inline]
    fn look(&mut self) {
        for n in 0..self.rings.len() {
            self.look_at(n);
        }
    }

    #[inline]
    fn look_at(&mut self, n: usize) {
        if self.heads[n].is_none() {
            let mut head = [0; HEAD];
            if self.rings[n].pop_entire_slice(&mut head).is_ok() {
                self.heads[n] = Some(slip::read(&head));
            }
        }
    }

    /// The ring whose first packet is the earliest; of several the first.
    #[inline]
    fn earliest(&self) -> Option<(usize, Slip)> {
        let heads = self.heads.iter().enumerate();
        heads.filter_map(|(n, head)| head.map(|slip| (n, slip))).min_by_key(|(_, slip)| slip.ts)
    }
}
