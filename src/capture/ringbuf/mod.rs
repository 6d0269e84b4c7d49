//! One shard's BPF ring buffer as a source of packets: the way into user space without a clone.
//!
//! Records are read where the kernel wrote them, in batches; the room goes back to the producers with one store a
//! batch. Every record is in exactly one place: with a producer, in the ring, or held by a call of `poll`. What found no
//! room was counted at the hook (`ring_full`).
//!
//! Who wakes whom: a reader that found nothing naps, and producers pay nothing. One that has napped eight times for
//! nothing says that it sleeps, and the next producer wakes it, once. So a busy tap makes no wake-ups, an idle one does
//! not run, and a packet waits a nap at most, or as long as waking takes.

mod shared;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::clock::ClockOffset;
use super::xsk::packet;
use super::{BATCH, Packet, Polled, SourceError};
use crate::bpf::{Meta, abi};
use shared::SharedRing;

/// How long a reader naps when it has found nothing. Shorter costs it more (some microseconds each), longer is latency
/// and room in the ring: 2 ms of 1,000,000 packets a second are 2,000 records, a tenth of the default ring.
const NAP: Duration = Duration::from_millis(2);

/// Naps for nothing before it sleeps until it is woken: the producer of a packet pays for that at most once in 16 ms.
const NAPS: u32 = 8;

/// Ring-buffer bytes for each frame that an AF_XDP ring would have: a small record and, as one in three is large, a
/// share of a large one.
const FRAME_BYTES: u32 = 256;

/// Bytes of a ring for as many packets as `frames`: whole pages, a power of two.
pub(super) fn ring_bytes(frames: u32) -> u32 {
    let bytes = frames.clamp(64, 1 << 20) * FRAME_BYTES;
    bytes.next_power_of_two().max(shared::page_size() as u32)
}

/// A ring buffer's reader. One worker owns it.
pub struct RingSource {
    name: String,
    ring: SharedRing,
    clock: ClockOffset,
    busy_poll: bool,
    /// Naps since the last record.
    naps: u32,
    foreign: u64,
}

impl RingSource {
    /// Maps a shard's ring buffer of `bytes` bytes.
    pub(super) fn open(
        (ring, sleepers): (BorrowedFd<'_>, BorrowedFd<'_>),
        shard: u32,
        bytes: u32,
        busy_poll: bool,
        clock: ClockOffset,
    ) -> std::io::Result<RingSource> {
        let ring = SharedRing::open(ring, sleepers, shard, bytes)?;
        Ok(RingSource { name: format!("ring buffer {shard}"), ring, clock, busy_poll, naps: 0, foreign: 0 })
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records that are none of ours, which were skipped; 0 unless something is wrong.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Bytes of the ring that are with a producer or wait to be read.
    pub fn held(&self) -> u64 {
        self.ring.held()
    }

    /// Bytes that there is room for.
    pub fn room(&self) -> u64 {
        self.ring.room()
    }

    /// As [`super::Source::poll`], with the metadata of each packet beside it.
    pub fn poll_with_meta(
        &mut self,
        wait_ms: u32,
        sink: &mut dyn FnMut(&[Packet<'_>], &[Meta]),
    ) -> Result<Polled, SourceError> {
        let mut found = self.batch(sink);
        if found == 0 && wait_ms > 0 {
            self.wait(Duration::from_millis(wait_ms.into())).map_err(|source| SourceError::Io {
                operation: "wait for packets",
                object: self.name.clone(),
                source,
            })?;
            found = self.batch(sink);
        }
        Ok(if found > 0 { Polled::Packets(found) } else { Polled::Idle })
    }

    /// Hands over what is there, one batch at most.
    fn batch(&mut self, sink: &mut dyn FnMut(&[Packet<'_>], &[Meta])) -> usize {
        let mut packets = [Packet::NONE; BATCH];
        let mut metas = [Meta::default(); BATCH];
        let mut len = 0;
        let mut records = self.ring.records();
        while len < BATCH
            && let Some(sample) = records.next()
        {
            let Some((meta, bytes)) = abi::record(sample) else {
                self.foreign += 1;
                continue;
            };
            metas[len] = meta;
            packets[len] = packet(&meta, bytes, &self.clock);
            len += 1;
        }
        let end = records.position();
        if len > 0 {
            sink(&packets[..len], &metas[..len]);
            self.naps = 0;
        }
        self.ring.release(end);
        len
    }

    /// Waits for a record, at most so long.
    fn wait(&mut self, most: Duration) -> std::io::Result<()> {
        let until = Instant::now() + most;
        let left = || until.saturating_duration_since(Instant::now());
        if self.busy_poll {
            while self.ring.held() == 0 && !left().is_zero() {
                std::hint::spin_loop();
            }
            return Ok(());
        }
        while self.naps < NAPS {
            let nap = left().min(NAP);
            if nap.is_zero() {
                return Ok(());
            }
            std::thread::sleep(nap);
            if self.ring.held() > 0 {
                return Ok(());
            }
            self.naps += 1;
        }
        let waited = if self.ring.sleep_if_empty() {
            Ok(())
        } else {
            // Rounded up: less than a millisecond is no reason to spin.
            self.ring.wait(left().as_micros().div_ceil(1000).min(i32::MAX as u128) as i32)
        };
        self.ring.awake();
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_room_for_its_packets_and_is_what_the_kernel_takes() {
        for frames in [0, 64, 512, 1000, 16_384, u32::MAX] {
            let bytes = ring_bytes(frames);
            let small = (8 + abi::RECORD_HEAD + abi::RECORD_SMALL) as u32;
            assert!(bytes.is_power_of_two() && (bytes as usize).is_multiple_of(shared::page_size()));
            assert!(bytes / small >= frames.min(1 << 20), "{frames} packets in {bytes} bytes");
        }
    }
}
