//! Anomalies of many different tuples, as a bad night would bring them: three kinds, with 3, 8 and 18 packets each.
#![allow(dead_code)]

use syntap::detect::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use syntap::flow::{Digest, Endpoint, Side, Tuple};
use syntap::record::{Context, Interface};
use syntap::wire::{Addr, Mac, Nanos, Seq, TcpFlags, Way};

/// When it begins.
pub const BEGIN: u64 = 1_795_770_691_411_077_721;

const S: u16 = TcpFlags::SYN;
const A: u16 = TcpFlags::ACK;
const F: u16 = TcpFlags::FIN;
const P: u16 = TcpFlags::PSH;
const R: u16 = TcpFlags::RST;

/// A stream of anomalies: the same for the same seed.
pub struct Night {
    random: u64,
    /// The present time.
    pub now: u64,
}

/// Where they were seen.
pub fn context() -> Context {
    let interface = |name: &str, role: &str| Interface { name: name.into(), role: Some(role.into()) };
    Context {
        host: "gw1.example.net".into(),
        interfaces: vec![interface("enp1s0f0", "inside"), interface("enp1s0f1", "outside")],
        clock_offset_ns: Some(1_795_000_000_123_456_789),
    }
}

impl Night {
    /// One that begins.
    pub fn new(seed: u64) -> Night {
        Night { random: seed, now: BEGIN }
    }

    /// SplitMix64.
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random() % n
    }

    /// A client out of 16,384, any of its ports, and a service out of 1,024.
    pub fn tuple(&mut self) -> Tuple {
        let client = self.below(16_384);
        let server = self.below(1_024);
        let port = [443, 443, 443, 80, 8080, 5432, 6379, 53][(server % 8) as usize];
        let src = Endpoint {
            addr: Addr::v4([10, 77, (client >> 8) as u8, client as u8]),
            port: 1_024 + self.below(64_512) as u16,
        };
        let dst = Endpoint { addr: Addr::v4([198, 51, 100 + (server >> 8) as u8, server as u8]), port };
        Tuple { src, dst }
    }

    /// Packets of a tuple with these flags and senders, some milliseconds apart, with numbers that follow each other.
    fn packets(&mut self, of: &Tuple, what: &[(Side, u16)]) -> Vec<Digest> {
        let mut seq = [self.random() as u32, self.random() as u32];
        let mut ts = [self.random() as u32, self.random() as u32];
        let mut ip_id = [self.random() as u16, self.random() as u16];
        let client = Mac([2, 0x77, 0, 0, of.src.addr.0[14], of.src.addr.0[15]]);
        let gateway = Mac([2, 0x77, 0, 0, 0, 1]);
        let mut at = self.now;
        let mut out = Vec::new();
        for &(from, flags) in what {
            at += 20_000 + self.below(80_000_000);
            let (me, other) = (from as usize, from.other() as usize);
            let len = if flags & P != 0 { 1 + self.below(1_400) as u32 } else { 0 };
            let syn = flags & S != 0;
            ts[me] = ts[me].wrapping_add(40);
            ip_id[me] = ip_id[me].wrapping_add(1);
            let macs = if from == Side::Orig { [client, gateway] } else { [gateway, client] };
            out.push(Digest {
                ts: Nanos(at),
                seq: Seq(seq[me]),
                ack: Seq(if flags & A != 0 { seq[other] } else { 0 }),
                tsval: ts[me],
                tsecr: if flags & A != 0 { ts[other] } else { 0 },
                len,
                flags: TcpFlags(flags),
                win: if syn { 64_240 } else { 502 },
                ip_id: ip_id[me],
                src_mac: macs[0],
                dst_mac: macs[1],
                ttl: if from == Side::Orig { 64 } else { 52 },
                point: 0,
                way: if from == Side::Orig { Way::Ingress } else { Way::Egress },
                from,
                has_ts: true,
                mss: if syn { 1_460 } else { 0 },
                wscale: if syn { 8 } else { 0 },
                ..Digest::default()
            });
            if !(syn && flags & A == 0) {
                seq[me] = seq[me].wrapping_add(len + u32::from(flags & (S | F) != 0));
            }
        }
        self.now += 10_000;
        out
    }

    fn anomaly(&self, kind: Kind, summary: String, tuple: Tuple, packets: Vec<Digest>) -> Anomaly {
        let at = |d: Option<&Digest>| d.map_or(Nanos(self.now), |d| d.ts);
        let (first, last) = (at(packets.first()), at(packets.last()));
        Anomaly {
            severity: Severity::Warning,
            verdict: Verdict::Responder,
            certainty: Certainty::Likely,
            point: Some(0),
            way: Way::Ingress,
            tuple: Some(tuple),
            packets,
            ..Anomaly::new(kind, summary, first, last)
        }
    }

    /// `syn_unanswered` after a second: three packets. The record that is counted as the typical one.
    pub fn unanswered(&mut self) -> Anomaly {
        use Side::{Orig, Resp};
        let tuple = self.tuple();
        let packets = self.packets(&tuple, &[(Orig, S), (Orig, S), (Resp, S | A)]);
        let gap = 1_000.0 + self.below(40_000) as f64 / 1_000.0;
        let summary = format!(
            "SYN to {}:{} sent 2 times without an answer of any kind; the SYN-ACK came 1.0 s after the first",
            tuple.dst.addr, tuple.dst.port
        );
        let facts = vec![
            ("attempts", Fact::U64(2)),
            ("gaps_ms", Fact::List(vec![Fact::F64(gap)])),
            ("answered_after_ms", Fact::F64(gap + 0.106)),
        ];
        let a = self.anomaly(Kind::SynUnanswered, summary, tuple, packets);
        Anomaly { facts, history: "Sh".into(), conn_state: "S1", ..a }
    }

    /// `reset_mid_flow`: eight packets.
    pub fn reset(&mut self) -> Anomaly {
        use Side::{Orig, Resp};
        let tuple = self.tuple();
        let what = [
            (Orig, S),
            (Resp, S | A),
            (Orig, A),
            (Orig, P | A),
            (Resp, A),
            (Resp, P | A),
            (Orig, A),
            (Resp, R | A),
        ];
        let packets = self.packets(&tuple, &what);
        let idle = self.below(90_000_000) as f64 / 1_000.0;
        let bytes = self.below(1 << 20);
        let summary = format!(
            "{}:{} reset an open connection after {idle:.1} ms of silence, {bytes} bytes into it",
            tuple.dst.addr, tuple.dst.port
        );
        let facts = vec![
            ("idle_ms", Fact::F64(idle)),
            ("bytes", Fact::U64(bytes)),
            ("ttl", Fact::U64(52)),
            ("usual_ttl", Fact::U64(52)),
            ("provoked_by_ms", Fact::Null),
            ("in_window", Fact::Bool(true)),
        ];
        let a = self.anomaly(Kind::ResetMidFlow, summary, tuple, packets);
        Anomaly { facts, history: "ShADdAr".into(), conn_state: "RSTR", ..a }
    }

    /// `tuple_reuse_refused`: eighteen packets, two lives of a tuple.
    pub fn refused(&mut self) -> Anomaly {
        use Side::{Orig, Resp};
        let tuple = self.tuple();
        let life = [
            (Orig, S),
            (Resp, S | A),
            (Orig, A),
            (Orig, P | A),
            (Resp, A),
            (Resp, P | A),
            (Orig, A),
            (Resp, F | A),
            (Orig, A),
            (Orig, F | A),
            (Resp, A),
        ];
        let again = [(Orig, S), (Resp, A), (Orig, S), (Resp, A), (Orig, S), (Resp, A), (Orig, R | A)];
        let packets = self.packets(&tuple, &[&life[..], &again[..]].concat());
        let (isn, expected) = (self.random() as u32, self.random() as u32);
        let since = self.below(60_000_000) as f64 / 1_000.0;
        let summary = format!(
            "SYN refused by {}:{}, which still holds this tuple in TIME_WAIT, closed {:.1} s before: the new ISN {isn} lies before the {expected} it expects; 3 of 3 SYNs were answered with the old connection's last ACK; the originator gave up after 3.0 s",
            tuple.dst.addr,
            tuple.dst.port,
            since / 1_000.0
        );
        let facts = vec![
            ("isn", Fact::U64(isn.into())),
            ("rcv_nxt", Fact::U64(expected.into())),
            ("distance", Fact::I64(i64::from(isn.wrapping_sub(expected) as i32))),
            ("tsval", Fact::U64(self.random() >> 32)),
            ("ts_recent", Fact::U64(self.random() >> 32)),
            ("rule", Fact::Str("isn_not_after".into())),
            ("old_state", Fact::Str("time_wait".into())),
            ("since_close_ms", Fact::F64(since)),
            ("closed_first", Fact::Str("responder".into())),
            ("syns", Fact::U64(3)),
            ("stale_acks", Fact::U64(3)),
            ("then", Fact::Str("gave_up".into())),
        ];
        let a = self.anomaly(Kind::TupleReuseRefused, summary, tuple, packets);
        Anomaly { facts, history: "SaR".into(), conn_state: "RSTOS0", ..a }
    }

    /// All three in turn, the short ones more often: 6, 3 and 1 of ten.
    pub fn any(&mut self) -> Anomaly {
        match self.below(10) {
            0..6 => self.unanswered(),
            6..9 => self.reset(),
            _ => self.refused(),
        }
    }
}
