"""What a tap on both sides of a gateway costs the traffic through it: off and on, in turns.

One core generates and, being at the sending end of the veth pairs, forwards; the other has the tap's workers. So throughput is one
over what a packet costs to make, to forward and to tap. The cost of making it alone is measured and taken off for the `net` figures.
"""

import json
import subprocess
import time

from .run import METER, Failed, environment, first, last_words, median
from .tap import Tap, can
from .veth import Namespaces

GENERATOR, WORKER = 1, 0
GOAL_RATIO = 0.99
GOAL_NS = 120
FLOWS = 1 << 21

MIXES = {
    "long": "one packet in five is control, the others are of long connections",
    "short": "connections of twenty packets, all of which are mirrored",
}


def gateway(ns):
    """world g0 - in0 gw out0 - s0 world: routes only, no filter and no translation, which would make forwarding dearer and the
    tap's share of it less."""
    for near, far, net, to in (("g0", "in0", "172.16.1", "10.0.0.0/8"), ("s0", "out0", "172.16.2", "192.0.2.0/24")):
        ns.pair("world", near, "gw", far)
        # NAPI on the gateway's end, without which a veth takes no XDP frames.
        subprocess.run(ns.within("gw", "ethtool", "-K", far, "gro", "on"), check=True, capture_output=True)
        ns.ip("gw", "addr", "add", f"{net}.1/24", "dev", far)
        ns.ip("gw", "neigh", "add", f"{net}.2", "lladdr", ns.mac("world", near), "dev", far, "nud", "permanent")
        ns.ip("gw", "route", "add", to, "via", f"{net}.2")
        ns.sysctl("gw", f"net.ipv4.conf.{far}.rp_filter=0")
    ns.sysctl("gw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")


def send(ns, seconds, mode):
    argv = [*first(), *ns.within("world", METER, "forward", "--inside", "g0", "--inside-to", ns.mac("gw", "in0"), "--outside", "s0",
                                 "--outside-to", ns.mac("gw", "out0"), "--seconds", seconds, "--mode", mode, "--cpu", GENERATOR)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=seconds + 30)
    if done.returncode != 0:
        raise Failed(last_words(done.stderr))
    return json.loads(done.stdout)


def made(ns, seconds):
    """What a packet costs to make and to throw away: no forwarding."""
    ns.sysctl("gw", "net.ipv4.ip_forward=0")
    for link in ("in0", "out0"):
        ns.ip("gw", "link", "set", link, "down")
    got = send(ns, seconds, "long")
    for link in ("in0", "out0"):
        ns.ip("gw", "link", "set", link, "up")
    for net, near, far, to in (("172.16.1", "g0", "in0", "10.0.0.0/8"), ("172.16.2", "s0", "out0", "192.0.2.0/24")):
        ns.ip("gw", "neigh", "replace", f"{net}.2", "lladdr", ns.mac("world", near), "dev", far, "nud", "permanent")
        ns.ip("gw", "route", "replace", to, "via", f"{net}.2")
    ns.sysctl("gw", "net.ipv4.ip_forward=1")
    return 1e9 * got["seconds"] / got["sent"]


def tapped(ns, options):
    return Tap(ns.within("gw"), "in0=inside,out0=outside", "--max-flows", FLOWS, *options, cpu=WORKER)


class Parsing:
    """Programs that only parse, at the hooks where a tap's would be."""

    def __init__(self, ns):
        self.argv = [*first(), *ns.within("gw", METER, "hooks", "in0", "out0")]
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        env=environment())
        said = self.process.stderr.readline()
        if said.strip() != "ready":
            self.process.kill()
            raise Failed(last_words(said))
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stderr.close()


def transports():
    """Ways into user space that this syntap has, by the options that choose them."""
    ways = {"AF_XDP": []}
    if can("--transport", "ringbuf"):
        ways = {"AF_XDP": ["--transport", "afxdp"], "ring buffer": ["--transport", "ringbuf"]}
    return ways


def turns(ns, mode, ways, runs, seconds):
    """Throughput without and with the tap by each way, one after the other, some times round."""
    off, on = [], {way: [] for way in ways}
    counted = {}
    for _ in range(runs):
        off.append(send(ns, seconds, mode)["packets_a_second"])
        for way, options in ways.items():
            with tapped(ns, options) as tap:
                # As on a gateway: no packet too many for the budget is part of its price.
                rate = send(ns, seconds, mode)["packets_a_second"]
                time.sleep(0.2)
                counted[way] = tap.end()
            on[way].append(rate)
    return off, on, counted


def untapped_to_tapped(results, ns, mode, what, ways, runs, seconds, make, goal=None):
    """Ratios of one mix by each way; returns what each way costs a forwarded packet, and which share of them is mirrored at a hook."""
    off, on, counted = turns(ns, mode, ways, runs, seconds)
    results.add(f"forwarding untapped, {mode} mix", median(off), "packets/s", note=what, runs=off)
    costs, shares = {}, {}
    for way, rates in on.items():
        ratios = [b / a for a, b in zip(off, rates)]
        nets = [(1e9 / a - make) / (1e9 / b - make) for a, b in zip(off, rates)]
        shares[way] = counted[way]["mirrored"] / max(counted[way]["seen"], 1)
        costs[way] = median([1e9 / b - 1e9 / a for a, b in zip(off, rates)])
        results.add(f"forwarding tapped, {mode} mix, {way}", median(ratios), "x", least=goal,
                    note=f"of untapped, {min(ratios):.3f} to {max(ratios):.3f} in {runs} interleaved runs; {what}", runs=ratios,
                    net_of_making=median(nets), mirrored_share_at_the_hooks=shares[way], counted=counted[way])
    return costs, shares


def measure(results, effort):
    runs, seconds = effort.of((7, 0.8), (3, 0.7), (1, 0.1))
    with Namespaces("world", "gw") as ns:
        gateway(ns)
        make = made(ns, effort.of(0.5, 0.5, 0.1))
        results.add("forwarding, a packet made and thrown away", make, "ns")
        ways = transports()
        unbounded = {f"{w}, no budget": [*o, "--budget", 100_000_000] for w, o in ways.items()}
        mixes = list(MIXES) if effort.at_least("whole") else ["long"]
        floor, ratios = [], []
        for _ in range(runs):
            off = send(ns, seconds, "plain")["packets_a_second"]
            with Parsing(ns):
                on = send(ns, seconds, "plain")["packets_a_second"]
            floor.append(1e9 / on - 1e9 / off)
            ratios.append(on / off)
        results.add("forwarding, programs that only parse at the hooks", median(ratios), "x", runs=ratios,
                    note="of untapped: no tap at tcx hooks can do better")
        at_hooks, _ = untapped_to_tapped(results, ns, "plain", "nothing is mirrored", unbounded, runs, seconds, make)
        for way, cost in at_hooks.items():
            results.add(f"inline, a packet passed over at a hook, {way}", cost / 2, "ns", limit=median(floor) / 2,
                        note="each forwarded packet passes two; the limit is a program that only parses, attached in the same way",
                        floor_runs=floor)
        for mode in mixes:
            both = {**ways, **unbounded}
            costs, shares = untapped_to_tapped(results, ns, mode, MIXES[mode], both, runs, seconds, make,
                                               GOAL_RATIO if mode == "long" else None)
            for way in unbounded:
                if shares[way]:
                    # Beyond what every packet pays at its two hooks.
                    each = (costs[way] - at_hooks[way]) / (2 * shares[way])
                    results.add(f"inline, a mirrored packet, {mode} mix, {way}", each, "ns", most=GOAL_NS,
                                note="beyond what a packet pays that is passed over", with_the_hooks=costs[way] / (2 * shares[way]))
