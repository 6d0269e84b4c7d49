//! The stages between packets and records, and the only place that knows threads.

mod conntrack;
mod desk;
mod ends;
mod event;
mod fragments;
mod handover;
mod keeper;
mod latency;
mod link;
mod onlook;
mod pulse;
mod rounds;
mod threads;
mod waiting;
mod worker;

pub use conntrack::{ConntrackFeed, ConntrackTotals};
pub use desk::{Desk, RecordSink, Tally};
pub use event::{Event, LifeOver, Outlet, Place, What};
pub use handover::{Exchange, Group, HandOver};
pub use keeper::{Disk, Keeper, KeeperTotals, ShardDisk};
pub use latency::{Durations, Figures, FlagCounts, Interval, PointFigures, figures_until};
pub use link::LinkTotals;
pub use onlook::{AnomalyCounts, Named, Noted, Onlooker, Onlooking, onlooker};
pub use pulse::{Level, Pulse};
pub use rounds::{Rounds, RoundsError};
pub use threads::{
    Copied, CopySink, Drained, Finished, Notice, Pipeline, Plan, Report, Shared, Ticking, WorkerError,
};
pub use worker::{Worker, WorkerConfig, WorkerCounters};
