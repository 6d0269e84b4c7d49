//! Shards into a report, by as many threads as there is work for.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cli::filter::Filter;
use crate::cli::{Fail, ShardsRead, named_shards, shards_read};
use crate::record::{ShardError, ShardState, read_lines};
use crate::report::Report;

/// Threads at most: each holds a shard and a report of its own, and the disk is not faster for more.
const THREADS: usize = 8;

type Read = (usize, Result<ShardState, ShardError>);

/// Reads all shards that were named; the report over what passes, and what came of each.
pub fn all(named: &[PathBuf], filter: &Filter) -> Result<(Report, ShardsRead), Fail> {
    let paths = named_shards(named)?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    // What a report holds does not depend on who read which shard, but for names beyond those that it counts apart.
    let work = || {
        let (mut report, mut read) = (Report::default(), Vec::<Read>::new());
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(n) else { return (report, read) };
            let state =
                read_lines(path, filter.within(), &mut |line| report.line(line, |r| filter.passes_line(r)));
            report.left_out += state.as_ref().map_or(0, |s| s.passed_records);
            read.push((n, state));
        }
    };
    let threads = cpus.min(paths.len()).min(THREADS);
    let (report, mut read) = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let (mut report, mut read) = work();
        for other in others {
            let (part, more) = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            report.merge(part);
            read.extend(more);
        }
        (report, read)
    });
    read.sort_by_key(|r| r.0);
    let states = read.into_iter().map(|(n, state)| (paths[n].clone(), state));
    Ok((report, shards_read(states)?))
}
