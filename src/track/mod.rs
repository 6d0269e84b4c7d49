//! What a flow is doing, seen from the middle: states, numbers, attempts to open, lives of a tuple.
//!
//! Pure. A tracker in the middle may have missed any packet and may have been started at any time; it says what the
//! packets it saw prove, and leaves to the rules (`detect`) what that means.

pub mod fold;
mod life;
mod middle;
mod open;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod window;
mod zeek;

pub use life::{Attempt, End, Flow, OldState, Outcome, Past, StaleAck, Tallies, seen};
pub use state::{Next, SegClass, State, is_odd, next};
pub use step::{Ended, ResetSeen, Step, note};
pub use window::Coverage;
pub use zeek::{Seen, Zeek};
