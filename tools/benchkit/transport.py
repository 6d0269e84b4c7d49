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
BUDGET = 100_000_000


class Wire:
    """A port that generates, and one that receives what it sends."""

    def __init__(self, generator, tapped, to, *, from_within=(), at_within=(), transmit_on=None, cpu=GENERATOR, cpus=(RECEIVER,),
                 pinned=RECEIVER, bits=16, packets=1_000_000_000):
        self.generator, self.tapped, self.to = generator, tapped, to
        self.from_within, self.at_within = list(from_within), list(at_within)
        # Said to the generator if it is a port of this machine.
        self.transmit_on = ["--transmit-on", transmit_on] if transmit_on else []
        self.cpu, self.cpus, self.pinned = cpu, cpus, pinned
        self.bits, self.packets = bits, packets

    def generate(self, seconds, bits=None):
        argv = [*first(), *self.from_within, METER, "generate", self.generator, "--to", self.to, "--seconds", str(seconds),
                "--cpu", str(self.cpu), "--bits", str(bits or self.bits), "--packets", str(self.packets), *self.transmit_on]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=seconds + 60)
        if done.returncode != 0:
            raise Failed(last_words(done.stderr))
        return json.loads(done.stdout)

    def receive(self, seconds, *options):
        """Starts a bare receiver; it is ready when this returns."""
        argv = [*first(), *self.at_within, METER, "receive", self.tapped, "--seconds", str(seconds), "--announce",
                "--cpus", ",".join(map(str, self.cpus)), *options]
        p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        said = p.stderr.readline()
        if said.strip() != "ready":
            p.kill()
            raise Failed(last_words(said + p.stderr.read()))
        return p

    def into(self, receiver, seconds, bits=None):
        """Generates into a bare receiver that was started; what was sent, and what it says."""
        sent = self.generate(seconds, bits)
        out, said = receiver.communicate(timeout=seconds + 60)
        if receiver.returncode != 0:
            raise Failed(last_words(said))
        return sent, json.loads(out)

    def bare(self, seconds, *options):
        sent, got = self.into(self.receive(seconds + 0.7, *options), seconds)
        return {"rate": got["received"] / sent["seconds"], "sent": sent, "received": got}

    def piped(self, seconds):
        with Tap(self.at_within, f"{self.tapped}=span", "--max-flows", FLOWS, "--budget", BUDGET, cpu=self.pinned) as tap:
            sent = self.generate(seconds)
            time.sleep(0.2)
            counted = tap.end()
        return {"rate": counted["received"] / sent["seconds"], "sent": sent, "received": counted, "said": tap.said}

    def turns(self, runs, seconds):
        """Bare, bare with the packets read, and the pipeline, one after the other, some times."""
        three = [(self.bare(seconds), self.bare(seconds, "--read"), self.piped(seconds)) for _ in range(runs)]
        return [list(side) for side in zip(*three)]


def tell(results, wire, runs, seconds):
    """Measures a wire."""
    bare, read, ours = wire.turns(runs, seconds)
    dropped, _ = wire.into(wire.receive(seconds + 0.7, "--queues-only"), seconds)
    rates = [[r["rate"] for r in side] for side in (bare, read, ours)]
    ratios, of_read = ([b / a for a, b in zip(rates[n], rates[2])] for n in (0, 1))
    results.add("generator into XDP_DROP", dropped["packets_a_second"], "packets/s")
    results.add("AF_XDP, frames handed back at once", median(rates[0]), "packets/s", runs=rates[0], last=bare[-1])
    results.add("AF_XDP, frames read and handed back", median(rates[1]), "packets/s", limit=median(rates[0]), runs=rates[1], last=read[-1])
    results.add("AF_XDP, full pipeline", median(rates[2]), "packets/s", limit=median(rates[0]), runs=rates[2],
                last={k: ours[-1][k] for k in ("sent", "received")})
    results.add("AF_XDP, full pipeline to bare", median(ratios), "x", least=GOAL,
                note=f"{runs} interleaved runs, {min(ratios):.3f} to {max(ratios):.3f}", runs=ratios)
    results.add("AF_XDP, full pipeline to frames that are read", median(of_read), "x", runs=of_read)
    return bare[-1], ours[-1]


def measure(results, effort):
    with Namespaces("gen", "tap") as ns:
        ns.pair("gen", "g0", "tap", "t0")
        wire = Wire("g0", "t0", ns.mac("tap", "t0"), from_within=ns.within("gen"), at_within=ns.within("tap"))
        tell(results, wire, *effort.of((5, 1.5), (2, 1.0), (1, 0.2)))
