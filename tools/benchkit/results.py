"""Measurements: what was measured, beside what limits it, what others need, and what it should be."""

import json
import os
import platform
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def cpu_model():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())


def huge_pages():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as f:
            return f.read().split("[")[1].split("]")[0]
    except (OSError, IndexError):
        return "none"


def commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or None


def short(x):
    """A figure with three significant digits, or all of its whole ones."""
    if not isinstance(x, (int, float)) or isinstance(x, bool):
        return str(x)
    if x >= 1e6:
        return f"{x / 1e6:.3g} M"
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


class Results:
    """All of one run, in the order in which it was measured."""

    def __init__(self, effort):
        self.started = time.time()
        self.effort = effort
        self.measured = {}
        self.skipped = {}

    def add(self, name, value, unit, *, limit=None, peers=None, most=None, least=None, note=None, **details):
        """`limit` is what the machine itself needs in the same run, `peers` what others do; `most` or `least` is the goal."""
        goal, met = None, None
        if most is not None:
            goal, met = {"at_most": most}, value <= most
        if least is not None:
            goal, met = {"at_least": least}, value >= least
        self.measured[name] = {
            "value": value, "unit": unit, "limit": limit, "peers": peers or {}, "goal": goal, "met": met,
            "note": note, "details": details,
        }
        print(f"  {self.line(name)}", flush=True)

    def skip(self, name, why):
        """Measurements that this machine cannot make are said, not left out."""
        self.skipped[name] = why
        print(f"  skipped: {name}: {why}", flush=True)

    def line(self, name):
        m = self.measured[name]
        text = f"{name:46} {short(m['value']):>9} {m['unit']}"
        if m["limit"] is not None:
            text += f", limit {short(m['limit'])}"
        for peer, value in m["peers"].items():
            text += f", {peer} {short(value)}"
        if m["goal"]:
            (word, value), = m["goal"].items()
            text += f"  [{word.replace('_', ' ')} {short(value)}: {'met' if m['met'] else 'NOT MET'}]"
        return text

    def object(self):
        return {
            "commit": commit(),
            "effort": self.effort,
            "machine": {
                "kernel": platform.release(), "cpu": cpu_model(), "cpus": os.cpu_count(), "huge_pages": huge_pages(),
                "load_at_the_end": os.getloadavg()[0],
            },
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started, 1),
            "measurements": self.measured,
            "skipped": self.skipped,
        }

    def write(self, path, **more):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w") as f:
            json.dump({**self.object(), **more}, f, indent=1)
            f.write("\n")
        os.replace(path + ".new", path)

    def table(self):
        lines = [self.line(name) for name in self.measured]
        lines += [f"skipped: {name}: {why}" for name, why in self.skipped.items()]
        return "\n".join(lines)


def markdown(results):
    """The results as a table for docs/performance.md."""
    machine = results["machine"]
    lines = [
        f"{results['time'][:10]}, commit {results['commit']}, {machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}, "
        f"huge pages {machine['huge_pages']}.",
        "",
        "| measurement | value | limit or peers in the same run | goal | |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for name, m in results["measurements"].items():
        beside = [f"limit {short(m['limit'])}"] if m["limit"] is not None else []
        beside += [f"{peer} {short(value)}" for peer, value in m["peers"].items()]
        goal, met = "", ""
        if m["goal"]:
            (word, value), = m["goal"].items()
            goal, met = f"{word.replace('_', ' ')} {short(value)}", "met" if m["met"] else "**not met**"
        lines.append(f"| {name} | {short(m['value'])} {m['unit']} | {', '.join(beside)} | {goal} | {met} |")
    for name, why in results["skipped"].items():
        lines.append(f"| {name} | not measured: {why} | | | |")
    return "\n".join(lines)


LINKS = (10, 25, 40, 100)
# Bytes that a frame takes on the wire beyond those that are captured: checksum, preamble, gap.
BESIDE = 24
SYN, MIX = 74, 600
MIRRORED = 0.2


def cores(results):
    """How many cores a link needs by these figures; computed, not measured."""
    measured = results["measurements"]

    def value(*names):
        return next((measured[n]["value"] for n in names if n in measured), None)

    worker, flood = value("worker, 1 M flows, IPv4"), value("worker, a SYN flood")
    hook = next((m["value"] for n, m in measured.items() if n.startswith("inline, a packet passed over")), None)
    mirrored = {n.split(", ")[3]: m["value"] for n, m in measured.items()
                if n.startswith("inline, a mirrored packet, long mix") and n.endswith("no budget")}
    if worker is None:
        return ""
    head = ["link", "workers: all SYNs", f"workers: mix of {MIX} bytes, a fifth mirrored"]
    if hook is not None:
        head.append("gateway: its hook, mix, one way in and one out")
    head += [f"gateway: mirroring by {way}" for way in mirrored]
    lines = [f"| {' | '.join(head)} |", f"| --- {'| ---: ' * (len(head) - 1)}|"]
    for link in LINKS:
        syns, mix = (link * 1e9 / 8 / (size + BESIDE) for size in (SYN, MIX))
        row = [syns * (flood or worker), mix * MIRRORED * worker]
        if hook is not None:
            row.append(mix * 2 * hook)
        row += [mix * 2 * MIRRORED * ns for ns in mirrored.values()]
        lines.append(f"| {link}G | " + " | ".join(f"{ns / 1e9:.2f}" for ns in row) + " |")
    return "\n".join(lines)
