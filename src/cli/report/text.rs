//! The report in a terminal, whatever its width.

use std::fmt::Display;
use std::hash::Hash;
use std::io::{self, Write};

use crate::cli::text::{Style, wrap};
use crate::cli::{many, show};
use crate::detect::Verdict;
use crate::detect::explain::explain;
use crate::record::milliseconds;
use crate::report::{
    Ages, Axis, Cause, Opened, Place, Ranked, Report, Short, Top, WORDS, chosen_words, flags, lost_words,
    time,
};

/// Columns of the names in front of what is said.
const NAMES: usize = 14;

/// Prints it.
pub fn print(
    report: &Report,
    since: Option<String>,
    brief: bool,
    style: &Style,
    to: &mut dyn Write,
) -> io::Result<()> {
    let since = since.map_or_else(String::new, |t| format!("; recording began at {t}"));
    let Some((first, last)) = report.span else {
        if report.left_out > 0 {
            return lines(
                &format!("No record passes the filters; they left out {}.", many(report.left_out, "record")),
                0,
                style,
                to,
            );
        }
        writeln!(to, "No records: nothing that these rules know went wrong{since}.")?;
        return writeln!(to, "syntap itself lost and shed nothing.");
    };
    let records = many(report.records, "record");
    // Figures have no occurrence, and a record may stand for several.
    let of = report.occurrences();
    let of = if of > report.records { format!(" of {of} sightings") } else { String::new() };
    lines(&format!("{records}{of}, {} to {}{since}", time(first), time(last)), 0, style, to)?;
    if report.left_out > 0 {
        lines(
            &format!("The filters left out {}: this is not all.", many(report.left_out, "record")),
            0,
            style,
            to,
        )?;
    }
    if let Some(chosen) = chosen_words(&report.figures.filters) {
        lines(&chosen, 0, style, to)?;
    }
    own_losses(report, style, to)?;
    let ranked = report.ranked();
    if ranked.is_empty() {
        let saw = if report.own.is_empty() { "Nothing" } else { "In what it saw, nothing" };
        let said = format!("{saw} above info: no connection was hurt in a way that these rules know.");
        lines(&said, 0, style, to)?;
    }
    in_short(&Short::of(report), &report.hurt_in_all(), style, to)?;
    figures(report, style, to)?;
    // The axis of all timelines: one under the other they can be compared.
    let room = style.width().saturating_sub(NAMES + 2).max(10) as u64;
    let axis = report.axis(room);
    for r in &ranked {
        print_cause(report, r, axis, style, to)?;
    }
    ages(report, style, to)?;
    census(report, style, to)?;
    quiet(report, style, to)?;
    if report.unknown > 0 {
        let of = many(report.unknown, "record");
        lines(&format!("{of} of kinds that this version does not know."), 0, style, to)?;
    }
    // Among some of the records only, that there is none means nothing.
    if report.own.is_empty() && report.left_out == 0 && report.figures.filters.is_empty() {
        writeln!(to, "\nsyntap itself lost and shed nothing.")?;
    }
    if !brief && let Some(example) = ranked.first().and_then(|r| r.cause.example()) {
        writeln!(to, "\n{}", style.bold("One of them, whole"))?;
        writeln!(to)?;
        show::print(example, style, to)?;
    }
    if !brief && !ranked.is_empty() {
        writeln!(to, "\n{}", style.bold("Words"))?;
        for (word, means) in WORDS {
            lines(&format!("{word}: {means}"), 2, style, to)?;
        }
    }
    Ok(())
}

/// Text, wrapped and indented.
fn lines(text: &str, indent: usize, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    wrap(text, style.width() - indent).into_iter().try_for_each(|l| writeln!(to, "{:indent$}{l}", ""))
}

/// A name, and what is said of it beside it.
fn row(name: &str, text: &str, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    for (n, line) in wrap(text, style.width() - NAMES).into_iter().enumerate() {
        writeln!(to, "  {:<11} {line}", if n == 0 { name } else { "" })?;
    }
    Ok(())
}

/// How many connections there were, and how long they took to open.
fn figures(report: &Report, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    let all = report.figures.total();
    if all.attempts == 0 {
        return Ok(());
    }
    writeln!(to, "\n{}", style.bold("All connections"))?;
    let counted = report.figures.where_counted();
    let names: Vec<&str> = counted.iter().map(|(name, _)| *name).collect();
    let places = report.figures.points.iter().filter(|(_, p)| p.total.attempts > 0);
    let elsewhere = places.clone().count() > counted.len();
    let at = match names.len() {
        _ if !elsewhere => String::new(),
        1 => format!(" (at {})", names[0]),
        _ => format!(" (the sum of {}: one that crosses two of them counts at each)", names.join(", ")),
    };
    // What is reset outside the inside may never see: of several places each tells its own.
    let resets = if elsewhere { String::new() } else { resets_words(&all) };
    let recorded = match counted[..] {
        [(_, place)] if !elsewhere => report.recorded_words(place),
        _ => String::new(),
    };
    row("opened", &format!("{}{resets}{recorded}{at}", opened_words(&all)), style, to)?;
    let (before, during) = report.before_and_during();
    row("latency", &latency_words(&all), style, to)?;
    if during.handshakes > 0 && before.handshakes > 0 {
        row("  before", &format!("{} (before the first was hurt)", latency_words(&before)), style, to)?;
        row("  during", &format!("{} (while some were hurt)", latency_words(&during)), style, to)?;
    }
    let several = places.clone().count() > 1;
    for (name, place) in places.filter(|_| several) {
        let role = place.role.as_deref().map_or_else(String::new, |r| format!(" ({r})"));
        let Place { total, .. } = place;
        let recorded = report.recorded_words(place);
        let said = format!("{name}{role}: {}{}{recorded}", opened_words(total), resets_words(total));
        row("at", &said, style, to)?;
    }
    for (address, place) in &report.figures.responders {
        let said = format!("{address}: {}, {}", opened_words(&place.total), latency_words(&place.total));
        row("to", &said, style, to)?;
    }
    Ok(())
}

fn opened_words(o: &Opened) -> String {
    let Opened { attempts, handshakes, failed, .. } = o;
    let percent = o.failed_percent();
    let waiting = match o.waiting() {
        0 => String::new(),
        n => format!(", {n} still waiting at the end"),
    };
    format!(
        "{handshakes} of {} answered, {failed} failed ({percent:.2} %){waiting}",
        many(*attempts, "attempt")
    )
}

fn resets_words(o: &Opened) -> String {
    format!(", {} on open flows", many(o.resets, "reset"))
}

fn latency_words(o: &Opened) -> String {
    match [0.5, 0.95, 0.99].map(|q| o.quantile(q).map(milliseconds)) {
        [Some(median), Some(p95), Some(p99)] => {
            let slow = match o.slow() {
                0 => String::new(),
                n => format!(", {n} took a second or more"),
            };
            let max = milliseconds(o.max_us);
            format!("SYN to SYN-ACK median {median} p95 {p95} p99 {p99} max {max} ms{slow}")
        }
        _ => "no answer was timed".into(),
    }
}

/// How old tuples were when they were used again.
fn ages(report: &Report, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    if report.ages.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{}", style.bold("Tuples used again, by time since their close (sightings)"))?;
    for (n, (refused, accepted)) in report.ages.refused.iter().zip(report.ages.accepted).enumerate() {
        if refused + accepted > 0 {
            writeln!(to, "  {:<12} {refused:>8} refused {accepted:>8} accepted", Ages::label(n))?;
        }
    }
    Ok(())
}

/// Flags by interface and direction, as with ngrep and `sort | uniq -c`.
fn census(report: &Report, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    let table = flags::table(&report.figures);
    if table.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{}", style.bold("TCP flags seen"))?;
    lines("S SYN, S. SYN-ACK, F. FIN, R reset, P. data, . acknowledgement", 2, style, to)?;
    for place in &table {
        let cells: Vec<String> = place.cells.iter().take(8).map(|(f, n)| format!("[{f}] {n}")).collect();
        let others: u64 = place.cells.iter().skip(8).map(|c| c.1).sum();
        let others = if others > 0 { format!(" others {others}") } else { String::new() };
        // Names are short as a rule: one under the other they make a table.
        for (n, line) in
            wrap(&format!("{}{others}", cells.join(" ")), style.width() - NAMES).iter().enumerate()
        {
            let name = if n == 0 { wrap(&place.name, usize::MAX).join(" ") } else { String::new() };
            match name.chars().count() {
                0..12 => writeln!(to, "  {name:<11} {line}")?,
                _ => {
                    lines(&name, 2, style, to)?;
                    writeln!(to, "  {:<11} {line}", "")?;
                }
            }
        }
    }
    Ok(())
}

/// What hurt nobody: the one that there was, or what it means.
fn quiet(report: &Report, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    let quiet = report.quiet();
    if !quiet.is_empty() {
        writeln!(to, "\n{}", style.bold("Worth knowing, nobody hurt"))?;
    }
    for c in quiet {
        let text = match c.example().filter(|_| c.count == 1) {
            Some(e) => &e.summary,
            None => explain(c.kind).one_line,
        };
        lines(&format!("{}x {}: {text}", c.count, c.kind.name()), 2, style, to)?;
    }
    Ok(())
}

/// First, as what most want to know: each cause in a sentence.
fn in_short(short: &Short, hurt: &str, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    if short.sentences.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{}", style.bold("In short"))?;
    lines(&format!("{hurt}."), 2, style, to)?;
    for (n, sentence) in short.sentences.iter().enumerate() {
        for (line, text) in wrap(&sentence.text, style.width() - 5).into_iter().enumerate() {
            let number = if line == 0 { format!("{}.", n + 1) } else { String::new() };
            writeln!(to, "  {number:<2} {text}")?;
        }
    }
    if short.more > 0 {
        writeln!(to, "     And {} below.", many(short.more as u64, "more cause"))?;
    }
    if !short.consequences.is_empty() {
        let list: Vec<String> =
            short.consequences.iter().map(|(kind, n)| format!("{n} {}", kind.name())).collect();
        writeln!(to)?;
        lines(&format!("Part of these: {}.", list.join(", ")), 2, style, to)?;
    }
    Ok(())
}

/// What syntap lost and shed comes before what it says of the traffic: it bears on all of that.
fn own_losses(report: &Report, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    if report.own.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{}", style.bold("syntap itself did not see everything"))?;
    for ((cause, place), own) in &report.own {
        lines(&lost_words(cause, place, own), 2, style, to)?;
    }
    let note = "A verdict that rests on an absence in such a time is withdrawn to possible; what was not seen at all \
                is not in this report.";
    for line in wrap(note, style.width() - 2) {
        writeln!(to, "  {line}")?;
    }
    writeln!(to)
}

fn print_cause(
    report: &Report,
    r: &Ranked<'_>,
    axis: Axis,
    style: &Style,
    to: &mut dyn Write,
) -> io::Result<()> {
    let c = r.cause;
    let text = explain(c.kind);
    writeln!(
        to,
        "\n{} {} {}",
        style.bold(&format!("{}x", c.count)),
        style.severity(c.severity.name()),
        style.bold(c.kind.name())
    )?;
    lines(text.one_line, 2, style, to)?;
    if let Some(root) = r.follows {
        row("part of", root.name(), style, to)?;
    }
    if r.hurt > 0 {
        row("hurt", &r.hurt_words(), style, to)?;
    }
    if let Some(e) = c.example() {
        let summary = format!("{}: {}", time(e.first_ns), e.summary);
        row(if c.count > 1 { "one of them" } else { "what" }, &summary, style, to)?;
    }
    top("addresses", &c.subjects, style, to)?;
    let verdicts: Vec<String> = c.verdicts().iter().map(|(v, n)| format!("{} ({n})", v.name())).collect();
    let [possible, likely, proven] = c.certainties;
    let sure = [(proven, "proven"), (likely, "likely"), (possible, "possible")];
    let sure: Vec<String> = sure.iter().filter(|s| s.0 > 0).map(|(n, w)| format!("{n} {w}")).collect();
    // What it does not tell by itself, the cause that it is part of does.
    let doing = match r.follows.filter(|_| c.mostly() == Verdict::Unknown) {
        Some(root) => format!("as {}; by itself it does not tell", root.name()),
        None => format!("{}; {}", verdicts.join(", "), sure.join(", ")),
    };
    row("whose doing", &doing, style, to)?;
    top("responders", &c.responders, style, to)?;
    top("originators", &c.originators, style, to)?;
    c.few_hosts().map_or(Ok(()), |hosts| top("mostly", hosts, style, to))?;
    top("seen at", &c.interfaces, style, to)?;
    top("NAT address", &c.nat, style, to)?;
    when(report, c, r.follows.is_none(), axis, style, to)?;
    row("what to do", &report.advice(r), style, to)?;
    row("more", &format!("syntap explain {}", c.kind.name()), style, to)
}

fn top<K>(name: &str, top: &Top<K>, style: &Style, to: &mut dyn Write) -> io::Result<()>
where
    K: Clone + Eq + Hash + Ord + Display,
{
    let (rows, rest) = top.rows(4);
    let mut words: Vec<String> = rows.iter().map(|(n, k)| format!("{n} ({k})")).collect();
    if rest > 0 {
        words.push(format!("others ({rest})"));
    }
    row(name, &words.join(", "), style, to)
}

/// First and last time, and under them what came when.
fn when(
    report: &Report,
    c: &Cause,
    root: bool,
    axis: Axis,
    style: &Style,
    to: &mut dyn Write,
) -> io::Result<()> {
    let (first, last) = (time(c.first_ns), time(c.last_ns));
    let span = if first == last { first } else { format!("{first} to {last}") };
    let goes_on = if root { format!("; {}", report.goes_on(c)) } else { String::new() };
    row("when", &(span + &goes_on), style, to)?;
    let cells = c.timeline.on(axis);
    let most = cells.iter().copied().max().unwrap_or(0).max(1);
    if cells.len() > 1 {
        let bars: String = cells.iter().map(|&n| bar(n, most)).collect();
        writeln!(to, "  {:<11} |{bars}|", "")?;
        row("", &format!("{} a column, by when each began, {most} at most", axis.cell_words()), style, to)?;
    }
    Ok(())
}

fn bar(n: u64, most: u64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if n == 0 { ' ' } else { BARS[(u128::from(n) * 8).div_ceil(most.into()).clamp(1, 8) as usize - 1] }
}
