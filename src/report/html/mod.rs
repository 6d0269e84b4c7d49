//! The report as one HTML page: no file and no address besides it, readable without its script, on a phone, in the dark and
//! on paper. What comes from records is escaped, all of it, by the templates.

mod ladder;
mod plots;

use std::fmt::Display;
use std::hash::Hash;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Cause, Ranked, Report, Short, Top, WORDS, chosen_words, flags, lost_words, many, packet_line, time,
};
use crate::detect::explain::explain;
use crate::detect::{Certainty, Verdict};
use crate::record::Record;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Rows of a list of places.
const PLACES: usize = 5;

/// A count with its thousands apart.
fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(d);
    }
    out
}

/// Text from outside without characters that steer what is around it.
fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

fn bdi(text: impl Display) -> Markup {
    html! { bdi { (clean(&text.to_string())) } }
}

/// Text of our own, with what stands in backticks as code.
fn prose(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// The page. `since`: when the first shard was begun.
pub fn page(report: &Report, since: Option<&str>) -> String {
    let hosts = report.hosts.iter().map(|h| clean(h)).collect::<Vec<_>>().join(", ");
    let of = if hosts.is_empty() { String::new() } else { format!(" of {hosts}") };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
                title { "syntap report" (of) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(report, since, &hosts))
                    (own(report))
                    (in_short(report))
                    (connections(report))
                    (trouble(report))
                    @if !report.ages.is_empty() {
                        h2 #ages { "Tuples used again" }
                        (plots::ages(&report.ages))
                    }
                    (census(report))
                    (quiet(report))
                    @if report.span.is_some() {
                        h2 #words { "Words" }
                        dl { @for (word, means) in WORDS { dt { (word) } dd { (means) } } }
                    }
                    p.dim { "Written by syntap " (env!("CARGO_PKG_VERSION")) ". Times are UTC. " code { "syntap explain KIND" } " tells the whole rule behind a name, " code { "syntap show --kind KIND" } " every record." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn head(report: &Report, since: Option<&str>, hosts: &str) -> Markup {
    let begun = since.map_or_else(String::new, |t| format!(" Recording began at {t}."));
    let (causes, hurt) = report.hurt();
    html! {
        h1 {
            @match (report.span, causes) {
                (None, _) if report.left_out > 0 => "No record passes the filters",
                (None, _) => "Nothing was recorded",
                (_, 0) => "No connection was hurt",
                (_, n) => { (many(n, "cause")) " hurt " (if hurt == 0 { "nobody yet".to_owned() } else { many(hurt, "connection") }) },
            }
        }
        p.dim {
            @if !hosts.is_empty() { "Tapped at " bdi { (hosts) } ". " }
            @match report.span {
                Some((first, last)) => { (time(first)) " to " (time(last)) ", " (number(report.records)) (if report.records == 1 { " record" } else { " records" }) @if report.occurrences() > report.records { " of " (number(report.occurrences())) " sightings" } "." },
                None if report.left_out > 0 => { "There are none among those that were asked for." },
                None => { "No records: nothing that these rules know went wrong, and no figures were written." },
            }
            (begun)
            @if let Some(chosen) = chosen_words(&report.figures.filters) { " " bdi { (clean(&chosen)) } }
            @if report.left_out > 0 { " The filters left out " (many(report.left_out, "record")) ": this is not all." }
        }
        (tiles(report, hurt))
    }
}

fn tiles(report: &Report, hurt: u64) -> Markup {
    let all = report.figures.total();
    let (before, during) = report.before_and_during();
    html! {
        @if report.span.is_some() {
            div.tiles {
                div.tile { b { (number(hurt)) } span { "connections hurt, as far as records tell" @if let Some(words) = report.hurt_twice() { "; " (words) } } }
                @if all.attempts > 0 {
                    div.tile { b { (number(all.attempts)) } span { "attempts to open, " (number(all.failed)) " failed (" (format!("{:.2}", all.failed_percent())) " %)" } }
                    @if before.handshakes > 0 && during.handshakes > 0 {
                        div.tile { b { (p99(&before)) } span { "99 % answered within this, before the first was hurt" } }
                        div.tile { b { (p99(&during)) } span { "the same while some were hurt" } }
                    } @else {
                        div.tile { b { (p99(&all)) } span { "99 % of handshakes answered within this" } }
                    }
                }
            }
        }
    }
}

fn p99(o: &super::Opened) -> String {
    o.quantile(0.99).map_or_else(|| "-".into(), |us| format!("{} ms", crate::record::milliseconds(us)))
}

/// What syntap lost comes before what it says of the traffic: it bears on all of that.
fn own(report: &Report) -> Markup {
    html! {
        @if report.own.is_empty() && report.left_out > 0 {
            p.dim { "None of the chosen records tells of a loss of syntap's own." }
        } @else if report.own.is_empty() {
            p.dim { "syntap itself lost and shed nothing." }
        } @else {
            div.panel.loss {
                h2 #losses style="margin-top:0" { "syntap itself did not see everything" }
                ul { @for ((cause, place), own) in &report.own { li { (bdi(lost_words(cause, place, own))) "." } } }
                p {
                    "A verdict that rests on an absence in such a time is withdrawn to possible; what was not seen at all is not in this report, "
                    "so its counts are too low rather than too high."
                }
            }
        }
        @if report.unknown > 0 {
            p.dim { (many(report.unknown, "record")) " of kinds that this version does not know." }
        }
    }
}

fn in_short(report: &Report) -> Markup {
    let short = Short::of(report);
    if short.sentences.is_empty() {
        let saw = if report.own.is_empty() { "Nothing" } else { "In what it saw, nothing" };
        return html! {
            @if report.span.is_some() {
                p { (saw) " above info: no connection was hurt in a way that these rules know." }
            }
        };
    }
    html! {
        h2 #short { "In short" }
        ol.short {
            @for s in &short.sentences {
                li { (prose(&clean(&s.text))) " " a href=(format!("#{}", s.kind.name())) aria-label=(format!("more on {}", s.kind.name())) { "more" } }
            }
        }
        @if short.more > 0 { p { "And " (many(short.more as u64, "more cause")) " in the table below." } }
        @if !short.consequences.is_empty() {
            p.dim {
                "Part of these: "
                @for (n, (kind, count)) in short.consequences.iter().enumerate() {
                    @if n > 0 { ", " }
                    (number(*count)) " " a href=(format!("#{}", kind.name())) { (kind.name()) }
                }
                "."
            }
        }
    }
}

fn connections(report: &Report) -> Markup {
    let all = report.figures.total();
    if all.attempts == 0 {
        return html! {};
    }
    let (before, during) = report.before_and_during();
    html! {
        h2 #latency { "How long connections took to open" }
        p {
            (number(all.handshakes)) " of " (number(all.attempts)) " attempts were answered: " (plots::quantiles(&all)) ". "
            @if before.handshakes > 0 && during.handshakes > 0 {
                "Before the first was hurt: " (plots::quantiles(&before)) "; while some were hurt: " (plots::quantiles(&during)) "."
            }
        }
        (plots::latency(report))
        div.wide tabindex="0" role="region" aria-label="Connections by place" {
            table.sorts {
                thead { tr { th scope="col" { "seen at" } th.n scope="col" { "attempts" } th.n scope="col" { "failed" } th.n.opt scope="col" { "resets" } th scope="col" { "SYN to SYN-ACK" } } }
                tbody {
                    @for (name, p) in &report.figures.points {
                        @let role = p.role.as_ref().map_or_else(String::new, |role| format!(" ({role})"));
                        (place(&format!("{name}{role}{}", report.recorded_words(p)), p))
                    }
                    @for (address, p) in &report.figures.responders {
                        (place(&format!("to {address}"), p))
                    }
                }
            }
        }
    }
}

fn place(name: &str, p: &super::Place) -> Markup {
    let t = &p.total;
    html! {
        tr {
            td { (bdi(name)) }
            td.n data-v=(t.attempts) { (number(t.attempts)) }
            td.n data-v=(t.failed) { (number(t.failed)) }
            td.n.opt data-v=(t.resets) { (number(t.resets)) }
            td { (plots::quantiles(t)) }
        }
    }
}

fn trouble(report: &Report) -> Markup {
    let ranked = report.ranked();
    if ranked.is_empty() {
        return html! {};
    }
    let axis = report.axis(super::CELLS);
    html! {
        h2 #when { "When" }
        (plots::timeline(report, axis))
        h2 #who { "Whose doing" }
        (verdicts(&ranked))
        h2 #causes { "Causes" }
        div.wide tabindex="0" role="region" aria-label="Causes" {
            table.sorts {
                caption { "By connections hurt; what follows from another cause comes after it." }
                thead { tr { th scope="col" { "cause" } th scope="col" { "severity" } th.n scope="col" { "hurt" } th.n.opt scope="col" { "times" } th scope="col" { "whose doing" } th.opt scope="col" { "first" } } }
                tbody {
                    @for r in &ranked {
                        @let c = r.cause;
                        tr {
                            td { a href=(format!("#{}", c.kind.name())) { (c.kind.name()) } @if let Some(root) = r.follows { br; span.dim { "part of " (root.name()) } } }
                            td data-v=(c.severity as u8) { (severity(c)) }
                            td.n data-v=(r.hurt) { (number(r.hurt)) }
                            td.n.opt data-v=(c.count) { (number(c.count)) }
                            td { (c.mostly().name()) }
                            td.opt data-v=(c.first_ns) { (time(c.first_ns)) }
                        }
                    }
                }
            }
        }
        @for r in &ranked { (cause(report, r)) }
    }
}

fn severity(c: &Cause) -> Markup {
    html! { span class=(format!("sev {}", c.severity.name())) { (c.severity.name()) } }
}

/// Of causes that follow from no other.
fn verdicts(ranked: &[Ranked<'_>]) -> Markup {
    let roots = || ranked.iter().filter(|r| r.follows.is_none());
    let of = |v| roots().flat_map(|r| r.cause.verdicts()).filter(|x| x.0 == v).map(|x| x.1).sum::<u64>();
    let rows: Vec<_> = Verdict::ALL.iter().copied().map(|v| (v, of(v))).filter(|r| r.1 > 0).collect();
    let most = rows.iter().map(|r| r.1).max().unwrap_or(0);
    let by = |c: Certainty| roots().map(|r| r.cause.certainties[c as usize]).sum::<u64>();
    html! {
        table {
            tbody {
                @for (verdict, n) in rows {
                    tr { th scope="row" { (verdict.name()) } td.n { (number(n)) } td { (plots::bar(n, most, 1)) } td.opt { (meaning(verdict)) } }
                }
            }
        }
        p.dim {
            "Times, of causes that follow from no other: "
            (number(by(Certainty::Proven))) " proven, " (number(by(Certainty::Likely))) " likely, " (number(by(Certainty::Possible))) " possible."
        }
    }
}

fn meaning(verdict: crate::detect::Verdict) -> &'static str {
    use crate::detect::Verdict;
    match verdict {
        Verdict::Responder => "the end that was called",
        Verdict::Originator => "the end that called",
        Verdict::Gateway => "the machine that is tapped",
        Verdict::Network => "the path between, or the segment itself",
        Verdict::Middlebox => "a device in between",
        Verdict::Unknown => "the packets seen do not say",
    }
}

fn cause(report: &Report, r: &Ranked<'_>) -> Markup {
    let c = r.cause;
    let text = explain(c.kind);
    let verdicts: Vec<String> =
        c.verdicts().iter().map(|(v, n)| format!("{} ({})", v.name(), number(*n))).collect();
    let advice = report.advice(r);
    html! {
        section.cause aria-labelledby=(c.kind.name()) {
            h3 id=(c.kind.name()) { (severity(c)) " " (c.kind.name()) }
            p { (text.one_line) }
            p.dim { (prose(text.meaning)) }
            dl {
                dt { "how often" } dd { (number(c.count)) @if r.hurt > 0 { "; hurt " (r.hurt_words()) } }
                dt { "when" } dd { (time(c.first_ns)) @if time(c.first_ns) != time(c.last_ns) { " to " (time(c.last_ns)) } @if r.follows.is_none() { "; " (report.goes_on(c)) } }
                dt { "whose doing" } dd { (verdicts.join(", ")) }
                @if let Some(root) = r.follows { dt { "part of" } dd { a href=(format!("#{}", root.name())) { (root.name()) } } }
                (list("addresses", &c.subjects))
                (list("responders", &c.responders))
                (list("originators", &c.originators))
                @if let Some(hosts) = c.few_hosts() { (list("mostly", hosts)) }
                (list("seen at", &c.interfaces))
                (list("NAT address", &c.nat))
            }
            h4 { "What to do" }
            ul {
                li { (prose(&clean(&advice))) }
                @if r.follows.is_none() { @for remedy in text.remedy.iter().filter(|t| **t != advice) { li { (prose(remedy)) } } }
            }
            details {
                summary { "Usual causes, and what else it could be" }
                ul { @for cause in text.causes { li { (prose(cause)) } } }
                @if !text.or_else.is_empty() { p { "What else produces the same packets:" } ul { @for other in text.or_else { li { (prose(other)) } } } }
                p.dim { (prose(text.rule)) }
            }
            @if let Some(example) = c.example() { (whole(example)) }
        }
    }
}

fn list<K: Clone + Eq + Hash + Ord + Display>(name: &str, top: &Top<K>) -> Markup {
    let (rows, rest) = top.rows(PLACES);
    html! {
        @if !rows.is_empty() {
            dt { (name) }
            dd {
                @for (n, (place, count)) in rows.iter().enumerate() {
                    @if n > 0 { ", " }
                    span.mono { (bdi(place)) } " (" (number(*count)) ")"
                }
                @if rest > 0 { ", others (" (number(rest)) ")" }
            }
        }
    }
}

/// One record, whole.
fn whole(r: &Record) -> Markup {
    let place = match (&r.interface, &r.role) {
        (Some(i), Some(role)) => format!(" at {i} ({role})"),
        (Some(i), None) => format!(" at {i}"),
        _ => String::new(),
    };
    let words: Vec<String> = r.packets.iter().map(|p| clean(&packet_line(p, r))).collect();
    html! {
        h4 { "One of them, whole" }
        p { span.mono.dim { (clean(&r.time)) } " " @if let Some(tuple) = r.tuple_text() { span.mono { (tuple) } } (bdi(place)) }
        p { (clean(&r.summary)) }
        p.dim { "Verdict " (clean(&r.verdict)) ", " (clean(&r.certainty)) "." @if r.loss.is_some() { " syntap lost packets meanwhile." } }
        (ladder::draw(r))
        @if !r.facts.is_empty() {
            details {
                summary { "Its numbers" }
                dl { @for (name, value) in &r.facts { dt { (clean(name)) } dd.mono { (clean(&super::fact_text(value))) } } }
            }
        }
        @if !words.is_empty() {
            details {
                summary { (many(words.len() as u64, "packet")) " in tcpdump's words" }
                pre { (words.join("\n")) }
            }
        }
    }
}

fn census(report: &Report) -> Markup {
    let rows = flags::table(&report.figures);
    if rows.is_empty() {
        return html! {};
    }
    let mut all: Vec<(String, u64)> = Vec::new();
    for (name, n) in rows.iter().flat_map(|r| &r.cells) {
        match all.iter_mut().find(|a| a.0 == *name) {
            Some(a) => a.1 += n,
            None => all.push((name.clone(), *n)),
        }
    }
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let more = all.len().saturating_sub(12);
    all.truncate(12);
    html! {
        h2 #flags { "TCP flags seen" }
        p {
            "All segments on the chosen ports, as " code { "ngrep | sort | uniq -c" } " counts them. About as many FINs as pushes: "
            "connections carry one request each. Resets that one side sends and the other never saw: something in between sends them."
        }
        div.wide tabindex="0" role="region" aria-label="TCP flags by interface and direction" {
            table.sorts {
                thead { tr { th scope="col" { "flags" } @for r in &rows { th.n scope="col" { (bdi(&r.name)) } } th.opt scope="col" { "meaning" } } }
                tbody {
                    @for (name, _) in &all {
                        tr {
                            th scope="row" class="mono" { "[" (clean(name)) "]" }
                            @for r in &rows { @let n = r.of(name); td.n data-v=(n) { (number(n)) } }
                            td.opt { (flags::meaning(name)) }
                        }
                    }
                }
                tfoot { tr { th scope="row" { "all" } @for r in &rows { td.n { (number(r.total())) } } td.opt { } } }
            }
        }
        @if more > 0 { p.dim { (many(more as u64, "rarer combination")) " not shown." } }
    }
}

fn quiet(report: &Report) -> Markup {
    let quiet = report.quiet();
    html! {
        @if !quiet.is_empty() {
            h2 #quiet { "Worth knowing, nobody hurt" }
            div.wide tabindex="0" role="region" aria-label="Worth knowing" {
                table.sorts {
                    thead { tr { th scope="col" { "kind" } th.n scope="col" { "count" } th scope="col" { "what it is" } } }
                    tbody {
                        @for c in quiet {
                            tr { td { (c.kind.name()) } td.n data-v=(c.count) { (number(c.count)) } td { (explain(c.kind).one_line) } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart_and_text_steers_nothing() {
        assert_eq!(number(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(number(12), "12");
        assert_eq!(clean("a\u{202e}b\u{1b}[31m<i>"), "a\u{fffd}b\u{fffd}[31m<i>");
    }
}
