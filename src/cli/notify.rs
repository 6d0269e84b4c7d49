//! What the service manager is told (sd_notify(3)): datagrams to the socket that it names in `NOTIFY_SOCKET`.
//!
//! Nothing waits for it: what its socket has no room for is left out, and sent again with the next one of its sort.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::capture::ClockOffset;

/// The service manager; without one nothing is told.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// After this long without a sign of life it restarts the service.
    watchdog: Option<Duration>,
    /// The last sign of life.
    alive: Option<Instant>,
}

impl Manager {
    /// As the environment says. Is connected to now, for later the socket may be out of reach.
    pub fn from_env() -> Manager {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
                [b'/', ..] => SocketAddr::from_pathname(&name),
                _ => return None,
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect_addr(&address.ok()?).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        // The variables may be left over from somebody else's start.
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| meant && *us > 0).map(Duration::from_micros);
        Manager { watchdog: watchdog.filter(|_| socket.is_some()), socket, alive: None }
    }

    fn tell(&self, state: &str) -> bool {
        self.socket.as_ref().is_some_and(|s| s.send(state.as_bytes()).is_ok())
    }

    /// Set-up, or a reload, is done.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// One line on how it goes.
    pub fn status(&self, line: &str) {
        if self.socket.is_some() {
            // A line break would begin another field.
            self.tell(&format!("STATUS={}", line.replace(['\n', '\r'], " ")));
        }
    }

    /// The settings are read again. [`Manager::ready`] ends this.
    pub fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", ClockOffset::monotonic_ns() / 1_000));
    }

    /// The run ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A sign of life, four times in the time that the manager waits for one, but only if every thread went round its loop within that
    /// time: one that hangs is what a watchdog is for.
    pub fn alive(&mut self, progress: &Progress, now: Instant) {
        let Some(watchdog) = self.watchdog else { return };
        let due = self.alive.is_none_or(|a| now.duration_since(a) >= watchdog / 4);
        if due && progress.slowest(now) < watchdog / 2 && self.tell("WATCHDOG=1") {
            self.alive = Some(now);
        }
    }
}
