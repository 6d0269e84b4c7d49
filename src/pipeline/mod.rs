//! The stages between packets and records, and the only place that knows threads.

mod desk;
mod event;
mod latency;
mod threads;
mod worker;

pub use desk::{Desk, RecordSink, Tally};
pub use event::{Event, Outlet};
pub use latency::Interval;
pub use threads::{Copied, CopySink, Notice, Pipeline, Plan, Report, Shared, Ticking};
pub use worker::{Worker, WorkerConfig, WorkerCounters};
