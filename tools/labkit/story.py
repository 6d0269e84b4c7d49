"""A client made by hand: it opens a connection, lets the server close, and comes back on the same tuple with numbers of
its choice, to which the server's real kernel answers.

It speaks over AF_PACKET, so that its segments pass no local rule, while an nft rule keeps its own kernel's resets in.
Each cell of the kernel's rule is one connection on a source port of its own; all of them run at once.
"""

import json
import os
import select
import socket
import struct
import sys
import time

from .net import GATEWAY_MAC, SERVER, client_ip, client_mac
from .traffic import CLIENT_CLOSES, CLOSE_FIRST, REPLY

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
WORD = 1 << 32

# name, timestamps (None, or newer/equal/older by this much), ISN minus rcv_nxt, old state, expected answer
CELLS = [
    ("story", None, -76_936_438, "time_wait", "refused"),
    ("isn_is_rcv_nxt", None, 0, "time_wait", "refused"),
    ("isn_next", None, 1, "time_wait", "accepted"),
    ("isn_half_circle", None, 1 << 31, "time_wait", "accepted"),
    ("isn_past_half_circle", None, (1 << 31) + 1, "time_wait", "refused"),
    ("ts_newer_isn_before", 1000, -1000, "time_wait", "accepted"),
    ("ts_equal_isn_after", 0, 1000, "time_wait", "accepted"),
    ("ts_equal_isn_before", 0, -1000, "time_wait", "refused"),
    ("ts_older_isn_after", -1000, 1000, "time_wait", "refused"),
    ("ts_older_isn_before", -1000, -1000, "time_wait", "refused"),
    ("fin_wait2_isn_before", None, -1000, "fin_wait2", "refused"),
    ("half_open_isn_before", None, -1000, "half_open", "refused"),
    ("half_open_isn_after", None, 100_000, "half_open", "refused"),
]


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Conn:
    """One hand-made connection."""

    def __init__(self, wire, cell, sport, dport):
        self.wire, self.sport, self.dport = wire, sport, dport
        self.name, self.ts, self.delta, self.old_state, self.expected = cell
        self.seq = 1_640_887_617 if cell[0] == "story" else int.from_bytes(os.urandom(4), "big")
        self.ack = 0
        self.tsval = 500_000
        self.tsecr = 0
        self.got = []

    def send(self, flags, payload=b"", seq=None, tsval=None, mss=False):
        seq = self.seq if seq is None else seq
        options = b"\x02\x04\x05\xb4" if mss else b""
        if self.ts is not None:
            value = self.tsval if tsval is None else tsval
            options += b"\x01\x01\x08\x0a" + struct.pack("!II", value % WORD, self.tsecr)
        self.wire.send(self, flags, seq % WORD, self.ack if flags & ACK else 0, options, payload)

    def wait(self, want, seconds=2.0):
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

    def talk(self):
        """A generator: yields how long it may sleep, returns what happened."""
        truth = {"cell": self.name, "sport": self.sport, "dport": self.dport, "old_state": self.old_state,
                 "expected": self.expected}
        self.send(SYN, mss=True)
        first = yield from self.wait(lambda s: s["flags"] & SYN and s["flags"] & ACK)
        if not first:
            return {**truth, "outcome": "no_connection"}
        self.seq += 1
        self.ack = (first["seq"] + 1) % WORD
        self.send(ACK)
        self.send(ACK | PSH, b"x" * 320)
        self.seq += 320
        got = 0
        while got < REPLY:
            s = yield from self.wait(lambda s: s["len"] > 0)
            if not s:
                return {**truth, "outcome": "no_answer"}
            got += s["len"]
            self.ack = (s["seq"] + s["len"]) % WORD
            fin = s["flags"] & FIN
        self.send(ACK)
        if self.old_state != "half_open":
            if not fin:
                s = yield from self.wait(lambda s: s["flags"] & FIN)
            self.ack = (self.ack + 1) % WORD
            self.send(ACK)
        if self.old_state == "time_wait":
            self.send(FIN | ACK)
            self.seq += 1
            last = yield from self.wait(lambda s: s["flags"] & ACK and s["ack"] == self.seq % WORD)
            if not last:
                return {**truth, "outcome": "no_last_ack"}
        rcv_nxt = self.seq % WORD
        # The gateway and the server have all the time they need to settle.
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            yield end - time.monotonic()
        self.got.clear()
        isn = (rcv_nxt + self.delta) % WORD
        tsval = None if self.ts is None else self.tsval + self.ts
        stale, answer = [], None
        for _ in range(3):
            self.send(SYN, seq=isn, tsval=tsval, mss=True)
            answer = yield from self.wait(lambda s: True, 1.0)
            if answer is None:
                continue
            if answer["flags"] & (SYN | RST):
                break
            stale.append(answer)
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                yield end - time.monotonic()
        truth |= {"isn": isn, "rcv_nxt": rcv_nxt, "distance": ((self.delta + (1 << 31)) % WORD) - (1 << 31),
                  "tsval": tsval, "stale_acks": len(stale),
                  "stale_ack": stale[0]["ack"] if stale else None, "ts_recent": stale[0]["tsecr"] if stale else None}
        if answer and answer["flags"] & SYN:
            # Accepted: tidy up.
            self.seq, self.ack = isn + 1, (answer["seq"] + 1) % WORD
            self.send(ACK)
            self.send(RST | ACK)
            return {**truth, "outcome": "accepted", "reuse_step": (answer["seq"] - first["seq"]) % WORD}
        if answer and answer["flags"] & RST:
            return {**truth, "outcome": "reset"}
        # As the story's balancer does: a reset of its own attempt, with an acknowledgement out of nowhere.
        self.ack = 2_813_395_595
        self.send(RST | ACK, seq=isn + 1)
        return {**truth, "outcome": "refused" if stale else "unanswered"}


class Wire:
    """The packet socket that all connections of one client share."""

    def __init__(self, client, interface="eth0"):
        self.source, self.mac = client_ip(client), client_mac(client)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self.socket.bind((interface, 0x0800))
        self.socket.setblocking(False)
        self.ident = 100

    def send(self, conn, flags, seq, ack, options, payload):
        source, target = socket.inet_aton(self.source), socket.inet_aton(SERVER)
        offset = (20 + len(options)) // 4
        window = 64240 if flags & SYN else 14600
        tcp = struct.pack("!HHIIBBHHH", conn.sport, conn.dport, seq, ack, offset << 4, flags, window, 0, 0)
        tcp += options
        pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp) + len(payload))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp + payload)) + tcp[18:]
        self.ident += 1
        total = 20 + len(tcp) + len(payload)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, self.ident & 0xFFFF, 0x4000, 64, 6, 0, source, target)
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        mac = lambda m: bytes.fromhex(m.replace(":", ""))
        self.socket.send(mac(GATEWAY_MAC) + mac(self.mac) + b"\x08\x00" + ip + tcp + payload)

    def receive(self, conns):
        """Hands what has come to the connections."""
        while True:
            try:
                frame, address = self.socket.recvfrom(65535)
            except BlockingIOError:
                return
            if address[2] == socket.PACKET_OUTGOING or len(frame) < 54 or frame[23] != 6:
                continue
            ip = frame[14:]
            header = (ip[0] & 15) * 4
            total = struct.unpack("!H", ip[2:4])[0]
            tcp = ip[header:total]
            sport, dport, seq, ack = struct.unpack("!HHII", tcp[:12])
            conn = conns.get((dport, sport))
            if not conn:
                continue
            offset = (tcp[12] >> 4) * 4
            tsval = tsecr = None
            options = tcp[20:offset]
            while options and options[0]:
                if options[0] == 1:
                    options = options[1:]
                    continue
                if options[0] == 8:
                    tsval, tsecr = struct.unpack("!II", options[2:10])
                options = options[options[1]:]
            conn.got.append({"flags": tcp[13], "seq": seq, "ack": ack, "len": len(tcp) - offset,
                             "tsval": tsval, "tsecr": tsecr})


def main(argv):
    """`story CLIENT [CELL,...]`: runs the cells from that client; a line of ground truth for each."""
    client = int(argv[0])
    chosen = [c for c in CELLS if len(argv) < 2 or c[0] in argv[1].split(",")]
    wire = Wire(client)
    talks, conns = {}, {}
    for n, cell in enumerate(chosen):
        port = CLIENT_CLOSES if cell[3] == "half_open" else CLOSE_FIRST
        conn = Conn(wire, cell, 30001 + n, port)
        conns[(conn.sport, port)] = conn
        talks[conn] = conn.talk()
    deadline = time.monotonic() + 30
    while talks and time.monotonic() < deadline:
        wire.receive(conns)
        wait = 1.0
        for conn in list(talks):
            try:
                wait = min(wait, next(talks[conn]))
            except StopIteration as end:
                print(json.dumps(end.value), flush=True)
                del talks[conn]
        if talks:
            select.select([wire.socket], [], [], max(0.0, wait))
    for conn in talks:
        print(json.dumps({"cell": conn.name, "outcome": "not_finished"}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
