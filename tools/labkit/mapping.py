"""A long connection whose translation is lost, in each way in which gateways lose them; and the two ways that do no harm."""

import os
import time

from .kernel import Events, bridge_nf, conntrack_delete
from .net import GATEWAY_INSIDE, GATEWAY_OUTSIDE, SERVER, Lab, client_ip, sh
from .scenarios import Tap
from .talk import PORT, Talker
from .trouble import Observer, piped, tcp_only
from .verdict import Outcome, Unsupported, loud

OWN_PORT = 37_536
REQUEST, ANSWER = 269, 353
SECOND_UPLINK, SECOND_SERVER = "203.0.113.1", "203.0.113.2"

# More than are mirrored after the SYN, so that the tap knows a connection that has long been open.
EXCHANGES = 12

# The bridge has the MAC of its lowest port: that of port 1, unless port 2 is there.
PORT_MACS = ["62:70:1e:fc:91:9e", "56:70:1e:fc:91:9e", "3a:a4:1b:bf:23:96"]


class BridgeLab(Lab):
    """The clients hang on a bridge of the gateway itself, as containers do."""

    def __init__(self, ports):
        super().__init__(clients=3)
        self.ports = ports

    def build(self):
        gw, sv = self.gateway, self.server
        for ns in [gw, sv] + [self.client(n) for n in range(self.clients)]:
            self.namespace(ns)
        if not bridge_nf(gw):
            raise Unsupported("br_netfilter is not loaded (modprobe br_netfilter)")
        sh("ip", "-n", gw, "link", "add", "docker0", "type", "bridge")
        sh("ip", "-n", gw, "link", "set", "docker0", "up")
        self.veth(gw, "out0", sv, "eth0", "02:77:00:00:01:01", "02:77:00:00:01:02")
        sh("ip", "-n", gw, "addr", "add", f"{GATEWAY_INSIDE}/24", "dev", "docker0")
        sh("ip", "-n", gw, "addr", "add", f"{GATEWAY_OUTSIDE}/24", "dev", "out0")
        sh("ip", "-n", sv, "addr", "add", f"{SERVER}/24", "dev", "eth0")
        for n in range(self.ports):
            self.join(n)
        self.sysctl(gw, "net.ipv4.ip_forward=1")
        self.chain(gw, "nat", "type nat hook postrouting priority 100",
                   'oifname != "docker0" ip saddr 10.77.0.0/24 masquerade')

    def join(self, n):
        """A container starts."""
        ns = self.client(n)
        self.veth(self.gateway, f"p{n}", ns, "eth0", PORT_MACS[n], f"02:77:00:00:00:{11 + n:02x}")
        sh("ip", "-n", self.gateway, "link", "set", f"p{n}", "master", "docker0")
        sh("ip", "-n", ns, "addr", "add", f"{client_ip(n)}/24", "dev", "eth0")
        sh("ip", "-n", ns, "route", "add", "default", "via", GATEWAY_INSIDE, "rto_min", "200ms")
        # Whom it has not heard for half a second it asks, instead of after half a minute.
        neighbour = "net.ipv4.neigh.eth0."
        self.sysctl(ns, neighbour + "base_reachable_time_ms=500", neighbour + "delay_first_probe_time=1",
                    neighbour + "retrans_time_ms=300")


def bridge_mac(lab):
    return sh("ip", "-n", lab.gateway, "-o", "link", "show", "docker0").split("link/ether ")[1].split()[0]


def quick_retries(lab):
    """Retransmissions after 200 ms, as everywhere but in this lab's other scenarios."""
    sh("ip", "-n", lab.client(0), "route", "replace", "default", "via", GATEWAY_INSIDE, "rto_min", "200ms")


def second_uplink(lab):
    gw, sv = lab.gateway, lab.server
    lab.veth(gw, "out1", sv, "eth1", "02:77:00:00:02:01", "02:77:00:00:02:02")
    sh("ip", "-n", gw, "addr", "add", f"{SECOND_UPLINK}/24", "dev", "out1")
    sh("ip", "-n", sv, "addr", "add", f"{SECOND_SERVER}/24", "dev", "eth1")
    for ns, dev in ((gw, "out0"), (gw, "out1"), (sv, "eth0"), (sv, "eth1")):
        lab.sysctl(ns, "net.ipv4.conf.all.rp_filter=0", f"net.ipv4.conf.{dev}.rp_filter=0")
    lab.chain(gw, "nat1", "type nat hook postrouting priority 100", "oifname out1 masquerade")


def flush(lab):
    """`conntrack -D` of the connection."""
    if not conntrack_delete(lab.gateway, client_ip(0), OWN_PORT, SERVER, PORT):
        raise RuntimeError("there was no entry to delete")


class Talk:
    """The connection and both of its ends."""

    def __init__(self, lab):
        self.server = Talker(piped(lab, lab.server, "talk", "serve"))
        self.server.line()
        self.client = Talker(piped(lab, lab.client(0), "talk", "connect", SERVER, OWN_PORT))
        self.client.line()
        self.server.line()
        for _ in range(EXCHANGES):
            if not self.exchange():
                raise RuntimeError("the connection broke before anything was done to it")

    def exchange(self, seconds=5):
        """Asks and answers; whether both came through."""
        self.client(f"send {REQUEST}")
        if self.server(f"recv {seconds}")["got"] != REQUEST:
            return False
        self.server(f"send {ANSWER}")
        return self.client(f"recv {seconds}")["got"] == ANSWER

    def server_speaks(self):
        """What the client hears of it, and what the server itself."""
        self.server(f"send {ANSWER}")
        heard = self.client("recv 1")["got"]
        return {"client_heard": heard, "server_heard": self.server("recv 0.3")["got"]}

    def client_speaks(self, seconds):
        """What the server hears of it, and what the client itself."""
        said = self.client(f"send {REQUEST}")["sent"]
        heard = self.server(f"recv {seconds}")["got"]
        answer = said if said != REQUEST else self.client("recv 0.3")["got"]
        return {"server_heard": heard, "client_heard": answer}


# What is done to the connection, in each variant; what came of it.

def bridge_leave(lab, talk):
    before = bridge_mac(lab)
    sh("ip", "-n", lab.gateway, "link", "del", "p2")
    truth = {"mac_before": before, "mac_after": bridge_mac(lab), "client_speaks": talk.client_speaks(5)}
    return truth | {"server_speaks": talk.server_speaks()}


def bridge_join(lab, talk):
    before = bridge_mac(lab)
    lab.join(2)
    begun = time.monotonic()
    alive = talk.exchange(15)
    return {"mac_before": before, "mac_after": bridge_mac(lab), "alive": alive,
            "blackout_s": round(time.monotonic() - begun, 1)}


def flush_client(lab, talk):
    flush(lab)
    return {"alive": all(talk.exchange() for _ in range(3))}


def flush_server(lab, talk):
    flush(lab)
    truth = {"server_speaks": talk.server_speaks()}
    return truth | {"client_speaks": talk.client_speaks(0.5)}


def flush_random(lab, talk):
    flush(lab)
    return {"client_speaks": talk.client_speaks(1)}


def uplink(lab, talk):
    sh("ip", "-n", lab.gateway, "route", "add", f"{SERVER}/32", "via", SECOND_SERVER, "dev", "out1")
    return {"client_speaks": talk.client_speaks(2)}


VARIANTS = {"bridge-leave": bridge_leave, "bridge-join": bridge_join, "flush-client": flush_client,
            "flush-server": flush_server, "flush-random": flush_random, "uplink": uplink}
HARMLESS = ("bridge-join", "flush-client")


def make(variant):
    if variant == "bridge-leave":
        return BridgeLab(3)
    if variant == "bridge-join":
        return BridgeLab(2)
    return Lab(masquerade="fully-random" if variant == "flush-random" else "")


def witnessed(packets, events):
    """What was there: beyond the gateway, and in its table."""
    packets = tcp_only(packets)
    ours = [p for p in packets if p["way"] == "in"]
    opened = {(p["src"], p["sport"]) for p in ours if p["flags"] == "S"}
    outside = {(p["src"], p["sport"]) for p in ours if p["src"] != client_ip(0)}
    dead = [e for e in events if e["event"] == "DESTROY" and e["state"] == "ESTABLISHED"]
    born = [e for e in events if e["event"] == "NEW" and e["state"] == "ESTABLISHED"]
    return {"untranslated": sum(p["src"] == client_ip(0) for p in ours),
            # Its own packets set out with the full TTL, what it forwards with one less.
            "gateway_resets": sum("R" in p["flags"] and p["ttl"] == 64 for p in ours),
            "server_resets": sum("R" in p["flags"] for p in packets if p["way"] == "out"),
            "outside": sorted(f"{ip}:{port}" for ip, port in outside),
            "never_opened": sorted(f"{ip}:{port}" for ip, port in outside - opened),
            "destroyed_established": len(dead), "new_established": len(born)}


def run(variant, syntap, records):
    """One variant."""
    o = Outcome(f"nat-mapping-lost {variant}", syntap, records)
    bridged = variant.startswith("bridge")
    with make(variant) as lab:
        if not bridged:
            quick_retries(lab)
        interfaces = "docker0=inside,out0=outside" if bridged else "in0=inside,out0=outside"
        if variant == "uplink":
            second_uplink(lab)
            interfaces += ",out1=outside"
        tap = Tap(lab, syntap, records, interfaces=interfaces)
        observers = [Observer(lab, lab.server, dev) for dev in (["eth0", "eth1"] if variant == "uplink" else ["eth0"])]
        events = Events(lab.gateway, PORT)
        talk = Talk(lab)
        time.sleep(0.3)
        o.truth |= VARIANTS[variant](lab, talk)
        time.sleep(1)
        stopped = time.time_ns()
        code = tap.stop()
        packets = [p for observer in observers for p in observer.end() if p["at"] <= stopped]
        o.truth |= witnessed(packets, events.end())
    o.read()
    o.unlost(tap, code)
    judge(o, variant)
    return o.result()


def judge(o, variant):
    t, found = o.truth, o.of("nat_mapping_lost")
    facts = found[0]["facts"] if found else {}
    o.check("incidents", 0 if variant in HARMLESS else 1, len(found))
    if variant == "flush-client":
        o.check("the connection lives on", True, t["alive"])
        o.quiet()
        return
    if variant == "bridge-join":
        o.check("the connection lives on", True, t["alive"])
        return
    o.check("entries destroyed while established", t["destroyed_established"],
            int(str(facts.get("destroyed_state")).upper() == "ESTABLISHED"))
    if t["untranslated"]:
        o.check("packets that left untranslated, in it", t["untranslated"], facts.get("untranslated", 0))
    if t["gateway_resets"]:
        o.check("resets of the gateway, in it", t["gateway_resets"], facts.get("gateway_resets", 0))
        o.check("as reset_by_gateway", True, bool(o.of("reset_by_gateway")))
    if t["never_opened"]:
        after = [r["facts"].get("after", "") for r in o.of("nat_remapped")]
        o.check("the tuple it went on as, in nat_remapped", t["never_opened"][0],
                ", ".join(a.split(" > ")[0] for a in after) or "none")
    if "mac_after" in t:
        o.check("the bridge's MAC before and after, in it", f"{t['mac_before']} {t['mac_after']}",
                f"{facts.get('mac_before')} {facts.get('mac_after')}")
    if variant == "bridge-leave":
        ports = [r["facts"].get("port") for r in o.records if r["kind"] == "next_hop_changed"]
        o.check("the port that left the bridge, in next_hop_changed", "p2", " ".join(map(str, ports)))
    # That the server reset what it did not know is true.
    theirs = lambda r: t["server_resets"] and (r["kind"], r["verdict"]) == ("reset_mid_flow", "responder")
    wrong = [r for r in loud(o.records) if r["verdict"] not in ("gateway", "unknown") and not theirs(r)]
    o.check("above info, another is blamed in", "none", ", ".join(sorted(f"{r['kind']} {r['verdict']}" for r in wrong)) or "none")


def nat_mapping_lost(syntap, records, *variants):
    """All variants, or those named; the records of each in a directory of its own."""
    results = []
    for variant in variants or VARIANTS:
        try:
            results.append(run(variant, syntap, os.path.join(records, variant)))
        except Unsupported as e:
            results.append({"scenario": f"nat-mapping-lost {variant}", "skipped": str(e)})
    return results
