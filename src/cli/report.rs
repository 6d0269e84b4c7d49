//! `syntap report`: what is wrong here, how often, since when, whose doing, what to do.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::text::{Style, wrap};
use super::{many, shards_of, show};
use crate::detect::explain::explain;
use crate::detect::{Kind, Severity};
use crate::record::rfc3339;
use crate::report::{Cause, Report, Short};
use crate::wire::Nanos;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Leave out the example with its packets.
    #[arg(long)]
    brief: bool,

    /// Directories of shards, or shards.
    #[arg(required = true, value_name = "DIR|SHARD")]
    paths: Vec<PathBuf>,
}

/// Runs it.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let paths = shards_of(&args.paths, &mut |r| report.add(r))?;
    let since = paths.iter().filter_map(|p| begun(p)).min();
    let stdout = io::stdout();
    let style = Style::of_stdout(stdout.is_terminal());
    let mut out = BufWriter::new(stdout.lock());
    print(&report, since, args.brief, &style, &mut out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// When a shard was begun, from its name.
fn begun(shard: &Path) -> Option<String> {
    let name = shard.file_name()?.to_str()?.strip_suffix(".jsonl.zst")?;
    let mut parts = name.rsplit('-').skip(1);
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", parts.next()?).ok()?;
    Some(format!("{time}Z"))
}

fn print(
    report: &Report,
    since: Option<String>,
    brief: bool,
    style: &Style,
    to: &mut dyn Write,
) -> io::Result<()> {
    let since = since.map_or_else(String::new, |t| format!("; the first shard was begun at {t}"));
    let Some((first, last)) = report.span else {
        writeln!(to, "No records: nothing that these rules know went wrong{since}.")?;
        return writeln!(to, "syntap itself lost and shed nothing.");
    };
    let records = many(report.records, "record");
    writeln!(to, "{records}, {} to {}{since}", time(first), time(last))?;
    own_losses(report, style, to)?;
    let causes = report.causes();
    let of_tool = |c: &&&Cause| matches!(c.kind, Kind::CaptureGap | Kind::BudgetShed);
    let trouble: Vec<&&Cause> =
        causes.iter().filter(|c| c.severity > Severity::Info && !of_tool(c)).collect();
    if trouble.is_empty() {
        let saw = if report.own.is_empty() { "Nothing" } else { "In what it saw, nothing" };
        writeln!(to, "{saw} above info: no connection was hurt in a way that these rules know.")?;
    }
    for cause in &trouble {
        print_cause(cause, last, style, to)?;
    }
    let quiet: Vec<String> = causes
        .iter()
        .filter(|c| c.severity == Severity::Info)
        .map(|c| format!("{} {}", c.count, c.kind.name()))
        .collect();
    if !quiet.is_empty() {
        writeln!(to)?;
        for line in wrap(&format!("Worth knowing, nobody hurt: {}.", quiet.join(", ")), style.width()) {
            writeln!(to, "{line}")?;
        }
    }
    if report.own.is_empty() {
        writeln!(to, "\nsyntap itself lost and shed nothing.")?;
    }
    if !brief && let Some(worst) = trouble.first() {
        writeln!(to, "\n{}", style.bold("One of them, whole"))?;
        writeln!(to)?;
        show::print(&worst.example, style, to)?;
    }
    in_short(&Short::of(report), style, to)
}

/// Last, where a terminal leaves the eye: each cause in a sentence.
fn in_short(short: &Short, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    if short.sentences.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{}", style.bold("In short"))?;
    for (n, sentence) in short.sentences.iter().enumerate() {
        for (line, text) in wrap(sentence, style.width() - 5).into_iter().enumerate() {
            let number = if line == 0 { format!("{}.", n + 1) } else { String::new() };
            writeln!(to, "  {number:<2} {text}")?;
        }
    }
    if short.more > 0 {
        writeln!(to, "     And {} above.", many(short.more as u64, "more cause"))?;
    }
    if !short.consequences.is_empty() {
        let list: Vec<String> =
            short.consequences.iter().map(|(kind, n)| format!("{n} {}", kind.name())).collect();
        for line in wrap(&format!("With these came {}.", list.join(", ")), style.width() - 5) {
            writeln!(to, "     {line}")?;
        }
    }
    Ok(())
}

fn time(ns: u64) -> String {
    rfc3339(Nanos(ns / Nanos::SEC * Nanos::SEC)).replace(".000000000", "")
}

/// What syntap lost and shed comes before what it says of the traffic: it bears on all of that.
fn own_losses(report: &Report, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    if report.own.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{}", style.bold("syntap itself did not see everything"))?;
    for ((cause, place), own) in &report.own {
        let times = match own.times {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        let what = match cause.as_str() {
            "budget_shed" => format!("{} shed to stay within the budget", many(own.count, "packet")),
            "disk_full" => format!("{} not written into {place} ({cause})", many(own.count, "record")),
            "copies_dropped" => {
                format!("{} missing in the mirror file only ({cause})", many(own.count, "packet"))
            }
            "interface_gone" => format!("{place} was gone ({cause})"),
            _ => format!("{} lost at {place} ({cause})", many(own.count, "packet")),
        };
        let when = format!("{what}, {times}, {} to {}", time(own.first_ns), time(own.last_ns));
        for line in wrap(&when, style.width() - 2) {
            writeln!(to, "  {line}")?;
        }
    }
    let note = "A verdict that rests on an absence in such a time is withdrawn to possible; what was not seen at all \
                is not in this report.";
    for line in wrap(note, style.width() - 2) {
        writeln!(to, "  {line}")?;
    }
    writeln!(to)
}

fn print_cause(c: &Cause, end: u64, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    let text = explain(c.kind);
    writeln!(
        to,
        "\n{} {} {}",
        style.bold(&format!("{}x", c.count)),
        style.severity(c.severity.name()),
        style.bold(c.kind.name())
    )?;
    for line in wrap(text.one_line, style.width() - 2) {
        writeln!(to, "  {line}")?;
    }
    let row = |to: &mut dyn Write, name: &str, top: &crate::report::Top| -> io::Result<()> {
        let (rows, rest) = top.rows(4);
        if rows.is_empty() {
            return Ok(());
        }
        let mut words: Vec<String> = rows.iter().map(|(n, k)| format!("{n} ({k})")).collect();
        if rest > 0 {
            words.push(format!("others ({rest})"));
        }
        for (n, line) in wrap(&words.join(", "), style.width() - 14).into_iter().enumerate() {
            writeln!(to, "  {:<11} {line}", if n == 0 { name } else { "" })?;
        }
        Ok(())
    };
    row(to, "whose doing", &c.verdicts)?;
    row(to, "responders", &c.responders)?;
    row(to, "originators", &c.originators)?;
    row(to, "seen at", &c.interfaces)?;
    let (cells, cell_ns) = c.timeline.cells(end);
    let most = cells.iter().copied().max().unwrap_or(0).max(1);
    let bars: String = cells.iter().map(|&n| bar(n, most)).collect();
    writeln!(to, "  {:<11} |{bars}| {} a column, {most} at most", "when", seconds(cell_ns))?;
    for (n, line) in
        wrap(text.remedy.first().copied().unwrap_or(""), style.width() - 14).into_iter().enumerate()
    {
        writeln!(to, "  {:<11} {line}", if n == 0 { "what to do" } else { "" })?;
    }
    writeln!(to, "  {:<11} syntap explain {}", "more", c.kind.name())
}

fn bar(n: u64, most: u64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if n == 0 { ' ' } else { BARS[((n * 8).div_ceil(most).clamp(1, 8) - 1) as usize] }
}

fn seconds(ns: u64) -> String {
    match ns / Nanos::SEC {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3_600),
    }
}
