"""Processes: the meter, and programs whose time is taken."""

import json
import os
import resource
import statistics
import subprocess
import time

from .results import ROOT

TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
METER = os.path.join(TARGET, "release", "examples", "meter")
SYNTAP = os.path.join(TARGET, "release", "syntap")
WORK = os.path.join(ROOT, "target", "bench")

# Runs are short and come before other work on the machine, which would be measured instead. Where the kernel schedules by session,
# niceness counts within one only, and a session has its own.
FIRST = ["setsid", "--wait", "sh", "-c", 'echo -15 2>/dev/null >/proc/self/autogroup; exec nice -n -15 "$@"', "first"]


class Failed(Exception):
    """A program that did not do what it was started for; its last words."""


def build():
    """Builds syntap and the meter, optimised."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "syntap", "--example", "meter"], cwd=ROOT, check=True)


def last_words(stderr):
    return " ".join(stderr.strip().splitlines()[-2:])


def environment():
    return {**os.environ, "RUST_BACKTRACE": "0"}


def first():
    """In front of what is measured; without root nothing can come first."""
    return FIRST if os.geteuid() == 0 else []


def meter(*args, timeout=240):
    """One measurement of the meter."""
    done = subprocess.run([*first(), METER, *map(str, args)], capture_output=True, text=True, timeout=timeout, env=environment())
    if done.returncode != 0:
        raise Failed(last_words(done.stderr))
    return json.loads(done.stdout)


def timed(argv, timeout, stdout=subprocess.DEVNULL):
    """Wall time, CPU time and peak memory of a program that ends by itself; None if it did not in time."""
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    p = subprocess.Popen(argv, stdout=stdout, stderr=subprocess.DEVNULL, env=environment())
    try:
        p.wait(timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.monotonic() - start, "cpu": max(cpu, 1e-6), "exit": p.returncode}


def median(values):
    return statistics.median(values)
