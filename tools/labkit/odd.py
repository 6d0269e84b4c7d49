"""What looks odd and harms nobody: every network has it, and no alarm may come of it."""

import json
import os
import select
import socket
import struct
import sys
import time

from .crowd import connect
from .net import GATEWAY_MAC, SERVER, client_ip, client_mac
from .traffic import CLIENT_CLOSES, CLOSE_FIRST, CLOSED, FILTERED, REPLY, read_exactly

LINGER = struct.pack("ii", 1, 0)
SYN, RST, FIN, ACK = 2, 4, 1, 16


def raw_mac(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet_socket(interface="eth0"):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind((interface, 0))
    return s


def segment(client, sport, dport, flags, seq, ack=0):
    source, target = socket.inet_aton(client_ip(client)), socket.inet_aton(SERVER)
    tcp = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 64240, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), seq & 0xFFFF, 0x4000, 64, 6, 0, source, target)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return raw_mac(GATEWAY_MAC) + raw_mac(client_mac(client)) + b"\x08\x00" + ip + tcp


def arp(what, sender_mac, sender_ip, target_mac, target_ip, to="ff:ff:ff:ff:ff:ff"):
    return (raw_mac(to) + raw_mac(sender_mac) + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, what)
            + raw_mac(sender_mac) + socket.inet_aton(sender_ip) + raw_mac(target_mac) + socket.inet_aton(target_ip))


def gratuitous(mac, ip):
    """The address is here now."""
    packet_socket().send(arp(2, mac, ip, "ff:ff:ff:ff:ff:ff", ip))
    print(json.dumps({"gratuitous": 1}), flush=True)


def ask(mac, own_ip, ip, target_mac="00:00:00:00:00:00"):
    """One question from a machine that calls this address its own."""
    packet_socket().send(arp(1, mac, own_ip, target_mac, ip))
    print(json.dumps({"asked": 1}), flush=True)


def lingering(count, first_port):
    """A reset instead of a FIN, after the answer."""
    for n in range(count):
        with connect(CLIENT_CLOSES, first_port + n, 5) as s:
            s.sendall(bytes(320))
            read_exactly(s, REPLY)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    return count


def refused(count, first_port):
    done = 0
    for n in range(count):
        try:
            connect(CLOSED, first_port + n, 5).close()
        except ConnectionRefusedError:
            done += 1
    return done


def half_open(client, count, first_port):
    """Health checks: a SYN without a socket behind it; the kernel resets the answer."""
    s = packet_socket()
    for n in range(count):
        s.send(segment(client, first_port + n, CLIENT_CLOSES, SYN, int.from_bytes(os.urandom(4), "big")))
        time.sleep(0.005)
    return count


def reused(count, port):
    """One port again and again, while the server that closed first is in TIME_WAIT."""
    done = 0
    for _ in range(count):
        s = socket.socket()
        s.settimeout(5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", port))
        s.connect((SERVER, CLOSE_FIRST))
        s.sendall(bytes(320))
        done += len(read_exactly(s, REPLY)) == REPLY
        s.recv(1)
        s.close()
        # The timestamp by which the server judges has to move on.
        time.sleep(0.01)
    return done


def filtered(count, first_port, seconds):
    waiting = []
    for n in range(count):
        s = socket.socket()
        s.setblocking(False)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", first_port + n))
        s.connect_ex((SERVER, FILTERED))
        waiting.append(s)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        select.select([], waiting, [], 0.2)
        time.sleep(0.2)
    return count


def keepalives(own_port):
    """An idle connection with a keep-alive each second."""
    s = connect(CLIENT_CLOSES, own_port, 5)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    return s


def strays(client, first_port):
    """Ends of connections that nobody remembers: conntrack calls them INVALID and lets them out as they are."""
    s = packet_socket()
    for n, flags in enumerate((RST, RST | ACK, FIN | ACK)):
        s.send(segment(client, first_port + n, CLOSE_FIRST, flags, 1_000_000 + n, 2_000_000))
    return 3


def everything(client, times, seconds):
    """All of it; what was done."""
    idle = keepalives(50_000)
    done = {"linger_resets": lingering(times, 51_000), "refusals": refused(times, 52_000),
            "half_open_checks": half_open(client, times // 2, 53_000), "reuses": reused(times // 2, 54_000),
            "strays": strays(client, 55_000), "filtered": filtered(3, 56_000, seconds)}
    idle.sendall(bytes(320))
    done["keepalive_connection"] = len(read_exactly(idle, REPLY)) == REPLY
    idle.close()
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    what, args = sys.argv[1], [int(a) if a.isdigit() else a for a in sys.argv[2:]]
    {"everything": everything, "gratuitous": gratuitous, "ask": ask}[what](*args)
