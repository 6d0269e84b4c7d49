//! SYN floods: raw frames from the far end of a wire, by the hundred thousand a second.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{FAR_IP, NEAR_IP, Wire};

/// Sources are 10.77.0.0/16, which nobody has.
pub const SOURCES: &str = "10.77.0.0/16";

/// A sender with its own idea of who it is.
pub struct Flood {
    socket: OwnedFd,
    frame: [u8; 54],
    next: u32,
    pub sent: u64,
}

fn sum(bytes: &[u8], mut sum: u32) -> u32 {
    for pair in bytes.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    sum
}

fn folded(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn mac(wire: &Wire) -> [u8; 6] {
    let text = wire.near.sh("cat /sys/class/net/near/address");
    let bytes: Vec<u8> = text.trim().split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

impl Flood {
    /// Against a port of `near`.
    pub fn new(wire: &Wire, port: u16) -> Flood {
        let mut frame = [0u8; 54];
        frame[..6].copy_from_slice(&mac(wire));
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x77]);
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
        frame[30..34].copy_from_slice(&NEAR_IP.parse::<std::net::Ipv4Addr>().unwrap().octets());
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame[46..50].copy_from_slice(&[0x50, 2, 0x40, 0]);
        let socket = wire.far.run(|| {
            // SAFETY: a plain system call; the descriptor is owned below.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            assert!(fd >= 0);
            let at = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: 0,
                sll_ifindex: i32::try_from(nix::net::if_::if_nametoindex("far").unwrap()).unwrap(),
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            // SAFETY: a fresh descriptor, and an address that outlives the call.
            let bound = unsafe { libc::bind(fd, (&raw const at).cast(), size_of_val(&at) as u32) };
            assert_eq!(bound, 0);
            // SAFETY: nobody else owns it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        Flood { socket, frame, next: 0, sent: 0 }
    }

    /// The next SYN, of a tuple that none before had.
    fn next(&mut self) -> [u8; 54] {
        let n = self.next;
        self.next += 1;
        let f = &mut self.frame;
        f[26..30].copy_from_slice(&[10, 77, (n >> 8) as u8, n as u8]);
        f[34..36].copy_from_slice(&(1024 + (n >> 16) as u16 * 7).to_be_bytes());
        f[38..42].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        f[24..26].fill(0);
        f[50..52].fill(0);
        let ip = folded(sum(&f[14..34], 0));
        let tcp = folded(sum(&f[26..54], 6 + 20));
        f[24..26].copy_from_slice(&ip);
        f[50..52].copy_from_slice(&tcp);
        *f
    }

    /// Sends for this long, as fast as it goes.
    pub fn run(&mut self, lasts: Duration) {
        const BATCH: usize = 32;
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            let mut frames = [[0u8; 54]; BATCH];
            frames.iter_mut().for_each(|f| *f = self.next());
            let mut parts =
                frames.each_mut().map(|f| libc::iovec { iov_base: f.as_mut_ptr().cast(), iov_len: f.len() });
            // SAFETY: all zero is a message without anything.
            let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
            for (m, part) in messages.iter_mut().zip(&mut parts) {
                m.msg_hdr.msg_iov = part;
                m.msg_hdr.msg_iovlen = 1;
            }
            let mut done = 0;
            while done < BATCH {
                let left = &mut messages[done..];
                // SAFETY: messages, parts and frames outlive the call.
                let n = unsafe {
                    libc::sendmmsg(self.socket.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, 0)
                };
                if n < 0 {
                    let e = std::io::Error::last_os_error();
                    assert_eq!(e.raw_os_error(), Some(libc::ENOBUFS), "{e}");
                    continue;
                }
                done += n as usize;
            }
            self.sent += BATCH as u64;
        }
    }
}

/// Lets the responder's answers to the flood leave, to nobody.
pub fn let_answers_out(wire: &Wire) {
    wire.near.ip(&format!("route add {SOURCES} via {FAR_IP}"));
}
