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
    /// It was last seen then, and is gone.
    gone_since: Option<Nanos>,
    /// It was said that it is there again and cannot be tapped.
    said: bool,
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
                    self.points[n].gone_since = Some(self.at);
                }
                Change::Back => {
                    say::limited(name, format!("{name} is back and tapped again"));
                    self.end_gap(n, name, now, pipeline);
                    self.points[n].said = false;
                }
                Change::NotBack(e) => {
                    if !std::mem::replace(&mut self.points[n].said, true) {
                        say::limited(name, format!("{name} is back but not tapped: {}", failed(e)));
                    }
                }
            }
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
        let Some(first) = self.points[n].gone_since.take() else { return };
        let (cause, unit) = ("interface_gone", Unit::Packets);
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

fn are(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        many => format!("{} are", many.join(", ")),
    }
}
