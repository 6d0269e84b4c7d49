//! Rules: what a step of a flow, or an ARP answer, means to an operator.
//!
//! Pure. A rule comes from the protocol and from the kernel's source; where the packets do not decide, it says less.

mod anomaly;
mod arp;
mod bounded;
pub mod conntrack;
mod ending;
mod evidence;
pub mod explain;
mod explain_gateway;
mod explain_more;
mod flood;
mod gateway;
mod handshake;
mod join;
#[cfg(test)]
mod join_tests;
mod kind;
mod link;
mod mapping;
mod opening;
pub mod reset;
mod reuse;
mod rings;
pub mod rules;
mod services;
mod shape;
mod sight;
mod slow;
mod storms;
mod survey;
pub mod tool;

pub use anomaly::{Anomaly, Fact, Facts};
pub use arp::{ArpAt, ArpWatch};
pub use evidence::{EVIDENCE, View};
pub use handshake::HURT_AFTER;
pub use join::Role;
pub use kind::{Certainty, Kind, Severity, Verdict};
pub use rings::Rings;
pub use services::Services;
pub use sight::{Life, Listener, Seen, Sight};
pub use survey::Survey;
