"""From AF_XDP rings: the whole pipeline against a program that only hands frames back, in turns.

The generator has one core, the receiver the other. On a veth pair the kernel's part of receiving (the XDP program, the copy into the
ring) runs where the generator does, as it would beside a NIC's interrupt.
"""

import json
import subprocess
import time

from .run import METER, Failed, environment, first, last_words, median
from .tap import Tap
from .veth import Namespaces

GENERATOR, RECEIVER = 1, 0
GOAL = 0.95
# Each connection is a flow of its own, and stays for its time in TIME_WAIT: room for a run's.
FLOWS = 1 << 21


def generate(ns, seconds, bits=16, mode="lives"):
    to = ns.mac("tap", "t0")
    argv = [*first(), *ns.within("gen", METER, "generate", "g0", "--to", to, "--seconds", seconds, "--cpu", GENERATOR,
                                 "--bits", bits, "--mode", mode)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=seconds + 30)
    if done.returncode != 0:
        raise Failed(last_words(done.stderr))
    return json.loads(done.stdout)


def receive(ns, seconds, *options):
    """Starts a bare receiver; it is ready when this returns."""
    argv = [*first(), *ns.within("tap", METER, "receive", "t0", "--seconds", seconds, "--cpus", RECEIVER, "--announce", *options)]
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    said = p.stderr.readline()
    if said.strip() != "ready":
        p.kill()
        raise Failed(last_words(said + p.stderr.read()))
    return p


def bare(ns, seconds):
    p = receive(ns, seconds + 0.7)
    sent = generate(ns, seconds)
    out, _ = p.communicate(timeout=seconds + 10)
    got = json.loads(out)
    return {"rate": got["received"] / sent["seconds"], "sent": sent, "received": got}


def piped(ns, seconds):
    with Tap(ns.within("tap"), "t0=span", "--max-flows", FLOWS, "--budget", 100_000_000, cpu=RECEIVER) as tap:
        sent = generate(ns, seconds)
        time.sleep(0.2)
        counted = tap.end()
    return {"rate": counted["received"] / sent["seconds"], "sent": sent, "received": counted}


def measure(results, quick):
    runs, seconds = (2, 1.0) if quick else (5, 1.5)
    with Namespaces("gen", "tap") as ns:
        ns.pair("gen", "g0", "tap", "t0")
        rates, ours, ratios, last = [], [], [], None
        for _ in range(runs):
            a, b = bare(ns, seconds), piped(ns, seconds)
            rates.append(a["rate"])
            ours.append(b["rate"])
            ratios.append(b["rate"] / a["rate"])
            last = (a, b)
        p = receive(ns, 1.2, "--queues-only")
        dropped = generate(ns, 0.8)
        p.communicate(timeout=20)
    results.add("generator into XDP_DROP", dropped["packets_a_second"], "packets/s")
    results.add("AF_XDP, frames handed back at once", median(rates), "packets/s", runs=rates)
    results.add("AF_XDP, full pipeline", median(ours), "packets/s", limit=median(rates), runs=ours, last=last[1])
    results.add("AF_XDP, full pipeline to bare", median(ratios), "x", least=GOAL,
                note=f"{runs} interleaved runs, {min(ratios):.3f} to {max(ratios):.3f}", runs=ratios)
