"""A client made by hand: it opens a connection, lets the server close, and comes back on the same tuple with numbers of
its choice, to which the server's real kernel answers.

It speaks over AF_PACKET, so that its segments pass no local rule, while an nft rule keeps its own kernel's resets in.
Each cell of the kernel's rule is one connection on a source port of its own; all of them run at once.
"""

import json
import os
import select
import socket
import sys
import time
from typing import NamedTuple, Optional

from .net import GATEWAY_MAC, SERVER, client_ip, client_mac
from .segment import ACK, FIN, PSH, RST, SYN, WORD, frame, parse, timestamps
from .traffic import CLIENT_CLOSES, CLOSE_FIRST, REPLY

# The TSval of everything before the SYN that comes back.
TSVAL = 500_000

# What an accepted SYN adds to the old life's snd_nxt.
REUSE_STEP = 65_537

# How long answers to the last SYN may still come: the first one of all, another one, and one more after that.
FIRST_ANSWER, ANSWER, STRAGGLERS = 5.0, 2.0, 0.4


class Cell(NamedTuple):
    """One connection, and the SYN that comes back on its tuple."""

    name: str
    delta: int  # ISN of the SYN minus rcv_nxt
    expected: str  # refused, accepted, reset; gone: as if there had been no connection before
    state: str = "time_wait"  # what the server is in
    old: bool = False  # the old connection has timestamps
    ts: Optional[int] = None  # the SYN has one: the old one plus this
    at: tuple = (0.5, 1.6, 2.7)  # when it is sent, until it is answered otherwise; seconds after the close


def both(ts):
    """Timestamps on both connections."""
    return {"old": True, "ts": ts}


def rule(cell):
    """Which condition of TIME_WAIT's rule refuses it, as records name it; `None` where another state decides."""
    if cell.state == "half_open":
        return None
    ts = cell.ts if cell.old and cell.ts is not None else 0
    if ts < 0:
        return "timestamp_older"
    return "isn_not_after" if ts == 0 and not 1 <= cell.delta % WORD <= 1 << 31 else None


FIN_WAIT2, HALF_OPEN = {"state": "fin_wait2"}, {"state": "half_open"}

# Some of the rule, enough to look at.
BRIEF = [
    Cell("story", -76_936_438, "refused"),
    Cell("isn_is_rcv_nxt", 0, "refused"),
    Cell("isn_next", 1, "accepted"),
    Cell("isn_half_circle", 1 << 31, "accepted"),
    Cell("isn_past_half_circle", (1 << 31) + 1, "refused"),
    Cell("ts_newer_isn_before", -1000, "accepted", **both(1000)),
    Cell("ts_equal_isn_after", 1000, "accepted", **both(0)),
    Cell("ts_equal_isn_before", -1000, "refused", **both(0)),
    Cell("ts_older_isn_after", 1000, "refused", **both(-1000)),
    Cell("ts_older_isn_before", -1000, "refused", **both(-1000)),
    Cell("fin_wait2_isn_before", -1000, "refused", **FIN_WAIT2),
    Cell("half_open_isn_before", -1000, "refused", **HALF_OPEN),
    Cell("half_open_isn_after", 100_000, "refused", **HALF_OPEN),
]

# The rest of it: every row, and both sides of every edge.
MORE = [
    Cell("ts_one_newer_isn_is_rcv_nxt", 0, "accepted", **both(1)),
    Cell("ts_newest_isn_before", -1, "accepted", **both((1 << 31) - 1)),
    Cell("ts_equal_isn_is_rcv_nxt", 0, "refused", **both(0)),
    Cell("ts_equal_isn_next", 1, "accepted", **both(0)),
    Cell("ts_equal_isn_half_circle", 1 << 31, "accepted", **both(0)),
    Cell("ts_equal_isn_past_half_circle", (1 << 31) + 1, "refused", **both(0)),
    Cell("ts_one_older_isn_next", 1, "refused", **both(-1)),
    Cell("ts_oldest_isn_after", 100_000, "refused", **both(-(1 << 31) + 1)),
    # Timestamps on one connection only: the ISN decides, whatever the one value is.
    *(Cell(f"{name}_isn_{isn}", delta, expected, old=old, ts=ts)
      for name, old, ts in (("syn_alone_has_ts", False, 1000), ("old_alone_has_ts", True, None))
      for isn, delta, expected in (("before", -76_936_438, "refused"), ("is_rcv_nxt", 0, "refused"),
                                   ("next", 1, "accepted"), ("half_circle", 1 << 31, "accepted"),
                                   ("past_half_circle", (1 << 31) + 1, "refused"))),
    # FIN_WAIT2 resets what lies in its window and is not older, and challenges the rest.
    Cell("fin_wait2_isn_is_rcv_nxt", 0, "reset", **FIN_WAIT2),
    Cell("fin_wait2_isn_in_window", 1000, "reset", **FIN_WAIT2),
    Cell("fin_wait2_isn_beyond_window", 1_000_000, "refused", **FIN_WAIT2),
    Cell("fin_wait2_ts_newer_isn_in_window", 1000, "reset", **FIN_WAIT2, **both(1000)),
    Cell("fin_wait2_ts_newer_isn_before", -1000, "refused", **FIN_WAIT2, **both(1000)),
    Cell("fin_wait2_ts_older_isn_in_window", 1000, "refused", **FIN_WAIT2, **both(-1000)),
    # A live connection challenges every SYN.
    Cell("half_open_isn_in_window", 1000, "refused", **HALF_OPEN),
    Cell("half_open_ts_newer_isn_in_window", 1000, "refused", **HALF_OPEN, **both(1000)),
    Cell("half_open_ts_older_isn_before", -1000, "refused", **HALF_OPEN, **both(-1000)),
    # At most one ACK in 500 ms.
    Cell("often", -1000, "refused", at=tuple(0.5 + n / 10 for n in range(30))),
]

# TIME_WAIT lasts 60 s. The kernel's timer may fire late: its wheel has steps of 2.05 s there with HZ=250, of 4.1 s with
# HZ=1000; so what comes at 61 s may still be too early, and what comes at 65 s is not.
LASTING = [
    Cell("at_58_isn_before", -1000, "refused", at=(58.5,)),
    Cell("at_58_isn_after", 1000, "accepted", at=(58.5,)),
    Cell("at_58_ts_newer_isn_before", -1000, "accepted", **both(58_500), at=(58.5,)),
    *(Cell(f"at_{at}_isn_before", -1000, "gone", at=(at,)) for at in (61, 63, 65)),
    Cell("at_65_isn_after", 1000, "gone", at=(65,)),
    # Refused by its ISN, which starts nothing anew: accepted as soon as the 60 s are over.
    Cell("from_57_isn_before", -1000, "gone", at=tuple(range(57, 67))),
    # Refused for its timestamp, which starts TIME_WAIT anew.
    Cell("from_55_ts_older", -1000, "refused", **both(-1000), at=tuple(range(55, 67))),
]

SETS = {"brief": BRIEF, "all": BRIEF + MORE, "lasting": LASTING}

# Outcomes that say nothing about the rule: the machine was too busy to bring the old connection about. Such a cell is
# tried again. One whose SYN came too late ("late") would take another minute, and is left to the caller.
UNMET = ("no_connection", "no_answer", "no_last_ack")
TRIES = 3

# What is to come before the end of TIME_WAIT must come by this time after the close.
BEFORE_THE_END = 59.9


class Conn:
    """One hand-made connection."""

    def __init__(self, wire, cell, sport):
        self.wire, self.cell, self.sport = wire, cell, sport
        self.dport = CLIENT_CLOSES if cell.state == "half_open" else CLOSE_FIRST
        self.seq = 1_640_887_617 if cell.name == "story" else int.from_bytes(os.urandom(4), "big")
        self.ack = 0
        self.peer_next = 0
        self.tsecr = 0
        self.got = []

    def send(self, flags, payload=b"", seq=None, tsval=None, mss=False):
        options = b"\x02\x04\x05\xb4" if mss else b""
        if tsval is not None:
            options += timestamps(tsval, self.tsecr)
        seq = self.seq if seq is None else seq
        self.wire.send(self, flags, seq % WORD, self.ack if flags & ACK else 0, options, payload)

    def say(self, flags, payload=b"", mss=False):
        """A segment of the old connection."""
        self.send(flags, payload, tsval=TSVAL if self.cell.old else None, mss=mss)

    def wait(self, want, seconds=5.0):
        """The next segment for which `want` is true; others are passed over."""
        end = time.monotonic() + seconds
        while True:
            while self.got:
                segment = self.got.pop(0)
                if segment["tsval"] is not None:
                    self.tsecr = segment["tsval"]
                if want(segment):
                    return segment
            left = end - time.monotonic()
            if left <= 0:
                return None
            yield left

    def live(self):
        """The old connection, as far as its state asks; what went wrong, if anything did."""
        self.say(SYN, mss=True)
        first = yield from self.wait(lambda s: s["flags"] & SYN and s["flags"] & ACK)
        if not first:
            return "no_connection"
        self.seq += 1
        self.ack = (first["seq"] + 1) % WORD
        self.say(ACK)
        self.say(ACK | PSH, b"x" * 320)
        self.seq += 320
        got, fin = 0, False
        while got < REPLY or self.cell.state != "half_open" and not fin:
            s = yield from self.wait(lambda s: s["seq"] == self.ack and (s["len"] > 0 or s["flags"] & FIN))
            if not s:
                return "no_answer"
            got += s["len"]
            fin = bool(s["flags"] & FIN)
            self.ack = (s["seq"] + s["len"] + fin) % WORD
        self.say(ACK)
        self.close_from = time.monotonic()
        if self.cell.state == "time_wait":
            self.say(FIN | ACK)
            self.seq += 1
            last = yield from self.wait(lambda s: s["flags"] & ACK and s["ack"] == self.seq % WORD)
            if not last:
                return "no_last_ack"
        self.close_until = time.monotonic()
        self.peer_next = self.ack
        return None

    def come_back(self):
        """The SYNs, and all that is answered."""
        cell = self.cell
        rcv_nxt = self.seq % WORD
        isn = (rcv_nxt + cell.delta) % WORD
        tsval = None if cell.ts is None else (TSVAL + cell.ts) % WORD
        stale, answer, sent = [], None, []
        planned = heard = None
        for n, at in enumerate(cell.at):
            # Never closer together than planned, so that one that is late makes its successors late.
            due = self.close_until + at
            if sent:
                due = max(due, sent[-1] + 0.8 * (at - planned))
            while (left := due - time.monotonic()) > 0:
                yield left
            if not sent:
                self.got.clear()
            planned = at
            sent.append(time.monotonic())
            self.send(SYN, seq=isn, tsval=tsval, mss=True)
            # Whatever has come is handed over before anything is concluded from the time.
            yield 0.0
            final = n + 1 == len(cell.at)
            if final:
                until = sent[-1] + (ANSWER if stale else FIRST_ANSWER)
            else:
                until = sent[-1] + 0.8 * (cell.at[n + 1] - at)
            while (left := until - time.monotonic()) > 0:
                answer = yield from self.wait(lambda s: True, left)
                heard = heard or time.monotonic()
                if answer is None or answer["flags"] & (SYN | RST):
                    break
                stale.append(answer)
                until = min(until, time.monotonic() + STRAGGLERS) if final else until
            if answer and answer["flags"] & (SYN | RST):
                break
        heard = heard or time.monotonic()
        truth = {
            "isn": isn, "rcv_nxt": rcv_nxt, "distance": ((cell.delta + (1 << 31)) % WORD) - (1 << 31), "tsval": tsval,
            "syns": len(sent), "stale_acks": len(stale), "stale_ack": stale[0]["ack"] if stale else None,
            "stale_seq_fits": all(s["seq"] == self.peer_next for s in stale),
            "ts_recent": stale[0]["tsecr"] if stale else None,
            # The close and the first SYN at the tap lie between these.
            "since_close_ms": [(sent[0] - self.close_until) * 1e3, (heard - self.close_from) * 1e3],
            "syns_for_s": sent[-1] - sent[0], "last_syn_s": sent[-1] - self.close_until,
        }
        if cell.at[0] < BEFORE_THE_END < heard - self.close_from:
            return {**truth, "outcome": "late"}
        if answer and answer["flags"] & SYN:
            # Accepted: tidy up.
            step = (answer["seq"] - self.peer_next) % WORD
            self.seq, self.ack = isn + 1, (answer["seq"] + 1) % WORD
            self.send(ACK, tsval=tsval)
            self.send(RST | ACK, tsval=tsval)
            return {**truth, "outcome": "accepted", "from_time_wait": step == REUSE_STEP, "then": "recovered"}
        if answer and answer["flags"] & RST:
            return {**truth, "outcome": "reset", "then": "rst"}
        # As the story's balancer does: a reset of its own attempt, with an acknowledgement out of nowhere.
        self.ack = 2_813_395_595
        self.send(RST | ACK, seq=isn + 1)
        return {**truth, "outcome": "refused" if stale else "unanswered", "then": "gave_up"}

    def talk(self):
        """A generator: yields how long it may sleep, returns what happened."""
        truth = {"cell": self.cell.name, "sport": self.sport, "dport": self.dport, "old_state": self.cell.state,
                 "expected": self.cell.expected, "rule": rule(self.cell)}
        unmet = yield from self.live()
        if unmet:
            return {**truth, "outcome": unmet}
        return truth | (yield from self.come_back())


class Wire:
    """The packet socket that all connections of one client share."""

    def __init__(self, client, interface="eth0"):
        self.source, self.mac = client_ip(client), client_mac(client)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self.socket.bind((interface, 0x0800))
        self.socket.setblocking(False)
        self.ident = 100

    def send(self, conn, flags, seq, ack, options, payload):
        self.ident += 1
        self.socket.send(frame((self.mac, GATEWAY_MAC), (self.source, SERVER), (conn.sport, conn.dport), flags, seq, ack,
                               options, payload, self.ident))

    def receive(self, conns):
        """Hands what has come to the connections."""
        while True:
            try:
                data, address = self.socket.recvfrom(65535)
            except BlockingIOError:
                return
            if address[2] == socket.PACKET_OUTGOING:
                continue
            segment = parse(data)
            conn = segment and conns.get((segment["dport"], segment["sport"]))
            if conn:
                conn.got.append(segment)


def main(argv):
    """`story CLIENT brief|all|lasting [CELL,...]`: runs the cells from that client; a line of ground truth for each."""
    client = int(argv[0])
    chosen = [c for c in SETS[argv[1]] if len(argv) < 3 or c.name in argv[2].split(",")]
    wire = Wire(client)
    talks, conns, tries = {}, {}, {}

    def begin(cell):
        tries[cell.name] = tries.get(cell.name, 0) + 1
        # A try has a port of its own.
        conn = Conn(wire, cell, 30001 + chosen.index(cell) + 300 * (tries[cell.name] - 1))
        conns[(conn.sport, conn.dport)] = conn
        talks[conn] = conn.talk()

    for cell in chosen:
        begin(cell)
    deadline = time.monotonic() + 60 + max(c.at[-1] for c in chosen)
    while talks and time.monotonic() < deadline:
        wire.receive(conns)
        wait = 1.0
        for conn in list(talks):
            try:
                wait = min(wait, next(talks[conn]))
            except StopIteration as end:
                del talks[conn]
                if end.value["outcome"] in UNMET and tries[conn.cell.name] < TRIES:
                    print(f"lab: {conn.cell.name}: {end.value['outcome']}, once more", file=sys.stderr, flush=True)
                    begin(conn.cell)
                    wait = 0.0
                else:
                    print(json.dumps(end.value | {"tries": tries[conn.cell.name]}), flush=True)
        if talks:
            select.select([wire.socket], [], [], max(0.0, wait))
    for conn in talks:
        print(json.dumps({"cell": conn.cell.name, "sport": conn.sport, "expected": conn.cell.expected,
                          "outcome": "not_finished"}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
