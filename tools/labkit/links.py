"""Trouble of the link layer: two that answer for one machine behind one bridge, and two machines with one address."""

import json
import socket
import subprocess
import sys
import time

from .kernel import bridge_port_of
from .net import SERVER, Lab, client_ip, client_mac, sh
from .odd import arp
from .scenarios import PYTHON, TOOLS, Tap, lines, python
from .talk import Talker
from .trouble import Observer, piped, tcp_only
from .verdict import SEVERITIES, Outcome, times

A1, B1 = "10.0.0.2", "10.0.0.3"
A1_MAC, B1_MAC = "02:42:0a:00:00:02", "02:42:0a:00:00:03"
PORT = 8080


class Overlay(Lab):
    """Two containers on the bridge of an overlay network, and a VXLAN device that answers for one of them although it is
    here. Where the kernel has no VXLAN, a second machine that answers with the same MAC."""

    second = "vxlan1"

    def __init__(self):
        super().__init__(clients=0)

    @property
    def overlay(self):
        return self.name("ov")

    def container(self, name):
        return self.name(name)

    def build(self):
        ov = self.overlay
        for ns in (ov, self.container("a1"), self.container("b1")):
            self.namespace(ns)
        sh("ip", "-n", ov, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", ov, "link", "set", "br0", "up")
        for name, ip, mac in (("a1", A1, A1_MAC), ("b1", B1, B1_MAC)):
            ns, port = self.container(name), f"v{name.upper()}"
            self.veth(ns, "eth0", ov, port, mac)
            sh("ip", "-n", ov, "link", "set", port, "master", "br0")
            sh("ip", "-n", ns, "addr", "add", f"{ip}/24", "dev", "eth0")
        made = subprocess.run(["ip", "-n", ov, "link", "add", "vxlan1", "type", "vxlan", "id", "256", "dstport", "4789", "proxy"],
                              capture_output=True)
        if made.returncode == 0:
            sh("ip", "-n", ov, "neigh", "add", B1, "lladdr", B1_MAC, "dev", "vxlan1", "nud", "permanent")
            sh("ip", "-n", ov, "link", "set", "vxlan1", "master", "br0")
            sh("ip", "-n", ov, "link", "set", "vxlan1", "up")
            # What is sent there comes back: the entry says that the machine is on this very host.
            for mac in (A1_MAC, B1_MAC):
                sh("ip", "netns", "exec", ov, "bridge", "fdb", "add", mac, "dev", "vxlan1", "dst", "127.0.0.1", "self", "permanent")
        else:
            self.second = "vP1"
            proxy = self.container("p1")
            self.namespace(proxy)
            self.veth(proxy, "eth0", ov, "vP1", "02:42:0a:00:00:09")
            sh("ip", "-n", ov, "link", "set", "vP1", "master", "br0")
            self.spawn(proxy, PYTHON, "-m", "labkit.links", cwd=TOOLS)
            time.sleep(0.5)


def proxy():
    """Answers each question for B1, with B1's MAC."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    s.bind(("eth0", 0x0806))
    while True:
        frame = s.recv(2048)
        if frame[20:22] == b"\0\1" and socket.inet_ntoa(frame[38:42]) == B1:
            asker = frame[22:28].hex(":")
            s.send(arp(2, B1_MAC, B1, asker, socket.inet_ntoa(frame[28:32]), to=asker))


CONNECT = f"""
import json, socket, sys
done = {{"ok": 0, "failed": 0}}
for _ in range(int(sys.argv[1])):
    try:
        socket.create_connection(("{B1}", {PORT}), float(sys.argv[2])).close()
        done["ok"] += 1
    except OSError:
        done["failed"] += 1
print(json.dumps(done))
"""


def connects(lab, count, timeout):
    return json.loads(sh("ip", "netns", "exec", lab.container("a1"), PYTHON, "-c", CONNECT, str(count), str(timeout)))


def forget(lab):
    """A1 has to ask again."""
    sh("ip", "-n", lab.container("a1"), "neigh", "flush", "dev", "eth0")


def duels(packets):
    """Requests for B1 at the asker's port that got two answers, and those with one."""
    counts = []
    for p in packets:
        if p.get("target") == B1 and p["what"] == "request":
            counts.append(0)
        elif p.get("sender") == B1 and p["what"] == "reply" and p["target"] != B1 and counts:
            counts[-1] += 1
    return sum(n == 2 for n in counts), sum(n == 1 for n in counts)


def arp_duel(syntap, records, rounds=40, outage=5):
    """Both answer for one machine; once the wrong one has the last word, and the machine is out of reach until it speaks."""
    o = Outcome("arp-duel", syntap, records)
    with Overlay() as lab:
        ov, b1 = lab.overlay, lab.container("b1")
        lab.spawn(b1, PYTHON, "-c", f"import socket\ns=socket.create_server(('', {PORT}), backlog=100)\nwhile 1: s.accept()[0].close()")
        time.sleep(0.3)
        ports = ("vA1", "vB1", lab.second)
        tap = Tap(lab, syntap, records, ns=ov, interfaces=",".join(ports))
        observers = {port: Observer(lab, ov, port) for port in ports}
        moves = lab.spawn(ov, "bridge", "monitor", "fdb", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        before = {"ok": 0, "failed": 0}
        for _ in range(rounds):
            forget(lab)
            done = connects(lab, 1, 0.5)
            before = {k: before[k] + done[k] for k in before}
            time.sleep(0.02)
        # B1 misses one question.
        lab.sysctl(b1, "net.ipv4.conf.all.arp_ignore=8")
        begun = time.time_ns()
        forget(lab)
        during = connects(lab, 1, 0.5)
        lab.sysctl(b1, "net.ipv4.conf.all.arp_ignore=0")
        more = connects(lab, outage - 1, 1.2)
        during = {k: during[k] + more[k] for k in during}
        poisoned = bridge_port_of(ov, B1_MAC)
        ended = time.time_ns()
        lines(python(lab, b1, "odd", "gratuitous", B1_MAC, B1), 10)
        after = connects(lab, 3, 0.5)
        # An attempt is over for syntap when no further SYN came in twice the last gap, at least 4 s.
        time.sleep(5)
        code = tap.stop()
        seen = {port: observers[port].end() for port in ports}
        moves.kill()
        moved = [line for line in moves.stdout if line.startswith(B1_MAC)]
    two, one = duels([p for p in seen["vA1"] if "what" in p])
    answers = {port: sum(p.get("what") == "reply" and p["sender"] == B1 and p["target"] == A1 and p["way"] == "in"
                         for p in seen[port]) for port in ports}
    answered = {p["dport"] for p in tcp_only(seen["vA1"]) if p["flags"] == "SA"}
    silent = {p["sport"] for p in tcp_only(seen["vA1"]) if p["flags"] == "S" and begun < p["at"] < ended} - answered
    o.truth |= {"answered_twice": two, "answered_once": one, "answers_by_port": answers, "fdb_moves": len(moved),
                "before": before, "outage": during, "learned_during_outage": poisoned, "after": after,
                "unanswered_attempts": len(silent), "second": lab.second}
    o.read()
    o.unlost(tap, code)
    found = o.of("arp_two_answers")
    o.check("requests answered twice", two, max((times([r for r in found if r["interface"] == p]) for p in ports), default=0))
    both = {"vB1", lab.second}
    named = [r for r in found if both <= set(r["facts"].get("interfaces", []))]
    o.check("both ports that answered", " ".join(sorted(both)),
            " ".join(sorted(both)) if named else " ".join(sorted({i for r in found for i in r["facts"].get("interfaces", [])})) or "none")
    o.check("the lab: connects failed while the wrong port had the last word", True, during["failed"] > 0)
    tied = {r["src_port"] for r in o.of("syn_unanswered", interface="vA1") if r["facts"].get("link") == "arp_two_answers"}
    o.check("attempts without an answer, tied to it", len(silent), len(tied))
    o.check("that connections went silent, in arp_two_answers", "error",
            max((r["severity"] for r in found), key=SEVERITIES.index, default="none"))
    o.check("the MAC between the two ports, as mac_moved", True, bool(o.of("mac_moved")))
    return o.result()


def arp_conflict(syntap, records):
    """A newcomer has an address that is taken, and speaks up once."""
    o = Outcome("arp-conflict", syntap, records)
    ip, mac, new = client_ip(0), client_mac(0), client_mac(1)
    with Lab(clients=2) as lab:
        tap = Tap(lab, syntap, records)
        observer = Observer(lab, lab.gateway, "in0")
        server = Talker(piped(lab, lab.server, "talk", "serve"))
        server.line()
        client = Talker(piped(lab, lab.client(0), "talk", "connect", SERVER, 37_536))
        client.line(), server.line()
        client("send 269"), server("recv 2"), server("send 353"), client("recv 2")
        time.sleep(0.2)
        # The newcomer: the address of client 0 on client 1's port, and one question to the gateway.
        sh("ip", "-n", lab.client(1), "addr", "flush", "dev", "eth0")
        sh("ip", "-n", lab.client(1), "addr", "add", f"{ip}/24", "dev", "eth0")
        sh("ip", "-n", lab.client(1), "route", "replace", "default", "via", "10.77.0.1")
        lines(python(lab, lab.client(1), "odd", "ask", new, ip, "10.77.0.1"), 10)
        time.sleep(0.3)
        o.truth["gateway_has"] = sh("ip", "-n", lab.gateway, "neigh", "show", ip).split("lladdr ")[1].split()[0]
        server("send 353")
        o.truth["server_heard"] = server("recv 1")["got"]
        o.truth["victim_heard"] = client("recv 0.2")["got"]
        # The gateway asks: both answer.
        sh("ip", "-n", lab.gateway, "neigh", "flush", "dev", "in0")
        sh("ip", "netns", "exec", lab.gateway, PYTHON, "-c",
           f"import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('{ip}', 9))")
        time.sleep(1.5)
        code = tap.stop()
        packets = observer.end()
    o.truth["claimed_by"] = sorted({p["sender_mac"] for p in packets if p.get("sender") == ip})
    hijacked = [p for p in tcp_only(packets) if p["way"] == "in" and p["mac"] == new and p["src"] == ip and p["sport"] == 37_536]
    o.truth["segments_of_the_newcomer"] = len(hijacked)
    o.read()
    o.unlost(tap, code)
    found = o.of("address_conflict")
    macs = sorted({m for r in found for m in r["facts"].get("macs", [])})
    o.check("two machines claim one address, as address_conflict", " ".join(sorted([mac, new])), " ".join(macs) or "none")
    o.check("the newcomer's segments in the victim's connection, as mac_changed_in_flow", bool(hijacked),
            bool(o.of("mac_changed_in_flow", src_ip=ip)))
    o.check("what the server got of it", "reset", o.truth["server_heard"])
    return o.result()


if __name__ == "__main__":
    sys.exit(proxy())
