//! A look as the live view.

use std::net::SocketAddr;

use super::{Look, Metrics, latency};
use crate::bpf::Counter;
use crate::capture::Presence;
use crate::detect::Severity;
use crate::telemetry::view::{Event, Interface, Own, Responder, VERSION, View};

/// Longest sentence that is shown; records have all of it.
const SENTENCE: usize = 400;

impl Metrics {
    pub(super) fn view(&self, look: &Look<'_>) -> View {
        let (counters, gathered) = (look.counters, &self.gathered);
        let counts = self.onlooking.counts.all();
        let severe = |s: Severity| counts.iter().filter(|c| c.2 == s).map(|c| c.3).sum();
        let events = gathered.events.iter().map(|(number, a)| Event {
            number: *number,
            ts_ns: a.time.0,
            kind: a.kind.name().into(),
            severity: a.severity.name().into(),
            verdict: a.verdict.name().into(),
            summary: a.summary.chars().take(SENTENCE).collect(),
        });
        let responders = self.onlooking.worst().into_iter().map(|w| Responder {
            at: SocketAddr::new(w.responder.addr.ip(), w.responder.port).to_string(),
            recent: w.recent,
            total: w.total,
            kind: w.kind.name().into(),
        });
        View {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            host: self.host.clone(),
            ts_ns: look.clock.now().0,
            uptime_ms: self.started.elapsed().as_millis() as u64,
            ports: look.ports.to_string(),
            handshakes: counters.handshakes,
            attempts: counters.attempts,
            failed: counters.failed,
            resets: counters.resets,
            flows: (counters.live, self.max_flows),
            anomalies: [Severity::Info, Severity::Warning, Severity::Error].map(severe),
            latency: latency(&gathered.recent),
            latency_minute: latency(&gathered.minute()),
            interfaces: self.interfaces_seen(look),
            responders: responders.collect(),
            events: events.collect(),
            events_passed_over: self.onlooking.counts.passed_over(),
            own: self.own(look),
        }
    }

    fn interfaces_seen(&self, look: &Look<'_>) -> Vec<Interface> {
        let points = look.stats.points.iter().enumerate();
        let seen = points.map(|(n, point)| {
            let both = |c: Counter| point.ingress.get(c) + point.egress.get(c);
            let state = match look.tap.points().get(n).map(|p| p.presence) {
                Some(Presence::Up) => "up",
                Some(Presence::Down) => "down",
                Some(Presence::Gone) | None => "gone",
            };
            let totals = self.gathered.points.get(n).cloned().unwrap_or_default();
            Interface {
                name: point.name.clone(),
                role: self.interfaces.get(n).and_then(|i| i.role.clone()).unwrap_or_default(),
                state: state.into(),
                packets: both(Counter::Packets),
                mirrored: both(Counter::Mirrored),
                shed: point.ingress.shed() + point.egress.shed(),
                handshakes: totals.syn_acks.len(),
                failed: totals.failed,
                attempts: totals.attempts,
                resets: totals.resets,
            }
        });
        seen.collect()
    }

    fn own(&self, look: &Look<'_>) -> Own {
        let fullest = self.gathered.levels.iter().map(|l| (l, l.most as f64 / l.room.max(1) as f64));
        let fullest = fullest.max_by(|a, b| a.1.total_cmp(&b.1));
        let records = self.records.now();
        Own {
            cpu_us: self.process.cpu_us,
            memory_bytes: self.process.memory,
            dropped: look.losses.dropped(),
            missed: look.losses.missed(),
            given_up: look.counters.evicted_early,
            records_lost: records.lost,
            records: records.written,
            shard_bytes: records.bytes,
            queue: fullest
                .map_or_else(Default::default, |(l, share)| (format!("{} {}", l.queue, l.number), share)),
        }
    }
}
