//! The record: the on-disk form of an anomaly. Field names and their order are a contract; `docs/records.md` lists them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::community_id::community_id;
use crate::detect::{Anomaly, Fact};
use crate::flow::{Digest, Tuple};
use crate::track::SegClass;
use crate::wire::{Nanos, Tunnel, Way};

/// Version of the record's fields. Goes up when one changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// What a record needs to know that an anomaly does not.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// This machine's name.
    pub host: String,
    /// Tap points by number.
    pub interfaces: Vec<Interface>,
    /// Epoch minus monotonic clock, ns; `None` in a replay.
    pub clock_offset_ns: Option<i64>,
}

/// A tap point's name and what it is to the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `inside`, `outside`, `span` or nothing.
    pub role: Option<String>,
}

/// What the tool lost in the time that a record covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Packets this program lost.
    pub drops: u64,
    /// Packets the kernel or the NIC never gave.
    pub misses: u64,
}

/// The other side's tuple of a translated connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Originator's address.
    pub src_ip: IpAddr,
    /// Originator's port.
    pub src_port: u16,
    /// Responder's address.
    pub dst_ip: IpAddr,
    /// Responder's port.
    pub dst_port: u16,
}

impl From<Tuple> for Nat {
    fn from(t: Tuple) -> Nat {
        Nat { src_ip: t.src.addr.ip(), src_port: t.src.port, dst_ip: t.dst.addr.ip(), dst_port: t.dst.port }
    }
}

/// A tunnel around a connection, from outside: its two ends and its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRecord {
    /// `vxlan`, `geneve`, `gre`, `ipip`, `6in4`, `ip6tnl`, `teredo`.
    pub kind: String,
    /// VXLAN or Geneve network identifier, or the GRE key; 0 without one.
    pub id: u32,
    /// Outer source address of the connection's first packet.
    pub src_ip: IpAddr,
    /// Outer destination address.
    pub dst_ip: IpAddr,
}

impl From<Tunnel> for TunnelRecord {
    fn from(t: Tunnel) -> TunnelRecord {
        TunnelRecord { kind: t.kind.name().to_owned(), id: t.id, src_ip: t.src.ip(), dst_ip: t.dst.ip() }
    }
}

/// One packet of the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketRecord {
    /// When, ns since the epoch.
    pub ts_ns: u64,
    /// Tap point.
    pub interface: String,
    /// `ingress`, `egress` or null.
    pub direction: Option<String>,
    /// `orig` or `resp`.
    pub from: String,
    /// Ethernet source, or null where the link has none.
    pub src_mac: Option<String>,
    /// Ethernet destination.
    pub dst_mac: Option<String>,
    /// As tcpdump writes them.
    pub flags: String,
    /// Sequence number, absolute.
    pub seq: u32,
    /// Acknowledgement number, absolute, as on the wire.
    pub ack: u32,
    /// Window field, unscaled.
    pub win: u16,
    /// Payload bytes.
    pub len: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub ip_id: u16,
    /// TSval, or null without timestamps.
    pub tsval: Option<u32>,
    /// TSecr.
    pub tsecr: Option<u32>,
    /// Maximum segment size, on SYNs that carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss: Option<u16>,
    /// Window scale, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wscale: Option<u8>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was seen.
    pub kind: String,
    /// `info`, `warning`, `error`.
    pub severity: String,
    /// Whose doing.
    pub verdict: String,
    /// `proven`, `likely`, `possible`.
    pub certainty: String,
    /// One sentence with the numbers in it.
    pub summary: String,
    /// When the rule could be sure: RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// The same, ns since the epoch.
    pub ts_ns: u64,
    /// First packet of the episode.
    pub first_ns: u64,
    /// Last packet of the episode.
    pub last_ns: u64,
    /// `ts_ns` on the monotonic clock of the machine; null in a replay.
    pub mono_ns: Option<u64>,
    /// How many times within this record.
    pub count: u64,
    /// The machine.
    pub host: String,
    /// Tap point, or null for the tool's own records.
    pub interface: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// Which way the decisive packet went.
    pub direction: Option<String>,
    /// Originator.
    pub src_ip: Option<IpAddr>,
    /// Originator's port.
    pub src_port: Option<u16>,
    /// Responder.
    pub dst_ip: Option<IpAddr>,
    /// Responder's port.
    pub dst_port: Option<u16>,
    /// VLAN identifier.
    pub vlan: Option<u16>,
    /// Tunnel around it.
    pub tunnel: Option<TunnelRecord>,
    /// Community ID, version 1, seed 0.
    pub community_id: Option<String>,
    /// The other side's tuple, where it is known.
    pub nat: Option<Nat>,
    /// Zeek's letters.
    pub history: Option<String>,
    /// Zeek's word.
    pub conn_state: Option<String>,
    /// The kind's own numbers.
    pub facts: Map<String, Value>,
    /// The packets that prove it, oldest first.
    pub packets: Vec<PacketRecord>,
    /// What the tool lost meanwhile, or null.
    pub loss: Option<Loss>,
}

impl Record {
    /// Makes the record of an anomaly.
    pub fn from_anomaly(a: &Anomaly, context: &Context, loss: Option<Loss>) -> Record {
        let point = a.point.and_then(|p| context.interfaces.get(usize::from(p)));
        let mono = |at: Nanos| {
            let offset = context.clock_offset_ns?;
            u64::try_from(i128::from(at.0) - i128::from(offset)).ok()
        };
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Record {
            kind: a.kind.name().to_owned(),
            severity: a.severity.name().to_owned(),
            verdict: a.verdict.name().to_owned(),
            certainty: a.certainty.name().to_owned(),
            summary: a.summary.clone(),
            time: rfc3339(a.time),
            ts_ns: a.time.0,
            first_ns: a.first.0,
            last_ns: a.last.0,
            mono_ns: mono(a.time),
            count: a.count,
            host: context.host.clone(),
            interface: point.map(|p| p.name.clone()),
            role: point.and_then(|p| p.role.clone()),
            direction: way(a.way),
            src_ip: a.tuple.map(|t| t.src.addr.ip()),
            src_port: a.tuple.map(|t| t.src.port),
            dst_ip: a.tuple.map(|t| t.dst.addr.ip()),
            dst_port: a.tuple.map(|t| t.dst.port),
            vlan: a.vlan,
            tunnel: a.tunnel.map(TunnelRecord::from),
            community_id: a.tuple.map(|t| community_id(&t)),
            nat: None,
            history: text(&a.history),
            conn_state: text(a.conn_state),
            facts: a.facts.iter().map(|(name, fact)| (name_of(name), value(name, fact, context))).collect(),
            packets: a.packets.iter().map(|p| packet(p, context)).collect(),
            loss,
        }
    }

    /// Appends the record as one line of JSON, its end with it: the bytes that [`Serialize`] gives.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        super::json::write(self, out);
        out.push(b'\n');
    }

    /// The originator and the responder as `address:port`, for people.
    pub fn tuple_text(&self) -> Option<String> {
        let end =
            |ip: Option<IpAddr>, port: Option<u16>| Some(std::net::SocketAddr::new(ip?, port?).to_string());
        Some(format!("{} > {}", end(self.src_ip, self.src_port)?, end(self.dst_ip, self.dst_port)?))
    }
}

/// RFC 3339, UTC, nine digits.
pub fn rfc3339(at: Nanos) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(t) => format!("{t:.9}"),
        Err(_) => at.0.to_string(),
    }
}

fn way(way: Way) -> Option<String> {
    way.name().map(str::to_owned)
}

fn name_of(name: &str) -> String {
    name.to_owned()
}

/// Facts as JSON. `interfaces` and `last_interface` carry tap-point numbers, which become names.
fn value(name: &str, fact: &Fact, context: &Context) -> Value {
    match fact {
        Fact::U64(n) if name.ends_with("interface") || name.ends_with("interfaces") => {
            let known = usize::try_from(*n).ok().and_then(|n| context.interfaces.get(n));
            known.map_or(Value::Null, |i| Value::from(i.name.clone()))
        }
        Fact::Null => Value::Null,
        Fact::Bool(b) => Value::from(*b),
        Fact::U64(n) => Value::from(*n),
        Fact::I64(n) => Value::from(*n),
        Fact::F64(x) => Value::from(*x),
        Fact::Str(s) => Value::from(s.as_ref()),
        Fact::List(l) => l.iter().map(|f| value(name, f, context)).collect(),
    }
}

fn packet(p: &Digest, context: &Context) -> PacketRecord {
    let interface = context.interfaces.get(usize::from(p.point)).map_or_else(String::new, |i| i.name.clone());
    let has_mac = !p.src_mac.is_zero() || !p.dst_mac.is_zero();
    let syn = matches!(SegClass::of(p.flags), SegClass::Syn | SegClass::SynAck);
    PacketRecord {
        ts_ns: p.ts.0,
        interface,
        direction: way(p.way),
        from: p.from.name().to_owned(),
        src_mac: has_mac.then(|| p.src_mac.to_string()),
        dst_mac: has_mac.then(|| p.dst_mac.to_string()),
        flags: p.flags.to_string(),
        seq: p.seq.0,
        ack: p.ack.0,
        win: p.win,
        len: p.len,
        ttl: p.ttl,
        ip_id: p.ip_id,
        tsval: p.has_ts.then_some(p.tsval),
        tsecr: p.has_ts.then_some(p.tsecr),
        mss: (syn && p.mss != 0).then_some(p.mss),
        wscale: if syn { p.wscale.checked_sub(1) } else { None },
    }
}
