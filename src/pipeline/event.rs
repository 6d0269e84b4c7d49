//! What workers hand over, and in which order it is to be looked at.

use crate::detect::{Anomaly, Sight};
use crate::flow::FlowKey;
use crate::track::Flow;
use crate::wire::{Nanos, Tunnel};

/// What a worker has to say.
#[derive(Debug)]
pub enum What {
    /// A rule fired.
    Anomaly(Box<Anomaly>),
    /// Something that the rules over all flows want to know.
    Sight(Sight),
    /// A life of a tuple is over, or the capture ended in it. Only if the worker was asked for lives.
    Life(Box<LifeOver>),
    /// Nothing any more: what was here has been looked at.
    Taken,
}

/// A life that is over, as it was.
#[derive(Debug)]
pub struct LifeOver {
    /// Its key.
    pub key: FlowKey,
    /// Its state at the end.
    pub flow: Flow,
    /// The tunnel around it.
    pub tunnel: Option<Tunnel>,
}

/// Where an event stands among those of all workers. The same packets give the same places, however flows are spread
/// over workers: a flow's events all come from one worker, so its count orders them, and only them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it happened: the packet's time, the deadline that passed, the end of the capture.
    pub at: Nanos,
    /// At the end of the capture, when the flow's last packet came, which no seed changes; 0 before.
    pub age: Nanos,
    /// The flow's hash; 0 for what belongs to none.
    pub lane: u64,
    /// The worker's count of events.
    pub count: u64,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub what: What,
}

/// Where a worker's events go: a ring to the writer, or a list in a replay.
pub trait Outlet {
    /// Takes one event. Must not block: an outlet that is full counts what it drops.
    fn event(&mut self, event: Event);
}

impl Outlet for Vec<Event> {
    fn event(&mut self, event: Event) {
        self.push(event);
    }
}
