//! The live view: what `syntap top` draws, as it travels to it.
//!
//! Figures are of the run up to now where they are called totals, so that a reader which asks less often misses none; percentiles
//! are of the last second, and rates are the reader's to take.

use serde::{Deserialize, Serialize};

/// Version of the fields below. A reader of another one says so.
pub const VERSION: u32 = 1;

/// How long handshakes took, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Half of them took no longer.
    pub median_us: u64,
    /// 95 % of them.
    pub p95_us: u64,
    /// 99 % of them.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// One tap point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// `inside`, `outside`, `span` or empty.
    pub role: String,
    /// `up`, `down` or `gone`.
    pub state: String,
    /// Packets at its hooks, both ways.
    pub packets: u64,
    /// Of these, mirrored.
    pub mirrored: u64,
    /// Over the budget.
    pub shed: u64,
    /// Handshakes that were answered.
    pub handshakes: u64,
    /// Attempts that led to nothing.
    pub failed: u64,
    /// Attempts that ended.
    pub attempts: u64,
    /// Resets on open flows.
    pub resets: u64,
}

/// An anomaly as it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Which one of the run: each has the next number.
    pub number: u64,
    /// When, ns since the epoch.
    pub ts_ns: u64,
    /// Kind.
    pub kind: String,
    /// Severity.
    pub severity: String,
    /// Whose doing.
    pub verdict: String,
    /// One sentence.
    pub summary: String,
}

/// A responder that anomalies above `info` name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Responder {
    /// Address and port.
    pub at: String,
    /// Its anomalies in the last minute.
    pub recent: u64,
    /// And since the start, or since it was last quiet for long.
    pub total: u64,
    /// The kind that came most often.
    pub kind: String,
}

/// What the tap itself costs and loses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// CPU time of the process, microseconds.
    pub cpu_us: u64,
    /// Memory that it holds, bytes.
    pub memory_bytes: u64,
    /// Packets that this program lost.
    pub dropped: u64,
    /// Packets that the kernel or the NIC never gave.
    pub missed: u64,
    /// Flows given up for room.
    pub given_up: u64,
    /// Records that could not be written.
    pub records_lost: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of shards written.
    pub shard_bytes: u64,
    /// The fullest queue within the last second: its name, and how full it was, 0 to 1.
    pub queue: (String, f64),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// [`VERSION`].
    pub version: u32,
    /// Of the program.
    pub program: String,
    /// This machine.
    pub host: String,
    /// When this was taken, ns since the epoch.
    pub ts_ns: u64,
    /// Since the start, ms, on a clock that nobody sets.
    pub uptime_ms: u64,
    /// Ports that are followed.
    pub ports: String,
    /// Handshakes that were answered.
    pub handshakes: u64,
    /// Attempts that ended.
    pub attempts: u64,
    /// Of these, such as led to nothing.
    pub failed: u64,
    /// Resets on open flows.
    pub resets: u64,
    /// Flows in the table now, and how many there is room for.
    pub flows: (u64, u64),
    /// Anomalies of severity `info`, `warning`, `error`.
    pub anomalies: [u64; 3],
    /// From SYN to SYN-ACK, in the last second.
    pub latency: Latency,
    /// And in the last minute.
    pub latency_minute: Latency,
    /// Tap points.
    pub interfaces: Vec<Interface>,
    /// The worst first.
    pub responders: Vec<Responder>,
    /// The latest last.
    pub events: Vec<Event>,
    /// Anomalies that came too fast to be among the events.
    pub events_passed_over: u64,
    /// See [`Own`].
    pub own: Own,
}
