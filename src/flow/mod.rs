//! Flows: tuples, the table that holds them, the timer wheel and the flight recorder.
//!
//! Pure: no kernel, no threads, no clock. Memory is taken at start and never grows, but for a short list of tunnels.

mod key;
mod line;
mod recorder;
mod table;
mod tags;
mod tunnels;
mod tuple;
mod wheel;

pub use key::{FlowKey, Narrow, Seed};
pub use line::{Line, LineEnd, Phase, bit};
pub use recorder::{Mark, Recorder};
pub use table::{Class, FlowId, Table};
pub use tunnels::{TunnelId, Tunnels};
pub use tuple::{Endpoint, Tuple};
pub use wheel::Wheel;

pub use crate::wire::{Digest, Side};
