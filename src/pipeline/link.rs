//! The thread that listens to the kernel's link-layer events and hands them to the writer, in the order of time with the packets.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use rtrb::Producer;

use super::event::{Event, Place, What};
use super::threads::Shared;
use crate::capture::link::{LinkEvent, LinkEvents, LinkHeard};
use crate::detect::Sight;
use crate::wire::Nanos;

/// How long it waits for an event before it looks whether the run ends.
const WAIT_MS: u16 = 50;

/// Events that wait for the writer: a loop makes some thousand a second.
pub(super) const LINK_EVENTS: usize = 4096;

/// What was heard so far; several threads see it.
#[derive(Debug, Default)]
pub struct LinkTotals {
    /// How often the kernel had no room for events, and all was listed instead.
    pub lost: AtomicU64,
    error: OnceLock<io::Error>,
}

impl LinkTotals {
    /// Why nothing more is heard, if so. The run goes on without.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }
}

/// The thread's belongings.
pub(super) struct LinkListener {
    pub(super) source: LinkEvents,
    pub(super) ring: Producer<Event>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Fn() -> Nanos + Send + Sync>,
}

impl LinkListener {
    /// Starts the thread.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("syntap-link".into()).spawn(move || self.run())
    }

    /// Listens until the run ends.
    fn run(self) {
        let LinkListener { mut source, mut ring, shared, clock } = self;
        let mut count = 0;
        loop {
            // Asked before the events are read: what happened before the end is told.
            let stopping = shared.stopping();
            let wait = if stopping { 0 } else { WAIT_MS };
            let heard = source.poll(wait, &mut |e| {
                count += 1;
                // After the packets of the same moment, and after connection tracking's.
                let place = Place { at: clock(), age: Nanos(1), lane: u64::MAX, count };
                if ring.push(Event { place, what: What::Sight(sight(e)) }).is_err() {
                    shared.events_dropped.fetch_add(1, Ordering::Relaxed);
                }
            });
            match heard {
                Ok(LinkHeard::All(_)) if stopping => return,
                Ok(LinkHeard::Lost) => {
                    shared.link.lost.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(e) => {
                    let _ = shared.link.error.set(e);
                    return;
                }
            }
        }
    }
}

fn sight(e: LinkEvent) -> Sight {
    match e {
        LinkEvent::Changed { point, before, after } => Sight::LinkChanged { point, before, after },
        LinkEvent::Port { point, name, left } => Sight::BridgePort { point, name, left },
        LinkEvent::Moved { mac, from, to } => Sight::FdbMoved { mac, from_point: from, to_point: to },
    }
}
