"""Processes: the meter, and programs whose time is taken."""

import json
import os
import resource
import statistics
import subprocess
import time

from .results import ROOT

# How much of everything is measured: all, enough for an idea, or just so much that every part ran.
EFFORTS = ("whole", "quick", "smoke")


class Effort:
    """One of EFFORTS, and the numbers that go with it."""

    def __init__(self, name):
        self.name = name

    def of(self, whole, quick, smoke=None):
        """The number for this effort; a smoke test takes the quick one if it has none of its own."""
        return {"whole": whole, "quick": quick, "smoke": quick if smoke is None else smoke}[self.name]

    def at_least(self, name):
        return EFFORTS.index(self.name) <= EFFORTS.index(name)


TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
# A test has neither time nor need to build what is fast.
PROFILE = os.environ.get("SYNTAP_BENCH_PROFILE", "release")
METER = os.path.join(TARGET, PROFILE, "examples", "meter")
SYNTAP = os.path.join(TARGET, PROFILE, "syntap")
WORK = os.path.join(ROOT, "target", "bench")

# Runs are short and come before other work on the machine, which would be measured instead. Where the kernel schedules by session,
# niceness counts within one only, and a session has its own.
FIRST = ["setsid", "--wait", "sh", "-c", 'echo -15 2>/dev/null >/proc/self/autogroup; exec nice -n -15 "$@"', "first"]


class Failed(Exception):
    """A program that did not do what it was started for; its last words."""


def build():
    """Builds syntap and the meter, optimised unless the environment says otherwise."""
    optimised = ["--release"] if PROFILE == "release" else []
    subprocess.run(["cargo", "build", "--quiet", *optimised, "--bin", "syntap", "--example", "meter"], cwd=ROOT, check=True)


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
