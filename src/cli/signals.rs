//! SIGINT and SIGTERM ask a run to stop; SIGHUP asks it to read its settings again if it has a file of them, else to stop as well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The first signal asks to stop, a second one ends the process at once with 130. Nothing stays attached then either:
/// the hooks and the private pair go with the process. A SIGHUP that was ignored at the start (`nohup`) does not
/// end it.
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Catches them from now on. `reloads`: a SIGHUP is no end.
    pub fn install(reloads: bool) -> io::Result<Signals> {
        let stop = Arc::new(AtomicBool::new(false));
        let reload = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && reloads {
                signal_hook::flag::register(signal, reload.clone())?;
                continue;
            }
            if signal == SIGHUP && ignored(signal) {
                continue;
            }
            // The order matters: only a second signal finds the flag set.
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
            signal_hook::flag::register(signal, stop.clone())?;
        }
        Ok(Signals { stop, reload })
    }

    /// True once for each time that the settings shall be read again.
    pub fn reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// True once the run shall stop.
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Whether this process was started with the signal ignored.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 != 0
}
