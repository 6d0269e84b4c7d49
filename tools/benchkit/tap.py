"""syntap itself, running, and what it says at its end."""

import os
import re
import shutil
import subprocess
import tempfile

from .run import SYNTAP, Failed, environment, first, last_words


def user():
    """Records of a bench are root's; older programs had no say in that."""
    return ["--user", "root"] if can("--user", "root") else []


class Tap:
    """`syntap run` somewhere; a context manager. What it counted is there after `end`."""

    def __init__(self, within, interfaces, *options, cpu=None):
        self.dir = tempfile.mkdtemp(prefix="syntap-bench-")
        pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
        self.argv = [*first(), *within, *pinned, SYNTAP, "run", "-i", interfaces, "-w", self.dir, "--status", "0",
                     "--conntrack", "off", *user(), *map(str, options)]
        self.process = None
        self.said = ""

    def __enter__(self):
        self.process = subprocess.Popen(self.argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment())
        for line in self.process.stderr:
            self.said += line
            if "records go to" in line:
                return self
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        raise Failed(f"syntap run: {last_words(self.said)}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def end(self):
        """Ends it as an operator does. What it saw, mirrored, dropped, missed and shed, how many packets its workers took, and the
        CPU seconds they needed."""
        cpu = cpu_seconds(self.process.pid)
        self.process.send_signal(2)
        self.said += self.process.stderr.read()
        self.process.wait()

        def figure(pattern):
            m = re.search(pattern, self.said, re.M)
            return int(m.group(1)) if m else 0

        return {
            "seen": figure(r"^seen\s+(\d+) packets"),
            "mirrored": figure(r"^seen\s.*?(\d+) mirrored"),
            "shed": figure(r"^seen\s.*?(\d+) shed"),
            "dropped": figure(r"^lost\s+(\d+) dropped"),
            "missed": figure(r"^lost\s.*?(\d+) missed"),
            "received": figure(r"^packets\s+(\d+):"),
            "cpu": cpu,
            "anomalies": (re.search(r"^anomalies\s+(.*)", self.said, re.M) or [None, ""])[1].strip(),
        }


def cpu_seconds(pid):
    """CPU time of a process's threads so far."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def can(option, value):
    """Whether this syntap knows an option of `run` and a value of it."""
    said = subprocess.run([SYNTAP, "run", "--help"], capture_output=True, text=True).stdout
    at = said.find(option)
    return at >= 0 and value in said[at:at + 900]
