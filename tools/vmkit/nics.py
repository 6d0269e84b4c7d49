"""Taps on emulated NICs: in the guest, one port of each pair is tapped and the other one, in a namespace, speaks to it."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from labkit.net import sh, within

from . import xsk

PEER, NEAR_IP, PEER_IP = "peer", "10.9.0.1", "10.9.0.2"
PORT, CONNECTIONS = 8080, 60
# Of frames sent to a span: SYNs, each of a tuple of its own, which are mirrored, and others, which are not.
SYNS, OTHERS, BURST = 1500, 1500, 50


def pairs():
    """Driver to its two ports, in the order of their slots."""
    found = {}
    for net in Path("/sys/class/net").iterdir():
        device = net / "device"
        if not device.exists():
            continue
        driver = os.path.basename(os.path.realpath(device / "driver"))
        found.setdefault(driver, []).append((os.path.realpath(device), net.name))
    return {driver: [name for _, name in sorted(ports)] for driver, ports in found.items()}


class Tap:
    """`syntap run` on one port, until `end`."""

    def __init__(self, syntap, interface, *more):
        self.records = Path(f"/tmp/records-{interface}-{time.monotonic_ns()}")
        self.records.mkdir()
        command = [syntap, "run", "--user", "root", "-i", interface, "-w", str(self.records), "--status", "0", *more]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if not self.ready.wait(60) or self.process.poll() is not None:
            raise RuntimeError("; ".join(self.lines) or "syntap did not start")

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if "records go to" in line:
                self.ready.set()
        self.ready.set()

    def end(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        self.reader.join(5)
        return code

    def line(self, word):
        """The first line of the summary that begins with a word."""
        return next((line for line in self.lines if line.split(None, 1)[:1] == [word]), "")

    def told(self, interface):
        """How it says that it taps."""
        line = next((x for x in self.lines if f"tapping {interface}" in x), "")
        return line.split(f"tapping {interface} ", 1)[-1]


def set_up(tapped, peer, queues):
    sh("ip", "netns", "add", PEER)
    sh("ip", "link", "set", peer, "netns", PEER)
    for ns, name in (([], tapped), (["-n", PEER], peer)):
        sh("ip", *ns, "link", "set", name, "addrgenmode", "none", "up")
    if queues > 1:
        sh("ethtool", "-L", tapped, "combined", str(queues))
    # A link may take its time.
    for _ in range(100):
        if Path(f"/sys/class/net/{tapped}/operstate").read_text().strip() == "up":
            break
        time.sleep(0.1)


def take_down(tapped, peer):
    sh("ip", "-n", PEER, "link", "set", peer, "netns", "1", check=False)
    sh("ip", "netns", "del", PEER, check=False)
    sh("ip", "addr", "flush", "dev", tapped, check=False)
    for _ in range(50):
        if Path(f"/sys/class/net/{peer}").exists():
            break
        time.sleep(0.1)


def received(name):
    return int(Path(f"/sys/class/net/{name}/statistics/rx_packets").read_text())


def queues_used(name):
    """Receive queues that have counted a packet, by the driver's own statistics; None where it has none."""
    counted = re.findall(r"rx_?(?:queue_)?(\d+)_packets: (\d+)", sh("ethtool", "-S", name, check=False))
    return sum(int(n) > 0 for _, n in counted) if counted else None


def frame(src, dst, sport, proto, flags=2):
    head = dst + src + b"\x08\x00"
    body = struct.pack("!HHIIBBHHH", sport, PORT, sport * 7919, 0, 0x50, flags, 1024, 0, 0) if proto == 6 else \
        struct.pack("!HHHH", sport, PORT, 20, 0) + bytes(12)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0x4000, 64, proto, 0,
                     socket.inet_aton("10.77.0.5"), socket.inet_aton("10.77.0.6"))
    s = sum(struct.unpack("!10H", ip))
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    return head + ip[:10] + struct.pack("!H", 0xFFFF ^ s) + ip[12:] + body


def span(syntap, driver, tapped, peer, *more):
    """A span takes copies: frames made by hand, each counted where it arrives."""
    mac = lambda path: bytes.fromhex(Path(path).read_text().strip().replace(":", ""))
    dst = mac(f"/sys/class/net/{tapped}/address")
    with within(PEER):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        s.bind((peer, 0))
    src = s.getsockname()[4]
    tap = Tap(syntap, f"{tapped}=span", *more)
    try:
        rings = xsk.sockets(tap.process.pid)
        before = received(tapped)
        frames = [frame(src, dst, 1024 + n, 6) for n in range(SYNS)] + [frame(src, dst, 1024 + n, 17) for n in range(OTHERS)]
        for n in range(0, len(frames), BURST):
            for f in frames[n:n + BURST]:
                s.send(f)
            time.sleep(0.02)
        time.sleep(1.5)
        came = received(tapped) - before
        after = xsk.sockets(tap.process.pid)
        used = queues_used(tapped)
    finally:
        s.close()
        code = tap.end()
    counted = re.search(r"in  (\d+) packets, (\d+) mirrored", tap.line(tapped))
    seen, mirrored = (int(n) for n in counted.groups()) if counted else (0, 0)
    lost = tap.line("lost").removeprefix("lost").strip()
    # The kernel may look for its neighbours meanwhile.
    decoded = re.search(r"(\d+) TCP, (\d+) ARP or neighbour", tap.line("packets"))
    syns, neighbours = (int(n) for n in decoded.groups()) if decoded else (0, 0)
    zero_copy = sum(r["zero_copy"] for r in after)
    statistics = {k: sum(r[k] for r in after) for k in xsk.STATISTICS if k.startswith("rx")}
    left = json.loads(sh("ip", "-j", "link", "show", tapped))[0].get("xdp")
    words = [
        tap.told(tapped),
        f"{syns} of {SYNS} SYNs mirrored, {seen} of {SYNS + OTHERS} frames at the hook",
        f"queues that received: {used}" if used is not None else "",
        f"XDP_OPTIONS: zero-copy on {zero_copy} of {len(after)} rings",
        "XDP_STATISTICS: " + ", ".join(f"{k} {v}" for k, v in statistics.items() if v) if any(
            v for k, v in statistics.items() if k != "rx_fill_ring_empty_descs") else "XDP_STATISTICS: nothing lost",
    ]
    ok = (code == 0 and syns == SYNS and mirrored == SYNS + neighbours and seen >= SYNS + OTHERS and lost.startswith("0 dropped, 0 missed") and not left
          and len(after) == len(rings) > 0)
    facts = {"zero_copy": zero_copy, "rings": len(after), "queues_used": used, "came": came, "lost": lost, "exit": code}
    return ok, "; ".join(w for w in words if w), facts, tap.lines


SERVER = """
import socket, threading
s = socket.create_server(("%s", %d), backlog=64)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    data = b""
    while len(data) < 1000:
        part = c.recv(1000)
        if not part:
            break
        data += part
    c.sendall(data[::-1])
    c.close()
""" % (NEAR_IP, PORT)

CLIENT = """
import hashlib, socket
ok = 0
for n in range(%d):
    data = hashlib.sha512(str(n).encode()).digest() * 16
    data = data[:1000]
    with socket.create_connection(("%s", %d), 20) as c:
        c.sendall(data)
        got = b""
        while part := c.recv(2000):
            got += part
    ok += got == data[::-1]
print(ok)
""" % (CONNECTIONS, NEAR_IP, PORT)


def inline(syntap, driver, tapped, peer, *more):
    """An inline tap changes nothing: whole connections, each byte compared, and all of them told."""
    sh("ip", "addr", "add", f"{NEAR_IP}/24", "dev", tapped)
    sh("ip", "-n", PEER, "addr", "add", f"{PEER_IP}/24", "dev", peer)
    tap = Tap(syntap, tapped, *more)
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        server.stdout.readline()
        whole = int(sh("ip", "netns", "exec", PEER, sys.executable, "-c", CLIENT, timeout=300))
        time.sleep(1)
    finally:
        server.kill()
        code = tap.end()
    lost = tap.line("lost").removeprefix("lost").strip()
    handshakes = tap.line("handshakes").removeprefix("handshakes").strip()
    left = sh("tc", "filter", "show", "dev", tapped, "ingress", check=False).strip()
    words = [tap.told(tapped), f"{whole} of {CONNECTIONS} connections whole", handshakes]
    ok = (code == 0 and whole == CONNECTIONS and handshakes.startswith(f"{CONNECTIONS} of {CONNECTIONS} attempts, 0 failed; 0 resets")
          and lost.startswith("0 dropped, 0 missed") and not left)
    return ok, "; ".join(words), {"lost": lost, "exit": code}, tap.lines
