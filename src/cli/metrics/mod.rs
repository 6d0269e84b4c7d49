//! `--metrics`: what a run shows of itself, made each second from what the control thread knows anyway.

mod own;
mod page;
mod view;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::losses::Losses;
use super::output::RecordTotals;
use super::progress::Progress;
use super::{Fail, note, say};
use crate::capture::{ClockOffset, PortSet, Tap, TapStats};
use crate::pipeline::{
    Durations, Interval, Level, Noted, Onlooker, Onlooking, Shared, WorkerCounters, onlooker,
};
use crate::record::Interface;
use crate::telemetry::{Board, Endpoint, Server, Snapshot, Times, view as seen};
use own::Process;

/// Where `syntap top` looks, and what the packaged configuration says: a port that nobody has registered.
pub const DEFAULT: &str = "127.0.0.1:9477";

/// Anomalies that the live view shows at most.
const EVENTS: usize = 64;

/// The live view's minute is gathered in parts of ten seconds.
const PART: Duration = Duration::from_secs(10);
const PARTS: usize = 6;

/// Reads `--metrics`.
pub fn endpoint(text: &str) -> Result<Endpoint, Fail> {
    let refused = || {
        Fail::new(format!("'{text}' is no place for metrics")).hint(format!(
            "write {DEFAULT}, or a port alone, for HTTP on this machine; a path that ends in .sock for a Unix socket, or in .prom for \
             node_exporter's textfile collector"
        ))
    };
    if text.contains('/') {
        let path = PathBuf::from(text);
        return match path.extension().and_then(|e| e.to_str()) {
            Some("sock") => Ok(Endpoint::Unix(path)),
            Some("prom") => Ok(Endpoint::File(path)),
            _ => Err(refused()),
        };
    }
    address(text).map(Endpoint::Tcp).ok_or_else(refused)
}

/// An address and a port, or a port of this machine alone.
pub fn address(text: &str) -> Option<SocketAddr> {
    let own = |port: &str| Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    text.parse().ok().or_else(|| own(text.strip_prefix("localhost").unwrap_or(text).trim_start_matches(':')))
}

/// What was opened for `--metrics`, before anything is tapped.
pub struct Opened {
    server: Server,
    wanted: bool,
    process: Process,
}

/// Opens all of them. In the namespace in which the program was started, whichever is tapped.
pub fn open(endpoints: &[Endpoint]) -> Result<Opened, Fail> {
    let mut server = Server::default();
    for endpoint in endpoints {
        server.open(endpoint).map_err(|e| cannot(endpoint, &e))?;
        if let Endpoint::Tcp(at) = endpoint
            && !at.ip().is_loopback()
        {
            note(format!(
                "metrics can be read by whoever reaches {at}; the live view is for this machine alone"
            ));
        }
    }
    Ok(Opened { server, wanted: !endpoints.is_empty(), process: Process::new() })
}

fn cannot(endpoint: &Endpoint, e: &io::Error) -> Fail {
    let operation =
        if matches!(endpoint, Endpoint::File(_)) { "write metrics into" } else { "listen for metrics at" };
    let fail = Fail::new(format!("cannot {operation} {endpoint}: {e}"));
    match e.kind() {
        io::ErrorKind::AddrInUse => fail.hint("another syntap may be running; choose another port or path"),
        io::ErrorKind::AddrNotAvailable => fail.hint("`ip addr` lists the addresses of this machine"),
        io::ErrorKind::NotFound => fail.hint("its directory must exist"),
        _ => fail,
    }
}

/// What a look shows.
pub struct Look<'a> {
    /// The tap,
    pub tap: &'a Tap,
    /// what it counted,
    pub stats: &'a TapStats,
    /// what was lost of it,
    pub losses: &'a Losses,
    /// the workers' counters,
    pub counters: &'a WorkerCounters,
    /// those of all threads,
    pub shared: &'a Shared,
    /// the clocks,
    pub clock: &'a ClockOffset,
    /// the threads,
    pub progress: &'a Progress,
    /// and the ports that are followed.
    pub ports: &'a PortSet,
}

/// A tap point's figures of the whole run.
#[derive(Clone, Debug, Default)]
struct PointTotals {
    attempts: u64,
    failed: u64,
    resets: u64,
    syn_acks: Times,
}

/// What is gathered between looks.
struct Gathered {
    points: Vec<PointTotals>,
    acks: Times,
    /// Responders that were asked for: attempts, failures, times.
    responders: Vec<(String, u64, u64, Times)>,
    /// From SYN to SYN-ACK since the last look,
    recent: Durations,
    /// and in each part of the last minute.
    parts: VecDeque<(Instant, Durations)>,
    events: VecDeque<(u64, Noted)>,
    count: u64,
    levels: Vec<Level>,
    clock_steps: u64,
}

/// See the module.
pub struct Metrics {
    board: Board,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    onlooking: Onlooking,
    records: Arc<RecordTotals>,
    host: String,
    interfaces: Vec<Interface>,
    max_flows: u64,
    process: Process,
    started: Instant,
    gathered: Gathered,
}

impl Opened {
    /// Begins to serve; nothing and nobody if nothing was asked for. The second is for the desk.
    pub fn start(
        self,
        host: &str,
        interfaces: &[Interface],
        max_flows: usize,
        records: Arc<RecordTotals>,
    ) -> io::Result<(Option<Metrics>, Option<Onlooker>)> {
        if !self.wanted {
            return Ok((None, None));
        }
        for at in self.server.addresses() {
            note(format!("metrics at http://{at}/metrics; `syntap top {at}` shows them"));
        }
        let (onlooker, onlooking) = onlooker();
        let (board, stop) = (Board::default(), Arc::new(AtomicBool::new(false)));
        let (its, until, server) = (board.clone(), stop.clone(), self.server);
        let thread = std::thread::Builder::new().name("syntap-metrics".into());
        let thread = thread.spawn(move || server.run(&its, &until))?;
        let metrics = Metrics {
            board,
            stop,
            thread: Some(thread),
            onlooking,
            records,
            host: host.to_owned(),
            interfaces: interfaces.to_vec(),
            max_flows: max_flows as u64,
            process: self.process,
            started: Instant::now(),
            gathered: Gathered {
                points: vec![PointTotals::default(); interfaces.len()],
                acks: Times::default(),
                responders: Vec::new(),
                recent: Durations::default(),
                parts: VecDeque::new(),
                events: VecDeque::new(),
                count: 0,
                levels: Vec::new(),
                clock_steps: 0,
            },
        };
        Ok((Some(metrics), Some(onlooker)))
    }
}

impl Metrics {
    /// Adds what the workers told.
    pub fn add(&mut self, interval: &Interval) {
        self.gathered.add(interval);
    }

    /// The realtime clock was set.
    pub fn clock_stepped(&mut self) {
        self.gathered.clock_steps += 1;
    }

    /// Shows what is now. To be called each second.
    pub fn look(&mut self, look: &Look<'_>) {
        self.gathered.levels = look.shared.pulse.levels();
        for noted in self.onlooking.noted() {
            self.gathered.count += 1;
            self.gathered.events.push_back((self.gathered.count, noted));
        }
        let over = self.gathered.events.len().saturating_sub(EVENTS);
        self.gathered.events.drain(..over);
        self.process.look();
        if let Some(why) = self.board.file_error() {
            say::limited("metrics", why);
        }
        let snapshot = Snapshot { page: self.page(look), view: self.view(look) };
        self.board.publish(snapshot);
        self.gathered.recent = Durations::default();
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Gathered {
    fn add(&mut self, interval: &Interval) {
        for (point, n) in interval.points.iter().zip(0..) {
            if self.points.len() <= n {
                self.points.resize_with(n + 1, PointTotals::default);
            }
            let totals = &mut self.points[n];
            totals.attempts += point.attempts;
            totals.failed += point.failed;
            totals.resets += point.resets;
            point.syn_acks.each(&mut |us, count| totals.syn_acks.add(us, count));
        }
        interval.acks.each(&mut |us, count| self.acks.add(us, count));
        for f in &interval.responders {
            let named = SocketAddr::new(f.responder.addr.ip(), f.responder.port).to_string();
            let known = self.responders.iter().position(|r| r.0 == named).unwrap_or_else(|| {
                self.responders.push((named, 0, 0, Times::default()));
                self.responders.len() - 1
            });
            let (_, attempts, failed, times) = &mut self.responders[known];
            *attempts += f.attempts;
            *failed += f.failed;
            f.latencies.each(&mut |us, count| times.add(us, count));
        }
        self.recent.add(&interval.syn_acks);
        let now = Instant::now();
        if self.parts.back().is_none_or(|(begun, _)| now.duration_since(*begun) >= PART) {
            self.parts.push_back((now, Durations::default()));
            let over = self.parts.len().saturating_sub(PARTS);
            self.parts.drain(..over);
        }
        if let Some((_, part)) = self.parts.back_mut() {
            part.add(&interval.syn_acks);
        }
    }

    /// The last minute's.
    fn minute(&self) -> Durations {
        let mut all = Durations::default();
        self.parts.iter().for_each(|(_, part)| all.add(part));
        all
    }
}

fn latency(of: &Durations) -> seen::Latency {
    if of.is_empty() {
        return seen::Latency::default();
    }
    let at = |share| of.quantile_us(share);
    seen::Latency {
        count: of.len(),
        median_us: at(0.5),
        p95_us: at(0.95),
        p99_us: at(0.99),
        max_us: of.max_us(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_on_this_machine_unless_another_address_is_given() {
        let of = |text: &str| endpoint(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        for own in ["9477", ":9477", "localhost:9477", "127.0.0.1:9477"] {
            assert_eq!(of(own), Endpoint::Tcp(DEFAULT.parse().unwrap()), "{own}");
        }
        assert_eq!(of("[::]:1"), Endpoint::Tcp("[::]:1".parse().unwrap()));
        assert_eq!(of("./x.sock"), Endpoint::Unix("./x.sock".into()));
        assert_eq!(of("/run/x.prom"), Endpoint::File("/run/x.prom".into()));
        for nonsense in ["", "x", "/run/x", "/run/", "1.2.3.4", "70000", "example.org:80", "::1:1:"] {
            let said = endpoint(nonsense).expect_err(nonsense).to_string();
            assert!(said.contains("\nhint: "), "{nonsense}: {said}");
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why_and_the_way_out() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = Endpoint::Tcp(taken.local_addr().unwrap());
        let said = open(&[at]).err().expect("it is taken").to_string();
        assert!(
            said.contains("cannot listen for metrics") && said.contains("\nhint: another syntap"),
            "{said}"
        );
        let nowhere = endpoint("/no/such/place/syntap.prom").unwrap();
        let said = open(&[nowhere]).err().expect("no directory").to_string();
        assert!(said.contains("cannot write metrics into") && said.contains("\nhint: "), "{said}");
    }
}
