//! `syntap show`: records for a person, or as they are stored.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::filter::Filter;
use super::text::{Style, fact_text, packet_line, wrap};
use super::{note, shards_of};
use crate::record::Record;

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

/// Runs it.
pub fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout();
    let style = Style::of_stdout(stdout.is_terminal());
    let mut out = BufWriter::new(stdout.lock());
    let mut line = Vec::new();
    let mut shown = 0u64;
    let mut failed: io::Result<()> = Ok(());
    let read = shards_of(&args.paths, &mut |record| {
        if failed.is_err() || args.limit.is_some_and(|l| shown >= l) || !args.filter.passes(&record) {
            return;
        }
        shown += 1;
        failed = if args.json {
            line.clear();
            record.write_line(&mut line);
            out.write_all(&line)
        } else {
            print(&record, &style, &mut out)
        };
    });
    failed?;
    out.flush()?;
    read?;
    if shown == 0 && !args.json {
        note("no record passes");
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
        match (loss.drops, loss.misses) {
            (0, 0) => {
                writeln!(to, "  meanwhile an interface was gone, and nobody could count what passed it")?
            }
            (drops, misses) => {
                let s = if drops == 1 { "" } else { "s" };
                writeln!(to, "  meanwhile this tool dropped {drops} packet{s} and missed {misses}")?;
            }
        }
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
