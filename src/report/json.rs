//! The whole report as one JSON object, for scripts.

use std::fmt::Display;
use std::hash::Hash;

use serde_json::{Map, Value, json};

use super::{AGES, Ages, Opened, Ranked, Report, Short, Top, flags};
use crate::detect::explain::explain;

/// Rows of a list of places.
const ROWS: usize = 20;

/// Cells of a timeline at most.
const CELLS: u64 = 60;

/// See the module. `since`: when the first shard was begun. Times are nanoseconds since the epoch.
pub fn of(report: &Report, since: Option<&str>) -> Value {
    let short = Short::of(report);
    let (before, during) = report.before_and_during();
    let ranked = report.ranked();
    let axis = report.axis(CELLS);
    let own = report.own.iter().map(|((cause, place), o)| {
        json!({ "cause": cause, "source": place, "times": o.times, "count": o.count, "first_ns": o.first_ns, "last_ns": o.last_ns })
    });
    let quiet: Map<String, Value> =
        report.quiet().iter().map(|c| (c.kind.name().to_owned(), c.count.into())).collect();
    let points = report.figures.points.iter().map(|(name, p)| {
        let mut o = opened(&p.total);
        o["interface"] = name.as_str().into();
        o["role"] = p.role.clone().into();
        o
    });
    let responders = report.figures.responders.iter().map(|(address, p)| {
        let mut o = opened(&p.total);
        o["responder"] = address.to_string().into();
        o
    });
    let census: Map<String, Value> = flags::table(&report.figures)
        .into_iter()
        .map(|row| {
            (row.name, row.cells.into_iter().map(|(f, n)| (f, Value::from(n))).collect::<Map<_, _>>().into())
        })
        .collect();
    json!({
        "records": report.records,
        "sightings": report.occurrences(),
        "left_out": report.left_out,
        "unknown": report.unknown,
        "hosts": report.hosts,
        "filters": report.figures.filters,
        "first_ns": report.span.map(|s| s.0),
        "last_ns": report.span.map(|s| s.1),
        "first_shard": since,
        "lost": own.collect::<Vec<_>>(),
        "short": short.sentences.iter().map(|s| json!({ "kind": s.kind.name(), "text": s.text })).collect::<Vec<_>>(),
        "timeline": { "cell_ns": axis.length_ns(), "first_ns": axis.begins(0), "cells": axis.count },
        "causes": ranked.iter().map(|r| cause(report, r, &r.cause.timeline.on(axis))).collect::<Vec<_>>(),
        "info": quiet,
        "connections": {
            "all": opened(&report.figures.total()),
            "before": opened(&before),
            "during": opened(&during),
            "interfaces": points.collect::<Vec<_>>(),
            "responders": responders.collect::<Vec<_>>(),
        },
        "flags": census,
        "reuse_ages": (0..=AGES.len()).map(|n| json!({
            "age": Ages::label(n),
            "up_to_s": AGES.get(n),
            "refused": report.ages.refused[n],
            "accepted": report.ages.accepted[n],
        })).collect::<Vec<_>>(),
    })
}

fn opened(o: &Opened) -> Value {
    json!({
        "attempts": o.attempts,
        "handshakes": o.handshakes,
        "failed": o.failed,
        "waiting": o.waiting(),
        "resets": o.resets,
        "slow": o.slow(),
        "median_us": o.quantile(0.5),
        "p95_us": o.quantile(0.95),
        "p99_us": o.quantile(0.99),
        "max_us": (o.max_us > 0).then_some(o.max_us),
    })
}

fn cause(report: &Report, r: &Ranked<'_>, timeline: &[u64]) -> Value {
    let c = r.cause;
    let [possible, likely, proven] = c.certainties;
    let verdicts: Map<String, Value> =
        c.verdicts().into_iter().map(|(v, n)| (v.name().to_owned(), n.into())).collect();
    json!({
        "kind": c.kind.name(),
        "severity": c.severity.name(),
        "count": c.count,
        "hurt": r.hurt,
        "follows": r.follows.map(|k| k.name()),
        "first_ns": c.first_ns,
        "last_ns": c.last_ns,
        "verdicts": verdicts,
        "certainties": { "proven": proven, "likely": likely, "possible": possible },
        "responders": rows(&c.responders),
        "originators": rows(&c.originators),
        "hosts": rows(&c.hosts),
        "interfaces": rows(&c.interfaces),
        "nat": rows(&c.nat),
        "timeline": timeline,
        "addresses": rows(&c.subjects),
        "advice": report.advice(r),
        "remedy": explain(c.kind).remedy,
        "example": c.example(),
    })
}

/// Names and counts, the frequent first; what is left of all others has the name null.
fn rows<K: Clone + Eq + Hash + Ord + Display>(top: &Top<K>) -> Value {
    let (rows, rest) = top.rows(ROWS);
    let mut all: Vec<Value> =
        rows.iter().map(|(k, n)| json!({ "name": k.to_string(), "count": n })).collect();
    if rest > 0 {
        all.push(json!({ "name": null, "count": rest }));
    }
    all.into()
}
