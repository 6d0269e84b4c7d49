//! What a BPF ring buffer shares with its reader, as `kernel/bpf/ringbuf.c` lays it out.
//!
//! | pages        | mapped     | what                                                                    |
//! | ------------ | ---------- | ----------------------------------------------------------------------- |
//! | first        | read-write | the consumer's position: everything before it may be written again     |
//! | second       | read-only  | the producers' position: everything before it was given to a producer  |
//! | the rest     | read-only  | the records, in twice the memory of the ring: none is cut at its end    |
//!
//! Positions count bytes and never go back. A record is a word of length and flags, a word that only the kernel
//! reads, and that many bytes, up to the next multiple of eight.
//!
//! Unsafe invariants:
//! - U1: the mappings live as long as the value, and what is shared in them is only touched as an atomic.
//! - U2: positions are multiples of eight and the data is mapped twice, so a record that begins in the first half ends
//!   within the mapping.
//! - U3: a record's bytes are not written between the moment that its busy flag was seen clear and the moment that the
//!   consumer's position goes past it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

/// The producer has not finished it yet (`BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// The producer took it back (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARDED: u32 = 1 << 30;
/// Bytes of a record's two words (`BPF_RINGBUF_HDR_SZ`).
const HEADER: u64 = 8;

/// Where a record ends, and the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(u64);

/// A mapped ring buffer. One reader owns it.
pub(super) struct SharedRing {
    consumer: MmapRaw,
    producer: MmapRaw,
    sleepers: MmapRaw,
    ring: OwnedFd,
    shard: usize,
    /// Where the data begins in `producer`.
    page: usize,
    /// Bytes of the ring less one.
    mask: u64,
    consumed: u64,
}

impl SharedRing {
    /// Maps the ring buffer of a shard, of `bytes` bytes, and the map that says who sleeps.
    pub fn open(
        ring: BorrowedFd<'_>,
        sleepers: BorrowedFd<'_>,
        shard: u32,
        bytes: u32,
    ) -> io::Result<SharedRing> {
        assert!(bytes.is_power_of_two());
        let page = page_size();
        let consumer = MmapOptions::new().len(page).map_raw(ring.as_raw_fd())?;
        let data = MmapOptions::new().offset(page as u64).len(page + 2 * bytes as usize).clone();
        let producer = data.map_raw_read_only(ring.as_raw_fd())?;
        let sleepers = MmapOptions::new().len(page).map_raw(sleepers.as_raw_fd())?;
        let mut ring = SharedRing {
            consumer,
            producer,
            sleepers,
            ring: ring.try_clone_to_owned()?,
            shard: shard as usize,
            page,
            mask: u64::from(bytes) - 1,
            consumed: 0,
        };
        ring.consumed = ring.position_at(&ring.consumer).load(Ordering::Relaxed);
        Ok(ring)
    }

    fn position_at<'a>(&self, map: &'a MmapRaw) -> &'a AtomicU64 {
        // SAFETY: U1: both positions are at the beginning of their pages.
        unsafe { &*map.as_ptr().cast::<AtomicU64>() }
    }

    fn sleeper(&self) -> &AtomicU32 {
        debug_assert!(self.shard * 4 < self.page);
        // SAFETY: U1: the map has a word for each shard, and all of them fit the page that is mapped.
        unsafe { &*self.sleepers.as_ptr().cast::<AtomicU32>().add(self.shard) }
    }

    /// What producers were given so far.
    fn produced(&self) -> u64 {
        self.position_at(&self.producer).load(Ordering::Acquire)
    }

    /// Bytes that were given to producers and not handed back yet.
    pub fn held(&self) -> u64 {
        self.produced() - self.consumed
    }

    /// Bytes of the ring.
    pub fn room(&self) -> u64 {
        self.mask + 1
    }

    /// The complete records, oldest first.
    pub fn records(&self) -> Records<'_> {
        Records { ring: self, at: self.consumed, end: self.produced() }
    }

    /// Gives everything before a position back to the producers. That nothing of it is read any more is what the
    /// exclusive borrow says.
    pub fn release(&mut self, to: Position) {
        self.consumed = to.0;
        self.position_at(&self.consumer).store(to.0, Ordering::Release);
    }

    /// Asks the next producer for a wake-up. True if something is there already.
    pub fn sleep_if_empty(&self) -> bool {
        self.sleeper().store(1, Ordering::Relaxed);
        // Against a producer that looked before the store: either it sees the store or its record is seen here.
        fence(Ordering::SeqCst);
        self.held() > 0
    }

    /// No wake-up is wanted any more.
    pub fn awake(&self) {
        self.sleeper().store(0, Ordering::Relaxed);
    }

    /// Waits until a producer wakes this reader, at most so long.
    pub fn wait(&self, wait_ms: i32) -> io::Result<()> {
        let mut fd = libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which lives through the call.
        if unsafe { libc::poll(&mut fd, 1, wait_ms) } < 0 {
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
        Ok(())
    }

    /// The record at a position before `end`: its bytes, `None` where the producer took it back, and where it ends.
    /// `None` while it is not complete.
    fn record(&self, at: u64, end: u64) -> Option<(Option<&[u8]>, u64)> {
        let begin = self.page + (at & self.mask) as usize;
        // SAFETY: U1, U2: a record's first word.
        let word = unsafe { &*self.producer.as_ptr().add(begin).cast::<AtomicU32>() };
        let word = word.load(Ordering::Acquire);
        let len = u64::from(word & !(BUSY | DISCARDED));
        let next = at + (HEADER + len).next_multiple_of(8);
        // The kernel gives out nothing longer than what it counts.
        if word & BUSY != 0 || next > end {
            return None;
        }
        // SAFETY: U2, U3: complete, and within what was given out, which is no more than the ring.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.producer.as_ptr().add(begin + HEADER as usize), len as usize)
        };
        Some(((word & DISCARDED == 0).then_some(bytes), next))
    }
}

/// The records of a ring in order, up to the first that is not complete.
pub(super) struct Records<'a> {
    ring: &'a SharedRing,
    at: u64,
    end: u64,
}

impl Records<'_> {
    /// Where the last one that was given ends.
    pub fn position(&self) -> Position {
        Position(self.at)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.at < self.end {
            let (bytes, next) = self.ring.record(self.at, self.end)?;
            self.at = next;
            if bytes.is_some() {
                return bytes;
            }
        }
        None
    }
}

/// Of this machine.
pub(super) fn page_size() -> usize {
    // SAFETY: a plain question.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("a page has a size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::thread;

    const BYTES: u32 = 4096;

    /// Plain memory laid out as the kernel does, and a producer that works as the kernel's: reserve, fill, submit.
    struct Fake {
        memory: File,
        sleepers: File,
        map: MmapRaw,
        page: usize,
        produced: u64,
    }

    fn memory(len: usize) -> File {
        let fd = nix::sys::memfd::memfd_create(c"ring", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
        let file = File::from(fd.expect("memory"));
        file.set_len(len as u64).expect("room");
        file
    }

    impl Fake {
        fn new() -> Fake {
            let page = page_size();
            let memory = memory(2 * page + 2 * BYTES as usize);
            let map = MmapOptions::new().map_raw(&memory).expect("a mapping");
            Fake { memory, sleepers: self::memory(page), map, page, produced: 0 }
        }

        fn reader(&self) -> SharedRing {
            SharedRing::open(self.memory.as_fd(), self.sleepers.as_fd(), 3, BYTES).expect("mapped")
        }

        fn position(&self, page: usize) -> &AtomicU64 {
            // SAFETY: U1: as the reader's.
            unsafe { &*self.map.as_ptr().add(page * self.page).cast::<AtomicU64>() }
        }

        /// A word of the data, counted from its beginning.
        fn data(&self, offset: u64) -> &AtomicU32 {
            assert!(offset < 2 * u64::from(BYTES) && offset.is_multiple_of(4));
            // SAFETY: U1, U2: within the data as it is mapped twice.
            unsafe { &*self.map.as_ptr().add(2 * self.page + offset as usize).cast::<AtomicU32>() }
        }

        /// Takes room for `len` bytes, if there is some.
        fn reserve(&mut self, len: u32) -> Option<u64> {
            let at = self.produced;
            let end = at + (HEADER + u64::from(len)).next_multiple_of(8);
            if end - self.position(0).load(Ordering::Acquire) > u64::from(BYTES) {
                return None;
            }
            self.data(at % u64::from(BYTES)).store(len | BUSY, Ordering::Relaxed);
            self.produced = end;
            self.position(1).store(end, Ordering::Release);
            Some(at)
        }

        fn submit(&self, at: u64, len: u32, fill: u32, flags: u32) {
            let begin = at % u64::from(BYTES);
            for offset in (begin + HEADER..begin + HEADER + u64::from(len)).step_by(4) {
                // What lies behind the end is at the beginning as well, for whoever begins there.
                self.data(offset).store(fill, Ordering::Relaxed);
                if offset >= u64::from(BYTES) {
                    self.data(offset - u64::from(BYTES)).store(fill, Ordering::Relaxed);
                }
            }
            self.data(begin).store(len | flags, Ordering::Release);
        }
    }

    fn words(record: &[u8]) -> Vec<u32> {
        record.chunks(4).map(|c| u32::from_ne_bytes(c.try_into().expect("four"))).collect()
    }

    #[test]
    fn a_record_is_given_when_it_is_complete_and_its_room_when_it_was_read() {
        let mut fake = Fake::new();
        let mut reader = fake.reader();
        assert_eq!((reader.held(), reader.records().next()), (0, None));
        let first = fake.reserve(184).expect("room");
        let second = fake.reserve(504).expect("room");
        fake.submit(second, 504, 2, 0);
        assert_eq!(reader.records().next(), None, "the first is with its producer, so the second waits");
        fake.submit(first, 184, 1, 0);
        let mut records = reader.records();
        assert_eq!(words(records.next().expect("the first")), [1; 46]);
        let after_first = records.position();
        assert_eq!(words(records.next().expect("the second")), [2; 126]);
        assert_eq!(records.next(), None);
        reader.release(after_first);
        assert_eq!(reader.held(), 512);
        assert_eq!(words(reader.records().next().expect("the second again")), [2; 126]);
    }

    #[test]
    fn what_a_producer_took_back_is_skipped_and_its_room_given_back() {
        let mut fake = Fake::new();
        let mut reader = fake.reader();
        for fill in 0..3 {
            let at = fake.reserve(184).expect("room");
            fake.submit(at, 184, fill, if fill == 1 { 0 } else { DISCARDED });
        }
        let mut records = reader.records();
        assert_eq!(words(records.next().expect("the one")), [1; 46]);
        assert_eq!(records.next(), None);
        let end = records.position();
        reader.release(end);
        assert_eq!(reader.held(), 0);
    }

    #[test]
    fn a_reader_says_that_it_sleeps_only_while_nothing_is_there() {
        let mut fake = Fake::new();
        let reader = fake.reader();
        let flag = || reader.sleeper().load(Ordering::Relaxed);
        assert!(!reader.sleep_if_empty());
        assert_eq!(flag(), 1);
        reader.awake();
        assert_eq!(flag(), 0);
        fake.reserve(184);
        assert!(reader.sleep_if_empty(), "somebody writes already");
    }

    #[test]
    fn records_come_whole_once_and_in_order_over_many_times_the_ring_between_two_threads() {
        const COUNT: u32 = 100_000;
        let mut fake = Fake::new();
        let mut reader = fake.reader();
        thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..COUNT {
                    // Two sizes as the programs', and one that begins its successors anywhere.
                    let len = [184, 504, 24][n as usize % 3];
                    let at = loop {
                        match fake.reserve(len) {
                            Some(at) => break at,
                            None => thread::yield_now(),
                        }
                    };
                    fake.submit(at, len, n, if n % 7 == 6 { DISCARDED } else { 0 });
                }
            });
            let mut expected = 0;
            while expected < COUNT {
                let mut records = reader.records();
                for record in records.by_ref().take(64) {
                    expected += u32::from(expected % 7 == 6);
                    assert_eq!(record.len(), [184, 504, 24][expected as usize % 3]);
                    assert!(words(record).iter().all(|w| *w == expected), "record {expected}: {record:?}");
                    expected += 1;
                }
                let end = records.position();
                reader.release(end);
                thread::yield_now();
            }
        });
        assert_eq!(reader.held(), 0);
    }
}
