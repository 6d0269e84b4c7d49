//! The status line of a live run.

use std::time::Instant;

use crate::pipeline::{Durations, Figures, Interval, WorkerCounters};

/// What the next status line is made of.
pub struct Status {
    since: Instant,
    recent: Interval,
    total: Interval,
    before: WorkerCounters,
}

/// This machine's time zone, read once: later its files may be out of reach.
pub fn local() -> &'static jiff::tz::TimeZone {
    static LOCAL: std::sync::OnceLock<jiff::tz::TimeZone> = std::sync::OnceLock::new();
    LOCAL.get_or_init(jiff::tz::TimeZone::system)
}

impl Status {
    /// From now on.
    pub fn new() -> Status {
        Status {
            since: Instant::now(),
            recent: Interval::default(),
            total: Interval::default(),
            before: WorkerCounters::default(),
        }
    }

    /// Where latencies are gathered until the next line.
    pub fn latencies(&mut self) -> &mut Interval {
        &mut self.recent
    }

    /// All latencies of the run.
    pub fn total(&mut self) -> &Interval {
        self.total.add(&self.recent);
        self.recent.clear();
        &self.total
    }

    /// One line, and one for each responder that was asked for, each with its line break. Of the time since the last one: handshakes and their rate, the time from SYN to SYN-ACK. Since
    /// the start: failed attempts of all, resets, what was mirrored, shed, dropped and missed, flows given up for room.
    pub fn lines(&mut self, c: &WorkerCounters, kernel: &str) -> String {
        let seconds = self.since.elapsed().as_secs_f64().max(0.001);
        let handshakes = c.handshakes - self.before.handshakes;
        let rate = handshakes as f64 / seconds;
        let latency = latency(&self.recent.syn_acks);
        let clock = jiff::Timestamp::now().to_zoned(local().clone()).strftime("%H:%M:%S");
        let evicted = if c.evicted > 0 { format!(" evicted {}", c.evicted) } else { String::new() };
        let mut lines = format!(
            "{clock} last {seconds:.0} s: handshakes {handshakes} ({rate:.0}/s) {latency} | \
             total: errors {}/{} | resets {} | {kernel}{evicted}\n",
            c.failed, c.attempts, c.resets,
        );
        for f in &self.recent.responders {
            lines.push_str(&format!("{clock} {}\n", figures(f, Some(seconds))));
        }
        self.total();
        self.before = *c;
        self.since = Instant::now();
        lines
    }
}

/// Connections to one responder: how many, how fast, how long they took to open, how many failed.
pub fn figures(f: &Figures, seconds: Option<f64>) -> String {
    let connects = f.latencies.len();
    let rate = seconds.map_or_else(String::new, |s| format!(" ({:.0}/s)", connects as f64 / s));
    let address = std::net::SocketAddr::new(f.responder.addr.ip(), f.responder.port);
    let share = if f.attempts == 0 { 0.0 } else { f.failed as f64 * 100.0 / f.attempts as f64 };
    let (failed, attempts, latency) = (f.failed, f.attempts, latency(&f.latencies));
    format!("to {address}: connects {connects}{rate} {latency}, errors {failed}/{attempts} ({share:.2} %)")
}

/// `median 0.21 p95 0.40 p99 1.1 max 12 ms`, or that there were none.
pub fn latency(of: &Durations) -> String {
    if of.is_empty() {
        return "no latency".into();
    }
    let ms = |us: u64| match us {
        0..10_000 => format!("{:.2}", us as f64 / 1e3),
        10_000..100_000 => format!("{:.1}", us as f64 / 1e3),
        _ => format!("{:.0}", us as f64 / 1e3),
    };
    format!(
        "median {} p95 {} p99 {} max {} ms",
        ms(of.quantile_us(0.5)),
        ms(of.quantile_us(0.95)),
        ms(of.quantile_us(0.99)),
        ms(of.max_us())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_keep_two_digits_where_they_matter() {
        let mut i = Durations::default();
        assert_eq!(latency(&i), "no latency");
        for us in [210u64, 210, 210, 1_040_000] {
            i.record(us * 1_000);
        }
        let text = latency(&i);
        assert!(text.starts_with("median 0.21 ") && text.ends_with(" ms"), "{text}");
        let max: f64 = text.rsplit(' ').nth(1).and_then(|m| m.parse().ok()).expect("a figure");
        assert!((1_030.0..1_060.0).contains(&max), "{text}");
    }
}
