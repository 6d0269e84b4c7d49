"""Instructions of a worker's parts, by callgrind: the same for the same code, whatever else the machine does."""

import json
import shutil
import subprocess

from .results import ROOT
from .run import Failed, last_words


def measure(results, _effort):
    if not shutil.which("valgrind"):
        results.skip("instructions", "valgrind is not installed")
        return
    done = subprocess.run(["cargo", "bench", "--quiet", "--bench", "counts", "--", "--json"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(last_words(done.stderr))
    for name, count in json.loads(done.stdout).items():
        results.add(f"instructions: {name}", count, "")
