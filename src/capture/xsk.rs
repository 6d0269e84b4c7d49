//! One AF_XDP ring as a source of packets. The socket and its rings are `receiver`'s.
//!
//! Every frame is in exactly one place: the fill ring, the kernel, the receive ring, or held by a call of `poll`.
//! Both rings have room for all frames, so neither can overflow and a frame can always be handed back; the
//! kernel's only way to lose a packet here is that no frame is free, which it counts.
//!
//! Unsafe invariants:
//! - U1: frames that are given to the kernel came from this receiver, and each is given once.
//! - U2: a frame's bytes are read only between its receipt and its return to the fill ring, when the kernel does
//!   not write to it.
//! - U3: option buffers live through the call and their length is their size.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::clock::ClockOffset;
use super::receiver::{Desc, Receiver};
use super::{BATCH, Packet, Point, Polled, SourceError};
use crate::bpf::Meta;
use crate::bpf::abi::META_LEN;
use crate::memory::prefetch;
use crate::wire::{LinkType, OffloadedVlan, Way};

/// The smallest chunk AF_XDP knows: 256 bytes of headroom leave 1,792 for the longest frame that is mirrored.
/// Larger ones only waste memory and cache.
const FRAME_BYTES: u32 = 2048;

/// Frames of a ring unless configured: 32 MiB, and 80 ms of the full default budget or 0.8 s of 20,000 packets a
/// second. Fewer lose packets when the worker is not scheduled for some ticks on a busy gateway; more only hide that
/// it cannot keep up.
pub const FRAMES: u32 = 16_384;

/// Of a frame, what a packet nearly always has: metadata and headers with their options.
const HEADERS: usize = 160;

/// How long one call spins in the kernel when busy polling, microseconds: two packets' distance at 50,000/s.
const BUSY_POLL_US: i32 = 20;

/// How a ring is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingConfig {
    pub frames: u32,
    pub busy_poll: bool,
    pub zero_copy: bool,
}

/// Where the frames of a ring are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCount {
    /// In the fill ring, for the kernel to take.
    pub fill: u32,
    /// In the receive ring, with a packet.
    pub received: u32,
    /// Here, waiting for room in the fill ring; 0 unless something is wrong.
    pub spare: u32,
    /// All.
    pub total: u32,
}

impl FrameCount {
    /// Frames that the kernel holds between the rings: taken from the fill ring, and not written yet.
    pub fn in_kernel(&self) -> u32 {
        self.total - self.fill - self.received - self.spare
    }
}

/// What the kernel lost at a socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Dropped because no frame was free, or the packet was longer than a frame.
    pub dropped: u64,
    /// Descriptors of ours that the kernel refused; a fault of this program.
    pub invalid: u64,
    /// The receive ring had no room.
    pub ring_full: u64,
    /// Times that no frame was free: the worker is too slow. Each is also in `dropped`. 0 in zero-copy mode, where the
    /// driver asks ahead, some while they need none: it is no packet, and what is lost shows in the driver's own counters.
    pub fill_empty: u64,
}

impl RingStats {
    /// Packets lost.
    pub fn lost(&self) -> u64 {
        self.dropped + self.ring_full
    }
}

/// A second descriptor of a ring's socket, for its statistics.
#[derive(Debug)]
pub(super) struct RingSocket {
    fd: OwnedFd,
    zero_copy: bool,
}

impl RingSocket {
    /// Over a bound socket.
    fn new(fd: OwnedFd) -> io::Result<RingSocket> {
        let mut flags = 0u32;
        let mut len = size_of_val(&flags) as libc::socklen_t;
        // SAFETY: U3.
        let err = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_OPTIONS,
                (&raw mut flags).cast(),
                &mut len,
            )
        };
        if err != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(RingSocket { fd, zero_copy: flags & libc::XDP_OPTIONS_ZEROCOPY != 0 })
    }

    /// Whether the driver writes into the frames itself: the kernel's word.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    pub fn stats(&self) -> io::Result<RingStats> {
        let mut raw = [0u64; 6];
        let mut len = size_of_val(&raw) as libc::socklen_t;
        // SAFETY: U3.
        let err = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_STATISTICS,
                raw.as_mut_ptr().cast(),
                &mut len,
            )
        };
        if err != 0 {
            return Err(io::Error::last_os_error());
        }
        // struct xdp_statistics: rx_dropped, rx_invalid_descs, tx_invalid_descs, rx_ring_full,
        // rx_fill_ring_empty_descs, tx_ring_empty_descs.
        let fill_empty = if self.zero_copy { 0 } else { raw[4] };
        Ok(RingStats { dropped: raw[0], invalid: raw[1], ring_full: raw[3], fill_empty })
    }
}

impl AsFd for RingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A live ring as a source of packets. One worker owns it.
pub struct XskSource {
    name: String,
    receiver: Receiver,
    descs: [Desc; BATCH],
    spare: Vec<Desc>,
    frames: u32,
    busy_poll: bool,
    clock: ClockOffset,
    foreign: u64,
    ended: bool,
    #[cfg(debug_assertions)]
    held: Vec<bool>,
}

fn option(fd: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: U3.
    let err = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if err == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl XskSource {
    /// Binds a socket to a queue of an interface in the calling thread's namespace.
    pub(super) fn bind(
        interface: &str,
        queue: u32,
        config: RingConfig,
        clock: ClockOffset,
    ) -> io::Result<(XskSource, RingSocket)> {
        let size = config.frames.clamp(64, 1 << 20).next_power_of_two();
        let copy = if config.zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let flags = copy | libc::XDP_USE_NEED_WAKEUP;
        let mut receiver = Receiver::bind(interface, queue, size, FRAME_BYTES, flags)?;
        // SAFETY: U1: all frames, for the first time.
        let given = unsafe { receiver.give((0..size).map(|n| u64::from(n) * u64::from(FRAME_BYTES))) };
        assert_eq!(given, size as usize, "the fill ring has room for every frame");

        if config.busy_poll {
            let fd = receiver.as_fd().as_raw_fd();
            option(fd, libc::SO_PREFER_BUSY_POLL, 1)?;
            option(fd, libc::SO_BUSY_POLL, BUSY_POLL_US)?;
            option(fd, libc::SO_BUSY_POLL_BUDGET, BATCH as i32)?;
        }
        let again = receiver.as_fd().try_clone_to_owned()?;
        let source = XskSource {
            name: format!("{interface} queue {queue}"),
            receiver,
            descs: [Desc::default(); BATCH],
            spare: Vec::with_capacity(size as usize),
            frames: size,
            busy_poll: config.busy_poll,
            clock,
            foreign: 0,
            ended: false,
            #[cfg(debug_assertions)]
            held: vec![false; size as usize],
        };
        Ok((source, RingSocket::new(again)?))
    }

    /// Interface and queue, for messages and thread names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Frames without metadata of ours, which were skipped; 0 unless something is wrong.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Where the frames are now.
    pub fn frame_count(&mut self) -> FrameCount {
        FrameCount {
            fill: self.frames - self.receiver.room(),
            received: self.receiver.waiting(),
            spare: self.spare.len() as u32,
            total: self.frames,
        }
    }

    fn receive(&mut self) -> usize {
        let n = self.receiver.take(&mut self.descs);
        #[cfg(debug_assertions)]
        for desc in &self.descs[..n] {
            let frame = desc.addr as usize / FRAME_BYTES as usize;
            assert!(!std::mem::replace(&mut self.held[frame], true), "frame {frame} came twice");
        }
        n
    }

    fn give_back(&mut self, n: usize) {
        #[cfg(debug_assertions)]
        for desc in &self.descs[..n] {
            let frame = desc.addr as usize / FRAME_BYTES as usize;
            assert!(std::mem::replace(&mut self.held[frame], false), "frame {frame} was not held");
        }
        // SAFETY: U1: received and not given back since; the kernel finds the frame by rounding the address down.
        if unsafe { self.receiver.give(self.descs[..n].iter().map(|d| d.addr)) } != n {
            // Cannot be while the fill ring has a place for every frame; kept, so that none is lost.
            debug_assert!(false, "the fill ring is full");
            self.spare.extend_from_slice(&self.descs[..n]);
        }
        if !self.spare.is_empty() {
            // SAFETY: U1: spare frames were never given back.
            let given = unsafe { self.receiver.give(self.spare.iter().map(|d| d.addr)) };
            self.spare.drain(..given);
        }
    }

    /// Waits for the first packet, at most `wait_ms`.
    fn wait(&mut self, wait_ms: u32) -> Result<usize, SourceError> {
        if self.busy_poll {
            let until = Instant::now() + Duration::from_millis(wait_ms.into());
            loop {
                // Runs the device's receive loop on this CPU.
                self.poll_socket(0)?;
                let n = self.receive();
                if n > 0 {
                    return Ok(n);
                }
                if Instant::now() >= until {
                    return self.check().map(|()| 0);
                }
            }
        }
        if self.poll_socket(wait_ms.min(i32::MAX as u32) as i32)? {
            let n = self.receive();
            if n > 0 {
                return Ok(n);
            }
        }
        self.check().map(|()| 0)
    }

    fn poll_socket(&mut self, wait_ms: i32) -> Result<bool, SourceError> {
        let ready = self.receiver.poll(wait_ms);
        ready.map_err(|source| SourceError::Io {
            operation: "wait for packets",
            object: self.name.clone(),
            source,
        })
    }

    /// After a wait for nothing: a socket whose device is gone is never readable, and tells it only when asked.
    fn check(&mut self) -> Result<(), SourceError> {
        let mut error: i32 = 0;
        let mut len = size_of::<i32>() as libc::socklen_t;
        // SAFETY: U3.
        unsafe {
            libc::getsockopt(
                self.receiver.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &mut len,
            )
        };
        if error == 0 {
            return Ok(());
        }
        self.ended = true;
        Err(SourceError::Io {
            operation: "receive",
            object: self.name.clone(),
            source: io::Error::from_raw_os_error(error),
        })
    }

    /// As [`super::Source::poll`], with the metadata of each packet beside it.
    pub fn poll_with_meta(
        &mut self,
        wait_ms: u32,
        sink: &mut dyn FnMut(&[Packet<'_>], &[Meta]),
    ) -> Result<Polled, SourceError> {
        if self.ended {
            return Ok(Polled::End);
        }
        let mut n = self.receive();
        if n == 0 {
            if self.receiver.needs_wakeup() {
                self.poll_socket(0)?;
                n = self.receive();
            }
            if n == 0 && wait_ms > 0 {
                n = self.wait(wait_ms)?;
            }
            if n == 0 {
                return Ok(Polled::Idle);
            }
        }
        let mut packets = [Packet::NONE; BATCH];
        let mut metas = [Meta::default(); BATCH];
        let mut len = 0;
        // Another CPU has written them: all are on their way before the first is waited for.
        for desc in &self.descs[..n] {
            // SAFETY: U2: not given back yet.
            let bytes = unsafe { self.receiver.bytes(desc) };
            bytes.iter().take(HEADERS).step_by(64).for_each(prefetch);
        }
        for desc in &self.descs[..n] {
            // SAFETY: U2: given back below, after the last use.
            let bytes = unsafe { self.receiver.bytes(desc) };
            let Some(meta) = Meta::read(bytes) else {
                self.foreign += 1;
                continue;
            };
            metas[len] = meta;
            packets[len] = packet(&meta, &bytes[META_LEN..], &self.clock);
            len += 1;
        }
        if len > 0 {
            sink(&packets[..len], &metas[..len]);
        }
        self.give_back(n);
        Ok(if len > 0 { Polled::Packets(len) } else { Polled::Idle })
    }
}

/// A mirrored packet, of whichever transport.
#[inline]
pub(super) fn packet<'a>(meta: &Meta, bytes: &'a [u8], clock: &ClockOffset) -> Packet<'a> {
    let ts = clock.epoch(meta.time_ns);
    Packet {
        ts,
        now: ts,
        point: Point(meta.slot),
        way: if meta.direction == 0 { Way::Ingress } else { Way::Egress },
        link: LinkType::Ethernet,
        wire_len: meta.wire_len,
        vlan: OffloadedVlan { tpid: meta.vlan_tpid, tci: meta.vlan_tci },
        reason: meta.reason,
        hash: meta.hash,
        bytes,
    }
}
