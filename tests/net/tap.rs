//! What tests of the tap share: a configuration, what came out of the rings, connections and raw frames through it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use syntap::bpf::Meta;
use syntap::bpf::abi::reason;
use syntap::capture::ports::PortSet;
use syntap::capture::tap::{Mode, TapConfig, TapInterface};
use syntap::capture::{LiveSource, Transport};
use syntap::wire::Way;

use super::{Namespace, Wire, pin};

pub fn config(interface: &str, mode: Option<Mode>, ports: &str) -> TapConfig {
    TapConfig {
        interfaces: vec![TapInterface { name: interface.into(), mode }],
        ports: ports.parse::<PortSet>().unwrap(),
        frames: 512,
        ..TapConfig::default()
    }
}

/// The same with inline interfaces' packets coming this way.
pub fn config_by(transport: Transport, interface: &str, mode: Option<Mode>, ports: &str) -> TapConfig {
    TapConfig { transport, ..config(interface, mode, ports) }
}

/// Runs a test once for each way into user space.
pub fn with_both(test: impl Fn(Transport)) {
    for transport in [Transport::Ringbuf, Transport::Afxdp] {
        println!("transport {}", transport.name());
        test(transport);
    }
}

/// A mirrored packet, copied out of its frame.
#[derive(Clone, Debug)]
pub struct Seen {
    pub source: usize,
    pub meta: Meta,
    pub way: Way,
    pub ts: u64,
    pub vlan: (u16, u16),
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn is_tcp(&self) -> bool {
        self.meta.reason & (reason::ARP | reason::NEIGHBOUR) == 0
    }
}

/// Reads until nothing has come for a while.
pub fn drain(sources: &mut [LiveSource]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(100) {
        for (i, source) in sources.iter_mut().enumerate() {
            source
                .poll_with_meta(5, &mut |packets, metas| {
                    quiet = Instant::now();
                    for (p, m) in packets.iter().zip(metas) {
                        seen.push(Seen {
                            source: i,
                            meta: *m,
                            way: p.way,
                            ts: p.ts.0,
                            vlan: (p.vlan.tpid, p.vlan.tci),
                            bytes: p.bytes.to_vec(),
                        });
                    }
                })
                .expect("the ring is alive");
        }
    }
    seen
}

/// Serves `connections` connections that each read one byte and answer one.
pub fn serve(ns: &Namespace, address: &str, connections: usize, client: impl FnOnce() + Send) {
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            ns.run(|| {
                let listener = TcpListener::bind(address).expect("a free port");
                ready.send(()).unwrap();
                for _ in 0..connections {
                    let (mut peer, _) = listener.accept().unwrap();
                    let mut byte = [0];
                    if peer.read_exact(&mut byte).is_ok() {
                        peer.write_all(&byte).unwrap();
                    }
                    // The client closes first.
                    let _ = peer.read(&mut byte);
                }
            });
        });
        is_ready.recv().unwrap();
        client();
    });
}

pub fn ping(address: &str) -> std::net::SocketAddr {
    let mut peer = TcpStream::connect(address).expect("a connection");
    peer.set_nodelay(true).unwrap();
    let local = peer.local_addr().unwrap();
    peer.write_all(b"x").unwrap();
    let mut byte = [0];
    peer.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    local
}

pub fn ifindex(ns: &Namespace, name: &str) -> u32 {
    ns.ip(&format!("-o link show {name}")).split(':').next().unwrap().trim().parse().unwrap()
}

/// Sends raw frames from `far`: what a mirror port delivers.
pub struct RawSender {
    pub socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl RawSender {
    pub fn new(wire: &Wire) -> RawSender {
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: ifindex(&wire.far, "far") as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        let socket = wire.far.run(|| {
            // SAFETY: a plain system call; the descriptor is owned below.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            assert!(fd >= 0);
            // SAFETY: a fresh descriptor.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        RawSender { socket, to }
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: frame and address outlive the call.
        let n = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.to).cast(),
                size_of_val(&self.to) as u32,
            )
        };
        assert_eq!(n, frame.len() as isize);
    }
}

pub fn send_raw(wire: &Wire, frames: &[Vec<u8>]) {
    let sender = RawSender::new(wire);
    frames.iter().for_each(|f| sender.send(f));
}

/// Sends `len` bytes from far to an address of near and back, and checks every one.
pub fn transfer(wire: &Wire, address: &str, len: usize) {
    let (ready, is_ready) = mpsc::channel();
    let data: Vec<u8> = (0..len).map(|i| ((i * 31) >> 3) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            wire.near.run(|| {
                pin();
                let listener = TcpListener::bind(address).unwrap();
                ready.send(()).unwrap();
                let (mut peer, _) = listener.accept().unwrap();
                let mut all = vec![0; len];
                peer.read_exact(&mut all).unwrap();
                peer.write_all(&all).unwrap();
            });
        });
        is_ready.recv().unwrap();
        wire.far.run(|| {
            pin();
            let mut peer = TcpStream::connect(address).unwrap();
            peer.write_all(&data).unwrap();
            let mut back = Vec::new();
            peer.read_to_end(&mut back).unwrap();
            assert!(back == data, "every byte came back");
        });
    });
}

/// A foreign program of two instructions: answers always the same.
pub fn foreign(kind: u32, name: &str, answer: i32) -> OwnedFd {
    let insn = |code: u8, imm: i32| libbpf_sys::bpf_insn { code, imm, ..Default::default() };
    // mov r0, answer; exit.
    let program = [insn(0xb7, answer), insn(0x95, 0)];
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the program, its name and the licence outlive the call.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            kind,
            name.as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "{fd}");
    // SAFETY: a fresh descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
