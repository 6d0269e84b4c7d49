//! What workers hand over.

use crate::detect::Anomaly;
use crate::flow::{Endpoint, FlowKey};
use crate::track::Flow;
use crate::wire::Nanos;

/// What a worker has to say to the stages behind it.
#[derive(Debug)]
pub enum Event {
    /// A rule fired.
    Anomaly(Box<Anomaly>),
    /// A responder accepted a connection.
    Answered {
        /// Its address and port.
        responder: Endpoint,
        /// When.
        at: Nanos,
    },
}

/// Where a worker's events go: a ring to the writer, or straight to it in a replay.
pub trait Outlet {
    /// Takes one event. Must not block: an outlet that is full counts what it drops.
    fn event(&mut self, event: Event);

    /// Takes a life of a tuple that is over, or that the capture ended in.
    fn over(&mut self, _key: &FlowKey, _flow: &Flow) {}
}
