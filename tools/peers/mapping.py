"""Which kinds, or which letters of a connection, show what a peer's event says; and why some events show nothing here.

A value is `Shown` (any of its kinds on the tuple, or a connection of it that the predicate accepts) or `Not` (the event
is no control packet's business, with the reason). An event that stands in no table counts as missed. Known
contradictions between a peer and the packets are at the end.
"""


class Shown:
    """Any of these kinds, or a connection for which `connection` is true."""

    def __init__(self, *kinds, connection=None):
        self.kinds, self.connection = set(kinds), connection


class Not:
    """Not comparable, for this reason."""

    def __init__(self, reason):
        self.reason = reason


DATA = Not("it takes data packets")
OTHER = Not("not about TCP")
DECODER = Not("the peer's decoder: IP headers and options before TCP")


# Predicates over a line of `replay --connections`.

def has(*letters):
    """The history has one of these letters."""
    return lambda c: any(letter in c["history"] for letter in letters)


def state(*words):
    return lambda c: c["conn_state"] in words


def unopened(*letters):
    """No SYN of the originator was seen, and one of these letters was."""
    return lambda c: "S" not in c["history"] and has(*letters)(c)


def one_way(c):
    return c["orig_packets"] == 0 or c["resp_packets"] == 0


# Suricata's stream events (`rules/stream-events.rules`). `final_ack_wrong`, `fin_out_of_window` and `tfo_refused` are names of
# kinds that syntap has not got: their events are misses until it has.
SURICATA = {
    # Opening.
    "3whs_syn_resend_diff_seq_on_syn_recv": Shown("isn_changed_while_opening", "syn_on_live_flow", "tuple_reuse_refused"),
    "3whs_syn_flood": Shown("isn_changed_while_opening", "syn_flood"),
    "3whs_syn_toclient_on_syn_recv": Shown("simultaneous_open", "split_handshake"),
    "3whs_synack_flood": Shown("synack_differs", "synack_unacknowledged", "accept_queue_overflow"),
    "3whs_synack_in_wrong_direction": Shown("synack_from_originator"),
    "3whs_synack_toserver_on_syn_recv": Shown("synack_from_originator"),
    "3whs_synack_resend_with_diff_ack": Shown("synack_differs", "synack_wrong_ack"),
    "3whs_synack_resend_with_diff_seq": Shown("synack_differs"),
    "3whs_synack_with_wrong_ack": Shown("synack_wrong_ack"),
    "3whs_synack_tfo_data_ignored": Shown("tfo_refused"),
    # The third packet: acknowledges what the responder has not sent, or comes from outside its window.
    "3whs_right_seq_wrong_ack_evasion": Shown("final_ack_wrong"),
    "3whs_wrong_seq_wrong_ack": Shown("final_ack_wrong"),
    "3whs_ack_in_wrong_dir": Shown("split_handshake", "simultaneous_open"),
    "4whs_synack_with_wrong_ack": Shown("synack_wrong_ack", "split_handshake"),
    "4whs_synack_with_wrong_syn": Shown("synack_wrong_ack", "split_handshake"),
    "4whs_wrong_seq": Shown("split_handshake", "simultaneous_open"),
    "4whs_invalid_ack": Shown("split_handshake", "simultaneous_open"),
    "3whs_ack_data_inject": DATA,
    # The acknowledgement field without its flag. On a SYN and on a FIN; on a RST see the contradictions below.
    "pkt_broken_ack": Shown("options_altered"),
    # An option with a length it cannot have; Suricata calls that a decoder event.
    "tcp.opt_invalid_len": Shown("options_altered"),
    # An open connection.
    "est_syn_resend": Shown("syn_on_live_flow", "tuple_reuse_refused"),
    "est_syn_resend_diff_seq": Shown("syn_on_live_flow", "tuple_reuse_refused"),
    "est_syn_toclient": Shown("syn_on_live_flow", "simultaneous_open"),
    "est_synack_resend": Shown("accept_queue_overflow", "synack_unacknowledged"),
    "est_synack_resend_with_different_ack": Shown("synack_differs", "synack_wrong_ack"),
    "est_synack_resend_with_diff_seq": Shown("synack_differs"),
    "est_synack_toserver": Shown("synack_from_originator"),
    # A segment that is not of this connection: forged, or of another life of the tuple. The timestamp is Suricata's
    # way to see it; what comes of it is syntap's.
    "pkt_invalid_timestamp": Shown("tuple_reuse_refused", "reset_ignored", "reset_out_of_window"),
    # Closing.
    "shutdown_syn_resend": Shown("tuple_reuse_accepted", "tuple_reuse_refused", "syn_unanswered", "syn_refused"),
    "fin_out_of_window": Shown("fin_out_of_window"),
    "fin1_fin_wrong_seq": Shown("fin_out_of_window"),
    "fin2_fin_wrong_seq": Shown("fin_out_of_window"),
    "fin_invalid_ack": Shown("fin_out_of_window"),
    "fin_syn": Shown("invalid_flags"),
    # Suricata, without mid-stream pickup, knows no connection whose SYN it did not see.
    "fin_but_no_session": Shown(connection=unopened("F", "f")),
    "rst_but_no_session": Shown("reset_without_flow", connection=unopened("R", "r")),
    # Resets.
    "rst_invalid_ack": Shown("reset_ignored", "reset_out_of_window"),
    "pkt_invalid_ack": Shown("reset_ignored", "reset_out_of_window"),
    "suspected_rst_inject": Shown("reset_ignored"),
    "rst_with_data": Shown("reset_with_text"),
    # Data.
    "pkt_retransmission": DATA,
    "pkt_spurious_retransmission": DATA,
    "pkt_bad_window_update": DATA,
    "est_packet_out_of_window": DATA,
    "est_invalid_ack": DATA,
    "fin1_invalid_ack": DATA,
    "fin2_invalid_ack": DATA,
    "reassembly_seq_gap": DATA,
}

# DeepFlow's close types, by their number's name.
DEEPFLOW = {
    "ClientSynRepeat": Shown("syn_unanswered", connection=state("S0")),
    "ServerSynAckRepeat": Shown("synack_unacknowledged", "synack_differs"),
    "ServerQueueLack": Shown("accept_queue_overflow"),
    "ServerReset": Shown("syn_refused", connection=state("REJ")),
    # A reset by the originator before it used the connection; without anything else DeepFlow takes it for a health check.
    "ClientEstablishReset": Shown("probe_reset", connection=state("RSTOS0", "RSTO")),
    "TcpFinClientRst": Shown("probe_reset", connection=state("RSTO")),
    "ServerEstablishReset": Shown("reset_mid_flow", connection=state("RSTR", "RSTRH")),
    "ClientSourcePortReuse": Shown("tuple_reuse_refused"),
}

# DeepFlow's counters, as fields of the connections or as kinds that must be there when the counter is not zero.
DEEPFLOW_PERF = {
    "perf.syn": "syn",
    "perf.synack": "syn_ack",
    "perf.fin_count": "fin",
    "perf.retrans_syn": Shown("syn_unanswered"),
    "perf.retrans_syn_0": Shown("syn_unanswered"),
    "perf.retrans_synack": Shown("accept_queue_overflow", "synack_unacknowledged"),
    "perf.retrans_syn_1": Shown("accept_queue_overflow", "synack_unacknowledged"),
}

# Rules of Snort's own tests. 1:1 rejects a request: what the wire shows are the resets of that rejection.
SNORT = {"1:1:0": Shown("reset_mid_flow")}

# A tuple used again, as tshark sees it: by a SYN with another ISN, or a SYN-ACK that does not go on from what that end sent
# before. A SYN that opens a life of its own shows as a connection of its own, which `events` counts.
REUSED_SYN = Shown("tuple_reuse_refused", "tuple_reuse_accepted", "syn_on_live_flow", "isn_changed_while_opening",
                   "simultaneous_open", "split_handshake")
REUSED_SYN_ACK = Shown("synack_differs", "synack_from_originator", "synack_wrong_ack", "reset_ignored",
                       "tuple_reuse_accepted")

# nDPI's risks of TCP flows, by its first words.
NDPI = {
    "Unidirectional Traffic, TCP Connection Issues": Shown("reset_without_flow", "syn_refused", "syn_unanswered"),
    "Unidirectional Traffic": Shown("syn_unanswered", connection=one_way),
}

ZEEK_WEIRD = {
    "SYN_seq_jump": Shown("isn_changed_while_opening"),
    "bad_SYN_ack": Shown("synack_wrong_ack"),
    "connection_originator_SYN_ack": Shown("synack_from_originator"),
    "simultaneous_open": Shown("simultaneous_open", "split_handshake"),
    "active_connection_reuse": Shown("syn_on_live_flow", "tuple_reuse_refused"),
    "data_after_reset": Shown("reset_ignored"),
    "bad_TCP_checksum": Not("a tap before the NIC cannot judge checksums"),
    "internally_truncated_header": Not("the capture cut the packet, not the network"),
    "pop3_server_command_unknown": Not("not about TCP"),
}

# Letters that must be in the history once Suricata's session is in a state.
STREAM_STATE = {"syn_sent": "S", "syn_recv": "h", "established": "A"}

_FIELD = "the field means nothing without the flag (RFC 9293 section 3.1), and this stack fills it in its resets"
_LATER = "the timestamps of this end never go back"
_TEREDO = "frames 34 to 36 are a handshake in Teredo, on ports that tshark does not take for it"
_HOLE = "it echoes a timestamp later than the SYN's: packets between are missing"

# Where the packets contradict the peer, or both are right about different things: (start of the capture's name, event,
# frames or None for any) and the reason; docs/differences.md has the frames.
CONTRADICTED = [
    ("ppa2__double-vision", "pkt_broken_ack", {3, 4}, _FIELD),
    ("ppa2__evilprogram", "pkt_broken_ack", {119, 146, 207, 391, 395, 396, 397, 626, 657}, _FIELD),
    ("ppa2__http-client-refuse", "pkt_broken_ack", {28}, _FIELD),
    ("zeek__fin_retransmission", "pkt_broken_ack", {5}, _FIELD),
    ("zeek__rst-inject-rae", "pkt_broken_ack", {9}, _FIELD),
    ("zeek__handshake-reorder", "pkt_invalid_timestamp", {5, 13}, _LATER),
    ("suriv__bug-7657-01", "pkt_invalid_timestamp", {28, 30, 32}, _LATER),
    ("suriv__bug-7657-01", "3whs_synack_with_wrong_ack", {25}, "it acknowledges the SYN of frame 24"),
    ("zeek__payload-syn", "3whs_synack_with_wrong_ack", {2}, "it acknowledges the SYN and its 100 bytes"),
    ("tcpdump__tfo", "tcp.opt_invalid_len", {3, 4, 13}, "a cookie of 6 bytes is a cookie (RFC 7413 section 4.1.1)"),
    ("ppa2__gnutella", "rst_but_no_session", {302}, "it acknowledges the tuple's last SYN, 20.7 s before"),
    ("deepflow__l4-source-port-reuse", "pkt_invalid_timestamp", {2}, _HOLE),
    ("deepflow__l4-source-port-reuse", "ClientSourcePortReuse", None, _HOLE),
    ("zeek__Teredo", "count.syn", None, _TEREDO),
    ("zeek__Teredo", "count.synack", None, _TEREDO),
    ("ndpi__mongodb", "Unidirectional Traffic", None, "the other direction is there, under another VLAN tag"),
]


def contradicted(capture, event, frame):
    for start, what, frames, reason in CONTRADICTED:
        if capture.startswith(start) and what == event and (frames is None or frame in frames):
            return reason
    return None
