//! What shows only over many connections of one responder or originator: storms, probes, timeouts that recur,
//! connections that are never used twice.
//!
//! Fixed tables, direct-mapped by a hash of the address and port: a collision makes the newer responder start anew,
//! which can only lose a finding.

use super::evidence::{duration, endpoint};
use super::{Anomaly, Certainty, Fact, Facts, Kind, Life, Severity, Verdict};
use crate::flow::Endpoint;
use crate::track::Flow;
use crate::wire::Nanos;

/// Responders and originators remembered.
const PLACES: usize = 1024;

/// FINs or resets of one flow that make a storm, if they come within a second of each other. Zeek's
/// `tcp_storm_thresh` is 1,000; a hundred are as pointless.
const STORM: u32 = 100;
const STORM_GAP: u64 = Nanos::SEC;

/// Handshakes that one originator resets at once, in a minute, that make a health check.
const PROBES: u32 = 3;
const MINUTE: u64 = 60 * Nanos::SEC;

/// Idle times that are the same timeout: within this share of each other, this often.
const IDLE_LEAST: u64 = 10 * Nanos::SEC;
const IDLE_SPREAD: u64 = 20;
const IDLE_TIMES: usize = 3;

/// Closed connections of one responder that are looked at for reuse, and the share with one request at most.
const USED_ONCE_OF: u32 = 200;
const USED_ONCE_SHARE: u32 = 95;

/// Resets of one responder that count as a shift: as many, and this many times the share before.
const SHIFT_LEAST: u32 = 20;
const SHIFT_TIMES: u32 = 5;
/// Connections before and now that such shares need.
const SHIFT_OF: u32 = 200;

/// A direction that stays open this long after the other closed is stuck: Linux gives an orphaned FIN_WAIT2 60 s.
const STUCK: u64 = 60 * Nanos::SEC;

#[derive(Clone, Copy, Default)]
struct Place {
    who: Endpoint,
    used: bool,
    /// Handshakes reset at once in the present minute.
    minute: Nanos,
    probes: u32,
    /// Idle times before resets.
    idles: [u64; 8],
    nidles: u8,
    /// One of these had a TTL of its own.
    foreign: bool,
    idle_at: Nanos,
    /// Closed connections, and those with one request at most.
    closed: u32,
    used_once: u32,
    /// Connections and resets: of all time before, and of the present stretch.
    before: (u32, u32),
    now: (u32, u32),
    told: u8,
}

mod told {
    pub const PROBE: u8 = 1;
    pub const IDLE: u8 = 2;
    pub const ONCE: u8 = 4;
    pub const SHIFT: u8 = 8;
}

/// See the module.
pub struct Storms {
    responders: Box<[Place]>,
    originators: Box<[Place]>,
}

impl Default for Storms {
    fn default() -> Self {
        let places = || vec![Place::default(); PLACES].into_boxed_slice();
        Storms { responders: places(), originators: places() }
    }
}

/// The place of an endpoint in a direct-mapped table of `size`.
pub fn place_of(who: &Endpoint, size: usize) -> usize {
    let mut h = u64::from(who.port).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in who.addr.0.as_chunks::<8>().0 {
        h = (h ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    (h.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % size
}

fn place<'a>(places: &'a mut [Place], who: &Endpoint) -> &'a mut Place {
    let p = &mut places[place_of(who, PLACES)];
    if !p.used || p.who != *who {
        *p = Place { who: *who, used: true, ..Place::default() };
    }
    p
}

fn anomaly(kind: Kind, point: u8, at: (Nanos, Nanos), count: u64, summary: String, facts: Facts) -> Anomaly {
    Anomaly {
        certainty: Certainty::Likely,
        count,
        point: Some(point),
        facts,
        ..Anomaly::new(kind, summary, at.0, at.1)
    }
}

impl Storms {
    /// A handshake that its originator reset at once: `probe_reset`, if it recurs.
    ///
    /// Peers: DeepFlow TcpFinClientRst; Zeek `RSTOS0`, and `RSTO` without data.
    pub fn probe(&mut self, by: Endpoint, point: u8, ts: Nanos, out: &mut dyn FnMut(Anomaly)) {
        // Whatever port it came from.
        let p = place(&mut self.originators, &Endpoint { port: 0, ..by });
        if ts.since(p.minute) >= MINUTE {
            (p.minute, p.probes) = (ts, 0);
            p.told &= !told::PROBE;
        }
        p.probes += 1;
        if p.probes >= PROBES && p.told & told::PROBE == 0 {
            p.told |= told::PROBE;
            let text = format!(
                "{} opens connections and resets them at once, {} times within {}: a health check, or a SYN scan",
                by.addr,
                p.probes,
                duration(ts.since(p.minute))
            );
            let facts = vec![
                ("originator", Fact::Str(by.addr.to_string().into())),
                ("per_minute", Fact::U64(p.probes.into())),
            ];
            let a = anomaly(Kind::ProbeReset, point, (p.minute, ts), u64::from(p.probes), text, facts);
            out(Anomaly { verdict: Verdict::Originator, ..a });
        }
    }

    /// A reset of an open flow after a silence: the same timeout again and again is `reset_after_idle`.
    ///
    /// Peers: none by that name; DeepFlow "Transfer - Server RST" counts the resets.
    pub fn reset(
        &mut self,
        responder: Endpoint,
        (idle_ns, foreign): (u64, bool),
        point: u8,
        ts: Nanos,
        out: &mut dyn FnMut(Anomaly),
    ) {
        let p = place(&mut self.responders, &responder);
        if idle_ns < IDLE_LEAST {
            return;
        }
        // One event that closes many at once (a restart, a link that went) is one.
        if p.idle_at.0 != 0 && ts.since(p.idle_at) < Nanos::SEC {
            return;
        }
        p.idle_at = ts;
        let n = usize::from(p.nidles) % p.idles.len();
        p.idles[n] = idle_ns;
        p.foreign |= foreign;
        p.nidles = p.nidles.saturating_add(1);
        let near = |i: &&u64| **i > 0 && i.abs_diff(idle_ns) * IDLE_SPREAD <= idle_ns;
        let alike = p.idles.iter().filter(near).count();
        if alike >= IDLE_TIMES && p.told & told::IDLE == 0 {
            p.told |= told::IDLE;
            let text = format!(
                "{alike} connections to {} were reset after about {} of silence each: a timeout on the way or at the end",
                endpoint(responder),
                duration(idle_ns)
            );
            let facts = vec![
                ("responder", Fact::Str(endpoint(responder).into())),
                ("idle_ms", Fact::U64(idle_ns / Nanos::MS)),
                ("cluster", Fact::U64(alike as u64)),
            ];
            let a = anomaly(Kind::ResetAfterIdle, point, (ts, ts), alike as u64, text, facts);
            // A reset that is like its sender's other packets is the responder's own timeout, as far as packets tell.
            out(match p.foreign {
                true => Anomaly { severity: Severity::Warning, verdict: Verdict::Middlebox, ..a },
                false => Anomaly { verdict: Verdict::Responder, certainty: Certainty::Possible, ..a },
            });
        }
    }

    /// A life that is over: `reset_rate_shift` and `no_keepalive`.
    ///
    /// Peers: none; nobody keeps a baseline for each responder.
    pub fn over(&mut self, life: &Life, out: &mut dyn FnMut(Anomaly)) {
        let (responder, point) = (life.tuple.dst, life.point);
        let p = place(&mut self.responders, &responder);
        if !life.opened {
            return;
        }
        // Both are counted when a life is over: a burst has many resets before its first life is.
        p.now.0 += 1;
        p.now.1 += u32::from(life.reset);
        if p.now.0 >= SHIFT_OF {
            let ((n0, r0), (n1, r1)) = (p.before, p.now);
            // Shares compared without division: r1 / n1 >= times * r0 / n0.
            let more =
                u64::from(r1) * u64::from(n0.max(1)) >= u64::from(SHIFT_TIMES * n1) * u64::from(r0.max(1));
            if n0 >= SHIFT_OF && r1 >= SHIFT_LEAST && more && p.told & told::SHIFT == 0 {
                p.told |= told::SHIFT;
                let text = format!(
                    "resets of connections to {} have become frequent: {r1} of the last {n1}, {r0} of {n0} before",
                    endpoint(responder)
                );
                let facts = vec![
                    ("responder", Fact::Str(endpoint(responder).into())),
                    ("resets", Fact::U64(r1.into())),
                    ("connections", Fact::U64(n1.into())),
                    ("resets_before", Fact::U64(r0.into())),
                    ("connections_before", Fact::U64(n0.into())),
                ];
                let a =
                    anomaly(Kind::ResetRateShift, point, (life.first, life.last), u64::from(r1), text, facts);
                out(Anomaly { severity: Severity::Warning, ..a });
            }
            p.before = (n0.saturating_add(n1), r0.saturating_add(r1));
            p.now = (0, 0);
        }
        if !life.closed || life.requests == 0 {
            return;
        }
        p.closed += 1;
        p.used_once += u32::from(life.requests <= 1);
        if p.closed >= USED_ONCE_OF {
            let once = p.used_once * 100 >= p.closed * USED_ONCE_SHARE;
            if once && p.told & told::ONCE == 0 {
                p.told |= told::ONCE;
                let text = format!(
                    "{} of {} connections to {} carried one request and were closed: persistent connections would spare the others",
                    p.used_once,
                    p.closed,
                    endpoint(responder)
                );
                let facts = vec![
                    ("responder", Fact::Str(endpoint(responder).into())),
                    ("used_once", Fact::U64(p.used_once.into())),
                    ("connections", Fact::U64(p.closed.into())),
                ];
                let count = u64::from(p.used_once);
                let a = anomaly(Kind::NoKeepalive, point, (life.first, life.last), count, text, facts);
                out(Anomaly { verdict: Verdict::Originator, ..a });
            }
            (p.closed, p.used_once) = (0, 0);
        }
    }
}

/// A flow's own storms, by its counters: the kind and the count, when this packet makes it one.
pub fn storm(flow: &Flow, fin: bool, rst: bool, since_last: u64) -> Option<(Kind, u32)> {
    if since_last > STORM_GAP {
        return None;
    }
    match (fin, rst) {
        (_, true) if flow.counts[3] == STORM => Some((Kind::ResetStorm, STORM)),
        (true, _) if flow.counts[2] == STORM => Some((Kind::FinStorm, STORM)),
        _ => None,
    }
}

/// How long a direction had been open and silent at `at`, after the other was closed, if that was too long. While
/// anything still moves it is a half close on purpose, or an answer that takes its time.
pub fn stuck(flow: &Flow, at: Nanos) -> Option<u64> {
    let half = matches!(flow.state, crate::track::State::HalfClosed);
    let silent = at.since(flow.last);
    (half && silent >= STUCK).then_some(silent)
}
