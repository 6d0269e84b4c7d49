//! `syntap report`: what is wrong here, how often, since when, whose doing, what to do.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::hinted;
use super::text::{Style, wrap};
use super::{Fail, shard_notes, show};
use crate::detect::explain::explain;
use crate::detect::{Kind, Severity};
use crate::record::{read_shard, rfc3339, shard_paths};
use crate::report::{Cause, Report};
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
    let paths = shard_paths(&args.paths).map_err(|e| hinted(&e, None::<String>))?;
    let mut report = Report::default();
    let mut readable = 0;
    for path in &paths {
        let state = read_shard(path, &mut |r| report.add(r)).map_err(|e| hinted(&e, None::<String>))?;
        readable += usize::from(state.frames > 0);
        shard_notes(path, &state);
    }
    if !paths.is_empty() && readable == 0 {
        return Err(Fail::new("nothing there can be read as a shard").into());
    }
    let stdout = io::stdout();
    let style = Style::of_stdout(stdout.is_terminal());
    let mut out = BufWriter::new(stdout.lock());
    print(&report, args.brief, &style, &mut out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print(report: &Report, brief: bool, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    let Some((first, last)) = report.span else {
        return writeln!(to, "No records: nothing that these rules know went wrong while syntap watched.");
    };
    let time = |ns: u64| rfc3339(Nanos(ns / Nanos::SEC * Nanos::SEC)).replace(".000000000", "");
    writeln!(to, "{} records, {} to {}", report.records, time(first), time(last))?;
    let causes = report.causes();
    let of_tool = |c: &&&Cause| matches!(c.kind, Kind::CaptureGap | Kind::BudgetShed);
    let trouble: Vec<&&Cause> =
        causes.iter().filter(|c| c.severity > Severity::Info && !of_tool(c)).collect();
    if trouble.is_empty() {
        writeln!(to, "Nothing above info: no connection was hurt in a way that these rules know.")?;
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
    writeln!(to)?;
    let tool: Vec<&&Cause> = causes.iter().filter(of_tool).collect();
    if tool.is_empty() {
        writeln!(to, "syntap itself lost and shed nothing.")?;
    }
    for cause in tool {
        for line in
            wrap(&format!("syntap itself: {} times {}", cause.count, cause.example.summary), style.width())
        {
            writeln!(to, "{line}")?;
        }
    }
    if !brief && let Some(worst) = trouble.first() {
        writeln!(to, "\n{}", style.bold("One of them, whole"))?;
        writeln!(to)?;
        show::print(&worst.example, style, to)?;
    }
    Ok(())
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
