//! A connection as one line: how a life of a tuple went, in Zeek's words.

use std::net::IpAddr;

use serde::Serialize;

use super::{Context, Nat, TunnelRecord, community_id, rfc3339};
use crate::flow::{FlowKey, Side};
use crate::track::Flow;
use crate::wire::Tunnel;

/// One life of a tuple.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionRecord {
    /// First packet: RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// The same, ns since the epoch.
    pub first_ns: u64,
    /// Last packet.
    pub last_ns: u64,
    /// Tap point.
    pub interface: String,
    /// Its role.
    pub role: Option<String>,
    /// Originator.
    pub src_ip: IpAddr,
    /// Originator's port.
    pub src_port: u16,
    /// Responder.
    pub dst_ip: IpAddr,
    /// Responder's port.
    pub dst_port: u16,
    /// VLAN identifier.
    pub vlan: Option<u16>,
    /// Tunnel around it.
    pub tunnel: Option<TunnelRecord>,
    /// Community ID, version 1, seed 0.
    pub community_id: String,
    /// The other side's tuple, where it is known.
    pub nat: Option<Nat>,
    /// Zeek's word.
    pub conn_state: &'static str,
    /// Zeek's letters.
    pub history: String,
    /// Where the tracker saw it last.
    pub state: &'static str,
    /// Packets from the originator.
    pub orig_packets: u32,
    /// Packets from the responder.
    pub resp_packets: u32,
    /// Payload bytes by sequence numbers, or null if the SYN was not seen.
    pub orig_bytes: Option<u64>,
    /// Likewise from the responder.
    pub resp_bytes: Option<u64>,
    /// SYNs without ACK.
    pub syn: u32,
    /// SYN-ACKs.
    pub syn_ack: u32,
    /// FINs.
    pub fin: u32,
    /// Resets.
    pub rst: u32,
}

impl ConnectionRecord {
    /// Of a flow that is over, or that the capture ended in.
    pub fn of(key: &FlowKey, flow: &Flow, tunnel: Option<Tunnel>, context: &Context) -> ConnectionRecord {
        let tuple = if flow.orig == Side::Orig { key.tuple() } else { key.tuple().reversed() };
        let point = context.interfaces.get(usize::from(key.point())).cloned().unwrap_or_default();
        let [orig, resp] = &flow.ends;
        let [syn, syn_ack, fin, rst] = flow.counts;
        ConnectionRecord {
            time: rfc3339(flow.first),
            first_ns: flow.first.0,
            last_ns: flow.last.0,
            interface: point.name,
            role: point.role,
            src_ip: tuple.src.addr.ip(),
            src_port: tuple.src.port,
            dst_ip: tuple.dst.addr.ip(),
            dst_port: tuple.dst.port,
            vlan: flow.vlan.checked_sub(1),
            tunnel: tunnel.map(TunnelRecord::from),
            community_id: community_id(&tuple),
            nat: None,
            conn_state: flow.conn_state(),
            history: flow.history().to_owned(),
            state: flow.state.name(),
            orig_packets: orig.packets,
            resp_packets: resp.packets,
            orig_bytes: orig.bytes(),
            resp_bytes: resp.bytes(),
            syn,
            syn_ack,
            fin,
            rst,
        }
    }
}
