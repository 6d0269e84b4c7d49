//! What the process itself takes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::resource::{UsageWho, getrusage};

/// See the module.
pub struct Process {
    /// Opened at the start: later it may be out of reach.
    statm: Option<File>,
    page: u64,
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// Resident memory, bytes.
    pub memory: u64,
    /// When it began, seconds since the epoch.
    pub began: f64,
}

impl Process {
    /// This one.
    pub fn new() -> Process {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        let statm = File::open("/proc/self/statm").ok();
        let began = jiff::Timestamp::now().as_nanosecond() as f64 / 1e9;
        Process { statm, page: page as u64, cpu_us: 0, memory: 0, began }
    }

    /// Reads it anew.
    pub fn look(&mut self) {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let us = |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000_000 + t.tv_usec() as u64;
            self.cpu_us = us(usage.user_time()) + us(usage.system_time());
        }
        let mut bytes = [0; 128];
        let read = self.statm.as_ref().and_then(|f| f.read_at(&mut bytes, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&bytes[..read]).unwrap_or("");
        // The second field of proc(5)'s statm.
        let pages = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
        self.memory = pages.map_or(self.memory, |n| n * self.page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_takes_time() {
        let mut process = Process::new();
        let mut n = 1u64;
        while process.cpu_us == 0 {
            n = n.wrapping_mul(3).rotate_left(5);
            process.look();
        }
        assert!(process.memory > 100_000 && process.began > 1e9, "{n}");
    }
}
