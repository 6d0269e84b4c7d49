"""A witness at one interface: every attempt to open a connection to the server, and what was said to it, read from a packet
socket with no help from the program under test."""

import json
import select
import socket
import struct
import sys
import time

from .net import SERVER
from .segment import ACK, FIN, RST, SYN, WORD, parse

SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33


class Witness:
    def __init__(self, interface="eth0"):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.bind((interface, 3))
        self.attempts = []
        self.newest = {}  # by tuple

    def segment(self, s, now):
        if s["dst"] == SERVER:
            self.sent(s, (s["src"], s["sport"], s["dport"]), now)
        elif s["src"] == SERVER:
            self.answered(s, (s["dst"], s["dport"], s["sport"]))

    def sent(self, s, tuple_, now):
        a = self.newest.get(tuple_)
        if s["flags"] & SYN:
            if not a or a["isn"] != s["seq"]:
                a = {"src": tuple_[0], "sport": tuple_[1], "dport": tuple_[2], "isn": s["seq"], "tsval": s["tsval"],
                     "syns": 0, "stale": [], "resets": [], "again_ms": [], "accepted": False}
                self.attempts.append(a)
                self.newest[tuple_] = a
            if a["resets"] and len(a["again_ms"]) < len(a["resets"]):
                a["again_ms"].append((now - a["reset_at"]) * 1e3)
            a["syns"] += 1
        elif s["flags"] & RST and a and not a["accepted"]:
            a["resets"].append(s["seq"])
            a["reset_at"] = now

    def answered(self, s, tuple_):
        a = self.newest.get(tuple_)
        if not a or a["accepted"]:
            return
        own = s["ack"] == (a["isn"] + 1) % WORD
        if s["flags"] & SYN:
            a["accepted"] = own
        elif not s["flags"] & (RST | FIN) and s["flags"] & ACK and s["len"] == 0 and not own:
            a["stale"].append({"ack": s["ack"], "seq": s["seq"], "ts_recent": s["tsecr"]})

    def run(self):
        """Until its standard input ends; each line of it asks how many stale ACKs there were so far."""
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([self.socket, sys.stdin], [], [])
            if self.socket in readable:
                data = self.socket.recv(256)
                s = parse(data)
                if s:
                    self.segment(s, time.monotonic())
            elif sys.stdin.readline():
                print(sum(len(a["stale"]) for a in self.attempts), flush=True)
            else:
                break
        _, dropped = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        for a in self.attempts:
            a.pop("reset_at", None)
        print(json.dumps({"dropped": dropped, "attempts": self.attempts}), flush=True)


if __name__ == "__main__":
    Witness().run()
