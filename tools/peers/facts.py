"""Facts of the corpus, syntap's view of a capture, and the score between them."""

import collections
import csv
import ipaddress
import json
import subprocess


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def detail(row):
    return dict(p.split("=", 1) for p in row["detail"].split(";") if "=" in p)


def ends(row):
    """Both ends of a fact's tuple, without direction; None if the fact has no tuple."""
    try:
        a = (ipaddress.ip_address(row["orig_h"]), int(row["orig_p"]))
        b = (ipaddress.ip_address(row["resp_h"]), int(row["resp_p"]))
    except ValueError:
        return None
    return frozenset([a, b])


def ends_of(record):
    """The same of one of syntap's lines."""
    if record["src_ip"] is None:
        return None
    return frozenset([(ipaddress.ip_address(record["src_ip"]), record["src_port"]),
                      (ipaddress.ip_address(record["dst_ip"]), record["dst_port"])])


def shown(row):
    """A fact's tuple in words."""
    return f"{row['orig_h']}:{row['orig_p']} > {row['resp_h']}:{row['resp_p']}" if row["orig_h"] else "-"


class Capture:
    """One capture: what syntap says of it."""

    def __init__(self, syntap, path):
        self.name = path.name
        # The order of the output is that of the flow table; the order of time is everybody's.
        self.connections = sorted(self.run(syntap, "--connections", path),
                                  key=lambda c: (c["first_ns"], c["src_ip"], c["src_port"]))
        self.anomalies = self.run(syntap, "--json", path)

    def run(self, syntap, flag, path):
        done = subprocess.run([syntap, "replay", flag, str(path)], capture_output=True, text=True, timeout=120)
        self.code, self.err = done.returncode, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def by_tuple(self):
        out = collections.defaultdict(list)
        for c in self.connections:
            out[ends_of(c)].append(c)
        return out

    def connections_of(self, key):
        """The connections of a tuple in order of time; all of them without one."""
        return [c for c in self.connections if key is None or ends_of(c) == key]

    def anomalies_of(self, key):
        """The anomalies of a tuple, with those that speak of no tuple; all of them without one."""
        return [a for a in self.anomalies if key is None or ends_of(a) in (key, None)]


class Score:
    """Agreements and facts by what was compared; what could not be compared, and where a peer is known to be wrong."""

    def __init__(self):
        self.hit, self.all = collections.Counter(), collections.Counter()
        self.misses, self.notes = [], []
        self.incomparable, self.differ = collections.Counter(), collections.Counter()

    def fact(self, what, agrees, text=""):
        self.all[what] += 1
        self.hit[what] += bool(agrees)
        if not agrees:
            self.misses.append(f"{what}: {text}")

    def aside(self, what, reason):
        """A fact that syntap has no view of."""
        self.incomparable[(what, reason)] += 1

    def differs(self, what, text, reason):
        """A fact that the packets contradict; docs/differences.md has the frames."""
        self.differ[what] += 1
        self.notes.append(f"{what}: {text}: {reason}")

    def text(self):
        return "  ".join(f"{w} {self.hit[w]}/{self.all[w]}" for w in sorted(self.all))

    def add(self, other):
        self.hit.update(other.hit)
        self.all.update(other.all)
        self.incomparable.update(other.incomparable)
        self.differ.update(other.differ)
