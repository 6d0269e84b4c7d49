//! syntap: a packet tap for busy Linux gateways.
//!
//! An XDP or tcx program mirrors TCP control packets for chosen ports into AF_XDP rings; workers track every
//! tuple and write records of what went wrong, with the packets that prove it. `docs/architecture.md` is the map.
//!
//! Layers point one way: `wire <- flow <- track <- detect <- record` are pure (no kernel, no threads, no clock);
//! `bpf <- capture` know frames and not flows; `pipeline` alone knows threads; `telemetry` reads snapshots; `cli` alone prints;
//! `guard` stands alone, and `memory` is below all.
#![deny(unsafe_code)]

pub mod bpf;
pub mod capture;
pub mod cli;
pub mod detect;
pub mod flow;
pub mod guard;
mod memory;
pub mod pipeline;
pub mod record;
pub mod report;
pub mod telemetry;
pub mod track;
pub mod wire;
