"""Truth beside records: what is compared, what came of it, and the table of it."""

import json
import subprocess
from collections import Counter
from pathlib import Path

SEVERITIES = ("info", "warning", "error")


class Unsupported(Exception):
    """This kernel lacks what a scenario is made of."""


def records_in(syntap, directory):
    """All records there, oldest shard first."""
    if not any(Path(directory).glob("*.jsonl.zst")):
        return []
    shown = subprocess.run([str(syntap), "show", "--json", str(directory)], capture_output=True, text=True)
    if shown.returncode != 0:
        raise RuntimeError(f"syntap show: {shown.stderr.strip()}")
    return [json.loads(line) for line in shown.stdout.splitlines()]


def loud(records):
    return [r for r in records if r["severity"] != "info"]


def times(records):
    """Occurrences: one record can stand for several."""
    return sum(r["count"] for r in records)


class Outcome:
    """One run of a scenario. Others may have left records in the same directory before."""

    def __init__(self, scenario, syntap, directory):
        self.scenario, self.syntap, self.directory = scenario, syntap, directory
        self.before = len(records_in(syntap, directory))
        self.truth, self.checks, self.more = {}, [], {}
        self.records = []

    def read(self):
        """Reads what syntap recorded in this run."""
        self.records = records_in(self.syntap, self.directory)[self.before:]

    def of(self, *kinds, **fields):
        """The records of these kinds with these values."""
        return [r for r in self.records if (not kinds or r["kind"] in kinds)
                and all(r.get(name) == value for name, value in fields.items())]

    def check(self, what, truth, recorded, ok=None):
        """One line of the table; the two are equal if it is not said what is right."""
        self.checks.append({"what": what, "truth": truth, "recorded": recorded,
                            "ok": truth == recorded if ok is None else bool(ok)})

    def quiet(self, what="above info", records=None):
        """Nothing may be above info."""
        found = Counter(r["kind"] for r in loud(self.records if records is None else records))
        self.check(what, "none", ", ".join(f"{n} {k}" for k, n in sorted(found.items())) or "none")

    def unlost(self, tap, code):
        """Counts are compared, so the tap must have seen everything; and it ends well."""
        self.more = {"exit": code, "stderr": tap.lines}
        gaps = sum(r["kind"] in ("capture_gap", "budget_shed") for r in self.records)
        if code != 0 or gaps:
            self.check("the tap lost nothing and ended well", "exit 0, 0 losses", f"exit {code}, {gaps} losses")

    def result(self):
        by = Counter((r["kind"], r["severity"], r["verdict"]) for r in self.records)
        rows = [{"kind": k, "severity": s, "verdict": v, "records": n,
                 "count": times([r for r in self.records if (r["kind"], r["severity"], r["verdict"]) == (k, s, v)])}
                for (k, s, v), n in sorted(by.items(), key=lambda e: (-SEVERITIES.index(e[0][1]), e[0]))]
        return {"scenario": self.scenario, "ok": all(c["ok"] for c in self.checks), "checks": self.checks,
                "truth": self.truth, "recorded": rows, **self.more}


def table(results):
    """The lines of a table, and whether all is well."""
    rows, well = [], True
    for r in results:
        if "skipped" in r:
            rows.append((r["scenario"], r["skipped"], "", "", "skipped"))
        for c in r.get("checks", ()):
            well &= c["ok"]
            rows.append((r["scenario"], c["what"], str(c["truth"]), str(c["recorded"]), "ok" if c["ok"] else "WRONG"))
    head = ("scenario", "what", "truth", "recorded", "")
    wide = [max(len(row[n]) for row in [head, *rows]) for n in range(4)]
    lines, last = [], None
    for row in [head, *rows]:
        shown = ("" if row[0] == last else row[0], *row[1:])
        last = row[0]
        lines.append("  ".join([*(cell.ljust(w) for cell, w in zip(shown, wide)), shown[4]]).rstrip())
    return lines, well
