//! `syntap show`: records for a person, or as they are stored.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::hinted;
use super::text::{Style, fact_text, packet_line, wrap};
use super::{Fail, shard_notes};
use crate::detect::{Certainty, Kind, Severity, Verdict};
use crate::record::{Record, read_shard, shard_paths};

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    filter: Filter,

    /// Print at most this many records.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Print records as they are stored: one line of JSON each.
    #[arg(long)]
    json: bool,

    /// Directories of shards, or shards.
    #[arg(required = true, value_name = "DIR|SHARD")]
    paths: Vec<PathBuf>,
}

/// Which records.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Kinds: commas and repeats add more (`syntap explain` lists them).
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    kind: Vec<Kind>,

    /// At least this severe: info, warning, error.
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    severity: Option<Severity>,

    /// Whose doing: responder, originator, gateway, network, middlebox, unknown.
    #[arg(long, value_name = "WHO", value_delimiter = ',', value_parser = parse_verdict)]
    verdict: Vec<Verdict>,

    /// At least this certain: possible, likely, proven.
    #[arg(long, value_name = "CERTAINTY", value_parser = parse_certainty)]
    certainty: Option<Certainty>,

    /// Addresses or address:port that must be an end of the tuple; each one given must be there.
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = parse_end)]
    tuple: Vec<(IpAddr, Option<u16>)>,

    /// Community ID.
    #[arg(long, value_name = "ID")]
    community_id: Option<String>,

    /// From this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,

    /// Until this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
}

fn parse_kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| "no such kind; `syntap explain` lists them".into())
}

fn parse_severity(name: &str) -> Result<Severity, String> {
    Severity::from_name(name).ok_or_else(|| "one of info, warning, error".into())
}

fn parse_verdict(name: &str) -> Result<Verdict, String> {
    Verdict::from_name(name)
        .ok_or_else(|| "one of responder, originator, gateway, network, middlebox, unknown".into())
}

fn parse_certainty(name: &str) -> Result<Certainty, String> {
    Certainty::from_name(name).ok_or_else(|| "one of possible, likely, proven".into())
}

fn parse_end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip, None));
    }
    let end = text.parse::<std::net::SocketAddr>();
    end.map(|e| (e.ip(), Some(e.port()))).map_err(|_| "an address, address:port or [address]:port".into())
}

impl Filter {
    /// True if the record passes.
    pub fn passes(&self, r: &Record) -> bool {
        let is = |ip: Option<IpAddr>, port: Option<u16>, end: &(IpAddr, Option<u16>)| {
            ip == Some(end.0) && (end.1.is_none() || port == end.1)
        };
        let ns = |t: &jiff::Timestamp| u64::try_from(t.as_nanosecond()).unwrap_or(0);
        (self.kind.is_empty() || self.kind.iter().any(|k| k.name() == r.kind))
            && self.severity.is_none_or(|s| Severity::from_name(&r.severity).is_some_and(|x| x >= s))
            && (self.verdict.is_empty() || self.verdict.iter().any(|v| v.name() == r.verdict))
            && self.certainty.is_none_or(|c| Certainty::from_name(&r.certainty).is_some_and(|x| x >= c))
            && self.tuple.iter().all(|e| is(r.src_ip, r.src_port, e) || is(r.dst_ip, r.dst_port, e))
            && self.community_id.as_ref().is_none_or(|id| r.community_id.as_ref() == Some(id))
            && self.since.as_ref().is_none_or(|t| r.last_ns >= ns(t))
            && self.until.as_ref().is_none_or(|t| r.first_ns <= ns(t))
    }
}

/// Runs it.
pub fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let paths = shard_paths(&args.paths).map_err(|e| hinted(&e, None::<String>))?;
    if paths.is_empty() {
        return Err(Fail::new("no shards there").hint("`syntap run -w DIR` writes them into DIR").into());
    }
    let stdout = io::stdout();
    let style = Style::of_stdout(stdout.is_terminal());
    let mut out = BufWriter::new(stdout.lock());
    let mut shown = 0u64;
    let mut failed: io::Result<()> = Ok(());
    let mut readable = 0;
    for path in &paths {
        let state = read_shard(path, &mut |record| {
            if failed.is_err() || args.limit.is_some_and(|l| shown >= l) || !args.filter.passes(&record) {
                return;
            }
            shown += 1;
            failed = if args.json {
                serde_json::to_writer(&mut out, &record)
                    .map_err(io::Error::from)
                    .and_then(|()| out.write_all(b"\n"))
            } else {
                print(&record, &style, &mut out)
            };
        });
        let state = state.map_err(|e| hinted(&e, None::<String>))?;
        readable += usize::from(state.frames > 0);
        shard_notes(path, &state);
    }
    failed?;
    out.flush()?;
    if readable == 0 {
        return Err(Fail::new("nothing there can be read as a shard").into());
    }
    if shown == 0 && !args.json {
        eprintln!("syntap: no record passes");
    }
    Ok(ExitCode::SUCCESS)
}

/// One record for a person.
pub fn print(r: &Record, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    let times = if r.count > 1 { format!("  x{}", r.count) } else { String::new() };
    writeln!(to, "{}  {} {}{times}", style.dim(&r.time), style.severity(&r.severity), style.bold(&r.kind))?;
    let place = match (&r.interface, &r.role) {
        (Some(i), Some(role)) => format!("  at {i} ({role})"),
        (Some(i), None) => format!("  at {i}"),
        _ => String::new(),
    };
    match r.tuple_text() {
        Some(tuple) => writeln!(to, "  {tuple}{place}")?,
        None if !place.is_empty() => writeln!(to, "{place}")?,
        None => {}
    }
    for line in wrap(&r.summary, style.width() - 2) {
        writeln!(to, "  {line}")?;
    }
    writeln!(to, "  verdict {}, {}", r.verdict, r.certainty)?;
    if let Some(loss) = &r.loss {
        writeln!(to, "  meanwhile this tool dropped {} packets and missed {}", loss.drops, loss.misses)?;
    }
    let facts: Vec<String> =
        r.facts.iter().map(|(name, value)| format!("{name}={}", fact_text(value))).collect();
    for line in wrap(&facts.join("  "), style.width() - 4) {
        writeln!(to, "    {}", style.dim(&line))?;
    }
    for p in &r.packets {
        writeln!(to, "    {}", packet_line(p, r))?;
    }
    writeln!(to)
}
