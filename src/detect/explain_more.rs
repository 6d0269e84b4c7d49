//! Explanations of the kinds around opening, silence, the link layer and the shape of traffic.

use super::explain::Explanation;

pub(super) const SYNACK_UNACKNOWLEDGED: Explanation = Explanation {
    one_line: "The responder sent its SYN-ACK again before any acknowledgement of it passed.",
    meaning: "The connection opens late by the retransmission timeout, a second as a rule. Warning from a second on.",
    rule: "The same SYN-ACK (sequence number) more than once before the originator's first ACK or data; told when that comes. \
The responder's timer starts at 1 s (RFC 6298; Linux tcp_synack_retries). The gateway's doing where both its sides are tapped, and the SYN-ACK did not get \
through at once, or the final ACK came in and did not leave.",
    causes: &["the SYN-ACK or the final ACK was lost", "an originator that is too busy to answer"],
    remedy: &[
        "compare with syn_unanswered on the same path: both together are packet loss",
        "tap the other side of the gateway as well",
    ],
    or_else: &["an answer that takes another way round this tap"],
    peers: "DeepFlow \"Client ACK Miss\" and retrans_synack; Wireshark \"TCP Retransmission\" on a SYN-ACK",
};

pub(super) const ACCEPT_QUEUE_OVERFLOW: Explanation = Explanation {
    one_line: "The responder repeats its SYN-ACK although the final ACK passed: its accept queue is full.",
    meaning: "The originator believes that it is connected and sends data into silence; it stalls for seconds or is reset.",
    rule: "The same SYN-ACK three times, each 0.5 s or more after the originator's ACK passed this tap; or once, when the originator has sent six \
packets and nothing but SYN-ACKs ever came back. Linux drops the final \
ACK when the accept queue is full (tcp_v4_syn_recv_sock, counter ListenOverflows) unless net.ipv4.tcp_abort_on_overflow is set.",
    causes: &[
        "a server process that accepts too slowly or hangs",
        "a backlog that is too small for bursts (listen(), net.core.somaxconn)",
    ],
    remedy: &[
        "look at ListenOverflows in `nstat -az` and at Recv-Q in `ss -ltn` on the server",
        "raise the backlog, or accept faster",
    ],
    or_else: &[
        "loss of all the originator's packets between this tap and the responder, as by a firewall that knows one direction alone",
    ],
    peers: "DeepFlow \"Server Queue Overflow\"; Suricata est_synack_resend",
};

pub(super) const SLOW_HANDSHAKE: Explanation = Explanation {
    one_line: "A SYN-ACK took far longer than this responder's usually do, though the SYN was not lost.",
    meaning: "The connection opened late, by a wait and not by a retransmission. One alone is worth knowing; many at one time are \
a responder or a path under load.",
    rule: "One SYN, its SYN-ACK after 200 ms or more, and after longer than 99 of 100 handshakes of the same responder (of at least \
200) took.",
    causes: &[
        "a host or hypervisor that was stopped for a moment",
        "a queue on the way that filled up",
        "a link that wakes up",
    ],
    remedy: &["compare the times with the load of the responder and of the links to it"],
    or_else: &["a SYN lost and sent again before this tap, and only the second seen"],
    peers: "none as such; DeepFlow and Arkime report the latency",
};

pub(super) const FINAL_ACK_WRONG: Explanation = Explanation {
    one_line: "The third packet of a handshake does not fit the two before it.",
    meaning: "The responder answers it with a reset (RFC 9293 section 3.10.7.4) and waits on; the connection does not open by it.",
    rule: "After a SYN and one SYN-ACK, the originator's first ACK acknowledges less than the SYN-ACK's sequence number + 1, or more than \
1 MiB beyond, or its own number lies so far from the SYN's. Nearer ones may follow data that was not captured.",
    causes: &[
        "a program that makes its own packets (a scanner, a test)",
        "a device that rewrites one direction only",
        "an answer to another responder",
    ],
    remedy: &["look at what stands between the ends, if the originator is an ordinary host"],
    or_else: &["an ACK of another life of the tuple that was on its way for long"],
    peers: "Suricata 3whs_right_seq_wrong_ack_evasion, 3whs_wrong_seq_wrong_ack",
};

pub(super) const TFO_REFUSED: Explanation = Explanation {
    one_line: "The responder took the SYN and not the data in it.",
    meaning: "The originator sends the data again after the handshake: one round trip is lost, nothing else.",
    rule: "A SYN with payload, and a SYN-ACK that acknowledges ISN + 1 only (RFC 7413 section 4.2).",
    causes: &[
        "a cookie that the responder does not know (another server behind the same address)",
        "Fast Open switched off, or its queue full, at the responder",
    ],
    remedy: &["give all servers behind one address the same key (net.ipv4.tcp_fastopen_key)"],
    or_else: &["a device that takes the data out of SYNs"],
    peers: "Suricata 3whs_synack_tfo_data_ignored; Wireshark tfo_ignored",
};

pub(super) const FIN_OUT_OF_WINDOW: Explanation = Explanation {
    one_line: "A FIN at a place that its receiver has behind it.",
    meaning: "The receiver drops it and answers with its last acknowledgement (RFC 9293 section 3.10.7.4); the connection goes on.",
    rule: "A FIN whose end lies before what the receiver acknowledged, and that does not repeat a FIN of this life. Where a part of the \
packets is seen (live, or mirrored by a tap), only so soon after another packet that 2^31 bytes cannot have passed between.",
    causes: &["a late packet of the tuple's previous connection", "a forged FIN"],
    remedy: &["compare its TTL and IP id with those of the sender's other packets"],
    or_else: &["a stack that sends its FIN with an old number"],
    peers: "Suricata fin_out_of_window, fin_invalid_ack; Snort 129:16",
};

pub(super) const ICMP_ERROR: Explanation = Explanation {
    one_line: "A device on the way sent an ICMP error about a packet of an open connection.",
    meaning: "\"Too big\" is how the path MTU is found; the connection goes on with smaller packets. The others are advice that an \
open connection may ignore (RFC 1122 section 4.2.3.9). With a black_hole on the same tuple it is the reason for it.",
    rule: "An ICMP or ICMPv6 error that quotes a tuple whose flow is open; told once a flow.",
    causes: &[
        "a link with a smaller MTU, a tunnel as a rule",
        "a route or a filter that changed while the connection was open",
    ],
    remedy: &[
        "see that these errors reach the sender: a firewall that drops ICMP makes a black hole of them",
        "clamp the MSS at the tunnel",
    ],
    or_else: &["a forged error (RFC 5927)"],
    peers: "Zeek and Suricata decode these errors and do not tie them to the connection",
};

pub(super) const SYNACK_WRONG_ACK: Explanation = Explanation {
    one_line: "A SYN-ACK acknowledges something else than the SYN it answers.",
    meaning: "The originator resets it (RFC 9293 section 3.10.7.3) and tries again.",
    rule: "While a SYN waits, a SYN-ACK from the responder whose acknowledgement is not ISN + 1, nor within the data of a Fast Open SYN.",
    causes: &[
        "an answer to an older SYN of the same tuple",
        "a device in between that keeps state of a connection long gone",
    ],
    remedy: &["see what stands between the two ends and rewrites sequence numbers"],
    or_else: &["an evasion test"],
    peers: "Suricata 3whs_synack_with_wrong_ack; Zeek bad_SYN_ack",
};

pub(super) const SYNACK_UNSOLICITED: Explanation = Explanation {
    one_line: "A SYN-ACK on a tuple of which no SYN was seen.",
    meaning: "The SYN took another way, or it came before the tap was started.",
    rule: "A SYN-ACK is the first packet of its tuple.",
    causes: &["asymmetric routing", "somebody else sends SYNs with this source address (backscatter)"],
    remedy: &["tap the interface that the SYNs take"],
    or_else: &["the beginning of the capture"],
    peers: "Zeek history ^h, conn_state SHR; Suricata 3whs_synack_in_wrong_direction is near",
};

pub(super) const SYNACK_DIFFERS: Explanation = Explanation {
    one_line: "One SYN got two SYN-ACKs with different numbers.",
    meaning: "Two machines, or a machine and a device on the way, answered the same SYN; the connection breaks when the originator \
talks to one and the other answers.",
    rule: "A second SYN-ACK from the responder's address with another sequence number before the connection is over, or one that \
acknowledges something else than the first and than this SYN with or without its data (RFC 7413). The facts give sequence and \
acknowledgement of both.",
    causes: &[
        "a SYN proxy or SYN cookies switched on between two answers",
        "a balancer that sent one SYN to two servers",
        "a server that was restarted between two answers",
    ],
    remedy: &["compare the TTL and MAC of the two answers in the record"],
    or_else: &["a forged answer"],
    peers: "Suricata 3whs_synack_resend_with_diff_seq, ..._diff_ack, 3whs_synack_flood and est_synack_resend_with_diff_seq",
};

pub(super) const ISN_CHANGED: Explanation = Explanation {
    one_line: "Several initial sequence numbers were tried on one tuple before any answer.",
    meaning: "The originator began anew instead of retransmitting: a fixed source port with a short timeout, a scanner, or a flood tool.",
    rule: "A SYN with another ISN while the one before was neither answered nor reset.",
    causes: &[
        "a health check or scanner with a fixed source port",
        "an application that connects again at once with the same port",
    ],
    remedy: &["find the program behind that source port"],
    or_else: &["sequence numbers rewritten by a device on the way"],
    peers: "Suricata 3whs_syn_resend_diff_seq_on_syn_recv; Zeek SYN_seq_jump; Wireshark \"TCP Port numbers reused\"",
};

pub(super) const SYNACK_FROM_ORIGINATOR: Explanation = Explanation {
    one_line: "The end that sent the SYN sent a SYN-ACK too.",
    meaning: "A split handshake or a simultaneous open; no ordinary client does that.",
    rule: "A SYN-ACK from the originator of a flow whose SYN was seen.",
    causes: &["tests of evasion", "peer-to-peer programs that open from both ends"],
    remedy: &["nothing, unless a firewall in between judges direction by the SYN-ACK"],
    or_else: &["packets captured out of order"],
    peers: "Suricata 3whs_synack_toserver_on_syn_recv; Zeek connection_originator_SYN_ack; Snort 129:13",
};

pub(super) const SIMULTANEOUS_OPEN: Explanation = Explanation {
    one_line: "Both ends sent a SYN before either had an answer.",
    meaning: "Legal (RFC 9293 figure 8) and rare.",
    rule: "A SYN from the responder's side while the originator's SYN waits.",
    causes: &["peer-to-peer programs that punch holes through NAT"],
    remedy: &["nothing: it is legal and harmless"],
    or_else: &["a split handshake, as evasion tests make it"],
    peers: "Zeek simultaneous_open; Suricata 3whs_syn_toclient_on_syn_recv and 4whs events",
};

pub(super) const OPTIONS_ALTERED: Explanation = Explanation {
    one_line: "A SYN or SYN-ACK carries options or an ack field that no stack sends.",
    meaning: "A device on the way rewrites headers; windows or timestamps may not be what the ends believe.",
    rule: "Options that cannot be read to their end, a window scale over 14 (RFC 7323 section 2.3), an acknowledgement number \
without the ACK flag, no MSS although later options are there (RFC 9293 section 3.7.1), or four NOPs in a row where another option \
is missing: stacks pad with three at most. A SYN without any option is no sign: old and small stacks send it.",
    causes: &["a firewall or balancer that strips or overwrites options", "hand-made packets of a scanner"],
    remedy: &["compare the SYN on both sides of the suspected device"],
    or_else: &["packets made by hand, as scanners and fuzzers do"],
    peers: "Suricata pkt_broken_ack; Zeek TCP_scale_range and tcp_option_*_invalid_len; Wireshark tcp.ack.nonzero, \"MSS absent\", \
\"4 NOP in a row\"; Snort \"TCP timestamp is missing\"",
};

pub(super) const RESET_IGNORED: Explanation = Explanation {
    one_line: "An end goes on after a reset in its name: the reset is not its own, or what came after it is not.",
    meaning: "Somebody on the way forges resets, or a device that lost its state does; the other end has closed. Data may be forged as well.",
    rule: "After a reset, its sender sends payload beyond all it had sent before, or accepts the SYN. A TTL unlike that of the reset makes it \
proven. Which of the two is forged is said where one has the TTL of the end's packets before and the other has not, and where \
what came after lacks the timestamps that were agreed upon (RFC 7323 section 3.2).",
    causes: &[
        "a firewall, censor or intrusion prevention that resets connections",
        "a balancer that lost the flow in a failover",
    ],
    remedy: &["the difference of the TTLs tells how many hops away the forger is"],
    or_else: &["a tuple reused at once, with the new SYN not captured"],
    peers: "Suricata suspected_rst_inject; Zeek data_after_reset; Snort 129:8 and 129:18",
};

pub(super) const RESET_WITH_TEXT: Explanation = Explanation {
    one_line: "A reset carries a payload, often its reason in words.",
    meaning: "Some stacks and firewalls say why they reset (RFC 9293 section 3.5.3 allows it).",
    rule: "An RST with payload; its first printable bytes are in the facts.",
    causes: &["a balancer or firewall that explains itself", "older BSD and Solaris stacks"],
    remedy: &["read what it says"],
    or_else: &["a scanner's marker"],
    peers: "Suricata rst_with_data; tcpdump prints it",
};

pub(super) const RESET_OUT_OF_WINDOW: Explanation = Explanation {
    one_line: "A reset whose sequence number is outside the receiver's window.",
    meaning: "The receiver does not believe it (RFC 5961 section 3): the connection goes on.",
    rule: "An RST on an open flow whose sequence number is neither the sender's next nor in the window last offered, as far as the packets seen tell. \
Where a part of them is seen (live, or mirrored by a tap), only so soon after another one that 2^31 bytes cannot have passed between.",
    causes: &["a reset of an earlier connection of the tuple", "a blind attack"],
    remedy: &["nothing, unless the connection died all the same"],
    or_else: &["packets that this tap did not see have moved the window on"],
    peers: "Snort 129:15; Suricata rst_invalid_ack",
};

pub(super) const FIN_UNANSWERED: Explanation = Explanation {
    one_line: "A FIN was sent again several times and never acknowledged.",
    meaning: "The other end is gone, or no longer reachable; nobody waits for it but the sender's kernel.",
    rule: "The same FIN at least four times and no acknowledgement of it until the flow was forgotten.",
    causes: &[
        "the other end was switched off or moved",
        "a firewall or NAT that forgot the connection first",
    ],
    remedy: &[
        "nothing if it is rare; otherwise compare the idle time before the FIN with the firewall's timeout",
    ],
    or_else: &["the acknowledgement took another way"],
    peers: "Wireshark \"TCP Retransmission\" on a FIN",
};

pub(super) const BLACK_HOLE: Explanation = Explanation {
    one_line: "The same bytes were sent four times or more with growing gaps, and nothing came back.",
    meaning: "The connection has stalled for seconds: packets vanish, in one direction or both.",
    rule: "At least three retransmissions of the same bytes, each gap half as long again as the one before, and not one packet \
from the other end in between (the doubling of RFC 6298 section 5.5).",
    causes: &[
        "a route or next hop that vanished",
        "a NAT mapping that was lost",
        "an MTU black hole: large packets dropped without an ICMP error",
    ],
    remedy: &[
        "look at last_mac: is it still the next hop's address",
        "compare the sizes: if only large packets vanish, it is the MTU",
    ],
    or_else: &[
        "the other end was switched off",
        "a full accept queue behind SYN cookies, where the responder has sent a SYN-ACK and nothing more: it drops the ACK, keeps \
nothing and repeats nothing (verdict unknown; compare ListenOverflows and TCPReqQFullDoCookies in `nstat -az`)",
    ],
    peers: "Wireshark shows the retransmissions one by one; nobody gives the verdict",
};

pub(super) const MAC_CHANGED: Explanation = Explanation {
    one_line: "One end's packets come from another MAC address than before, within one connection.",
    meaning: "The next hop changed, or another machine took over the address.",
    rule: "Two packets of one end of a flow, in the same direction through the tap point, with different Ethernet sources; not when the tap point sees packets twice.",
    causes: &["a failover of a router pair (VRRP, MLAG)", "two machines with one address", "ARP spoofing"],
    remedy: &["see whether address_conflict or an ARP record names the address at that time"],
    or_else: &["multipath routing: two routers share the way"],
    peers: "Snort 129:9 and 129:10 \"possibly hijacked\"",
};

pub(super) const SEEN_TWICE: Explanation = Explanation {
    one_line: "The same packets are seen twice: this tap point sees both sides of a hop.",
    meaning: "Nothing is wrong with the traffic. The second sight is not counted as a retransmission.",
    rule: "Same tuple, numbers, flags, window and IP identification within 10 ms, with another TTL or other MAC addresses.",
    causes: &[
        "a mirror port that copies both ingress and egress",
        "a capture on `any`, or on a bridge and its port",
    ],
    remedy: &["mirror one side only, to halve the load"],
    or_else: &["a routing loop, if the TTL falls again and again"],
    peers: "Wireshark and others call them retransmissions",
};

pub(super) const INVALID_FLAGS: Explanation = Explanation {
    one_line: "A packet with a mixture of TCP flags that no stack sends.",
    meaning: "A scan or a test; no connection comes of it.",
    rule: "Any combination of SYN, FIN, RST, ACK and URG that is not in the kernel's tcp_valid_flags (nf_conntrack_proto_tcp.c): SYN with \
FIN or RST, RST with FIN, a FIN without ACK (xmas with PSH and URG), or none of them (null).",
    causes: &["scanners (null, FIN, xmas)", "fuzzers and evasion tests"],
    remedy: &["nothing; a stateful firewall drops them"],
    or_else: &["corruption on the way, if checksums are wrong too"],
    peers: "Zeek history q and i, TCP_christmas, baroque_SYN; nDPI NULL, FIN and XMAS scan",
};

pub(super) const MALFORMED: Explanation = Explanation {
    one_line: "Packets whose headers are cut or contradict themselves.",
    meaning: "They belong to no flow. Ten seconds of one reason at one tap point make a record.",
    rule: "A length, offset or version that does not fit; the reason names the check. Packets cut by a capture's snap length do not count.",
    causes: &["fuzzers and scanners", "tiny fragments, an old way round filters"],
    remedy: &["if many come from one neighbour, look for a faulty NIC or driver"],
    or_else: &["a protocol on a port that looks like another's"],
    peers: "Zeek truncated_IP and others; Suricata decoder events; tcpdump \"bad hdr length\"",
};

pub(super) const ONE_SIDED_VIEW: Explanation = Explanation {
    one_line: "Only one direction of most flows is seen here.",
    meaning: "Nothing can be said of missing answers at this tap point: syn_unanswered is withheld.",
    rule: "At least ten flows went on past their SYN, or came from the responder alone, with the other direction never seen, and they \
are four of five or more.",
    causes: &["asymmetric routing", "a mirror port that copies one direction"],
    remedy: &["tap the other direction too, and give both to one run"],
    or_else: &["a capture filter by source or destination"],
    peers: "Zeek possible_split_routing; Arkime no-syn-ack; nDPI \"Unidirectional traffic\"",
};

pub(super) const SPLIT_HANDSHAKE: Explanation = Explanation {
    one_line: "The responder answered a SYN with an ACK or SYN of its own, and the originator sent the SYN-ACK.",
    meaning: "The handshake was turned round, which some firewalls take for a connection from the other side.",
    rule: "SYNs crossed, then the originator sent a SYN-ACK and the responder a plain ACK of the SYN (the four- and five-way handshakes of evasion tests).",
    causes: &["a test of evasion", "a malicious server"],
    remedy: &["see whether the firewall in between still knows who opened the connection"],
    or_else: &["a simultaneous open of which a SYN-ACK was lost"],
    peers: "Suricata 4whs events; Snort 129:13; Wireshark calls it a retransmission",
};

pub(super) const PROBE_RESET: Explanation = Explanation {
    one_line: "One originator opens connections and resets them at once, again and again.",
    meaning: "A health check as a rule: it would swamp a report of resets if it were counted there.",
    rule: "A reset by the originator after the SYN-ACK and before any data, three times a minute or more from one address.",
    causes: &["a balancer's TCP health check", "a SYN scan of open ports"],
    remedy: &["nothing; exclude that address when you count resets"],
    or_else: &["a client whose application gives up as soon as it is connected"],
    peers: "DeepFlow TcpFinClientRst; Zeek conn_state RSTOS0 and RSTO without data",
};

pub(super) const RESET_AFTER_IDLE: Explanation = Explanation {
    one_line: "Connections are reset after the same silence, again and again: a timeout.",
    meaning: "Something forgets idle connections, and the next packet on one is answered by a reset.",
    rule: "Three resets or more on connections to one responder after idle times of 10 s or more within 5 % of each other. Warning, and a device in between, if the TTL of one of them is not the responder's; else its own, possible and info.",
    causes: &["an idle timeout of a balancer, firewall or NAT", "the server's own keep-alive timeout"],
    remedy: &["make the client's keep-alive shorter than that timeout, or raise the timeout"],
    or_else: &["a job that is stopped at fixed times"],
    peers: "nobody names it; DeepFlow \"Transfer - Server RST\" counts the resets",
};

pub(super) const HALF_CLOSED_STUCK: Explanation = Explanation {
    one_line: "One direction stayed open and silent for more than a minute after the other was closed.",
    meaning: "A program that does not notice that its peer has closed, and leaks the connection.",
    rule: "One FIN, acknowledged, and then no packet of either end for 60 s or more until the flow was forgotten, 300 s later, or the \
capture ended. Linux gives an orphaned FIN_WAIT2 socket tcp_fin_timeout, 60 s. While anything still moves it is a half close on purpose.",
    causes: &[
        "an application that does not read the end of file (CLOSE_WAIT in `ss`)",
        "a half close on purpose",
    ],
    remedy: &["look for sockets in CLOSE_WAIT on that machine"],
    or_else: &["a long answer after a half close, of which a live tap sees no data packets"],
    peers: "Zeek conn_state S2 and S3; DeepFlow \"Half Close\"",
};

pub(super) const FIN_STORM: Explanation = Explanation {
    one_line: "FINs of one flow without end.",
    meaning: "Two stacks or a device answer each other for ever; it costs CPU and bandwidth.",
    rule: "A hundred FINs of one flow, each within a second of the packet before.",
    causes: &["a device that keeps one end's state and not the other's", "a capture that sees a loop"],
    remedy: &["reset the connection on one end"],
    or_else: &["a routing loop near the tap point"],
    peers: "Zeek FIN_storm, from a thousand on",
};

pub(super) const RESET_STORM: Explanation = Explanation {
    one_line: "Resets of one flow without end.",
    meaning: "Two ends or devices answer each other's resets, which no stack should.",
    rule: "A hundred resets of one flow, each within a second of the packet before.",
    causes: &["a device that answers resets", "a flood with one forged tuple"],
    remedy: &["find which MAC sends them"],
    or_else: &["a routing loop near the tap point"],
    peers: "Zeek RST_storm, from a thousand on",
};

pub(super) const ADDRESS_FLAPPING: Explanation = Explanation {
    one_line: "An address had one MAC, then another, then the first again within a minute.",
    meaning: "Two machines claim the address, or a fail-over pair cannot agree: connections break at each change.",
    rule: "The sender binding of ARP packets (requests count too) for one address changed from A to B and back within 60 s.",
    causes: &["an address configured twice", "a fail-over pair with a broken heartbeat", "ARP spoofing"],
    remedy: &["find the ports of both MACs and take one of them off the address"],
    or_else: &["a machine with two ports on one network (arp_filter off)"],
    peers: "arpwatch flip flop; Wireshark \"Duplicate IP address\"",
};

pub(super) const ADDRESS_MOVED: Explanation = Explanation {
    one_line: "An address moved to another MAC once.",
    meaning: "A restart, a fail-over or a new lease.",
    rule: "The sender binding of ARP packets for one address changed, for the first time within 60 s.",
    causes: &["VRRP or keepalived took over", "a container or machine was replaced"],
    remedy: &["nothing, if the time fits what was done"],
    or_else: &["the beginning of an address conflict"],
    peers: "arpwatch changed ethernet address",
};

pub(super) const ARP_SPOOF_SIGN: Explanation = Explanation {
    one_line: "An ARP packet whose Ethernet source is not the sender in its body.",
    meaning: "Proxies and some bridges do that; so does ARP spoofing.",
    rule: "The Ethernet source of an ARP packet differs from its sender hardware address (info). Or: an answer that nobody asked for \
was sent to one machine, whose other ARP packets pass here, and within 60 s packets of a connection came from that MAC and no more \
from the one before (warning). A fail-over announces itself to all machines, not to one.",
    causes: &["a wireless bridge or proxy ARP", "a spoofing tool"],
    remedy: &["see whether the address named is one whose traffic matters"],
    or_else: &["a virtual router (VRRP) whose virtual MAC stands in the body"],
    peers: "Snort 112:2, 112:3 and, against a list of addresses, 112:4; Zeek bad_arp; Wireshark is silent without an earlier ARP",
};

pub(super) const FRAME_LOOP: Explanation = Explanation {
    one_line: "The same frame went out of a port and came back in at once.",
    meaning: "A loop in the layer-2 network: each frame costs its bandwidth again and again.",
    rule: "The same segment (numbers, flags, IP identification, MACs) out of and into one tap point within 1 ms.",
    causes: &["two bridges joined twice without spanning tree", "a VXLAN or veth wired in a circle"],
    remedy: &["look at the bridge's forwarding table while it lasts"],
    or_else: &["a mirror port pointed at the tapped interface"],
    peers: "nobody names it; switches log MAC flapping",
};

pub(super) const SYN_FLOOD: Explanation = Explanation {
    one_line: "SYNs to one responder by the thousand, and hardly any connection.",
    meaning: "The service is attacked or dead. Its size is that of all SYNs, also of those that were not mirrored; memory is \
bounded, and `known_shed` says whether packets of known connections were shed.",
    rule: "A thousand SYNs or more to one address and port in a second of the clock, nine of ten of which lead to no complete \
handshake (to no SYN-ACK, where no handshake is ever seen to complete). Told at its end, and every ten seconds of it.",
    causes: &["a SYN flood with forged sources", "a service that died under load while its clients retry"],
    remedy: &["SYN cookies (net.ipv4.tcp_syncookies) at the responder, filters in front of it"],
    or_else: &["a tap point that does not see the answers", "a capture from which plain ACKs are missing"],
    peers: "Suricata 3whs_syn_flood; Zeek and nDPI count scans instead",
};

pub(super) const RESET_RATE_SHIFT: Explanation = Explanation {
    one_line: "Resets of connections to one responder have become five times as frequent as before.",
    meaning: "Something changed there: a release, a configuration, a device in between.",
    rule: "At least 20 resets among the last 200 connections, and five times the share of all connections before.",
    causes: &["a new release of the server", "a new timeout in a balancer or firewall"],
    remedy: &["compare the time with what was changed"],
    or_else: &["a new client that ends its connections by resets"],
    peers: "nobody measures it per responder",
};

pub(super) const NO_KEEPALIVE: Explanation = Explanation {
    one_line: "Connections to one responder carry one request each and are closed.",
    meaning: "Each request pays for a handshake, and TIME_WAIT entries use up ports: refused reuses are not far.",
    rule: "Of 200 closed connections 95 % or more had one data packet from the originator at most.",
    causes: &[
        "a client library with keep-alive switched off, or a body that is never read to its end",
        "a server that closes after each answer",
    ],
    remedy: &["switch persistent connections on, at both ends"],
    or_else: &["a protocol that is meant to be used that way"],
    peers: "nobody names it; FINs about as frequent as pushes in a flag count are the sign",
};
