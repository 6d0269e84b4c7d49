//! What `explain` and `report` say of each kind: meaning, rule, causes, remedies, and what else it could be.

use super::Kind;
use super::explain_gateway as gateway;
use super::explain_more as more;

/// The texts of one kind. Plain sentences; the terminal wraps them.
pub struct Explanation {
    /// The kind in one line.
    pub one_line: &'static str,
    /// What it means for the people behind the gateway.
    pub meaning: &'static str,
    /// What exactly fired, with its source in the protocol or the kernel.
    pub rule: &'static str,
    /// Usual causes, the most frequent first.
    pub causes: &'static [&'static str],
    /// What to do, the most useful first.
    pub remedy: &'static [&'static str],
    /// What else produces the same packets.
    pub or_else: &'static [&'static str],
    /// What other tools call it.
    pub peers: &'static str,
}

/// The texts of `kind`.
pub const fn explain(kind: Kind) -> &'static Explanation {
    match kind {
        Kind::SynUnanswered => &SYN_UNANSWERED,
        Kind::SynRefused => &SYN_REFUSED,
        Kind::SynLostInGateway => &gateway::SYN_LOST_IN_GATEWAY,
        Kind::SnatCollision => &gateway::SNAT_COLLISION,
        Kind::SnatPortsExhausted => &gateway::SNAT_PORTS_EXHAUSTED,
        Kind::ResetByGateway => &gateway::RESET_BY_GATEWAY,
        Kind::NatMappingLost => &gateway::NAT_MAPPING_LOST,
        Kind::UntranslatedPacket => &gateway::UNTRANSLATED_PACKET,
        Kind::NatRemapped => &gateway::NAT_REMAPPED,
        Kind::NatPortPressure => &gateway::NAT_PORT_PRESSURE,
        Kind::NatNotStitchable => &gateway::NAT_NOT_STITCHABLE,
        Kind::ConntrackEventLoss => &gateway::CONNTRACK_EVENT_LOSS,
        Kind::TupleReuseRefused => &TUPLE_REUSE_REFUSED,
        Kind::TupleReuseAccepted => &TUPLE_REUSE_ACCEPTED,
        Kind::SynOnLiveFlow => &SYN_ON_LIVE_FLOW,
        Kind::SynackUnacknowledged => &more::SYNACK_UNACKNOWLEDGED,
        Kind::AcceptQueueOverflow => &more::ACCEPT_QUEUE_OVERFLOW,
        Kind::SynackWrongAck => &more::SYNACK_WRONG_ACK,
        Kind::SynackUnsolicited => &more::SYNACK_UNSOLICITED,
        Kind::SynackDiffers => &more::SYNACK_DIFFERS,
        Kind::IsnChangedWhileOpening => &more::ISN_CHANGED,
        Kind::SynackFromOriginator => &more::SYNACK_FROM_ORIGINATOR,
        Kind::SimultaneousOpen => &more::SIMULTANEOUS_OPEN,
        Kind::OptionsAltered => &more::OPTIONS_ALTERED,
        Kind::FinalAckWrong => &more::FINAL_ACK_WRONG,
        Kind::TfoRefused => &more::TFO_REFUSED,
        Kind::FinOutOfWindow => &more::FIN_OUT_OF_WINDOW,
        Kind::IcmpError => &more::ICMP_ERROR,
        Kind::ResetIgnored => &more::RESET_IGNORED,
        Kind::ResetWithText => &more::RESET_WITH_TEXT,
        Kind::ResetOutOfWindow => &more::RESET_OUT_OF_WINDOW,
        Kind::FinUnanswered => &more::FIN_UNANSWERED,
        Kind::BlackHole => &more::BLACK_HOLE,
        Kind::MacChangedInFlow => &more::MAC_CHANGED,
        Kind::SeenTwice => &more::SEEN_TWICE,
        Kind::InvalidFlags => &more::INVALID_FLAGS,
        Kind::Malformed => &more::MALFORMED,
        Kind::OneSidedView => &more::ONE_SIDED_VIEW,
        Kind::SplitHandshake => &more::SPLIT_HANDSHAKE,
        Kind::ProbeReset => &more::PROBE_RESET,
        Kind::SlowHandshake => &more::SLOW_HANDSHAKE,
        Kind::ResetAfterIdle => &more::RESET_AFTER_IDLE,
        Kind::HalfClosedStuck => &more::HALF_CLOSED_STUCK,
        Kind::FinStorm => &more::FIN_STORM,
        Kind::ResetStorm => &more::RESET_STORM,
        Kind::AddressFlapping => &more::ADDRESS_FLAPPING,
        Kind::AddressMoved => &more::ADDRESS_MOVED,
        Kind::MacMoved => &gateway::MAC_MOVED,
        Kind::NextHopChanged => &gateway::NEXT_HOP_CHANGED,
        Kind::ArpSpoofSign => &more::ARP_SPOOF_SIGN,
        Kind::FrameLoop => &more::FRAME_LOOP,
        Kind::SynFlood => &more::SYN_FLOOD,
        Kind::ResetRateShift => &more::RESET_RATE_SHIFT,
        Kind::NoKeepalive => &more::NO_KEEPALIVE,
        Kind::ResetMidFlow => &RESET_MID_FLOW,
        Kind::ResetWithoutFlow => &RESET_WITHOUT_FLOW,
        Kind::ArpTwoAnswers => &ARP_TWO_ANSWERS,
        Kind::AddressConflict => &ADDRESS_CONFLICT,
        Kind::AsymmetricHash => &ASYMMETRIC_HASH,
        Kind::CaptureGap => &CAPTURE_GAP,
        Kind::BudgetShed => &BUDGET_SHED,
    }
}

const SYN_UNANSWERED: Explanation = Explanation {
    one_line: "A SYN was sent again or given up, and nothing of any kind came back for it.",
    meaning: "The connection opens a second or more late, or not at all. From one side of a gateway nobody can tell whether \
the SYN, or the answer, was lost before or behind it.",
    rule: "No SYN-ACK, no reset and no other ACK between a SYN and its retransmission with the same initial sequence number; \
or no further SYN within twice the last gap, at least 4 s; or a SYN-ACK that comes first 0.9 s or more after the SYN and is crossed by the SYN \
sent again within 200 ms: one before it was lost, for both ends send again after a second. Retransmission after 1 s is RFC 6298 section 2; 3 s is the \
older RFC 1122. Where a service answered nobody else meanwhile and is not known to answer, the record is only info.",
    causes: &[
        "packet loss between the originator and the responder",
        "a firewall or a security group that drops instead of refusing",
        "a full accept queue or SYN queue at the responder, which drops silently",
        "a gateway that lost the SYN: SNAT port race or exhaustion (both sides must be tapped to see that)",
    ],
    remedy: &[
        "tap both sides of the gateway: a SYN that enters and does not leave was lost by the gateway, one that leaves was not",
        "on the responder compare ListenOverflows and ListenDrops in `nstat -az`",
        "on the gateway compare insert_failed and drop in `conntrack -S`",
    ],
    or_else: &[
        "a scan of addresses or ports where nobody listens",
        "an answer that takes another way round this tap",
    ],
    peers: "Zeek conn_state S0; DeepFlow \"Server SYN Miss\" and retrans_syn; nDPI \"No server to client traffic\"; tcptrace \"SYNs: 1\"; \
Wireshark \"TCP Retransmission\" on a SYN",
};

const SYN_REFUSED: Explanation = Explanation {
    one_line: "The responder answered a SYN with a reset: nobody listens on that port.",
    meaning: "The originator gets \"connection refused\" at once.",
    rule: "A reset with the ACK flag that acknowledges the SYN (ISN + 1, or up to the end of a Fast Open SYN's data), as RFC 9293 \
section 3.10.7.1 lets a closed port answer; or an ICMP error that quotes it. The gateway's doing (proven) where both its sides are tapped, the SYN \
did not leave though SYNs to that address do, and the reset has lost no hop. Info where the port was not seen to answer others.",
    causes: &[
        "the service is not running, is restarting, or listens on another address",
        "a firewall that rejects with tcp-reset",
        "a health check of a port that is meant to be closed",
    ],
    remedy: &[
        "see whether the service restarted at that time, and whether its balancer still sends it connections",
        "`ss -ltn` on the responder shows who listens",
    ],
    or_else: &[
        "a middlebox that answers in the responder's name: compare the TTL with that of its other packets",
    ],
    peers: "Zeek conn_state REJ; DeepFlow \"Server Reset\"; nDPI \"Connection refused (server)\"",
};

const TUPLE_REUSE_REFUSED: Explanation = Explanation {
    one_line: "A tuple was used again while the server still held its last connection, and the server refused the SYN.",
    meaning: "The originator, or the NAT gateway in front of it, took a source port again too early. The server still holds \
the previous connection of that tuple, in TIME_WAIT as a rule, and answers the SYN with its old ACK instead of a SYN-ACK. \
A Linux client resets that and tries again, 10 ms later or, through a NAT, on another port; other clients wait, retry \
after a second and give up with a reset.",
    rule: "While a SYN waits and the originator has sent nothing but SYNs, the responder sends a pure ACK that acknowledges \
something else than ISN + 1. In TIME_WAIT Linux accepts a SYN (tcp_timewait_state_process, after RFC 6191) if both \
connections have timestamps and the SYN's is newer, whatever its ISN; with equal timestamps, or without them on either \
connection, only if its ISN lies after the next expected number, that is (s32)(rcv_nxt - isn) < 0: that number itself is \
refused, 1 to 2^31 beyond it are accepted. An older timestamp is refused whatever the ISN, and starts the 60 s of TIME_WAIT \
again. A tuple gets at most one such ACK in 500 ms (tcp_invalid_ratelimit), so stale_acks can be fewer than syns. On a live connection, and \
in FIN_WAIT2 for a SYN outside the window, the answer is a challenge ACK (RFC 5961 section 4); inside the window FIN_WAIT2 \
resets. The facts give the numbers: distance is ISN minus rcv_nxt.",
    causes: &[
        "a balancer or proxy that picks source ports at random from a small pool and sends SYNs without timestamps: its ISN is \
behind the old one half of the time",
        "a Linux SNAT gateway under port pressure (from about 540 new connections a second to one server address and port for \
each outside address), with stock settings: when most tries for a free port failed it evicts TIME_WAIT entries whose \
sequence number the new SYN has passed (nf_nat_used_tuple_harder). It never looks at timestamps, by which the server judges \
and which differ from client to client",
        "`--random` or `--random-fully` on SNAT, which makes it worse: of 50,000 connections measured over 64,000 ports 1.9 % were \
refused without, 9.7 % with `--random`",
        "connections that are closed by the server after each request, so that TIME_WAIT stands at the server",
    ],
    remedy: &[
        "keep connections alive between requests: fewer closes, fewer TIME_WAITs, fewer reuses",
        "let the client close first, so that TIME_WAIT stands at the end that chooses the ports",
        "give the gateway or balancer more outside addresses or a wider port range towards that server",
        "let the balancer pass or add timestamps that only grow for each outside address, or pick ports in turn",
        "take `--random` or `--random-fully` off the SNAT rule, unless SYNs were lost to port races before: it cures those",
        "leave net.ipv4.tcp_tw_reuse at the server alone: it is for the connecting side, and no value of it changes this",
    ],
    or_else: &[
        "a half-open connection after a crash of the originator (old_state half_open): the challenge ACK and its reset heal it",
        "a responder in FIN_WAIT2 (old_state fin_wait2): the originator never closed its end, and no TIME_WAIT is involved",
        "a device that answers from its own table, or a server that is not Linux: `rule` is null when these numbers would \
have been accepted",
    ],
    peers: "no other tool names it; DeepFlow \"Client Port Reuse\" is nearest; Wireshark's \"TCP Port numbers reused\" sees the \
SYN and not the answer",
};

const TUPLE_REUSE_ACCEPTED: Explanation = Explanation {
    one_line: "A tuple was used again within 60 s of its close, and the responder accepted it.",
    meaning: "Nobody was hurt. Many of these towards one responder say that source ports are scarce: the refused ones are not \
far away.",
    rule: "A SYN less than 60 s (TCP_TIMEWAIT_LEN) after both FINs of the previous connection, answered by a SYN-ACK. A SYN-ACK \
whose sequence number is the old one's end plus 65537 comes from a Linux TIME_WAIT socket (from_time_wait).",
    causes: &[
        "many short connections to one server from few addresses",
        "a fixed source port, as some protocols and old clients use",
    ],
    remedy: &["keep connections alive, or widen the port range, before reuses begin to be refused"],
    or_else: &["a client that closed first and so had no TIME_WAIT at the server"],
    peers: "Wireshark \"TCP Port numbers reused\"; Suricata counter flow.tcp_reuse; Zeek premature_connection_reuse",
};

const SYN_ON_LIVE_FLOW: Explanation = Explanation {
    one_line: "A SYN with a new initial sequence number came on a connection that was not closed.",
    meaning: "The originator thinks that the tuple is free, the responder may not. What became of it is in the fact `answer`.",
    rule: "A SYN whose ISN is not that of the present connection, on a flow with less than both FINs and no reset. The answer \
decides: syn_ack (the responder had forgotten), rst (in the window of a half-closed connection), challenge_ack or none \
(the old connection went on: RFC 5961 section 4).",
    causes: &[
        "the originator crashed, was rebooted or was moved, and took the same port again",
        "a NAT gateway whose mapping timed out before the connection did, and gave the port to somebody else",
    ],
    remedy: &["keep-alives shorter than the NAT's timeout; a timeout of 2 h 4 min or more (RFC 5382 REQ-5)"],
    or_else: &[
        "a forged SYN (a blind attack), if the old connection went on",
        "an end of the old connection that this tap did not see",
    ],
    peers: "Zeek active_connection_reuse; Snort 129:1; Suricata est_syn_resend_diff_seq",
};

const RESET_MID_FLOW: Explanation = Explanation {
    one_line: "A connection was reset before both ends had closed it.",
    meaning: "If the responder reset it, users see \"connection reset by peer\". A reset by the originator, or after a FIN, is how \
many programs simply stop, and is only info.",
    rule: "An RST on a flow whose handshake was complete and of which at most one end had sent a FIN. in_window says whether its \
sequence number lies in the window that the other end offered last (RFC 9293 section 3.10.7.4), as far as the packets seen \
tell; a TTL unlike the sender's usual one points at a device in between. The gateway's doing (proven) where the reset leaves it inside in the responder's \
name, has lost no hop, and none came in outside. Also info: after 10 s or more with everything acknowledged, unless it is the responder's and has no ACK, for such a \
one answers somebody who still uses the connection (RFC 9293 section 3.10.7.1); where the originator's FIN crosses the reset within 300 ms; where the other end asked for it by MPTCP's fast close (RFC 8684 section 3.5), and so closed; and of a connection that was met in its middle, on ports that do not say who began it, whose doing is not told then. A lone reset without an ACK, in answer to such a one, only says that there is no such connection.",
    causes: &[
        "the server process died, or closed a socket with unread data or SO_LINGER 0",
        "an idle timeout in a balancer, firewall or server, and a client that used the connection once more",
        "a NAT mapping that was lost, so that the gateway or the wrong machine answered",
    ],
    remedy: &[
        "look at idle_ms: values that recur (60, 300, 350 s) are a timeout; make the client's keep-alive shorter",
        "compare ttl with usual_ttl: when they differ find the device that is so many hops away",
        "look into the responder's log at that second",
    ],
    or_else: &["a client that ends its connection by a reset on purpose"],
    peers: "Zeek conn_state RSTO and RSTR; DeepFlow \"Transfer - Client/Server RST\"",
};

const RESET_WITHOUT_FLOW: Explanation = Explanation {
    one_line: "Resets on tuples of which nothing else was seen.",
    meaning: "Background noise as a rule: counted, ten seconds to a record.",
    rule: "An RST is the first packet seen of its tuple.",
    causes: &[
        "the tap was started after the connection",
        "the answer to a packet that arrived after its connection was forgotten",
        "a stray reset that NAT left untranslated: netfilter does that with packets it calls INVALID",
    ],
    remedy: &["nothing, unless the count jumps: then look who sends them"],
    or_else: &["the echo of a scan or a flood with forged sources"],
    peers: "Suricata rst_but_no_session; Zeek spontaneous_RST",
};

const ARP_TWO_ANSWERS: Explanation = Explanation {
    one_line: "One ARP request got two answers with the same MAC address: two ports answer for one machine.",
    meaning: "The answers agree, so all ARP tables look right; but a switch or bridge learns the MAC at the port of the later \
answer. Now and then the wrong port is last, and then the machine is unreachable until it speaks.",
    rule: "More answers than requests for one address within 1 s at one tap point and in one direction, with the same sender MAC. \
IPv6 neighbour advertisements count as answers.",
    causes: &[
        "a VXLAN device or overlay agent with proxy ARP, beside the machine itself",
        "proxy_arp on a router of the same segment",
        "a loop in the layer-2 network",
    ],
    remedy: &[
        "find the second port: `bridge monitor fdb` shows the MAC moving between the two",
        "if it is a VXLAN device with `proxy` (`ip -d link show`), delete its entry for a machine that is local: `ip neigh del \
ADDRESS dev VXLAN`. It answers only for its entries; find the agent that writes them, or it comes back",
        "to be rid of the proxy create the device again without `proxy`: the kernel refuses to change it on a device that \
exists",
        "during an outage let the machine itself send something (`arping` from it): that moves its MAC back to its port",
    ],
    or_else: &["a tap point that sees each packet twice (the rule allows for as many answers as requests)"],
    peers: "no other tool reports it",
};

const ADDRESS_CONFLICT: Explanation = Explanation {
    one_line: "One ARP request got answers from two different MAC addresses: two machines use one address.",
    meaning: "Packets go to one or the other by chance. The wrong one resets connections that it does not know.",
    rule: "Two answers to one request within 1 s with different sender MACs, at one tap point and in one direction.",
    causes: &[
        "an address configured twice",
        "a machine that was cloned or came back with an old lease",
        "a failover in which both sides are active",
    ],
    remedy: &[
        "find the port of each MAC (`bridge fdb show`, the switch's table) and take one of them off the address",
    ],
    or_else: &["ARP spoofing", "a wireless bridge that answers for its clients with its own MAC"],
    peers: "Wireshark \"Duplicate IP address configured\"; Snort 112:4",
};

const ASYMMETRIC_HASH: Explanation = Explanation {
    one_line: "The two directions of a connection reach two workers of syntap.",
    meaning: "No worker sees a whole connection: what is said of missing answers, of states and of refused reuses is not to be \
trusted in this run.",
    rule: "The SYN came over one ring and its SYN-ACK over another, ten times and in one of ten handshakes or more. Where the kernel \
side chooses the ring (tcx) that cannot happen; in XDP mode the NIC's receive hash (RSS) does, and the usual Toeplitz key gives the \
two directions of a tuple different queues. `run` hands packets over between the workers of such a span, and then none of this is so; it \
does not where the driver says that its hash is symmetric, or with --hand-over off.",
    causes: &[
        "--hand-over off on a NIC whose RSS key is not symmetric",
        "a driver that says its hash is symmetric, and steers flows in other ways (Flow Director, rules of `ethtool -N`)",
        "a hash over other fields (ports left out, a tunnel's \
outer header)",
    ],
    remedy: &[
        "start syntap with --hand-over on",
        "or, which costs less, give the NIC a symmetric hash: `ethtool -X DEV hkey 6d:5a:6d:5a:...` (the same two bytes repeated), or `ethtool -X DEV xfrm \
symmetric-xor` where the driver has it",
        "or give it one queue: `ethtool -L DEV combined 1`",
    ],
    or_else: &["a NIC whose queues were changed while syntap ran"],
    peers: "Suricata wrong_thread",
};

const CAPTURE_GAP: Explanation = Explanation {
    one_line: "syntap itself lost packets.",
    meaning: "What rests on an absence in this time (\"no answer came\") is uncertain, and is marked so.",
    rule: "A loss counter of the kernel side, the rings or the writer moved; looked at once a second.",
    causes: &[
        "bursts beyond what the rings hold",
        "a CPU that is too busy for the worker",
        "a disk too slow for the records",
    ],
    remedy: &["more workers (`--workers`), a narrower set of ports (`-p`), or a smaller budget"],
    or_else: &["a program on the same interface that drops packets before this one sees them"],
    peers: "Zeek capture_loss; Suricata capture.kernel_drops",
};

const BUDGET_SHED: Explanation = Explanation {
    one_line: "Tuples were not mirrored, to keep within the budget.",
    meaning: "The gateway comes first. Connections known to be open are kept first, and the tuples that were kept are whole, so \
what is said of them holds; totals are too low.",
    rule: "Packets selected in a 10 ms window, CPU and interface went past `--budget`, or the time spent on them did; the share of \
new tuples that is mirrored shrinks until they fit, that of known ones only if they alone do not, and grows again after.",
    causes: &["a SYN flood or a scan", "far more traffic on the chosen ports than expected"],
    remedy: &["raise `--budget` if the CPU allows, or choose fewer ports with `-p`"],
    or_else: &["a loop that repeats packets"],
    peers: "Suricata flow bypass and memcap counters are the nearest",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_every_section() {
        for &kind in Kind::ALL {
            let e = explain(kind);
            for text in [e.one_line, e.meaning, e.rule, e.peers] {
                assert!(text.len() > 20 && !text.contains("  "), "{}", kind.name());
            }
            for list in [e.causes, e.remedy, e.or_else] {
                assert!(!list.is_empty() && list.iter().all(|t| t.len() > 10), "{}", kind.name());
            }
        }
    }
}
