//! Plots as inline SVG that stretches, with its labels as text beside it: readable on a phone as on a desk.

use maud::{Markup, html};

use super::number;
use crate::detect::Kind;
use crate::record::milliseconds;
use crate::report::{Ages, Axis, Opened, Report, time};

/// Causes with a colour of their own; the rest shares one.
const OWN: usize = 5;

/// When, by cause: stacked.
pub fn timeline(report: &Report, axis: Axis) -> Markup {
    // What follows from another cause would count the same connections again.
    let ranked: Vec<_> = report.ranked().into_iter().filter(|r| r.follows.is_none()).collect();
    let mut series: Vec<(String, Vec<u64>)> = Vec::new();
    for (n, r) in ranked.iter().enumerate() {
        let cells = r.cause.timeline.on(axis);
        match series.get_mut(OWN) {
            Some((_, others)) => others.iter_mut().zip(&cells).for_each(|(sum, n)| *sum += n),
            None if n == OWN => series.push(("all others".into(), cells)),
            None => series.push((r.cause.kind.name().into(), cells)),
        }
    }
    let sums: Vec<u64> = (0..axis.count as usize).map(|n| series.iter().map(|s| s.1[n]).sum()).collect();
    let most = sums.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return html! {};
    }
    let scale = |n: u64| n as f64 * 100.0 / most as f64;
    let say = format!("Anomalies over time by cause: {most} at most in {}", axis.cell_words());
    html! {
        figure {
            div.plot {
                svg role="img" aria-label=(say) viewBox=(format!("0 0 {} 100", axis.count)) preserveAspectRatio="none" {
                    @for (n, sum) in sums.iter().enumerate() {
                        @if *sum > 0 {
                            g {
                                title { (time(axis.begins(n as u64))) ": " (number(*sum)) }
                                @let mut below = 0;
                                @for (s, (_, cells)) in series.iter().enumerate() {
                                    @if cells[n] > 0 {
                                        @let () = below += cells[n];
                                        rect class=(format!("f{}", s + 1)) x=(format!("{:.2}", n as f64 + 0.05)) width="0.9"
                                            y=(format!("{:.2}", 100.0 - scale(below))) height=(format!("{:.2}", scale(cells[n]))) {}
                                    }
                                }
                            }
                        }
                    }
                }
                span.y style="bottom:96%" { (number(most)) }
            }
            (x_axis(axis))
            ul.key {
                @for (s, (name, cells)) in series.iter().enumerate() {
                    li {
                        svg viewBox="0 0 1 1" aria-hidden="true" { rect class=(format!("f{}", s + 1)) width="1" height="1" {} }
                        @if Kind::from_name(name).is_some() { a href=(format!("#{name}")) { (name) } } @else { (name) }
                        " (" (number(cells.iter().sum())) ")"
                    }
                }
            }
            figcaption { "Causes that follow from no other, " (axis.cell_words()) " a column. Times are UTC." }
        }
    }
}

fn x_axis(axis: Axis) -> Markup {
    let (first, last) = (time(axis.begins(0)), time(axis.begins(axis.count)));
    html! { div.x aria-hidden="true" { span { (first) } span { (last) } } }
}

/// What handshakes took: median, 95th and 99th percentile, on a logarithmic scale.
pub fn latency(report: &Report) -> Markup {
    let (first, last) = report.span.unwrap_or((0, 0));
    let axis = Axis::over(first, last, crate::report::CELLS, report.figures.longest_ns);
    let cells = report.figures.on(axis);
    let values: Vec<u64> = cells.iter().flat_map(|c| [c.quantile(0.5), c.quantile(0.99)]).flatten().collect();
    let (Some(&low), Some(&high)) = (values.iter().min(), values.iter().max()) else { return html! {} };
    // Whole decades.
    let floor = f64::from((low.max(1) as f64).log10().floor() as i32);
    let ceiling = f64::from((high.max(1) as f64).log10().ceil() as i32).max(floor + 1.0);
    let height = |us: u64| ((us.max(1) as f64).log10() - floor) * 100.0 / (ceiling - floor);
    let path = |share: f64| {
        let steps = cells.iter().enumerate().filter_map(|(n, c)| Some((n, c.quantile(share)?)));
        let steps = steps.map(|(n, us)| format!("M{n} {:.2}H{}", 100.0 - height(us), n + 1));
        steps.collect::<Vec<_>>().join("")
    };
    let decades: Vec<i32> = (floor as i32..=ceiling as i32).collect();
    let all = report.figures.total();
    let say = format!("Time from SYN to SYN-ACK over time: {}", quantiles(&all));
    html! {
        figure {
            div.plot {
                svg role="img" aria-label=(say) viewBox=(format!("0 0 {} 100", axis.count)) preserveAspectRatio="none" {
                    @for d in &decades {
                        @let y = format!("{:.2}", 100.0 - (f64::from(*d) - floor) * 100.0 / (ceiling - floor));
                        line.grid x1="0" x2=(axis.count) y1=(y) y2=(y) {}
                    }
                    @for (class, share) in [("l1", 0.5), ("l2", 0.95), ("l3", 0.99)] {
                        path class=(class) d=(path(share)) {}
                    }
                }
                @for d in &decades {
                    span.y style=(format!("bottom:{:.0}%", ((f64::from(*d) - floor) * 96.0 / (ceiling - floor)))) {
                        (decade(*d))
                    }
                }
            }
            (x_axis(axis))
            ul.key {
                @for (class, name) in [("l1", "median"), ("l2", "95th percentile"), ("l3", "99th percentile")] {
                    li { svg viewBox="0 0 12 12" aria-hidden="true" { path class=(class) d="M0 6H12" {} } (name) }
                }
            }
            figcaption {
                "Time from a connection's first SYN to its SYN-ACK, " (axis.cell_words()) " a step, logarithmic; a lost SYN adds its second here. "
                "Percentiles are known to a fifth."
            }
        }
    }
}

fn decade(d: i32) -> String {
    match d {
        ..3 => format!("{} us", 10u64.pow(d.max(0) as u32)),
        3..6 => format!("{} ms", 10u64.pow(d as u32 - 3)),
        _ => format!("{} s", 10u64.pow(d as u32 - 6)),
    }
}

/// `median 0.02, p95 0.10, p99 1.2 ms`.
pub fn quantiles(o: &Opened) -> String {
    match [0.5, 0.95, 0.99].map(|q| o.quantile(q).map(milliseconds)) {
        [Some(median), Some(p95), Some(p99)] => format!("median {median}, p95 {p95}, p99 {p99} ms"),
        _ => "no answer was timed".into(),
    }
}

/// A bar in a table: `n` of `most`.
pub fn bar(n: u64, most: u64, colour: usize) -> Markup {
    let width = if most == 0 { 0.0 } else { (n as f64 * 100.0 / most as f64).max(1.0) };
    html! {
        svg.bar aria-hidden="true" viewBox="0 0 100 10" preserveAspectRatio="none" {
            rect class=(format!("f{colour}")) width=(format!("{width:.1}")) height="10" {}
        }
    }
}

/// How old tuples were when they were used again.
pub fn ages(ages: &Ages) -> Markup {
    let most = ages.refused.iter().chain(&ages.accepted).copied().max().unwrap_or(0);
    html! {
        div.wide tabindex="0" role="region" aria-label="Tuples used again by age" {
            table {
                caption { "SYNs on a tuple that was closed before, by the time since its close. Linux keeps one for 60 s; refused are those whose numbers do not follow the old ones." }
                thead { tr { th scope="col" { "age" } th.n scope="col" { "refused" } th scope="col" { "" } th.n scope="col" { "accepted" } th scope="col" { "" } } }
                tbody {
                    @for (n, (refused, accepted)) in ages.refused.iter().zip(ages.accepted).enumerate() {
                        @if refused + accepted > 0 {
                            tr {
                                th scope="row" { (Ages::label(n)) }
                                td.n { (number(*refused)) } td { (bar(*refused, most, 2)) }
                                td.n { (number(accepted)) } td { (bar(accepted, most, 4)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
