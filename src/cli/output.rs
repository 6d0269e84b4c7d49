//! Where records and summaries of `run` and `replay` go.

use std::io::{self, Write};
use std::path::Path;

use super::Fail;
use super::show::Filter;
use crate::detect::Severity;
use crate::pipeline::{RecordSink, Tally, Ticking, WorkerCounters};
use crate::record::{ConnectionRecord, Record, ShardOptions, ShardWriter};
use crate::wire::Malformed;

/// Records as JSON lines, into shards, both or neither.
#[derive(Default)]
pub struct Output<'a> {
    json: Option<(Box<dyn Write + Send + 'a>, Filter)>,
    connections: Option<Box<dyn Write + Send + 'a>>,
    shards: Option<ShardWriter>,
}

impl<'a> Output<'a> {
    /// Records are only counted until one of the following is called.
    pub fn new() -> Output<'a> {
        Output::default()
    }

    /// Each record that passes as a line.
    pub fn json_to(&mut self, to: Box<dyn Write + Send + 'a>, filter: Filter) {
        self.json = Some((to, filter));
    }

    /// Each connection that is over as a line.
    pub fn connections_to(&mut self, to: Box<dyn Write + Send + 'a>) {
        self.connections = Some(to);
    }

    /// Records into shards in `dir`.
    pub fn shards_in(&mut self, dir: &Path, host: &str) -> Result<(), Fail> {
        let shards =
            ShardWriter::create(dir, host, ShardOptions::default()).map_err(|e| hinted(&e, e.hint()))?;
        self.shards = Some(shards);
        Ok(())
    }

    /// Flushes and closes; a broken pipe is a success.
    pub fn close(mut self) -> anyhow::Result<()> {
        if let Some((json, _)) = &mut self.json {
            json.flush()?;
        }
        if let Some(connections) = &mut self.connections {
            connections.flush()?;
        }
        if let Some(shards) = self.shards.take() {
            shards.close()?;
        }
        Ok(())
    }
}

impl RecordSink for Output<'_> {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        if let Some((json, filter)) = &mut self.json
            && filter.passes(record)
        {
            serde_json::to_writer(&mut *json, record)?;
            json.write_all(b"\n")?;
        }
        if let Some(shards) = &mut self.shards {
            shards.push(record)?;
        }
        Ok(())
    }

    fn connection(&mut self, connection: &ConnectionRecord) -> io::Result<()> {
        if let Some(to) = &mut self.connections {
            serde_json::to_writer(&mut *to, connection)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}

impl Ticking for Output<'_> {
    fn tick(&mut self) -> io::Result<()> {
        if let Some(shards) = &mut self.shards {
            shards.tick();
        }
        Ok(())
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
    /// Lines about the kernel side of a live run: name and figure.
    pub live: Option<&'a [(String, String)]>,
}

impl Summary<'_> {
    /// Prints it.
    pub fn print(&self, to: &mut dyn Write) -> io::Result<()> {
        let c = self.counters;
        let line = |to: &mut dyn Write, name: &str, text: String| writeln!(to, "{name:<11}{text}");
        for (name, figure) in self.live.unwrap_or_default() {
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
        let evicted =
            if c.evicted > 0 { format!(", {} given up for room", c.evicted) } else { String::new() };
        line(to, "flows", format!("{}{evicted}", c.flows))?;
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
