//! Where records and summaries of `run` and `replay` go.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

use super::filter::Filter;
use super::status::{figures, latency};
use super::{Fail, many, note, say};
use crate::detect::tool::{Gap, Unit, capture_gap};
use crate::detect::{Anomaly, Kind, Severity};
use crate::pipeline::{
    Interval, Keeper, KeeperTotals, RecordSink, ShardDisk, Tally, Ticking, WorkerCounters,
};
use crate::record::{
    ConnectionRecord, Interface, LostRecords, Record, Removed, Retention, ShardError, ShardOptions,
    ShardWriter,
};
use crate::wire::{Malformed, Nanos};

/// What the tool says of itself.
const OWN: [Kind; 2] = [Kind::CaptureGap, Kind::BudgetShed];

/// Records as JSON lines, into shards, both or neither.
#[derive(Default)]
pub struct Output<'a> {
    filter: Filter,
    /// Where other filters come from, while records are written.
    filters: Option<Consumer<Filter>>,
    json: Option<Box<dyn Write + Send + 'a>>,
    connections: Option<Box<dyn Write + Send + 'a>>,
    shards: Option<ShardWriter>,
    /// What of them is put onto the disk and removed in time,
    disk: Option<ShardDisk>,
    /// and who does it, once the first shard has begun.
    keeper: Option<Keeper>,
    /// The record being printed.
    line: Vec<u8>,
    /// It was said that records cannot be written.
    said: bool,
    /// Shards that somebody removed, as far as it was said.
    removed: u64,
    /// Lost records that are in a `capture_gap`.
    told: LostRecords,
    /// What was said to be removed, and that something could not be, or not be put onto the disk.
    told_removed: Removed,
    told_kept: [bool; 2],
    /// For whoever watches the run.
    totals: Arc<RecordTotals>,
}

/// What became of records so far; several threads see it.
#[derive(Debug, Default)]
pub struct RecordTotals([AtomicU64; 4], AtomicBool);

/// A moment's [`RecordTotals`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordsNow {
    /// Records in shards.
    pub written: u64,
    /// Bytes of shards.
    pub bytes: u64,
    /// Shards begun.
    pub shards: u64,
    /// Records that could not be written.
    pub lost: u64,
    /// Nothing can be written at present.
    pub blocked: bool,
}

impl RecordTotals {
    fn set(&self, shards: &ShardWriter) {
        let (written, (lost, trouble)) = (shards.written(), shards.trouble());
        let all = [written.records, written.bytes, written.shards, lost];
        self.0.iter().zip(all).for_each(|(to, n)| to.store(n, Ordering::Relaxed));
        self.1.store(trouble.is_some(), Ordering::Relaxed);
    }

    /// As they are now.
    pub fn now(&self) -> RecordsNow {
        let [written, bytes, shards, lost] = [0, 1, 2, 3].map(|n: usize| self.0[n].load(Ordering::Relaxed));
        RecordsNow { written, bytes, shards, lost, blocked: self.1.load(Ordering::Relaxed) }
    }
}

impl<'a> Output<'a> {
    /// Records are only counted until one of the following is called.
    pub fn new() -> Output<'a> {
        Output::default()
    }

    /// Only what passes is printed and written.
    pub fn only(&mut self, filter: Filter) {
        self.filter = filter;
    }

    /// The same for a run, which may be given others later. What the tool itself lost or shed always passes: all else is read by it.
    pub fn only_by_ring(&mut self, filter: Filter) -> Option<Producer<Filter>> {
        let (to, from) = RingBuffer::new(4);
        (self.filter, self.filters) = (filter, Some(from));
        Some(to)
    }

    fn passes(&self, record: &Record) -> bool {
        let own = self.filters.is_some() && OWN.iter().any(|kind| *kind.name() == *record.kind);
        own || self.filter.passes(record)
    }

    /// Each record as a line.
    pub fn json_to(&mut self, to: Box<dyn Write + Send + 'a>) {
        self.json = Some(to);
    }

    /// Each connection that is over as a line.
    pub fn connections_to(&mut self, to: Box<dyn Write + Send + 'a>) {
        self.connections = Some(to);
    }

    /// Records into shards in `dir`, of which so much is kept. They begin with [`Output::begin_shard`].
    pub fn shards_in(&mut self, dir: &Path, host: &str, retention: Retention) -> Result<(), Fail> {
        let options = options_for(&retention);
        let shards = ShardWriter::create(dir, host, options).map_err(|e| hinted(&e, e.hint()))?;
        self.disk = Some(ShardDisk { dir: dir.into(), host: shards.host().into(), retention });
        self.shards = Some(shards);
        Ok(())
    }

    /// What became of old shards, for the summary; call before [`Output::close`], read after it.
    pub fn kept(&self) -> Option<Arc<KeeperTotals>> {
        self.keeper.as_ref().map(|k| k.totals().clone())
    }

    /// Begins the first shard at once, so that a directory tells a run in which nothing went wrong from none, and a thread for the
    /// disk: what the caller gave up by now, that thread does not have either.
    pub fn begin_shard(&mut self) -> Result<(), Fail> {
        let Some(shards) = &mut self.shards else { return Ok(()) };
        if let Some(disk) = self.disk.take() {
            let started = Keeper::start(disk);
            let (keeper, sync) =
                started.map_err(|e| Fail::new(format!("cannot start a thread for the disk: {e}")))?;
            shards.sync_by(sync);
            self.keeper = Some(keeper);
        }
        shards.begin_first().map_err(|e| hinted(&e, e.hint()))
    }

    /// What becomes of records.
    pub fn totals(&self) -> Arc<RecordTotals> {
        self.totals.clone()
    }

    /// Flushes and closes all of it, and returns the first error. That nobody reads standard output any more is one of
    /// them, and a success to those who call.
    pub fn close(mut self) -> anyhow::Result<()> {
        let json = self.json.as_mut().map_or(Ok(()), |json| json.flush());
        let connections = self.connections.as_mut().map_or(Ok(()), |to| to.flush());
        if let Some(shards) = self.shards.take() {
            let dir = shards.dir().to_owned();
            let closed = shards.close().map_err(|e| hinted(&e, e.hint()));
            let kept = self.keeper.take().map(Keeper::finish);
            closed?;
            if let Some(e) = kept.as_ref().and_then(|k| k.sync_error()) {
                return Err(unsynced(&dir, e).into());
            }
        }
        Ok(json.and(connections)?)
    }

    /// Says what was removed since the last call, and once each what could not be done.
    fn say_kept(&mut self) {
        let Some((shards, keeper)) = self.shards.as_ref().zip(self.keeper.as_ref()) else { return };
        let totals = keeper.totals();
        let removed = totals.removed();
        if removed.shards > self.told_removed.shards {
            let before = std::mem::replace(&mut self.told_removed, removed);
            let new = Removed {
                shards: removed.shards - before.shards,
                bytes: removed.bytes - before.bytes,
                records: removed.records - before.records,
            };
            note(format!("{}: {} to make room", shards.dir().display(), removed_words(&new)));
        }
        if let Some(e) = totals.sync_error().filter(|_| !self.told_kept[0]) {
            self.told_kept[0] = true;
            note(unsynced(shards.dir(), e));
        }
        if let Some(e) = totals.tidy_error().filter(|_| !self.told_kept[1]) {
            self.told_kept[1] = true;
            note(format!("cannot remove old shards in {}: {e}", shards.dir().display()));
        }
    }

    /// Says once that records cannot be written, and each time that somebody removed what was.
    fn say_trouble(&mut self) {
        let removed = self.shards.as_ref().map_or(0, ShardWriter::removed);
        if std::mem::replace(&mut self.removed, removed) < removed {
            say::limited(
                "records",
                "somebody removed the shard that was being written: what it held is gone",
            );
        }
        if let Some((shards, why)) = self.shards.as_ref().and_then(|s| Some((s, s.trouble().1?)))
            && !std::mem::replace(&mut self.said, true)
        {
            say::limited("records", trouble(shards, why));
        }
    }

    /// Says once that records cannot be written, and once that they can again; then a `capture_gap` for what was lost.
    fn shard_trouble(&mut self) -> Option<Anomaly> {
        self.say_trouble();
        let shards = self.shards.as_ref()?;
        match shards.trouble() {
            (_, Some(_)) => None,
            (_, None) => {
                let lost = shards.lost();
                let new = lost.records - self.told.records;
                if std::mem::take(&mut self.said) {
                    let kept = if new == 0 { "none was lost".into() } else { format!("{new} were lost") };
                    say::limited("records", format!("records are written again; {kept}"));
                }
                if new == 0 {
                    return None;
                }
                let first = Nanos(lost.first_ns.max(self.told.last_ns));
                self.told = lost;
                let source = shards.dir().display().to_string();
                let gap = Gap {
                    cause: "disk_full",
                    source: &source,
                    first,
                    last: Nanos(lost.last_ns),
                    count: Some(new),
                    unit: Unit::Records,
                };
                Some(capture_gap(&gap))
            }
        }
    }
}

/// Shards so small that a few of them fit what is kept: a shard goes as a whole.
fn options_for(retention: &Retention) -> ShardOptions {
    let ShardOptions { max_bytes, max_age } = ShardOptions::default();
    ShardOptions {
        max_bytes: retention.max_bytes.map_or(max_bytes, |most| max_bytes.min(most / 4)),
        max_age: retention.max_age.map_or(max_age, |most| max_age.min(most / 4)),
    }
}

/// `2 shards, 128 MiB, 34000 records removed`.
fn removed_words(removed: &Removed) -> String {
    let size = match removed.bytes {
        bytes @ 0..1_048_576 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        bytes => format!("{} MiB", bytes.div_ceil(1 << 20)),
    };
    format!("{}, {size}, {} removed", many(removed.shards, "shard"), many(removed.records, "record"))
}

/// What became of shards, for the summary; `None` if nothing but what should.
pub fn kept_words(totals: &KeeperTotals) -> Option<String> {
    let removed = Some(totals.removed()).filter(|r| r.shards > 0).map(|r| removed_words(&r));
    let left = Some(totals.left.load(Ordering::Relaxed)).filter(|n| *n > 0);
    let left = left.map(|n| format!("{} left to the kernel, for the disk was behind", many(n, "shard")));
    let words: Vec<String> = removed.into_iter().chain(left).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn unsynced(dir: &Path, why: &io::Error) -> Fail {
    Fail::new(format!("records in {} may not survive a power cut: {why}", dir.display()))
        .hint("see what the kernel log says of that disk; `syntap verify` says whether they can be read")
}

fn trouble(shards: &ShardWriter, why: &io::Error) -> Fail {
    let again = || io::Error::new(why.kind(), why.to_string());
    let source = why.raw_os_error().map_or_else(again, io::Error::from_raw_os_error);
    let e = ShardError::Io { operation: "write records into", path: shards.dir().into(), source };
    hinted(&e, e.hint())
}

impl RecordSink for Output<'_> {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        if !self.passes(record) {
            return Ok(());
        }
        if let Some(json) = &mut self.json {
            self.line.clear();
            record.write_line(&mut self.line);
            match json.write_all(&self.line) {
                // Nobody reads the lines any more, and the shards are still wanted.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe && self.shards.is_some() => self.json = None,
                other => other?,
            }
        }
        if let Some(shards) = &mut self.shards {
            shards.push(record)?;
            self.say_trouble();
        }
        Ok(())
    }

    fn figures(&mut self, record: &Record) -> io::Result<()> {
        let Some(shards) = &mut self.shards else { return Ok(()) };
        // A report is made later, of whatever was written, and must not take what was left out for what did not happen.
        match self.filter.given() {
            None => shards.push(record),
            Some(_) if !self.filter.passes_figures(record) => Ok(()),
            Some(first) => {
                let words = Some(self.filter.words()).filter(|w| !w.is_empty());
                let mut record = record.clone();
                record.facts.insert("filter".into(), words.unwrap_or_else(|| first.into()).into());
                shards.push(&record)
            }
        }
    }

    fn connection(&mut self, connection: &ConnectionRecord) -> io::Result<()> {
        if let Some(to) = &mut self.connections
            && self.filter.passes_connection(connection)
        {
            serde_json::to_writer(&mut *to, connection)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}

impl Ticking for Output<'_> {
    fn tick(&mut self) -> io::Result<Option<Anomaly>> {
        while let Some(filter) = self.filters.as_mut().and_then(|f| f.pop().ok()) {
            self.filter = filter;
        }
        if let Some(shards) = &mut self.shards {
            shards.tick();
            self.totals.set(shards);
        }
        self.say_kept();
        Ok(self.shard_trouble())
    }
}

/// An error of a lower layer, for a person.
pub fn hinted(error: &dyn std::error::Error, hint: Option<impl Into<String>>) -> Fail {
    let fail = Fail::new(error.to_string());
    match hint {
        Some(hint) => fail.hint(hint),
        None => fail,
    }
}

/// This machine's name, for records.
pub fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".into(), |n| n.to_string_lossy().into_owned())
}

/// What a run or a replay did, in a few lines.
pub struct Summary<'a> {
    /// The workers' counters, added up.
    pub counters: &'a WorkerCounters,
    /// Anomalies.
    pub tally: &'a Tally,
    /// How long handshakes took, and the responders that were asked for.
    pub figures: &'a Interval,
    /// Lines about the kernel side of a live run: name and figure.
    pub live: &'a [(String, String)],
}

/// Where figures of responders are taken: inside, if that is tapped, so that no connection counts twice; else everywhere.
pub fn figures_at(interfaces: &[Interface]) -> u32 {
    let inside = interfaces.iter().map(|i| i.role.as_deref() == Some("inside"));
    let mask = inside.enumerate().fold(0, |mask, (n, is)| mask | u32::from(is) << (n % 32));
    if mask == 0 { u32::MAX } else { mask }
}

impl Summary<'_> {
    /// Prints it.
    pub fn print(&self, to: &mut dyn Write) -> io::Result<()> {
        let c = self.counters;
        let line = |to: &mut dyn Write, name: &str, text: String| writeln!(to, "{name:<11}{text}");
        for (name, figure) in self.live {
            line(to, name, figure.clone())?;
        }
        line(
            to,
            "packets",
            format!(
                "{}: {} TCP, {} ARP or neighbour, {} others",
                c.packets,
                c.segments,
                c.arp,
                c.others + c.later_fragments
            ),
        )?;
        let bad = Malformed::ALL.iter().zip(c.malformed).filter(|&(_, n)| n > 0);
        let bad: Vec<String> = bad.map(|(m, n)| format!("{} {n}", m.name())).collect();
        if !bad.is_empty() {
            line(to, "unreadable", bad.join(", "))?;
        }
        let evicted = match c.evicted {
            0 => String::new(),
            n => format!(", {n} given up for room, {} of them open", c.evicted_open),
        };
        let untimed = match c.untimed {
            0 => String::new(),
            n => format!(", {n} times no room in the timer wheel"),
        };
        line(to, "flows", format!("{}{evicted}{untimed}", c.flows))?;
        let Interval { syn_acks, acks, responders, .. } = self.figures;
        if !syn_acks.is_empty() {
            line(to, "latency", format!("SYN to SYN-ACK {}", latency(syn_acks)))?;
        }
        if !acks.is_empty() {
            line(to, "", format!("SYN-ACK to ACK {}", latency(acks)))?;
        }
        for f in responders {
            line(to, "", figures(f, None))?;
        }
        if !self.tally.held.is_empty() {
            let held = &self.tally.held;
            line(to, "gateway", format!("held {} SYNs {}", held.len(), latency(held)))?;
        }
        line(
            to,
            "handshakes",
            format!(
                "{} of {} attempts, {} failed; {} resets on open flows",
                c.handshakes, c.attempts, c.failed, c.resets
            ),
        )?;
        let rows = self.tally.rows();
        if rows.is_empty() {
            return line(to, "anomalies", "none".into());
        }
        for (i, (kind, count, worst)) in rows.into_iter().enumerate() {
            let worst = if worst == Severity::Info { "" } else { worst.name() };
            line(
                to,
                if i == 0 { "anomalies" } else { "" },
                format!("{count:>7} {:<24}{worst}", kind.name()),
            )?;
        }
        Ok(())
    }
}
