//! Two workers that hand packets over to each other, turn by turn on one thread.

use syntap::capture::{BATCH, Packet, Polled, Source, SourceError};
use syntap::pipeline::Exchange;
use syntap::wire::Nanos;

use super::life::Family;
use super::{Frame, lives, packets};

/// Packets of the steady state: both workers own half of them.
pub struct Batches(Vec<Frame>);

impl Batches {
    pub fn new(count: usize) -> Batches {
        Batches(lives(6, Family::V4, false, count))
    }

    /// With the hash that the kernel side would have put in front.
    pub fn packets(&self) -> Vec<Packet<'_>> {
        let mut all = packets(&self.0);
        all.iter_mut().enumerate().for_each(|(n, p)| p.hash = 2 + n as u32);
        all
    }
}

/// Gives batches, one a call.
struct Given<'a>(std::slice::Chunks<'a, Packet<'a>>);

impl Source for Given<'_> {
    fn poll(&mut self, _: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        let Some(batch) = self.0.next() else { return Ok(Polled::Idle) };
        sink(batch);
        Ok(Polled::Packets(batch.len()))
    }
}

/// Both ends.
pub struct Pair(Vec<Exchange>);

impl Pair {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Pair {
        Pair(Exchange::group(0..2, [1, 2]).1)
    }

    /// Lets all packets come over the first one's ring, and says how many were worked by either.
    pub fn pass(&mut self, packets: &[Packet<'_>]) -> u64 {
        let clock = || Nanos(super::START + 3_600 * Nanos::SEC);
        let (mut first, mut second) = (Given(packets.chunks(BATCH)), Given([].chunks(BATCH)));
        let mut worked = 0;
        let mut sink = |batch: &[Packet<'_>]| worked += std::hint::black_box(batch).len() as u64;
        for _ in 0..=packets.len().div_ceil(BATCH) {
            self.0[0].poll(&mut first, false, &clock, &mut sink).expect("it goes on");
            self.0[1].poll(&mut second, false, &clock, &mut sink).expect("it goes on");
        }
        worked
    }
}
