"""What a record costs from the anomaly to the file, and how much smaller it is there."""

import subprocess

from .results import ROOT
from .run import Failed, last_words

STAGES = ("record_line", "shard", "written")


def figures(stage):
    done = subprocess.run(["cargo", "bench", "--quiet", "--bench", "records", "--", "--lines", stage], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(last_words(done.stderr))
    return {name: float(value) for name, value, *_ in map(str.split, done.stdout.splitlines())}


def measure(results, _effort):
    found = {}
    for stage in STAGES:
        found |= figures(stage)
    for packets, least in ((3, 1e6), (8, None), (18, None)):
        name = f"record_line_{packets}_packets"
        results.add(f"records of {packets} packets, serialised", found[f"{name}_rate"], "records/CPU s", least=least,
                    bytes_a_record=found[f"{name}_size"])
    results.add("records from the anomaly to the file", found["written_rate"], "records/CPU s", least=1e5)
    results.add("records in which every address and number is another, compressed", found["shard_ratio"], "x",
                note="the lab's records: docs/records.md")
