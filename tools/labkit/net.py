"""Namespaces, links, addresses, NAT: clients - switch - gateway - server.

Names carry the pid of the process that made them, so two labs can stand side by side. A guard waits for the end of that
process, however it ends, and removes what it left; what a guard could not remove the next lab does, by the pid in the name.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

PREFIX = "syntaplab"
TOOLS = Path(__file__).resolve().parent.parent

GATEWAY_INSIDE = "10.77.0.1"
GATEWAY_OUTSIDE = "198.51.100.1"
SERVER = "198.51.100.2"
GATEWAY_MAC = "02:77:00:00:00:01"


def client_ip(n):
    return f"10.77.0.{11 + n}"


def client_mac(n):
    return f"02:77:00:00:00:{11 + n:02x}"


def sh(*args, check=True, **kw):
    """Runs a command; its standard error is shown only if it fails."""
    done = subprocess.run(args, capture_output=True, text=True, **kw)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def alive(pid):
    """Whether that process is there; another one that has its number by now only puts a cleaning off."""
    return os.path.exists(f"/proc/{pid}")


def sweep():
    """Removes what labs of dead processes left."""
    for line in sh("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0] if line.split() else ""
        m = re.fullmatch(PREFIX + r"-(\d+)-\w+", name)
        if m and not alive(int(m.group(1))):
            kill_all(name)
            sh("ip", "netns", "del", name, check=False)


def names(pid):
    """The namespaces that a lab of this process has."""
    mine = re.compile(f"{PREFIX}-{pid}-\\w+")
    lines = sh("ip", "netns", "list", check=False).splitlines()
    return [line.split()[0] for line in lines if line.split() and mine.fullmatch(line.split()[0])]


def remove(pid):
    """Takes down what a process's lab is made of."""
    for name in names(pid):
        kill_all(name)
        sh("ip", "netns", "del", name, check=False)


def guard(pid):
    """Waits until the lab that started this process is gone, and cleans up behind it."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    remove(pid)


@contextlib.contextmanager
def within(namespace):
    """This thread is in that namespace meanwhile; sockets made there stay there."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(fd):
        if libc.setns(fd, 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        enter(there.fileno())
        try:
            yield
        finally:
            enter(home.fileno())


def kill_all(namespace):
    """Ends the processes in a namespace of ours."""
    for pid in sh("ip", "netns", "pids", namespace, check=False).split():
        try:
            os.kill(int(pid), 9)
        except (ProcessLookupError, ValueError):
            pass


class Lab:
    """One lab; a context manager."""

    def __init__(self, clients=3, pool=None, offloads=True, masquerade=""):
        self.clients = clients
        self.pool = pool
        self.masquerade = masquerade
        self.offloads = offloads
        self.processes = []
        self.guard = None

    def name(self, role):
        return f"{PREFIX}-{os.getpid()}-{role}"

    @property
    def gateway(self):
        return self.name("gw")

    @property
    def server(self):
        return self.name("sv")

    def client(self, n):
        return self.name(f"c{n}")

    def __enter__(self):
        if os.geteuid() != 0:
            sys.exit("lab: needs root: it makes network namespaces")
        sweep()
        self.guard = subprocess.Popen([sys.executable, "-m", "labkit.net", str(os.getpid())], cwd=TOOLS,
                                      stdin=subprocess.PIPE, start_new_session=True)
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A second Ctrl-C shall not end the cleaning.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for p in self.processes:
            if p.poll() is None:
                p.kill()
                p.wait()
        self.guard.stdin.close()
        self.guard.wait()
        signal.signal(signal.SIGINT, before)

    def build(self):
        gw, sv, sw = self.gateway, self.server, self.name("sw")
        for ns in [gw, sv, sw] + [self.client(n) for n in range(self.clients)]:
            self.namespace(ns)
        sh("ip", "-n", sw, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", sw, "link", "set", "br0", "up")
        self.veth(gw, "in0", sw, "gw", GATEWAY_MAC)
        sh("ip", "-n", sw, "link", "set", "gw", "master", "br0")
        self.veth(gw, "out0", sv, "eth0", "02:77:00:00:01:01", "02:77:00:00:01:02")
        sh("ip", "-n", gw, "addr", "add", f"{GATEWAY_INSIDE}/24", "dev", "in0")
        sh("ip", "-n", gw, "addr", "add", f"{GATEWAY_OUTSIDE}/24", "dev", "out0")
        sh("ip", "-n", sv, "addr", "add", f"{SERVER}/24", "dev", "eth0")
        # The connected route stands once the link is up.
        sh("ip", "-n", sv, "route", "replace", "198.51.100.0/24", "dev", "eth0", "rto_min", "1s", "src", SERVER)
        for n in range(self.clients):
            ns = self.client(n)
            self.veth(ns, "eth0", sw, f"c{n}", client_mac(n))
            sh("ip", "-n", sw, "link", "set", f"c{n}", "master", "br0")
            sh("ip", "-n", ns, "addr", "add", f"{client_ip(n)}/24", "dev", "eth0")
            sh("ip", "-n", ns, "route", "add", "default", "via", GATEWAY_INSIDE, "rto_min", "1s")
        self.sysctl(gw, "net.ipv4.ip_forward=1")
        pool = f"masquerade to :{self.pool}" if self.pool else f"masquerade {self.masquerade}"
        self.chain(gw, "nat", "type nat hook postrouting priority 100",
                   f"oifname out0 meta l4proto tcp {pool}", "oifname out0 masquerade")
        # A service behind a filter, for SYNs that nobody answers.
        self.chain(sv, "filter", "type filter hook input priority 0", "tcp dport 9300 drop")

    def namespace(self, ns):
        sh("ip", "netns", "add", ns)
        # No address of its own: neighbour discovery and router solicitations would only be noise.
        self.sysctl(ns, "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")
        sh("ip", "-n", ns, "link", "set", "lo", "up")
        # Only real loss shall be retransmitted: no tail loss probes after milliseconds (and no timer below a
        # second, see the routes), which a machine with two busy cores fires for nothing.
        self.sysctl(ns, "net.ipv4.tcp_early_retrans=0")

    def veth(self, ns_a, a, ns_b, b, mac_a, mac_b=None):
        sh("ip", "-n", ns_a, "link", "add", a, "address", mac_a, "type", "veth", "peer", "name", b, "netns", ns_b)
        if mac_b:
            sh("ip", "-n", ns_b, "link", "set", b, "address", mac_b)
        for ns, dev in ((ns_a, a), (ns_b, b)):
            if not self.offloads:
                sh("ip", "netns", "exec", ns, "ethtool", "-K", dev, "gso", "off", "tso", "off", "gro", "off")
            sh("ip", "-n", ns, "link", "set", dev, "up")

    @staticmethod
    def sysctl(ns, *settings):
        sh("ip", "netns", "exec", ns, "sysctl", "-qw", *settings)

    @staticmethod
    def chain(ns, table, hook, *rules):
        """One nftables chain in a table of its own."""
        body = "\n".join([hook + ";", *rules])
        sh("ip", "netns", "exec", ns, "nft", "-f", "-", input=f"table ip {table} {{\nchain c {{\n{body}\n}}\n}}\n")

    def spawn(self, ns, *args, **kw):
        """Starts a process in a namespace; it ends with the lab. A Ctrl-C is the lab's to answer, not its own."""
        kw.setdefault("start_new_session", True)
        p = subprocess.Popen(["ip", "netns", "exec", ns, *args], **kw)
        self.processes.append(p)
        return p

    def snmp(self, ns):
        """TCP counters of a namespace."""
        lines = sh("ip", "netns", "exec", ns, "cat", "/proc/net/snmp").splitlines()
        tcp = [line.split()[1:] for line in lines if line.startswith("Tcp:")]
        return {k: int(v) for k, v in zip(*tcp)}


if __name__ == "__main__":
    guard(int(sys.argv[1]))
