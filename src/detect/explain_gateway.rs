//! Explanations of what only both sides of a gateway, or several ports of a link, show.

use super::explain::Explanation;

pub(super) const SYN_LOST_IN_GATEWAY: Explanation = Explanation {
    one_line: "A SYN came in at the gateway and did not go out.",
    meaning: "The originator waits for its retransmission timer, a second as a rule; if none goes through, the connection fails. The \
network beyond the gateway has no part in it.",
    rule: "A SYN seen inside, and none with its ISN outside within 50 ms; told when the attempt ends. Needs a tap inside and one at \
the outside's egress.",
    causes: &[
        "a rule of the gateway's firewall or policy routing",
        "a full queue or no route on the way out",
        "conntrack refused the entry (`conntrack -S`: insert_failed, drop, early_drop)",
    ],
    remedy: &[
        "insert_failed_delta and drop_delta over 0: conntrack lost it, to within a quarter of a second; both 0: look at the counters of nftables rules",
        "drop_delta over insert_failed_delta: there was no room for another entry; raise net.netfilter.nf_conntrack_max (`dmesg` says \"table full\")",
    ],
    or_else: &["syntap itself lost the SYN outside: `loss` in the record says so"],
    peers: "none: one-sided tools show SYN loss",
};

pub(super) const SNAT_COLLISION: Explanation = Explanation {
    one_line: "Two SYNs were given one port outside at the same moment; the gateway dropped the later one.",
    meaning: "The originator waits a second for its retransmission. With many clients that connect at once to one service this is the \
\"about 1 % of connections stall for a second\".",
    rule: "A SYN that did not cross, and within 100 us another one to the same responder with the same source port that did. The \
entry of the loser fails to be confirmed (__nf_conntrack_confirm(), counted as insert_failed and drop).",
    causes: &["source NAT that keeps the port (the default of MASQUERADE) under simultaneous connects"],
    remedy: &[
        "MASQUERADE or SNAT with --random-fully (nft: `masquerade fully-random`); where tuple_reuse_refused comes as well only with more addresses outside, \
because it makes early reuse worse",
        "more addresses outside; fewer short connections",
    ],
    or_else: &[
        "chance: another loss in the gateway at the same moment from the same port, which was never seen in 114 tries",
    ],
    peers: "none that joins both sides of a gateway",
};

pub(super) const SNAT_PORTS_EXHAUSTED: Explanation = Explanation {
    one_line: "The gateway let no SYN to this responder out: every port it may use towards it is in use.",
    meaning: "New connections to this responder fail until old ones are forgotten, two minutes after their close as a rule.",
    rule: "All SYNs of an attempt (two or more) did not cross, at least 16 ports towards the responder are in use, and no port that was \
free before was given out meanwhile.",
    causes: &[
        "a port range that is too small for the rate of connections",
        "connections that are never closed",
    ],
    remedy: &[
        "a larger range or more addresses for SNAT",
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait lower; persistent connections",
    ],
    or_else: &["a firewall rule that began to drop SYNs to this responder"],
    peers: "none that joins both sides of a gateway",
};

pub(super) const RESET_BY_GATEWAY: Explanation = Explanation {
    one_line: "The gateway itself sent a reset to the responder.",
    meaning: "The responder forgets the connection; the originator learns it at its next packet. Either the responder's packet matched no \
translation, so that the gateway took it for its own and refused it, or a rule of the gateway rejects such packets with a reset. \
nat_mapping_lost says which where it can be told: with connection tracking heard it does not come where the entry was there all the time.",
    rule: "A reset leaves outside, its number is the acknowledgement of a packet that came in at most 10 ms before, and no reset came in \
inside within 50 ms before it.",
    causes: &[
        "the conntrack entry was deleted or timed out while the connection lived",
        "a firewall rule that rejects with a reset (nft: `reject with tcp reset`)",
    ],
    remedy: &[
        "look for a rule on it that rejects with a reset; if nat_mapping_lost is told of the same connection, see that first",
        "compare idle times with net.netfilter.nf_conntrack_tcp_timeout_established",
    ],
    or_else: &["a proxy or a kill of sockets on the gateway in the originator's name"],
    peers: "none that joins both sides of a gateway",
};

pub(super) const NAT_MAPPING_LOST: Explanation = Explanation {
    one_line: "The gateway lost the translation of a connection that still lives.",
    meaning: "Packets leave with addresses from inside, or the gateway resets the responder: the connection hangs, then breaks.",
    rule: "One incident of a translated connection: data or ACKs that leave untranslated, resets of the gateway's own, another tuple \
outside (nat_remapped), until 20 s without another sign. With connection tracking also: its entry is destroyed while it is open, and what \
comes next within 60 s is not the same translation again. Resets of the gateway's own and nothing else are possible only, for a rule that \
rejects looks the same, and no incident at all where connection tracking shows that the entry was there. path: flood (picked up again without translation, as on a bridge's own path), \
flush (deleted; the responder spoke first, or another port followed), uplink (another address followed), timeout, unknown. An entry that \
the next packet brings back as it was is silence.",
    causes: &[
        "a bridge port that lent the bridge its MAC address left, and packets were picked up on the bridge's own path",
        "`conntrack -D` or -F, a restart of the container runtime",
        "a change of the uplink or of its address",
    ],
    remedy: &[
        "give the bridge a MAC address of its own",
        "drop packets in state INVALID on the way out",
        "find what deletes entries: destroyed_by is the netlink port of the program that did, its process id as a rule",
    ],
    or_else: &[
        "asymmetric routing that shows only one direction here",
        "a firewall rule that rejects with a reset, where the record is only possible",
    ],
    peers: "none that joins both sides of a gateway",
};

pub(super) const UNTRANSLATED_PACKET: Explanation = Explanation {
    one_line: "A packet left outside with an address from inside.",
    meaning: "Nobody outside can answer it. A lone RST or FIN of a connection that is over is harmless and ordinary (info); data of an \
open one means that its translation is lost (error).",
    rule: "A packet at the outside's egress whose tuple is that of a connection inside which is known outside under another one (rule 3).",
    causes: &[
        "an entry that is gone while the connection lives",
        "a late RST or FIN, which conntrack calls INVALID and does not translate",
    ],
    remedy: &[
        "a rule that drops packets in state INVALID on the way out, so that none leaves untranslated",
        "see nat_mapping_lost",
    ],
    or_else: &["routing without translation for some destinations"],
    peers: "none that joins both sides of a gateway",
};

pub(super) const NAT_REMAPPED: Explanation = Explanation {
    one_line: "A connection's tuple outside changed while it lived.",
    meaning: "The responder knows no such connection and resets it.",
    rule: "The responder's reset comes to a tuple outside that was never opened there, and reaches a connection inside that was opened \
under another one (rule 5); or connection tracking's entry of an open connection is followed by one with another translation.",
    causes: &[
        "the entry was deleted and a new one got another port (--random-fully) or another address (uplink change)",
    ],
    remedy: &["see nat_mapping_lost"],
    or_else: &["a capture that begins in the middle"],
    peers: "none that joins both sides of a gateway",
};

pub(super) const NAT_PORT_PRESSURE: Explanation = Explanation {
    one_line: "The gateway hands tuples on to others within a minute of their close.",
    meaning: "The responder may still hold them in TIME_WAIT and refuse the new owner's SYN: see tuple_reuse_refused.",
    rule: "Tuples outside that another connection inside had before and closed less than 60 s ago, counted for each responder and minute; \
warning if any was refused. Linux evicts a TIME_WAIT entry when its port search fails and looks at sequence numbers only \
(nf_nat_used_tuple_harder()); the server judges by timestamps, whose offsets differ from client to client.",
    causes: &[
        "more new connections to one responder than ports: pressure begins near 540 a second for one outside address",
    ],
    remedy: &["more outside addresses", "persistent connections", "not --random-fully, which makes it worse"],
    or_else: &["one client that reuses its own ports"],
    peers: "none that joins both sides of a gateway",
};

pub(super) const NAT_NOT_STITCHABLE: Explanation = Explanation {
    one_line: "Inside and outside cannot be joined here.",
    meaning: "Records of the two sides stand beside each other, without `nat`, and nothing is concluded from what did not cross.",
    rule: "Connections to at least 8 addresses opened inside although none of their SYNs left.",
    causes: &[
        "a proxy on the gateway",
        "SYNPROXY in front of a service",
        "a device that rewrites initial sequence numbers",
    ],
    remedy: &["tap in front of and behind the device that does it"],
    or_else: &["SYNs that leave by an interface that is not tapped: tap all uplinks"],
    peers: "none that joins both sides of a gateway",
};

pub(super) const MAC_MOVED: Explanation = Explanation {
    one_line: "Frames with one source MAC come in at two ports of a link in turn.",
    meaning: "The bridge sends answers to whichever port it heard last: half of them go astray, and now and then all of them.",
    rule: "A source MAC that came in at one tapped port, at another, and at the first again within 60 s; told once a minute. Frames that \
the bridge itself sends out do not count. In a live run the bridge's own forwarding table tells, too.",
    causes: &[
        "a proxy that answers ARP with the owner's MAC (an overlay's tunnel port)",
        "a loop of the link",
        "two machines with one MAC (cloned)",
    ],
    remedy: &[
        "see arp_two_answers",
        "switch the proxy off where it stands (`bridge link set dev PORT neigh_suppress off`), or delete its entry for the machine",
    ],
    or_else: &["a machine that is moved back and forth by hand", "link aggregation without a bond"],
    peers: "switches log it as MAC flapping; `bridge monitor fdb` shows it",
};

pub(super) const NEXT_HOP_CHANGED: Explanation = Explanation {
    one_line: "The MAC address of a next hop changed while connections use it.",
    meaning: "Who has not learned the new one sends into nothing until its ARP entry is renewed: ten seconds and more.",
    rule: "An address was announced with another MAC than before, and SYNs went to the old one within the last ten minutes. Or, \
in a live run, the kernel says that a tapped interface, or the bridge over it, has another MAC: told once in 60 s for both, with the port that left or \
joined the bridge within the second before.",
    causes: &[
        "a bridge whose MAC came from a port that left or joined",
        "a failover (VRRP, keepalived)",
        "an address taken over",
    ],
    remedy: &[
        "give the bridge a MAC address of its own (`ip link set BRIDGE address ...`)",
        "let the new owner send gratuitous ARP",
    ],
    or_else: &["a spoofed announcement: see arp_spoof_sign"],
    peers: "arpwatch \"changed ethernet address\"",
};

pub(super) const CONNTRACK_EVENT_LOSS: Explanation = Explanation {
    one_line: "The kernel lost events of connection tracking before syntap could read them.",
    meaning: "A translation that was lost in this time may go unseen, or be told by its packets alone. Nothing happened to the traffic.",
    rule: "The netlink socket said ENOBUFS; `count` is the kernel's own number. The table is then listed, at most every 5 s, and what \
changed meanwhile is told by that.",
    causes: &[
        "a flush of a large table, or connections that begin and end in a burst",
        "no CPU left for the thread that reads",
    ],
    remedy: &["a larger `--conntrack-buffer`", "fewer processes on the gateway's CPUs"],
    or_else: &["a program that was stopped and continued"],
    peers: "conntrackd counts the same as \"netlink events lost\"",
};
