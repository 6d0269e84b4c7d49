//! Rates, from one look to the next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::telemetry::View;
use crate::telemetry::view::{Event, Interface};

/// Rates that the line over time shows: as many as a wide terminal has columns.
const HISTORY: usize = 512;

/// Anomalies that are kept: as many as a tall terminal has lines.
const EVENTS: usize = 256;

/// See the module.
pub struct Figures {
    /// The last look.
    pub now: View,
    /// The one before, of the same run.
    before: Option<View>,
    /// Handshakes a second, the latest last.
    pub history: VecDeque<f64>,
    /// Anomalies as they came, the latest last.
    pub events: VecDeque<Event>,
    /// When the last look was,
    looked: Instant,
    /// and why there was none since.
    pub trouble: Option<String>,
}

impl Figures {
    /// After the first look: no rate is known yet.
    pub fn new(first: View) -> Figures {
        let mut figures = Figures {
            now: View::default(),
            before: None,
            history: VecDeque::new(),
            events: VecDeque::new(),
            looked: Instant::now(),
            trouble: None,
        };
        figures.take(first);
        figures.before = None;
        figures
    }

    /// Takes another look, or why there is none.
    pub fn look(&mut self, look: Result<View, String>) {
        match look {
            Ok(view) => {
                self.take(view);
                self.trouble = None;
                if self.before.is_some() {
                    self.history.push_back(self.rate(|v| v.handshakes));
                    let over = self.history.len().saturating_sub(HISTORY);
                    self.history.drain(..over);
                }
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    fn take(&mut self, view: View) {
        self.looked = Instant::now();
        let same_run = view.uptime_ms >= self.now.uptime_ms && view.host == self.now.host;
        if !same_run {
            // Numbers begin anew.
            self.events.clear();
        }
        let last = self.events.back().map_or(0, |e| e.number);
        self.events.extend(view.events.iter().filter(|e| e.number > last).cloned());
        let over = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..over);
        if view.uptime_ms != self.now.uptime_ms {
            let before = std::mem::replace(&mut self.now, view);
            self.before = same_run.then_some(before);
        }
    }

    /// How long ago the last look was.
    pub fn age(&self) -> Duration {
        self.looked.elapsed()
    }

    /// Whether there are rates yet.
    pub fn has_rates(&self) -> bool {
        self.before.is_some()
    }

    /// What a total grew by, a second; 0 before the second look.
    pub fn rate(&self, of: impl Fn(&View) -> u64) -> f64 {
        let Some(before) = &self.before else { return 0.0 };
        let ms = self.now.uptime_ms.saturating_sub(before.uptime_ms).max(1);
        of(&self.now).saturating_sub(of(before)) as f64 * 1_000.0 / ms as f64
    }

    /// The same of a tap point.
    pub fn rate_at(&self, n: usize, of: impl Fn(&Interface) -> u64) -> f64 {
        self.rate(|v| v.interfaces.get(n).map_or(0, &of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(uptime_ms: u64, handshakes: u64, events: std::ops::RangeInclusive<u64>) -> View {
        let events = events.map(|number| Event { number, ..Event::default() }).collect();
        View { uptime_ms, handshakes, events, ..View::default() }
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks_and_of_one_run() {
        let mut f = Figures::new(view(1_000, 500, 1..=3));
        assert_eq!((f.rate(|v| v.handshakes), f.has_rates()), (0.0, false));
        f.look(Ok(view(3_000, 700, 2..=5)));
        assert_eq!(f.rate(|v| v.handshakes), 100.0);
        assert_eq!(f.events.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        // Asked twice within a second it has counted nothing new, which is no rate of 0.
        f.look(Ok(view(3_000, 700, 2..=5)));
        assert_eq!((f.rate(|v| v.handshakes), f.events.len()), (100.0, 5));
        f.look(Err("gone".into()));
        assert_eq!(f.trouble.as_deref(), Some("gone"));
        f.look(Ok(view(500, 3, 1..=1)));
        assert_eq!((f.rate(|v| v.handshakes), f.has_rates(), f.events.len()), (0.0, false, 1), "another run");
        assert!(f.trouble.is_none());
    }
}
