"""What can be run in a lab. Each scenario returns ground truth as a dictionary; `lab` prints it as JSON."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import bpf, traffic
from .net import TOOLS, Lab, sh, within

PYTHON = sys.executable


def python(lab, ns, module, *args):
    """A piece of this package in a namespace, its output piped."""
    command = [PYTHON, "-m", f"labkit.{module}", *map(str, args)]
    return lab.spawn(ns, *command, cwd=TOOLS, stdout=subprocess.PIPE, text=True)


def lines(process, timeout):
    """A process's output as JSON lines, once it has ended."""
    out, _ = process.communicate(timeout=timeout)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def start_server(lab):
    server = python(lab, lab.server, "traffic", "serve")
    if server.stdout.readline().strip() != "ready":
        raise RuntimeError("the server did not start")
    return server


class Tap:
    """`syntap run`, in the gateway if nothing else is said."""

    def __init__(self, lab, syntap, records, *more, ns=None, interfaces="in0=inside,out0=outside"):
        self.lab, self.records = lab, Path(records)
        self.records.mkdir(parents=True, exist_ok=True)
        command = [str(syntap), "run", "--user", "root", "-i", interfaces, "-w", str(records), *self.options, *map(str, more)]
        for option in ("transport", "hook"):
            if wanted := os.environ.get(f"SYNTAP_{option.upper()}"):
                command += [f"--{option}", wanted]
        self.lines = []
        self.process = lab.spawn(ns or lab.gateway, *command, stderr=subprocess.PIPE, text=True)
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if not self.ready.wait(15) or self.process.poll() is not None:
            raise RuntimeError("syntap did not start: " + "; ".join(self.lines))

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if "records go to" in line:
                self.ready.set()
            if self.echo:
                self.echo(line)
        self.ready.set()

    # Whom each line is told, and what more `run` is given, where somebody watches.
    echo = None
    options = ()

    @property
    def pid(self):
        """`ip netns exec` replaces itself, so the process is syntap."""
        return self.process.pid

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self.reader.join(5)
        return code


def counters(lab):
    """Retransmissions and resets at both ends."""
    ends = [lab.server] + [lab.client(n) for n in range(lab.clients)]
    total = {"RetransSegs": 0, "OutRsts": 0, "EstabResets": 0, "AttemptFails": 0}
    for ns in ends:
        snmp = lab.snmp(ns)
        for name in total:
            total[name] += snmp[name]
    return total


def short(lab, client, count, port=traffic.CLOSE_FIRST, pause=0):
    """Short connections from one client, on source ports of its own."""
    return python(lab, lab.client(client), "traffic", "short", count, port, pause, client, 10_000 + 10_000 * client)


def shorts(lab, count, clients=2, port=traffic.CLOSE_FIRST, pause=0):
    running = [short(lab, n, count // clients, port, pause) for n in range(clients)]
    results = [lines(p, 120)[0] for p in running]
    return {k: (max if k == "longest_ms" else sum)(r[k] for r in results) for k in results[0]}


def mute(lab, client):
    """Keeps the client's own kernel out of the hand-made connections."""
    lab.chain(lab.client(client), "mute", "type filter hook output priority 0", "tcp sport 30000-30999 drop")


def story(lab, client=2, which="all", cells=None):
    """The cells of the kernel's rule, by a client made by hand."""
    mute(lab, client)
    args = [client, which] + ([",".join(cells)] if cells else [])
    return lines(python(lab, lab.client(client), "story", *args), 150)


def transfer(lab, mebibytes, connections):
    """The traffic of the mirror test: what arrived, and what the ends' kernels counted meanwhile."""
    begun = counters(lab)
    bulk = lines(python(lab, lab.client(0), "traffic", "bulk", mebibytes), 120)[0]
    between = counters(lab)
    many = shorts(lab, connections)
    ended = counters(lab)
    return {"bulk": bulk | moved(begun, between), "short": many | moved(between, ended)}


def moved(before, after):
    return {k: after[k] - before[k] for k in after}


def traces(lab):
    """What a tap has in the gateway: links, hooks, namespaces."""
    gw = lab.gateway
    links = [line.split(":")[1].strip().split("@")[0]
             for line in sh("ip", "-n", gw, "-o", "link").splitlines()]
    return {"links": sorted(links), "tcx": tcx_hooks(lab), "classic": classic_filters(lab)}


def classic_filters(lab):
    """Filters at the classic hooks of the gateway's interfaces."""
    found = {}
    for name in ("in0", "out0"):
        for hook in ("ingress", "egress"):
            shown = sh("tc", "-n", lab.gateway, "filter", "show", "dev", name, hook, check=False)
            found[f"{name} {hook}"] = sum("handle" in line for line in shown.splitlines())
    return found


def tcx_hooks(lab):
    """Programs at the tcx hooks of the gateway's interfaces, by the kernel's own query."""
    with within(lab.gateway):
        return bpf.hooks(("in0", "out0"))


def mirror(syntap, records, mebibytes=100, connections=5000):
    """The same traffic untapped and tapped, each in a lab of its own: nothing may differ for those who talk."""
    with Lab() as lab:
        start_server(lab)
        untapped = transfer(lab, mebibytes, connections)
    with Lab() as lab:
        start_server(lab)
        clean = traces(lab)
        tap = Tap(lab, syntap, records)
        tapped = transfer(lab, mebibytes, connections)
        busy = traces(lab)
        code = tap.stop()
        return {"untapped": untapped, "tapped": tapped, "before": clean, "during": busy, "after": settled(lab, clean),
                "exit": code, "stderr": tap.lines}


def settled(lab, clean):
    """What is left after a tap; the kernel takes namespaces down in the background."""
    left = traces(lab)
    for _ in range(50):
        if left == clean:
            break
        time.sleep(0.1)
        left = traces(lab)
    return left


def killed(syntap, records, how, connections=3000):
    """The tap is killed, or stopped and continued, in the middle of the traffic."""
    with Lab() as lab:
        start_server(lab)
        clean = traces(lab)
        before = counters(lab)
        tap = Tap(lab, syntap, records)
        running = [short(lab, n, connections // 2) for n in range(2)]
        time.sleep(0.5)
        os.kill(tap.pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        results = [lines(p, 120)[0] for p in running]
        if how == "stop":
            os.kill(tap.pid, signal.SIGCONT)
            code = tap.stop()
        else:
            code = tap.process.wait(10)
        left = settled(lab, clean)
        after = counters(lab)
        return {"results": results, "counters": moved(before, after), "before": clean,
                "after": left, "exit": code, "stderr": tap.lines}


def refusals(syntap, records, mirror_to=None, cells=None, which="all"):
    """Every cell of the kernel's rule, live."""
    with Lab() as lab:
        start_server(lab)
        tap = Tap(lab, syntap, records, *mirror_option(mirror_to))
        truth = story(lab, which=which, cells=cells)
        time.sleep(0.5)
        code = tap.stop()
        return {"cells": truth, "exit": code, "stderr": tap.lines}


def lasting(syntap, records, mirror_to=None, cells=None):
    """The cells that are about the 60 s of TIME_WAIT, all at the same time."""
    return refusals(syntap, records, mirror_to, cells, "lasting")


def mirror_option(mirror_to):
    return ["--mirror-to", mirror_to] if mirror_to else []


class Witness:
    """Watches a namespace's interface by itself, to say what was really there."""

    def __init__(self, lab, ns):
        command = [PYTHON, "-m", "labkit.witness"]
        self.process = lab.spawn(ns, *command, cwd=TOOLS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError("the witness did not start")

    def stale_acks(self):
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        return lines(self.process, 20)[0]


def crowded(syntap, records, mirror_to=None, wanted=10, rounds=8):
    """Two Linux clients behind a gateway with 64 ports to translate to: it hands tuples on while the server is in
    TIME_WAIT. Rounds until so many SYNs were refused, since by how much the clients' clocks differ is drawn by lot."""
    with Lab(pool="40000-40063") as lab:
        start_server(lab)
        tap = Tap(lab, syntap, records, *mirror_option(mirror_to))
        inside = [Witness(lab, lab.client(n)) for n in range(2)]
        outside = [Witness(lab, lab.server)]
        short = []
        while len(short) < 2 * rounds and sum(w.stale_acks() for w in inside) < wanted:
            # Each connection has a port of its own: inside, no tuple is used twice.
            running = [python(lab, lab.client(n), "traffic", "short", 100, traffic.CLOSE_FIRST, 0, n,
                              10_000 + 10_000 * n + 100 * (len(short) // 2)) for n in range(2)]
            short += [lines(p, 120)[0] for p in running]
        time.sleep(1)
        inside, outside = [w.end() for w in inside], [w.end() for w in outside]
        code = tap.stop()
        odd = lambda side: [a for w in side for a in w["attempts"] if a["stale"] or a["resets"] or not a["accepted"]]
        return {"inside": odd(inside), "outside": odd(outside), "connections": sum(len(w["attempts"]) for w in inside),
                "missed": sum(w["dropped"] for w in inside + outside), "short": short, "exit": code, "stderr": tap.lines}
