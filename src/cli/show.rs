//! `syntap show`: records for a person, or as they are stored.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::filter::Filter;
use super::output::hinted;
use super::pager::Page;
use super::text::{Style, fact_text, packet_line, wrap};
use super::{named_shards, note, shards_read};
use crate::record::{Follower, Merged, Record, ShardError, ShardState, Stored, Wanted};

/// How often it is looked for new records: a run writes them a second after they came at the latest.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    filter: Filter,

    /// Print at most this many records, and read no more than that takes.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = super::values::limit)]
    limit: Option<u64>,

    /// The newest first. Without it the oldest is: a story reads on, and goes on with --follow.
    #[arg(long)]
    reverse: bool,

    /// Go on with new records as they are written, in shards that begin later too; with none of before unless --since says from when.
    #[arg(long, conflicts_with_all = ["reverse", "until"])]
    follow: bool,

    /// Print records as they are stored: one line of JSON each.
    #[arg(long)]
    json: bool,

    /// Do not start $PAGER (or `less`) where standard output is a terminal.
    #[arg(long)]
    no_pager: bool,

    /// Directories of shards, or shards.
    #[arg(required = true, value_name = "DIR|SHARD")]
    paths: Vec<PathBuf>,
}

/// Runs it.
pub fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    args.filter.makes_sense()?;
    let from_now = args.follow && args.filter.within().0 == 0;
    // Where there are no shards yet they are waited for.
    let empty = args.follow && crate::record::shard_paths(&args.paths).is_ok_and(|paths| paths.is_empty());
    let old = if from_now || empty { Vec::new() } else { named_shards(&args.paths)? };
    let mut printer = Printer {
        args,
        style: Style::of_stdout(io::stdout().is_terminal()),
        to: Page::new(!args.json && !args.no_pager && !args.follow),
        shown: 0,
    };
    let wanted = Wanted { within: args.filter.within(), newest_first: args.reverse };
    let mut merged = Merged::of(old, wanted);
    let mut printed = Ok(());
    while printed.is_ok() && !printer.is_full() {
        let Some(stored) = merged.next() else { break };
        printed = printer.print(&stored);
    }
    let states = merged.finish();
    if args.follow && printed.is_ok() {
        states
            .iter()
            .filter_map(|(_, state)| state.as_ref().err())
            .for_each(|e| note(hinted(e, None::<String>)));
        let failed = |e: ShardError| hinted(&e, None::<String>);
        let follower = match from_now {
            true => Follower::from_now(&args.paths),
            false => {
                let known = |(path, state): &(PathBuf, Result<ShardState, ShardError>)| {
                    state.as_ref().ok().map(|state| (path.clone(), state.end))
                };
                Follower::from_ends(&args.paths, states.iter().filter_map(known))
            }
        };
        return follow(&mut printer, follower.map_err(failed)?);
    }
    let Printer { to, shown, .. } = printer;
    let finished = to.finish();
    finished.and(printed)?;
    let read = shards_read(states)?;
    if shown == 0 && !args.json {
        note("no record passes");
    }
    Ok(read.exit_code())
}

/// Prints what comes, until enough was printed or nobody reads it any more.
fn follow(printer: &mut Printer<'_>, mut follower: Follower) -> anyhow::Result<ExitCode> {
    loop {
        printer.to.flush()?;
        if printer.is_full() {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(LOOK_EVERY);
        // What is odd in a directory hides nothing else.
        follower.passed_over().iter().for_each(|e| note(hinted(e, None::<String>)));
        let new = follower.poll().map_err(|e| hinted(&e, None::<String>))?;
        for stored in &new {
            if printer.is_full() {
                break;
            }
            printer.print(stored)?;
        }
    }
}

/// Prints records that pass.
struct Printer<'a> {
    args: &'a ShowArgs,
    style: Style,
    to: Page,
    shown: u64,
}

impl Printer<'_> {
    fn print(&mut self, stored: &Stored) -> io::Result<()> {
        if !self.args.filter.passes(&stored.record) {
            return Ok(());
        }
        self.shown += 1;
        if self.args.json {
            self.to.write_all(&stored.line)?;
            return self.to.write_all(b"\n");
        }
        print(&stored.record, &self.style, &mut self.to)
    }

    /// Whether enough was printed.
    fn is_full(&self) -> bool {
        self.args.limit.is_some_and(|limit| self.shown >= limit)
    }
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
