//! Interfaces that go away, come back or go down under a live tap: said, and where nothing could be seen, recorded.

use super::{Fail, say};
use crate::capture::tap::PointInfo;
use crate::capture::{Change, Mode, Presence, Tap, TapError};
use crate::detect::tool::{Gap, Unit, capture_gap};
use crate::pipeline::{Notice, Pipeline, RecordSink, Ticking};
use crate::wire::Nanos;

use super::output::hinted;

/// What is remembered of each tap point.
#[derive(Default)]
struct Point {
    /// It was last seen then, and is not since; why.
    blind_since: Option<(Nanos, &'static str)>,
    /// It was said that it is there again and cannot be tapped.
    said: bool,
}

impl Point {
    /// It is not seen from `since` on. A hook that was lost before its interface stays the cause.
    fn blind(&mut self, since: Nanos, cause: &'static str) {
        self.blind_since.get_or_insert((since, cause));
    }
}

/// See the module.
pub struct Interfaces {
    points: Vec<Point>,
    /// The last look.
    at: Nanos,
}

impl Interfaces {
    /// All of a tap's points are there.
    pub fn new(tap: &Tap, now: Nanos) -> Interfaces {
        Interfaces { points: tap.points().iter().map(|_| Point::default()).collect(), at: now }
    }

    /// Looks at all of them. An error means that none is left.
    pub fn look<S>(&mut self, tap: &mut Tap, pipeline: &mut Pipeline<S>) -> Result<(), Fail>
    where
        S: RecordSink + Ticking + Send + 'static,
    {
        let failed = |e: TapError| hinted(&e, e.hint());
        let now = pipeline.now();
        for (n, change) in tap.look().map_err(failed)? {
            let info = &tap.points()[n];
            let name = &info.name;
            match change {
                Change::Down => {
                    say::limited(name, format!("{name} is down or has no carrier: nothing passes it"));
                }
                Change::Up => say::limited(name, format!("{name} is up again")),
                Change::Gone => {
                    say::limited(name, format!("{name} is gone; {}", future(info)));
                    self.points[n].blind(self.at, "interface_gone");
                }
                Change::Back => {
                    say::limited(name, format!("{name} is back and tapped again"));
                    self.end_gap(n, name, now, pipeline);
                    self.points[n].said = false;
                }
                Change::Renamed(Some(new)) => {
                    say::limited(name, format!("{name} is called {new} now; it is tapped on, as {name}"));
                }
                Change::Renamed(None) => say::limited(name, format!("{name} has its name again")),
                Change::ForeignXdp(Some(id)) => {
                    let program = format!("somebody's XDP program (id {id}) is on {name}");
                    say::limited(name, format!("{program}: what it takes, the tap does not see"));
                }
                Change::ForeignXdp(None) => {
                    say::limited(name, format!("no XDP program is on {name} any more"));
                }
                Change::Unhooked(by) => {
                    say::limited(name, format!("{}; {}", unhooked(name, by), then(info, tap.reattaches())));
                    self.points[n].blind(self.at, "hook_removed");
                }
                Change::Rehooked => {
                    say::limited(name, format!("{name} is hooked again"));
                    self.end_gap(n, name, now, pipeline);
                    self.points[n].said = false;
                }
                Change::NotRehooked(e) => {
                    if !std::mem::replace(&mut self.points[n].said, true) {
                        say::limited(name, format!("{name} cannot be hooked again: {}", failed(e)));
                    }
                }
                Change::NotBack(e) => {
                    if !std::mem::replace(&mut self.points[n].said, true) {
                        say::limited(name, format!("{name} is back but not tapped: {}", failed(e)));
                    }
                }
            }
        }
        let first = self.at;
        if self.points.iter().any(|p| matches!(p.blind_since, Some((_, "hook_removed")))) {
            // Packets pass unseen: what rests on an absence is uncertain from now on, not only when it is over.
            pipeline.notice(Notice::Lost { first, last: now, drops: 0, misses: 0 });
        }
        self.at = now;
        if tap.points().iter().any(|p| p.presence != Presence::Gone) {
            return Ok(());
        }
        let names: Vec<&str> = tap.points().iter().map(|p| p.name.as_str()).collect();
        let fail = Fail::new(format!("no tapped interface is left: {} gone", are(&names)));
        Err(fail.hint("start it again when there is one"))
    }

    /// The run ends: what is still gone has been so until now.
    pub fn end<S>(&mut self, tap: &Tap, pipeline: &mut Pipeline<S>)
    where
        S: RecordSink + Ticking + Send + 'static,
    {
        let now = pipeline.now();
        for (n, info) in tap.points().iter().enumerate() {
            self.end_gap(n, &info.name, now, pipeline);
        }
    }

    fn end_gap<S>(&mut self, n: usize, name: &str, now: Nanos, pipeline: &mut Pipeline<S>)
    where
        S: RecordSink + Ticking + Send + 'static,
    {
        let Some((first, cause)) = self.points[n].blind_since.take() else { return };
        let unit = Unit::Packets;
        let gap = Gap { cause, source: name, first, last: now, count: None, unit };
        pipeline.notice(Notice::Lost { first, last: now, drops: 0, misses: 0 });
        pipeline.notice(Notice::Anomaly(Box::new(capture_gap(&gap))));
    }
}

fn future(info: &PointInfo) -> &'static str {
    match info.mode {
        Mode::Inline => "it is tapped again when one of that name comes",
        Mode::Span => "a span tap does not come back by itself: restart it when the interface is there again",
    }
}

fn unhooked(name: &str, by: Option<u32>) -> String {
    match by {
        Some(id) => format!("somebody put another program (id {id}) into the place of a hook of {name}"),
        None => format!("somebody took a hook off {name}"),
    }
}

fn then(info: &PointInfo, reattach: bool) -> &'static str {
    match (info.mode, reattach) {
        (Mode::Inline, true) => "it is hooked again",
        (Mode::Inline, false) => {
            "what passes it is not seen from now on: restart syntap, or run it with --reattach"
        }
        (Mode::Span, _) => "what it receives is not seen from now on: restart syntap",
    }
}

fn are(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        many => format!("{} are", many.join(", ")),
    }
}
