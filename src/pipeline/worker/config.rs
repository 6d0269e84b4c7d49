//! What a worker is told at its start, and what it counts.

use crate::bpf::Known;
use crate::capture::PortSet;
use crate::flow::{Digest, Endpoint, Seed, Table};
use crate::track::Flow;
use crate::wire::Malformed;

/// What a worker needs to know at start.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Flows there is room for.
    pub max_flows: usize,
    /// Packet digests in the flight recorder.
    pub recorder: usize,
    /// The secret of the flow table's hash.
    pub seed: Seed,
    /// Packets with neither port in the set are passed over.
    pub ports: PortSet,
    /// Hand over each life that is over, not only what was found in it. Every flow is a whole one then.
    pub lives: bool,
    /// Flows that may be whole at one time; 0 lets the table decide. `max_flows` keeps every flow that was ever whole so.
    pub wholes: usize,
    /// No flow is kept in its line alone, as with `lives`: what the lines are held against.
    pub no_lines: bool,
    /// Responders whose figures are kept apart.
    pub responders: Vec<Endpoint>,
    /// Tap points at which they are taken, a bit a point: with both sides of a gateway tapped, one of them.
    pub figures_at: u32,
    /// Tap points that show what opens and closes and little else, a bit a point: live ones, and what they mirrored to a file.
    pub selected: u32,
    /// Count the flags of segments on chosen ports, too: a replay, where no kernel side counts them.
    pub census: bool,
    /// Told which tuples are open, for the kernel side to keep when it sheds; `None` where nothing sheds.
    pub known: Option<Known>,
}

impl Default for WorkerConfig {
    fn default() -> WorkerConfig {
        WorkerConfig {
            max_flows: 65_536,
            recorder: 65_536,
            seed: Seed::FIXED,
            ports: PortSet::all(),
            lives: false,
            wholes: 0,
            no_lines: false,
            responders: Vec::new(),
            figures_at: u32::MAX,
            selected: 0,
            census: false,
            known: None,
        }
    }
}

impl WorkerConfig {
    /// Memory that a worker takes for all this, bytes: some per cent more than it is. IPv6 flows take 32 bytes more each.
    pub fn bytes(&self) -> u64 {
        // The recorder rounds up to a power of two; the wheel has 7 bytes a flow.
        let recorder = (self.recorder as u64).next_power_of_two() * (size_of::<Digest>() as u64 + 8);
        let wholes = if self.keeps_lines() { self.wholes } else { self.max_flows };
        let flow = Table::<Flow>::bytes_for_each(self.max_flows, wholes) as u64 + 7;
        (self.max_flows as u64).saturating_mul(flow).saturating_add(recorder)
    }

    pub(super) fn keeps_lines(&self) -> bool {
        !self.lives && !self.no_lines
    }

    pub(super) fn table(&self) -> Table<Flow> {
        match self.wholes {
            _ if !self.keeps_lines() => Table::with_wholes(self.max_flows, self.max_flows, self.seed),
            0 => Table::new(self.max_flows, self.seed),
            wholes => Table::with_wholes(self.max_flows, wholes, self.seed),
        }
    }
}

/// What a worker counted: plain fields, read between batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerCounters {
    /// Packets handed in.
    pub packets: u64,
    /// Of these, TCP segments on chosen ports.
    pub segments: u64,
    /// ARP packets and neighbour messages.
    pub arp: u64,
    /// Fragments that are not the first.
    pub later_fragments: u64,
    /// Packets of other protocols or ports.
    pub others: u64,
    /// Undecodable packets, by [`Malformed`].
    pub malformed: [u64; Malformed::COUNT],
    /// Flows begun: lives of tuples, not tuples.
    pub flows: u64,
    /// Flows given up for room before their time.
    pub evicted: u64,
    /// Of these, such as were not over: opening, or open.
    pub evicted_early: u64,
    /// Of these, open connections: there was nothing less to give up.
    pub evicted_open: u64,
    /// Times that a flow found no room in the timer wheel: nothing is said of its silence until its next packet.
    pub untimed: u64,
    /// Flows in the table now.
    pub live: u64,
    /// Handshakes that were answered with a SYN-ACK.
    pub handshakes: u64,
    /// Attempts to open that ended, well or not.
    pub attempts: u64,
    /// Attempts that led to nothing: refused, given up, never answered.
    pub failed: u64,
    /// Resets on open flows.
    pub resets: u64,
}

impl WorkerCounters {
    /// Adds another worker's.
    pub fn add(&mut self, o: &WorkerCounters) {
        self.packets += o.packets;
        self.segments += o.segments;
        self.arp += o.arp;
        self.later_fragments += o.later_fragments;
        self.others += o.others;
        for (a, b) in self.malformed.iter_mut().zip(o.malformed) {
            *a += b;
        }
        self.flows += o.flows;
        self.evicted += o.evicted;
        self.evicted_early += o.evicted_early;
        self.evicted_open += o.evicted_open;
        self.untimed += o.untimed;
        self.live += o.live;
        self.handshakes += o.handshakes;
        self.attempts += o.attempts;
        self.failed += o.failed;
        self.resets += o.resets;
    }
}
