//! The record: the on-disk form of an anomaly. Field names and their order are a contract; `docs/records.md` lists them.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::community_id::community_id;
use crate::detect::{Anomaly, Fact};
use crate::flow::{Digest, Tuple};
use crate::track::SegClass;
use crate::wire::{Mac, Nanos, TcpFlags, Tunnel, Way};

/// Version of shards: of what stands before their frames, and of the record's fields. Goes up when one changes its meaning or goes
/// away. 1 had no times and sums in front of frames; its records are those of 2.
pub const SCHEMA: u32 = 2;

/// A word that the program itself knows, or one that was read.
pub type Word = Cow<'static, str>;

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

/// A tuple that is not the record's own: the other side's of a translated connection, or that of a packet.
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
    pub direction: Option<Word>,
    /// `orig` or `resp`.
    pub from: Word,
    /// Ethernet source, or null where the link has none.
    pub src_mac: Option<String>,
    /// Ethernet destination.
    pub dst_mac: Option<String>,
    /// As tcpdump writes them.
    pub flags: Word,
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
    /// The tuple that it had, originator to responder, where that is not the record's: seen on the other side of a translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<Nat>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was seen.
    pub kind: Word,
    /// `info`, `warning`, `error`.
    pub severity: Word,
    /// Whose doing.
    pub verdict: Word,
    /// `proven`, `likely`, `possible`.
    pub certainty: Word,
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
    pub direction: Option<Word>,
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
    pub conn_state: Option<Word>,
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
        Record {
            kind: a.kind.name().into(),
            severity: a.severity.name().into(),
            verdict: a.verdict.name().into(),
            certainty: a.certainty.name().into(),
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
            history: (!a.history.is_empty()).then(|| a.history.clone()),
            conn_state: (!a.conn_state.is_empty()).then_some(a.conn_state.into()),
            facts: a.facts.iter().map(|(name, fact)| (name_of(name), value(name, fact, context))).collect(),
            packets: a
                .packets
                .iter()
                .enumerate()
                .map(|(n, p)| {
                    let tuple = a.tuples.get(n).filter(|t| a.tuple != Some(**t));
                    PacketRecord { tuple: tuple.copied().map(Nat::from), ..packet(p, context) }
                })
                .collect(),
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
    let (seconds, ns) = (at.0 / Nanos::SEC, at.0 % Nanos::SEC);
    let (year, month, day) = date(seconds / 86_400);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |place: std::ops::Range<usize>, mut n: u64| {
        for digit in text[place].iter_mut().rev() {
            *digit = b'0' + (n % 10) as u8;
            n /= 10;
        }
    };
    put(0..4, year);
    put(5..7, month);
    put(8..10, day);
    put(11..13, seconds / 3_600 % 24);
    put(14..16, seconds / 60 % 60);
    put(17..19, seconds % 60);
    put(20..29, ns);
    ascii(&text)
}

/// Text that holds nothing but ASCII.
fn ascii(text: &[u8]) -> String {
    std::str::from_utf8(text).unwrap_or_default().to_owned()
}

/// Year, month and day of a day since the epoch: years begin with March here, so that the odd day comes last, and 400 of them are one
/// period.
fn date(day: u64) -> (u64, u64, u64) {
    // From 1 March of the year 0.
    let day = day + 719_468;
    let (period, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months have 153 days, from March on and from August on.
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (late, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (400 * period + year + late, month, of_month)
}

fn way(way: Way) -> Option<Word> {
    way.name().map(Cow::Borrowed)
}

/// As it displays itself, in a tenth of the time: a record with twenty packets has forty of them.
fn mac(mac: Mac) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b':'; 17];
    for (place, byte) in text.chunks_mut(3).zip(mac.0) {
        place[0] = HEX[usize::from(byte >> 4)];
        place[1] = HEX[usize::from(byte & 15)];
    }
    ascii(&text)
}

/// As they display themselves; those that packets have are known beforehand.
fn flags(flags: TcpFlags) -> Word {
    const S: u16 = TcpFlags::SYN;
    const A: u16 = TcpFlags::ACK;
    const F: u16 = TcpFlags::FIN;
    const P: u16 = TcpFlags::PSH;
    const R: u16 = TcpFlags::RST;
    const KNOWN: [(u16, &str); 9] = [
        (A, "."),
        (S, "S"),
        (S | A, "S."),
        (P | A, "P."),
        (F | A, "F."),
        (F | P | A, "FP."),
        (R | A, "R."),
        (R, "R"),
        (F, "F"),
    ];
    let known = KNOWN.iter().find(|(f, _)| *f == flags.0);
    known.map_or_else(|| flags.to_string().into(), |(_, name)| Cow::Borrowed(*name))
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
        from: p.from.name().into(),
        src_mac: has_mac.then(|| mac(p.src_mac)),
        dst_mac: has_mac.then(|| mac(p.dst_mac)),
        flags: flags(p.flags),
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
        tuple: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let day = 86_400 * Nanos::SEC;
        // To the end of what 64 bits hold, in steps that are no multiple of a day, and each day of five years.
        let far = (0..200_000).map(|n| n * 92_233_720_368_123);
        let near = (0..5 * 366).map(|n| 1_700_000_000 * Nanos::SEC + n * day + n);
        for ns in far.chain(near).chain([0, day - 1, day, u64::MAX]) {
            let jiff = jiff::Timestamp::from_nanosecond(ns.into()).expect("in range");
            assert_eq!(rfc3339(Nanos(ns)), format!("{jiff:.9}"));
        }
    }

    #[test]
    fn macs_and_flags_are_as_they_display_themselves() {
        for n in 0..=0xffff_u16 {
            assert_eq!(flags(TcpFlags(n)), TcpFlags(n).to_string());
            assert_eq!(TcpFlags::from_letters(&flags(TcpFlags(n))).0, n & 0x1ff);
        }
        for m in [Mac([0; 6]), Mac([0xff; 6]), Mac([0x02, 0x1a, 0xb3, 0x4c, 0xd5, 0x60])] {
            assert_eq!(mac(m), m.to_string());
        }
    }
}
