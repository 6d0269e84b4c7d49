//! `--conntrack`: whether connection tracking is listened to, and what is said of it on the way and at the end.

use std::io;
use std::sync::atomic::Ordering;

use super::output::hinted;
use super::{Fail, many, note};
use crate::capture::PortSet;
use crate::capture::conntrack::{self, Conntrack};
use crate::guard::Guard;
use crate::pipeline::{ConntrackFeed, ConntrackTotals};

/// When to listen to connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// If it is loaded.
    Auto,
    /// Always: without it the run does not begin.
    On,
    /// Never.
    Off,
}

/// Opens it, if it is wanted and to be had; `buffer` is in KiB.
pub fn open(
    when: When,
    buffer: usize,
    ports: &PortSet,
    guard: &Guard,
) -> Result<Option<ConntrackFeed>, Fail> {
    let must = when == When::On;
    if when == When::Off || !must && !conntrack::is_loaded() {
        return Ok(None);
    }
    let without = |fail: Fail| {
        if must {
            return Err(fail);
        }
        note(format!("going on without connection tracking: {}", fail.message()));
        Ok(None)
    };
    if conntrack::events_setting() == Some(0) {
        let fail =
            Fail::new("connection tracking tells of nothing here: net.netfilter.nf_conntrack_events is 0");
        return without(fail.hint("sysctl -w net.netfilter.nf_conntrack_events=1"));
    }
    match Conntrack::open(buffer << 10) {
        Ok(mut source) => {
            if let Some(helper) = guard.helper().map_err(|e| hinted(&e, e.hint()))? {
                let confined = source.ask_by_helper(|| helper.enter().map_err(io::Error::other));
                if let Err(e) = confined {
                    return without(hinted(&e, e.hint()));
                }
            }
            Ok(Some(ConntrackFeed { source, ports: ports.clone(), watch: None }))
        }
        Err(e) => without(hinted(&e, e.hint())),
    }
}

fn nonzero(totals: &ConntrackTotals) -> Vec<String> {
    totals.counters().iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect()
}

/// For the status line, ` | conntrack insert_failed 37 drop 37`; nothing if it counted nothing.
pub fn figures(totals: &ConntrackTotals) -> String {
    let mut figures = nonzero(totals);
    let lost = totals.lost.load(Ordering::Relaxed);
    if lost > 0 {
        figures.push(format!("events lost {lost}"));
    }
    if figures.is_empty() { String::new() } else { format!(" | conntrack {}", figures.join(" ")) }
}

/// The line of the summary.
pub fn summary(totals: &ConntrackTotals) -> String {
    let counted = nonzero(totals);
    let counted = if counted.is_empty() { "nothing counted".to_owned() } else { counted.join(", ") };
    let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let lost = match (read(&totals.lost), read(&totals.dumps)) {
        (0, _) => String::new(),
        (lost, 0) => format!(", {lost} lost"),
        (lost, dumps) => format!(", {lost} lost (and all entries listed instead, {})", many(dumps, "time")),
    };
    format!("{counted}; {} events{lost}", read(&totals.events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_takes_no_room_in_the_status_line() {
        let totals = ConntrackTotals::default();
        assert_eq!(figures(&totals), "");
        assert_eq!(summary(&totals), "nothing counted; 0 events");
        totals.lost.store(7, Ordering::Relaxed);
        totals.dumps.store(1, Ordering::Relaxed);
        assert_eq!(figures(&totals), " | conntrack events lost 7");
        assert_eq!(
            summary(&totals),
            "nothing counted; 0 events, 7 lost (and all entries listed instead, 1 time)"
        );
    }
}
