//! Conversations made by hand: two ends that keep their numbers, and a capture that keeps the time.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::packet::{ACK, FIN, RST, SYN, Tcp, pcap, pcapng, pcapng_by};
use super::replay;

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// When captures begin, microseconds.
const BEGIN: u64 = 1_700_000_000_000_000;

/// Options of a SYN: MSS 1460, SACK permitted, window scale 7.
pub const OPTIONS: [u8; 12] = [2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7];

/// Packets in order, each some milliseconds after the one before.
pub struct Capture {
    now: u64,
    packets: Vec<(u64, u32, Vec<u8>)>,
}

impl Default for Capture {
    fn default() -> Capture {
        Capture { now: BEGIN, packets: Vec::new() }
    }
}

impl Capture {
    /// Puts a frame `ms` after the one before.
    pub fn after(&mut self, ms: f64, frame: Vec<u8>) {
        self.way(ms, 0, frame);
    }

    /// Puts a frame of which the tap knows the direction: 1 in, 2 out.
    pub fn way(&mut self, ms: f64, way: u32, frame: Vec<u8>) {
        self.now += (ms * 1e3) as u64;
        self.packets.push((self.now, way, frame));
    }

    /// Lets time pass, and shows that the capture went on: a lone segment of nobody's, on a port of its own.
    pub fn quiet(&mut self, ms: f64) {
        let other = Tcp { src: (ROUTER, 9), dst: (SERVER, 9), ..Talk::new(9).client(ACK, 0) };
        self.after(ms, other.frame());
    }

    /// Lets time pass without a packet.
    pub fn pass(&mut self, ms: f64) {
        self.now += (ms * 1e3) as u64;
    }

    /// Connections from ports `from` on, with two requests each, `pause` milliseconds between one and the next; the server resets one in `every`.
    pub fn connections(&mut self, from: u16, count: u16, every: u16, pause: f64) {
        for n in 0..count {
            let mut t = Talk::new(from + n);
            t.open(self);
            t.exchange(self);
            t.exchange(self);
            if n % every == 0 {
                self.after(5.0, t.server(RST | ACK, 0).frame());
            } else {
                t.close(self);
            }
            self.pass(pause);
        }
    }

    /// Its file.
    pub fn bytes(&self) -> Vec<u8> {
        let directed = self.packets.iter().any(|p| p.1 != 0);
        if directed {
            pcapng(&self.packets)
        } else {
            pcap(&self.packets.iter().map(|(us, _, f)| (*us, f.clone())).collect::<Vec<_>>())
        }
    }

    /// What a replay finds in it.
    pub fn records(&self) -> Vec<Value> {
        found_in(self.bytes())
    }

    /// What it finds if these are the packets that a tap mirrored, of more that there were.
    pub fn mirrored(&self) -> Vec<Value> {
        found_in(pcapng_by("syntap 0", &self.packets))
    }
}

fn found_in(capture: Vec<u8>) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("made.pcap");
    std::fs::write(&path, capture).expect("written");
    replay(&[path.to_str().expect("a path")])
}

/// Two ends that talk: what each sends next, and with which TTL and identification.
#[derive(Clone, Debug)]
pub struct Talk {
    pub client: (Ipv4Addr, u16),
    pub server: (Ipv4Addr, u16),
    /// Next sequence number: client, server.
    pub next: [u32; 2],
    pub ttl: [u8; 2],
    id: [u16; 2],
    /// Options of the SYNs.
    pub options: Vec<u8>,
}

impl Talk {
    /// A client's port, and the server's port 443.
    pub fn new(port: u16) -> Talk {
        Talk::to((CLIENT, port), (SERVER, 443))
    }

    pub fn to(client: (Ipv4Addr, u16), server: (Ipv4Addr, u16)) -> Talk {
        let isn = u32::from(client.1).wrapping_mul(100_000);
        let (next, ttl, id) = ([isn, isn.wrapping_add(7_000_000)], [64, 57], [1_000, 30_000]);
        Talk { client, server, next, ttl, id, options: OPTIONS.to_vec() }
    }

    fn segment(&mut self, from: usize, flags: u8, payload: usize) -> Tcp {
        let ends = [self.client, self.server];
        self.id[from] = self.id[from].wrapping_add(1);
        let tcp = Tcp {
            src: ends[from],
            dst: ends[1 - from],
            flags,
            seq: self.next[from],
            ack: if flags & ACK != 0 { self.next[1 - from] } else { 0 },
            win: 29_200,
            options: if flags & SYN != 0 { self.options.clone() } else { vec![] },
            payload,
            ttl: self.ttl[from],
            id: self.id[from],
        };
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.next[from] = self.next[from].wrapping_add(payload as u32 + control);
        tcp
    }

    /// The client's next segment.
    pub fn client(&mut self, flags: u8, payload: usize) -> Tcp {
        self.segment(0, flags, payload)
    }

    /// The server's next segment.
    pub fn server(&mut self, flags: u8, payload: usize) -> Tcp {
        self.segment(1, flags, payload)
    }

    /// Three packets, 5 ms apart.
    pub fn open(&mut self, to: &mut Capture) {
        to.after(5.0, self.client(SYN, 0).frame());
        to.after(5.0, self.server(SYN | ACK, 0).frame());
        to.after(5.0, self.client(ACK, 0).frame());
    }

    /// A request and its answer, 5 ms apart.
    pub fn exchange(&mut self, to: &mut Capture) {
        to.after(5.0, self.client(ACK, 320).frame());
        to.after(5.0, self.server(ACK, 270).frame());
        to.after(5.0, self.client(ACK, 0).frame());
    }

    /// The client closes first.
    pub fn close(&mut self, to: &mut Capture) {
        to.after(5.0, self.client(FIN | ACK, 0).frame());
        to.after(5.0, self.server(FIN | ACK, 0).frame());
        to.after(5.0, self.client(ACK, 0).frame());
    }

    /// The server closes first, and so is the one that waits.
    pub fn close_by_server(&mut self, to: &mut Capture) {
        to.after(5.0, self.server(FIN | ACK, 0).frame());
        to.after(5.0, self.client(FIN | ACK, 0).frame());
        to.after(5.0, self.server(ACK, 0).frame());
    }

    /// The next life of the tuple, with another client's ISN.
    pub fn again(&self, isn: u32) -> Talk {
        Talk { next: [isn, self.next[1].wrapping_add(65_536)], ..self.clone() }
    }
}
