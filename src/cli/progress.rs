//! Whether the threads of a run go on: when each was last seen to have gone round its loop.

use std::time::{Duration, Instant};

/// See the module. Threads are counted as [`crate::pipeline::Pulse`] counts them.
#[derive(Debug)]
pub struct Progress {
    threads: Vec<Thread>,
}

#[derive(Clone, Debug)]
struct Thread {
    beats: u64,
    moved: Instant,
    /// It has ended, as it should.
    over: bool,
}

impl Progress {
    /// All of them have just begun.
    pub fn new(threads: usize, now: Instant) -> Progress {
        Progress { threads: vec![Thread { beats: 0, moved: now, over: false }; threads] }
    }

    /// Compares with the last look. `over` names threads that are not waited for any more.
    pub fn look(&mut self, beats: &[u64], over: impl Fn(usize) -> bool, now: Instant) {
        for (n, (thread, &beats)) in self.threads.iter_mut().zip(beats).enumerate() {
            thread.over = over(n);
            if thread.beats != beats {
                (thread.beats, thread.moved) = (beats, now);
            }
        }
    }

    /// How long ago each thread was last seen to go round; `None` for one that has ended.
    pub fn ages(&self, now: Instant) -> Vec<Option<Duration>> {
        self.threads.iter().map(|t| (!t.over).then(|| now.duration_since(t.moved))).collect()
    }

    /// The longest of these.
    pub fn slowest(&self, now: Instant) -> Duration {
        self.ages(now).into_iter().flatten().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_thread_counts_and_one_that_is_over_does_not() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut progress = Progress::new(3, begun);
        progress.look(&[5, 5, 5], |_| false, at(1));
        progress.look(&[6, 5, 6], |_| false, at(9));
        assert_eq!(progress.slowest(at(9)), Duration::from_secs(8));
        progress.look(&[7, 5, 7], |n| n == 1, at(10));
        assert_eq!(progress.slowest(at(10)), Duration::ZERO);
        assert_eq!(progress.ages(at(12)), [Some(Duration::from_secs(2)), None, Some(Duration::from_secs(2))]);
    }
}
