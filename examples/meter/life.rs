//! Connections as the kernel side mirrors them: ten packets each, many connections at once, every one equally likely next.
//!
//! A *slot* is a client. It lives connection after connection; each is what a short request looks like under watch:
//!
//! ```text
//! SYN, SYN-ACK, ACK, request, ACK, answer, ACK, FIN, FIN, ACK
//! ```
//!
//! so four packets in ten have SYN or FIN set, and six are plain ones that the watch brings. Time goes in *rounds*. In each every
//! slot in the middle of a life sends its next packet, in an order that is a permutation of its own: no cache keeps a flow from one
//! packet to the next. Slots stand at different steps of their lives, so that packets of all ten kinds come mixed. What follows a
//! life is the [`Mix`]. As a rule all slots live one life in [`CYCLE`] rounds, begun in one of the first ten, and then packet time
//! jumps: past the time after which a closed flow is forgotten, or past TIME_WAIT, so that using the tuple again is no anomaly. A whole
//! cycle, ten packets a slot, has every kind of packet, birth and death by its share; a part of one has not.
//!
//! A round takes [`ROUND_NS`] of packet time at most, so that the answer to a SYN comes within 80 ms and nothing here is an anomaly;
//! how long it takes to be worked through is another matter.

/// Packets of a life.
pub const LIFE: usize = 10;

/// Rounds in which every slot lives one life, begun in one of the first ten.
const CYCLE: u64 = 2 * LIFE as u64 - 1;

/// Packet time of a round in which all slots send.
pub const ROUND_NS: u64 = 40_000_000;

/// Room for any frame that is made here.
pub const STRIDE: usize = 96;

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// Bytes of a request and of an answer. They are told of by the IP header and not in the frame: as in a capture of headers.
const REQUEST: u16 = 320;
const ANSWER: u16 = 270;

/// A kind of packet: from the originator or not, flags, how far the sender's and the receiver's sequence numbers are, payload.
const STEPS: [(bool, u8, u16, u16, u16); LIFE] = [
    (true, SYN, 0, 0, 0),
    (false, SYN | ACK, 0, 1, 0),
    (true, ACK, 1, 1, 0),
    (true, PSH | ACK, 1, 1, REQUEST),
    (false, ACK, 1, 1 + REQUEST, 0),
    (false, PSH | ACK, 1, 1 + REQUEST, ANSWER),
    (true, ACK, 1 + REQUEST, 1 + ANSWER, 0),
    (true, FIN | ACK, 1 + REQUEST, 1 + ANSWER, 0),
    (false, FIN | ACK, 1 + ANSWER, 2 + REQUEST, 0),
    (true, ACK, 2 + REQUEST, 2 + ANSWER, 0),
];

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Which connections follow each other in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mix {
    /// Life after life on one tuple, 61 s apart: the table holds just the slots, and none is ever born or given up.
    Steady,
    /// Each life on a tuple of its own, the one before forgotten by its timer: a birth and a death for each ten packets.
    Births,
    /// Each life on a tuple of its own at once, in a table that is full: a birth, and a flow that is over given up for it, each ten
    /// packets.
    Full,
    /// SYNs only, each of another tuple: a flood.
    Flood,
}

/// A packet to be made: which slot, how many lives it had before, which step of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    pub slot: u32,
    pub life: u32,
    pub step: u8,
    pub at: u64,
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 32
}

/// The order of visits: first each slot up to where it stands at the beginning, then round after round.
pub struct Order {
    bits: u32,
    mix: Mix,
    /// The next slot to be brought where it stands, and its next step.
    filling: (u32, u8),
    round: u64,
    next: u64,
    now: u64,
    step_ns: u64,
    fraction: u64,
    /// Packet time that passes without packets when every slot has lived.
    pause: u64,
    /// One packet in so many is lost; 0 for none.
    lost: u64,
}

impl Order {
    /// `2^bits` slots, from `start` on.
    pub fn new(bits: u32, mix: Mix, start: u64) -> Order {
        // In 2^-20 ns, so that a round of many slots takes as long as one of few.
        let step_ns = ((ROUND_NS << 20) >> bits).max(1);
        let pause = match mix {
            Mix::Steady => 61_000_000_000,
            Mix::Births => 121_000_000_000,
            Mix::Full | Mix::Flood => 0,
        };
        let round = if mix == Mix::Full { 0 } else { LIFE as u64 - 1 };
        Order { bits, mix, filling: (0, 0), round, next: 0, now: start, step_ns, fraction: 0, pause, lost: 0 }
    }

    /// The same, but that one packet in `lost` is none: as behind a ring that overflows, so that hardly a connection has all of its own.
    pub fn losing(self, lost: u64) -> Order {
        Order { lost, ..self }
    }

    fn is_lost(&self, slot: u32, life: u64, step: u64) -> bool {
        self.lost != 0 && mix(u64::from(slot) << 32 ^ life << 4 ^ step).is_multiple_of(self.lost)
    }

    /// The step that a slot is at in the tenth round, with which the order begins.
    fn stands_at(slot: u32) -> u8 {
        (mix(u64::from(slot)) % LIFE as u64) as u8
    }

    fn tick(&mut self) -> u64 {
        self.fraction += self.step_ns;
        self.now += self.fraction >> 20;
        self.fraction &= (1 << 20) - 1;
        self.now
    }

    /// A bijection of the slots, another one each round.
    fn permuted(&self, i: u64) -> u32 {
        let mask = (1u64 << self.bits) - 1;
        let half = self.bits / 2 + 1;
        let mut x = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1)).wrapping_add(mix(self.round)) & mask;
        x ^= x >> half;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9) & mask;
        x ^= x >> half;
        x = x.wrapping_mul(0x94d0_49bb_1331_11eb) & mask;
        (x ^ x >> half) as u32
    }

    /// The next packet that brings a slot where it stands; none when all are there.
    pub fn fill(&mut self) -> Option<Visit> {
        if self.mix == Mix::Flood {
            return None;
        }
        loop {
            let (slot, step) = self.filling;
            if slot >> self.bits != 0 {
                return None;
            }
            if step < Self::stands_at(slot) {
                self.filling.1 += 1;
                if self.is_lost(slot, 0, step.into()) {
                    continue;
                }
                return Some(Visit { slot, life: 0, step, at: self.tick() });
            }
            self.filling = (slot + 1, 0);
        }
    }

    /// The next packet of the steady state.
    pub fn next(&mut self) -> Visit {
        loop {
            let (slot, round) = (self.permuted(self.next), self.round);
            self.next += 1;
            if self.next >> self.bits != 0 {
                self.next = 0;
                self.round += 1;
                if self.round.is_multiple_of(CYCLE) {
                    self.now += self.pause;
                }
            }
            if self.mix == Mix::Flood {
                return Visit { slot, life: round as u32, step: 0, at: self.tick() };
            }
            let stands = u64::from(Self::stands_at(slot));
            let (life, step) = if self.mix == Mix::Full {
                let count = round + stands;
                (count / LIFE as u64, Some(count % LIFE as u64))
            } else {
                (round / CYCLE, (round % CYCLE + stands).checked_sub(LIFE as u64 - 1))
            };
            if let Some(step) = step.filter(|s| *s < LIFE as u64 && !self.is_lost(slot, life, *s)) {
                return Visit { slot, life: life as u32, step: step as u8, at: self.tick() };
            }
        }
    }

    /// Slots.
    pub fn slots(&self) -> u64 {
        1 << self.bits
    }
}

/// Makes frames: a template for each step, patched.
pub struct Maker {
    family: Family,
    mix: Mix,
    checksums: bool,
    templates: [[u8; STRIDE]; LIFE],
    lens: [usize; LIFE],
}

impl Maker {
    /// Checksums only where someone looks at them.
    pub fn new(family: Family, mix: Mix, checksums: bool) -> Maker {
        let mut maker = Maker { family, mix, checksums, templates: [[0; STRIDE]; LIFE], lens: [0; LIFE] };
        for step in 0..LIFE {
            let frame = template(family, step);
            maker.lens[step] = frame.len();
            maker.templates[step][..frame.len()].copy_from_slice(&frame);
        }
        maker
    }

    /// Writes the frame of a visit; returns its bytes, and their number on the wire.
    #[inline]
    pub fn make(&self, v: &Visit, to: &mut [u8; STRIDE]) -> (usize, u32) {
        let step = usize::from(v.step);
        let (from_client, _, seq, ack, payload) = STEPS[step];
        let len = self.lens[step];
        *to = self.templates[step];
        let again = if self.mix == Mix::Steady { 0 } else { v.life };
        let port = (1024 + again % 60_000) as u16;
        let l4 = match self.family {
            Family::V4 => {
                let client = if from_client { 26 } else { 30 };
                to[client + 1..client + 4].copy_from_slice(&v.slot.to_be_bytes()[1..]);
                to[18..20].copy_from_slice(&((v.at >> 10) as u16 | 1).to_be_bytes());
                34
            }
            Family::V6 => {
                let client = if from_client { 22 } else { 38 };
                to[client + 12..client + 16].copy_from_slice(&v.slot.to_be_bytes());
                54
            }
        };
        let client = if from_client { l4 } else { l4 + 2 };
        to[client..client + 2].copy_from_slice(&port.to_be_bytes());
        // Sequence numbers of a reused tuple go forward, as a kernel's do.
        let isn = mix(u64::from(v.slot) << 1) as u32;
        let isn = isn.wrapping_add(v.life.wrapping_mul(250_000));
        let other = isn.wrapping_add(0x2000_0000);
        let (mine, theirs) = if from_client { (isn, other) } else { (other, isn) };
        to[l4 + 4..l4 + 8].copy_from_slice(&mine.wrapping_add(seq.into()).to_be_bytes());
        if step > 0 {
            to[l4 + 8..l4 + 12].copy_from_slice(&theirs.wrapping_add(ack.into()).to_be_bytes());
        }
        let ms = (v.at / 1_000_000) as u32;
        let stamp = if step < 2 { l4 + 28 } else { l4 + 24 };
        to[stamp..stamp + 4].copy_from_slice(&ms.to_be_bytes());
        if step > 0 {
            to[stamp + 4..stamp + 8].copy_from_slice(&ms.wrapping_sub(20).to_be_bytes());
        }
        if self.checksums {
            self.sum(&mut to[..len], l4, payload);
        }
        (len, len as u32 + u32::from(payload))
    }

    /// The payload is all zero, so it adds its length and nothing else.
    fn sum(&self, frame: &mut [u8], l4: usize, payload: u16) {
        let fold = |mut sum: u32| {
            while sum >> 16 != 0 {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            !(sum as u16)
        };
        let words =
            |b: &[u8]| b.chunks_exact(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
        if self.family == Family::V4 {
            frame[24..26].fill(0);
            let ip = fold(words(&frame[14..34]));
            frame[24..26].copy_from_slice(&ip.to_be_bytes());
        }
        let addresses = if self.family == Family::V4 { 26 } else { 22 };
        let tcp_len = (frame.len() - l4) as u32 + u32::from(payload);
        frame[l4 + 16..l4 + 18].fill(0);
        let tcp = fold(words(&frame[addresses..]) + 6 + tcp_len);
        frame[l4 + 16..l4 + 18].copy_from_slice(&tcp.to_be_bytes());
    }
}

fn template(family: Family, step: usize) -> Vec<u8> {
    let (from_client, flags, _, _, payload) = STEPS[step];
    let options: &[u8] = if step < 2 {
        // MSS, SACK permitted, timestamps, NOP, window scale: what Linux sends.
        &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7]
    } else {
        &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    let tcp_len = 20 + options.len() as u16;
    let mut tcp = vec![0; 20];
    let ports = if from_client { 2 } else { 0 };
    tcp[ports..ports + 2].copy_from_slice(&443u16.to_be_bytes());
    tcp[12] = ((tcp_len / 4) << 4) as u8;
    tcp[13] = flags;
    tcp[14..16].copy_from_slice(&if step < 2 { 64_240u16 } else { 502 }.to_be_bytes());
    tcp.extend(options);
    let (client, server) = ([2u8, 0, 0, 0, 0, 1], [2u8, 0, 0, 0, 0, 2]);
    let (dst, src) = if from_client { (server, client) } else { (client, server) };
    let mut frame = [dst, src].concat();
    match family {
        Family::V4 => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + tcp_len + payload).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            let (client, server) = ([10, 0, 0, 0], [192, 0, 2, 1]);
            frame.extend(if from_client { [client, server] } else { [server, client] }.concat());
        }
        Family::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((tcp_len + payload).to_be_bytes());
            frame.extend([6, 64]);
            let mut client = [0u8; 16];
            client[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
            let mut server = client;
            server[4] = 1;
            server[15] = 1;
            frame.extend(if from_client { [client, server] } else { [server, client] }.concat());
        }
    }
    frame.extend(tcp);
    frame
}
