//! An AF_XDP socket that can only receive, with its rings and its frames, over libxdp.
//!
//! | ring       | direction    | producer   | consumer   | entries                                             |
//! | ---------- | ------------ | ---------- | ---------- | --------------------------------------------------- |
//! | fill       | us to kernel | `Receiver` | kernel     | addresses of frames to write into                   |
//! | receive    | kernel to us | kernel     | `Receiver` | frames with a packet                                |
//! | completion | kernel to us | nobody     | nobody     | none: without this ring the kernel binds no socket  |
//!
//! There is no ring to send by. The kernel makes one if it is asked to before `bind`, and never afterwards; by a socket without, it sends
//! nothing (`ENOBUFS`). So nobody who takes a running tap over can send frames by its sockets, whatever he maps and calls.
//!
//! Which frame is where, and that none is given away twice, is the caller's to know: [`super::xsk`].
//!
//! Unsafe invariants:
//! - U1: libxdp keeps the addresses of `Rings` and of the frames until the UMEM is deleted, and dereferences them then; so they are
//!   dropped after it, and the rings are reached by their address alone.
//! - U2: a UMEM has one socket, which is deleted before it.
//! - U3: the three belong to one owner and to no thread: libxdp calls nobody back.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use libxdp_sys as sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::memory::{HUGE, huge_pages};

/// Of the completion ring, in which nothing will ever be: the least that the kernel takes is one.
const UNUSED: u32 = 64;

/// A received packet: where it begins, from the beginning of the first frame, and how long it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Desc {
    pub addr: u64,
    pub len: u32,
}

/// Memory that is shared with the kernel.
struct Memory {
    at: NonNull<u8>,
    len: usize,
    /// All that is mapped: some more, so that it begins where a huge page can.
    mapped: (NonNull<u8>, usize),
}

impl Memory {
    /// All there from the beginning: no packet waits for a page. Of huge pages, where the kernel has them: a frame is read once in a while, and
    /// each would miss the TLB.
    fn new(len: usize) -> io::Result<Memory> {
        let all = len + HUGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let first =
            unsafe { libc::mmap(ptr::null_mut(), all, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if first == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first: NonNull<u8> = NonNull::new(first.cast()).expect("no mapping is at 0");
        let before = first.as_ptr().align_offset(HUGE);
        // SAFETY: so far within the mapping, which is longer by a huge page.
        let memory = Memory { at: unsafe { first.add(before) }, len, mapped: (first, all) };
        huge_pages((memory.at.as_ptr() as usize, len));
        // SAFETY: nobody else has its address yet, and it is `len` bytes long.
        unsafe { ptr::write_bytes(memory.at.as_ptr(), 0, len) };
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: U1: nobody has its address any more.
        unsafe { libc::munmap(self.mapped.0.as_ptr().cast(), self.mapped.1) };
    }
}

/// What libxdp knows of the rings.
struct Rings {
    fill: sys::xsk_ring_prod,
    completion: sys::xsk_ring_cons,
    receive: sys::xsk_ring_cons,
}

/// Frames and the rings that go with them.
struct Umem {
    umem: NonNull<sys::xsk_umem>,
    rings: NonNull<Rings>,
    memory: Memory,
}

impl Umem {
    fn new(frames: u32, frame_bytes: u32) -> io::Result<Umem> {
        let memory = Memory::new(frames as usize * frame_bytes as usize)?;
        let config = sys::xsk_umem_config {
            fill_size: frames,
            comp_size: UNUSED,
            frame_size: frame_bytes,
            frame_headroom: 0,
            flags: 0,
        };
        // SAFETY: integers and pointers, which libxdp sets.
        let rings: Rings = unsafe { std::mem::zeroed() };
        let rings = NonNull::from(Box::leak(Box::new(rings)));
        let mut umem = ptr::null_mut();
        // SAFETY: U1: `Umem` owns all of it from here on, and `config` is copied.
        let err = unsafe {
            let (fill, completion) = (&raw mut (*rings.as_ptr()).fill, &raw mut (*rings.as_ptr()).completion);
            let area = memory.at.as_ptr().cast();
            sys::xsk_umem__create(&mut umem, area, memory.len as u64, fill, completion, &config)
        };
        match NonNull::new(umem).filter(|_| err == 0) {
            Some(umem) => Ok(Umem { umem, rings, memory }),
            None => {
                // SAFETY: U1: libxdp keeps nothing of what it could not make.
                drop(unsafe { Box::from_raw(rings.as_ptr()) });
                Err(io::Error::from_raw_os_error(-err))
            }
        }
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: U1, U2: its socket is gone, its rings and frames are still there.
        unsafe { sys::xsk_umem__delete(self.umem.as_ptr()) };
        // SAFETY: U1: made by a box, and nobody has its address any more.
        drop(unsafe { Box::from_raw(self.rings.as_ptr()) });
    }
}

/// See the module.
pub(super) struct Receiver {
    socket: NonNull<sys::xsk_socket>,
    umem: Umem,
}

// SAFETY: U3.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Binds to a queue of an interface of the calling thread's namespace. All `frames`, a power of two, are the caller's: the first
    /// is at address 0, and each of the others `frame_bytes` further on. `flags` are those of `sockaddr_xdp`.
    pub fn bind(
        interface: &str,
        queue: u32,
        frames: u32,
        frame_bytes: u32,
        flags: u16,
    ) -> io::Result<Receiver> {
        let name = CString::new(interface)?;
        let umem = Umem::new(frames, frame_bytes)?;
        // The programs are the tap's own.
        let no_program = sys::XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
        let config = sys::xsk_socket_config {
            rx_size: frames,
            tx_size: 0,
            __bindgen_anon_1: sys::xsk_socket_config__bindgen_ty_1 { libxdp_flags: no_program },
            xdp_flags: 0,
            bind_flags: flags,
        };
        let mut socket = ptr::null_mut();
        let no_ring_to_send_by = ptr::null_mut();
        // SAFETY: U1, U2: name and configuration are copied, the ring outlives the socket.
        let err = unsafe {
            let receive = &raw mut (*umem.rings.as_ptr()).receive;
            let (name, umem) = (name.as_ptr(), umem.umem.as_ptr());
            sys::xsk_socket__create(&mut socket, name, queue, umem, receive, no_ring_to_send_by, &config)
        };
        match NonNull::new(socket).filter(|_| err == 0) {
            Some(socket) => Ok(Receiver { socket, umem }),
            None => Err(io::Error::from_raw_os_error(-err)),
        }
    }

    fn fill(&self) -> *mut sys::xsk_ring_prod {
        // SAFETY: U1: an address within what is owned; nothing is read.
        unsafe { &raw mut (*self.umem.rings.as_ptr()).fill }
    }

    fn received(&self) -> *mut sys::xsk_ring_cons {
        // SAFETY: U1, as above.
        unsafe { &raw mut (*self.umem.rings.as_ptr()).receive }
    }

    /// Gives the frames in which these addresses are to the kernel, which writes to them from now on. All or, if there is no room for
    /// all, none; gives their number.
    ///
    /// # Safety
    /// The frames are the caller's and nobody reads them.
    pub unsafe fn give(&mut self, addresses: impl ExactSizeIterator<Item = u64>) -> usize {
        let (fill, n) = (self.fill(), addresses.len() as u32);
        let mut at = 0;
        // SAFETY: U1, U3.
        if n == 0 || unsafe { sys::xsk_ring_prod__reserve(fill, n, &mut at) } == 0 {
            return 0;
        }
        for address in addresses.take(n as usize) {
            // SAFETY: U1: a place of the ring that was reserved.
            unsafe { *sys::xsk_ring_prod__fill_addr(fill, at) = address };
            at = at.wrapping_add(1);
        }
        // SAFETY: U1: that many were reserved and written.
        unsafe { sys::xsk_ring_prod__submit(fill, n) };
        n as usize
    }

    /// Takes what was received, as much as there is room for. The frames are the caller's.
    pub fn take(&mut self, descs: &mut [Desc]) -> usize {
        let (ring, mut at) = (self.received(), 0);
        // SAFETY: U1, U3.
        let n = unsafe { sys::xsk_ring_cons__peek(ring, descs.len() as u32, &mut at) };
        if n == 0 {
            return 0;
        }
        for desc in descs.iter_mut().take(n as usize) {
            // SAFETY: U1: an entry that the kernel has written and will not touch before it is released.
            let entry = unsafe { *sys::xsk_ring_cons__rx_desc(ring, at) };
            *desc = Desc { addr: entry.addr, len: entry.len };
            at = at.wrapping_add(1);
        }
        // SAFETY: U1: so many were read.
        unsafe { sys::xsk_ring_cons__release(ring, n) };
        n as usize
    }

    /// The bytes of a packet.
    ///
    /// # Safety
    /// It was received here and its frame was not given away since.
    pub unsafe fn bytes(&self, desc: &Desc) -> &[u8] {
        debug_assert!(desc.addr + u64::from(desc.len) <= self.umem.memory.len as u64);
        // SAFETY: the kernel wrote it into these frames, and does not write to it any more.
        unsafe {
            std::slice::from_raw_parts(
                self.umem.memory.at.as_ptr().add(desc.addr as usize),
                desc.len as usize,
            )
        }
    }

    /// Frames that the fill ring has room for.
    pub fn room(&mut self) -> u32 {
        let fill = self.fill();
        // libxdp looks at what the kernel has taken only if what it knows of is less than what is asked for.
        // SAFETY: U1, U3.
        unsafe { sys::xsk_prod_nb_free(fill, (*fill).size) }
    }

    /// Packets that wait to be taken.
    pub fn waiting(&mut self) -> u32 {
        let ring = self.received();
        // SAFETY: U1, U3: both positions are the kernel's and ours to read. Not by libxdp, which answers from what it knew last.
        unsafe {
            let produced = std::sync::atomic::AtomicU32::from_ptr((*ring).producer);
            produced.load(std::sync::atomic::Ordering::Acquire).wrapping_sub((*ring).cached_cons)
        }
    }

    /// Whether the kernel waits to be told that the fill ring has frames: by [`Receiver::poll`].
    pub fn needs_wakeup(&self) -> bool {
        // SAFETY: U1.
        unsafe { sys::xsk_ring_prod__needs_wakeup(self.fill()) != 0 }
    }

    /// Waits for a packet, at most so long. False also after a signal.
    pub fn poll(&self, wait_ms: i32) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(wait_ms).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(n) => Ok(n > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: U1: the socket's own, open as long as it is there.
        unsafe { BorrowedFd::borrow_raw(sys::xsk_socket__fd(self.socket.as_ptr())) }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // SAFETY: U2: once, by its owner; the UMEM is dropped afterwards.
        unsafe { sys::xsk_socket__delete(self.socket.as_ptr()) };
    }
}
