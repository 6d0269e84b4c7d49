"""A packet socket on one interface: what really passed there, as JSON lines, told when standard input ends.

Each TCP packet is a list: nanoseconds, "in" or "out", source, its port, destination, its port, flags, sequence number,
acknowledgement, payload length, TTL, source MAC; each ARP packet: nanoseconds, direction, "request" or "reply", sender's
address and MAC, target's address, source MAC. The last line has what the socket itself dropped.
"""

import json
import socket
import struct
import sys
import threading

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SO_TIMESTAMPNS, SO_RCVBUFFORCE, PACKET_STATISTICS = 35, 33, 6
FLAGS = "FSRPA"
MOST = 200_000


def mac(raw):
    return raw.hex(":")


def tcp(frame):
    ip = frame[14:]
    header = (ip[0] & 15) * 4
    total = struct.unpack_from("!H", ip, 2)[0]
    sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", ip, header)
    words = "".join(name for n, name in enumerate(FLAGS) if flags >> n & 1)
    return [socket.inet_ntoa(ip[12:16]), sport, socket.inet_ntoa(ip[16:20]), dport, words, seq, ack,
            total - header - (offset >> 4) * 4, ip[8], mac(frame[6:12])]


def arp(frame):
    what = struct.unpack_from("!H", frame, 20)[0]
    return ["request" if what == 1 else "reply", socket.inet_ntoa(frame[28:32]), mac(frame[22:28]),
            socket.inet_ntoa(frame[38:42]), mac(frame[6:12])]


def main(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    s.bind((interface, ETH_P_ALL))
    s.settimeout(0.1)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    print("ready", flush=True)
    raw = []
    while len(raw) < MOST:
        try:
            frame, more, _, address = s.recvmsg(2048, 64)
        except TimeoutError:
            if ended.is_set():
                break
            continue
        at = struct.unpack("=qq", more[0][2]) if more else (0, 0)
        raw.append((at[0] * 10**9 + at[1], address[2] == PACKET_OUTGOING, frame))
    for at, out, frame in sorted(raw, key=lambda r: r[0]):
        words = None
        if frame[12:14] == b"\x08\x00" and frame[23] == 6 and len(frame) >= 54:
            words = tcp(frame)
        elif frame[12:14] == b"\x08\x06" and len(frame) >= 42:
            words = arp(frame)
        if words:
            print(json.dumps([at, "out" if out else "in", *words]))
    _, dropped = struct.unpack("=II", s.getsockopt(263, PACKET_STATISTICS, 8))
    print(json.dumps({"dropped": dropped}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
