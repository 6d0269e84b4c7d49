"""What the gateway's own kernel says of itself: conntrack's counters, entries and events, nftables counters, the forwarding
table of a bridge. This is where ground truth comes from; none of it is syntap's.
"""

import json
import os
import socket
import struct
import threading

from .net import sh, within

# <linux/netfilter/nfnetlink.h>, nfnetlink_conntrack.h
NETLINK_NETFILTER = 12
SUBSYS_CTNETLINK = 1
CT_NEW, CT_GET, CT_DELETE = 0, 1, 2
REQUEST, ACK, DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED = 0x8000
TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO = 1, 2, 3, 4
GROUPS = {"new": 1, "update": 2, "destroy": 3}
STATES = ["NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"]


def conntrack_stats(ns):
    """/proc/net/stat/nf_conntrack of a namespace, all CPUs together."""
    with within(ns), open("/proc/thread-self/net/stat/nf_conntrack") as f:
        names, *rows = [line.split() for line in f]
    # `entries` is the same in each row, and the others are counted by CPU.
    return {name: sum(int(row[n], 16) for row in rows) for n, name in enumerate(names) if name != "entries"}


def moved(before, after, *names):
    return {n: after[n] - before[n] for n in names or after}


def nft_counters(ns):
    """Packets by the names of the counters."""
    listed = json.loads(sh("ip", "netns", "exec", ns, "nft", "-j", "list", "counters"))["nftables"]
    return {c["counter"]["name"]: c["counter"]["packets"] for c in listed if "counter" in c}


def attribute(kind, value):
    raw = struct.pack("=HH", 4 + len(value), kind) + value
    return raw + b"\0" * (-len(raw) % 4)


def attributes(raw):
    found = {}
    while len(raw) >= 4:
        size, kind = struct.unpack_from("=HH", raw)
        if size < 4:
            break
        found[kind & 0x3FFF] = raw[4:size]
        raw = raw[(size + 3) & ~3:]
    return found


def tuple_attribute(kind, src, sport, dst, dport):
    ip = attribute(1, socket.inet_aton(src)) + attribute(2, socket.inet_aton(dst))
    proto = attribute(1, b"\x06") + attribute(2, struct.pack("!H", sport)) + attribute(3, struct.pack("!H", dport))
    return attribute(kind | NESTED, attribute(1 | NESTED, ip) + attribute(2 | NESTED, proto))


def read_tuple(raw):
    parts = attributes(raw)
    ip, proto = attributes(parts[1]), attributes(parts[2])
    if proto.get(1) != b"\x06" or 1 not in ip:
        return None
    port = lambda n: struct.unpack("!H", proto[n])[0]
    return [socket.inet_ntoa(ip[1]), port(2), socket.inet_ntoa(ip[2]), port(3)]


def netlink(ns, groups=()):
    with within(ns):
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    s.bind((0, 0))
    for g in groups:
        s.setsockopt(270, 1, g)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
    return s


def message(kind, flags, body=b""):
    payload = struct.pack("=BBH", socket.AF_INET, 0, 0) + body
    return struct.pack("=IHHII", 16 + len(payload), SUBSYS_CTNETLINK << 8 | kind, flags, 1, 0) + payload


def messages(raw):
    while len(raw) >= 16:
        size, kind, flags = struct.unpack_from("=IHH", raw)
        yield kind, flags, raw[16:size]
        raw = raw[(size + 3) & ~3:]


def entry(body):
    """A TCP entry in words, or None."""
    parts = attributes(body[4:])
    orig = TUPLE_ORIG in parts and read_tuple(parts[TUPLE_ORIG])
    if not orig:
        return None
    reply = read_tuple(parts[TUPLE_REPLY])
    state = attributes(attributes(parts.get(PROTOINFO, b"")).get(1, b"")).get(1)
    status = struct.unpack("!I", parts.get(STATUS, b"\0\0\0\0"))[0]
    # Where replies go to is what the originator is outside.
    return {"orig": orig, "outside": reply[2:], "state": STATES[state[0]] if state else None,
            "replied": bool(status & 2), "assured": bool(status & 4)}


def conntrack_list(ns):
    with netlink(ns) as s:
        s.settimeout(5)
        s.send(message(CT_GET, REQUEST | DUMP))
        found = []
        while True:
            for kind, _, body in messages(s.recv(1 << 20)):
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return found
                if e := entry(body):
                    found.append(e)


def conntrack_delete(ns, src, sport, dst, dport):
    """`conntrack -D` for one tuple; true if there was such an entry."""
    with netlink(ns) as s:
        s.settimeout(5)
        s.send(message(CT_DELETE, REQUEST | ACK, tuple_attribute(TUPLE_ORIG, src, sport, dst, dport)))
        for kind, _, body in messages(s.recv(65536)):
            if kind == NLMSG_ERROR:
                return struct.unpack_from("=i", body)[0] == 0
    return False


class Events:
    """`conntrack -E -p tcp --dport`: what happened to entries of one service."""

    def __init__(self, ns, port):
        self.port, self.seen, self.stopped = port, [], False
        self.socket = netlink(ns, GROUPS.values())
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while True:
            try:
                raw = self.socket.recv(1 << 20)
            except TimeoutError:
                if self.stopped:
                    return
                continue
            except OSError:
                return
            for kind, flags, body in messages(raw):
                e = entry(body)
                if e and e["orig"][3] == self.port or e and e["orig"][1] == self.port:
                    new = kind & 0xFF == CT_NEW
                    what = "NEW" if new and flags & 0x600 else "UPDATE" if new else "DESTROY"
                    self.seen.append({"event": what, **e})

    def end(self):
        self.stopped = True
        self.thread.join(2)
        self.socket.close()
        return self.seen


def bridge_nf(ns):
    """Lets bridged packets pass the IP hooks, as a machine with containers does; false where the kernel cannot."""
    path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if not os.path.exists(path):
        sh("modprobe", "br_netfilter", check=False)
    done = sh("ip", "netns", "exec", ns, "sh", "-c", f"echo 1 > {path} && cat {path}", check=False)
    return done.strip() == "1"


def bridge_port_of(ns, mac):
    """The port behind which a bridge has learned this MAC."""
    for line in sh("ip", "netns", "exec", ns, "bridge", "fdb", "show").splitlines():
        words = line.split()
        if words and words[0] == mac and "master" in words and "permanent" not in words:
            return words[words.index("dev") + 1]
    return None
