//! Keeps a flood of anomalies from becoming a flood of records: beyond a rate for each kind and responder the rest is
//! counted, and the number suppressed is written.

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::Value;

use super::Record;
use super::model::Word;
use crate::detect::Kind;

/// Length of a window, in record time.
const WINDOW_NS: u64 = 10_000_000_000;

/// Records of one kind and responder written whole in a window. A person reads tens; 200 in 10 s still show any
/// pattern, and 20 a second of 4 KiB each are 80 KiB/s before compression.
const WHOLE: u64 = 200;

/// Kinds and responders counted apart; beyond that they share one count.
const KEYS: usize = 4096;

/// Kinds that are never only counted: a few each second at most.
const OWN: [Kind; 4] = [Kind::CaptureGap, Kind::BudgetShed, Kind::OneSidedView, Kind::AsymmetricHash];

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    kind: Word,
    responder: Option<(IpAddr, u16)>,
}

#[derive(Default)]
struct Window {
    written: u64,
    suppressed: u64,
    /// The last of those suppressed, with the times of all of them.
    last: Option<Box<Record>>,
}

/// See the module.
#[derive(Default)]
pub struct Coalescer {
    start: u64,
    windows: HashMap<Key, Window>,
}

impl Coalescer {
    /// Takes a record; hands it on, or counts it. What syntap lost or shed itself is always handed on: all else is read by it.
    pub fn push(&mut self, record: Record, out: &mut dyn FnMut(Record)) {
        if OWN.iter().any(|kind| *kind.name() == *record.kind) {
            return out(record);
        }
        if record.ts_ns >= self.start.saturating_add(WINDOW_NS) {
            self.finish(out);
            self.start = record.ts_ns;
        }
        let mut key = Key { kind: record.kind.clone(), responder: record.dst_ip.zip(record.dst_port) };
        if self.windows.len() >= KEYS && !self.windows.contains_key(&key) {
            key.responder = None;
        }
        let w = self.windows.entry(key).or_default();
        if w.written < WHOLE {
            w.written += 1;
            out(record);
        } else {
            w.suppressed += record.count;
            let before = w.last.take().map_or((u64::MAX, 0), |r| (r.first_ns, r.last_ns));
            let (first_ns, last_ns) = (before.0.min(record.first_ns), before.1.max(record.last_ns));
            w.last = Some(Box::new(Record { first_ns, last_ns, ..record }));
        }
    }

    /// Lets time pass where there is a clock: what was counted is written, also if nothing comes that ends its window.
    pub fn tick(&mut self, now_ns: u64, out: &mut dyn FnMut(Record)) {
        // What is held back for news of losses may be some seconds late.
        if now_ns >= self.start.saturating_add(2 * WINDOW_NS) && !self.windows.is_empty() {
            self.finish(out);
        }
    }

    /// Writes what was counted: the last of each, with the number that it stands for and the times of all of them.
    pub fn finish(&mut self, out: &mut dyn FnMut(Record)) {
        let mut windows: Vec<(Key, Window)> = self.windows.drain().collect();
        windows.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, w) in windows {
            let Some(mut record) = w.last else { continue };
            record.count = w.suppressed;
            record.facts.insert("suppressed".into(), Value::from(w.suppressed));
            record.summary = format!("{} more like this one: {}", w.suppressed, record.summary);
            out(*record);
        }
    }
}
