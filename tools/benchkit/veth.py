"""Namespaces of the bench: names carry the pid, a guard removes them with the process, however it ends."""

import os
import re
import signal
import subprocess
import sys

PREFIX = "syntapbench"
TOOLS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def sh(*args, check=True):
    done = subprocess.run(args, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def remove(wanted):
    """Removes namespaces of the bench whose process is so and so, with what still runs in them."""
    for line in sh("ip", "netns", "list", check=False).splitlines():
        m = re.match(PREFIX + r"-(\d+)-\w+", line)
        if not m or not wanted(int(m.group(1))):
            continue
        for pid in sh("ip", "netns", "pids", m.group(0), check=False).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                pass
        sh("ip", "netns", "del", m.group(0), check=False)


class Namespaces:
    """A context manager; namespaces and what is in them go with it."""

    def __init__(self, *roles):
        self.roles = roles
        self.guard = None

    def name(self, role):
        return f"{PREFIX}-{os.getpid()}-{role}"

    def __enter__(self):
        remove(lambda pid: not os.path.exists(f"/proc/{pid}"))
        self.guard = subprocess.Popen([sys.executable, "-m", "benchkit.veth", str(os.getpid())], cwd=TOOLS,
                                      stdin=subprocess.PIPE, start_new_session=True)
        try:
            for role in self.roles:
                sh("ip", "netns", "add", self.name(role))
                # Nothing but the bench's own packets.
                self.sysctl(role, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
                sh("ip", "-n", self.name(role), "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.guard.stdin.close()
        self.guard.wait()

    def within(self, role, *args):
        """The command line that runs a program in there."""
        return ["ip", "netns", "exec", self.name(role), *map(str, args)]

    def ip(self, role, *args):
        return sh("ip", "-n", self.name(role), *args)

    def sysctl(self, role, *settings):
        sh(*self.within(role, "sysctl", "-qw", *settings))

    def pair(self, role_a, a, role_b, b, queues=1):
        """A veth pair."""
        count = ["numtxqueues", str(queues), "numrxqueues", str(queues)]
        sh("ip", "link", "add", a, "netns", self.name(role_a), *count, "type", "veth",
           "peer", "name", b, "netns", self.name(role_b), *count)
        for role, link in ((role_a, a), (role_b, b)):
            self.ip(role, "link", "set", link, "up")

    def mac(self, role, link):
        return sh(*self.within(role, "cat", f"/sys/class/net/{link}/address")).strip()


def guard(pid):
    """Waits until the bench that started this process is gone, and cleans up behind it."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    remove(lambda of: of == pid)


if __name__ == "__main__":
    guard(int(sys.argv[1]))
