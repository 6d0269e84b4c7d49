"""What happens to machines, as faults of a soak: each is begun, lasts, is mended, and says what the tap must have told of it.

`said` are pieces of lines that the tap must print within seconds, `gap` is the cause and the source of a `capture_gap` (any source if that is
None), and `disturbs` means that the fault itself may lose packets of the forwarded traffic, so long as it lasts. `seen` is an interface whose
packets the tap must go on mirroring while the fault lasts, and `written` that records of that time must be found. `may` and `may_gap` are what may be told of it besides.
"""

import os
import signal

from . import kernel
from .bpf import Foreign, wipe
from .net import sh
from .scenarios import lines, python

# In the gateway, beside in0 and out0; their far ends are the server's.
AUX = [f"aux{n}" for n in range(4)]
FULL = "filler"
# A ring has room for some 20,000 packets, and each of these SYNs is mirrored four times: in, out, and its refusal.
FLOOD, FLOOD_RATE = 9_000, 4_000


def aux_far(n):
    return f"10.88.{n}.2"


def aux_near(n):
    return f"10.88.{n}.1"


def add_aux(lab, n):
    """Makes one, with two queues, and an address at each end."""
    gw, sv, name = lab.gateway, lab.server, AUX[n]
    sh("ip", "-n", gw, "link", "add", name, "address", f"02:88:00:00:00:{n:02x}", "numrxqueues", "2", "numtxqueues", "2",
       "type", "veth", "peer", "name", name, "netns", sv, "numrxqueues", "2", "numtxqueues", "2")
    sh("ip", "-n", sv, "addr", "add", f"{aux_far(n)}/24", "dev", name)
    sh("ip", "-n", sv, "link", "set", name, "up")
    sh("ip", "-n", gw, "addr", "add", f"{aux_near(n)}/24", "dev", name)
    sh("ip", "-n", gw, "link", "set", name, "up")


class Fault:
    said, gap, disturbs, kills, seen, written = (), None, False, False, None, False
    may, may_gap = (), None
    # Whether it is one of an interface that carries the healthy traffic, of one beside it, or of none.
    where = (None,)

    def __init__(self, soak, on):
        self.soak, self.lab, self.on = soak, soak.lab, on
        self.note = ""

    def gw(self, *args):
        return sh("ip", "-n", self.lab.gateway, *args)

    def begin(self):
        pass

    def end(self):
        pass


class Down(Fault):
    """interface down, up"""
    where = (*AUX, "in0", "out0", "in0", "out0")

    def __init__(self, *args):
        super().__init__(*args)
        self.disturbs = self.on not in AUX
        self.said = (f"{self.on} is down or has no carrier", f"{self.on} is up again")

    def begin(self):
        self.gw("link", "set", self.on, "down")

    def end(self):
        self.gw("link", "set", self.on, "up")


class Removed(Fault):
    """interface removed, made anew"""
    where = AUX

    def __init__(self, *args):
        super().__init__(*args)
        self.said = (f"{self.on} is gone", f"{self.on} is back and tapped again")
        self.gap = ("interface_gone", self.on)
        # Made first, set up then: a look in between sees both.
        self.may = (f"{self.on} is down or has no carrier", f"{self.on} is up again")

    def begin(self):
        self.gw("link", "del", self.on)

    def end(self):
        add_aux(self.lab, AUX.index(self.on))


class Renamed(Fault):
    """interface renamed, and back"""
    where = (*AUX, "in0")

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = self.on
        self.said = (f"{self.on} is called other0 now", f"{self.on} has its name again")

    def begin(self):
        self.gw("link", "set", self.on, "name", "other0")

    def end(self):
        self.gw("link", "set", "other0", "name", self.on)


class Mtu(Fault):
    """MTU changed, and back"""
    where = (*AUX, "in0", "out0")

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = self.on

    def begin(self):
        self.gw("link", "set", self.on, "mtu", "1400")

    def end(self):
        self.gw("link", "set", self.on, "mtu", "1500")


class Queues(Fault):
    """queues changed, and back"""
    where = AUX

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = self.on

    def set(self, count):
        sh("ip", "netns", "exec", self.lab.gateway, "ethtool", "-L", self.on, "rx", str(count), "tx", str(count))

    def begin(self):
        self.set(1)

    def end(self):
        self.set(2)


class ForeignXdp(Fault):
    """somebody's XDP program comes, goes"""
    where = (*AUX, "in0")

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = self.on
        self.said = (f"is on {self.on}: what it takes", f"no XDP program is on {self.on} any more")

    def begin(self):
        self.foreign = Foreign(self.lab.gateway, self.on, "xdp")

    def end(self):
        self.foreign.end()


class ForeignTcx(Fault):
    """somebody's tcx program comes in front, goes"""
    where = (*AUX, "in0", "out0")

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = self.on

    def begin(self):
        self.foreign = Foreign(self.lab.gateway, self.on, "tcx")

    def end(self):
        self.foreign.end()


class Wiped(Fault):
    """a hook of ours taken off"""
    where = (*AUX, "in0", "out0")

    def __init__(self, *args):
        super().__init__(*args)
        self.said = (f"somebody took a hook off {self.on}", f"{self.on} is hooked again")
        self.gap = ("hook_removed", self.on)

    def begin(self):
        wipe(self.lab.gateway, self.on, self.soak.tap.pid)


class Suspended(Fault):
    """SIGSTOP, SIGCONT"""

    # The rings hold some seconds of ordinary traffic.
    may_gap = ("ring_full", None)

    def begin(self):
        os.kill(self.soak.tap.pid, signal.SIGSTOP)

    def end(self):
        os.kill(self.soak.tap.pid, signal.SIGCONT)


class Overrun(Fault):
    """SIGSTOP under a flood of SYNs, SIGCONT"""

    gap = ("ring_full", None)

    def begin(self):
        os.kill(self.soak.tap.pid, signal.SIGSTOP)
        (sent,) = lines(python(self.lab, self.lab.client(2), "steady", "fill", 2, FLOOD, FLOOD_RATE), 60)
        assert sent["filled"] == FLOOD

    def end(self):
        os.kill(self.soak.tap.pid, signal.SIGCONT)


class Moved(Fault):
    """directory of records moved away, and back"""

    seen, written = "in0", True

    def begin(self):
        self.soak.records.rename(self.soak.records.with_suffix(".away"))

    def end(self):
        self.soak.records.with_suffix(".away").rename(self.soak.records)


class DiskFull(Fault):
    """disk full, then not"""

    said, seen = ("No space left on device", "records are written again"), "in0"

    def begin(self):
        self.file = self.soak.disk / FULL
        with open(self.file, "wb", buffering=0) as f:
            try:
                while f.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def end(self):
        self.file.unlink()


class NetlinkBurst(Fault):
    """400 links and addresses come and go"""

    seen, written = "in0", True
    may = ("no room for some link-layer events",)

    def begin(self):
        add = [f"link add b{n} type bridge" for n in range(100)]
        add += [f"addr add 10.99.{n}.{m}/32 dev b{n}" for n in range(100) for m in range(1, 4)]
        self.batch(add)
        self.batch([f"link del b{n}" for n in range(100)])

    def batch(self, lines):
        sh("ip", "-n", self.lab.gateway, "-batch", "-", input="\n".join(lines) + "\n")


class Flushed(Fault):
    """connection tracking flushed"""
    # What is open at that moment loses its translation.
    disturbs, seen, written = True, "in0", True

    def begin(self):
        with kernel.netlink(self.lab.gateway) as s:
            s.send(kernel.message(kernel.CT_DELETE, kernel.REQUEST | kernel.ACK))
            s.recv(4096)


class Reloaded(Fault):
    """SIGHUP with other ports, and back"""

    said, seen = ("following ports 1-60000", "following all ports"), "in0"

    def begin(self):
        self.reload("1-60000")

    def end(self):
        self.reload("1-65535")

    def reload(self, ports):
        self.soak.configure(ports)
        os.kill(self.soak.tap.pid, signal.SIGHUP)


class Killed(Fault):
    """kill -9, restart"""
    kills = True

    def begin(self):
        self.soak.kill()

    def end(self):
        self.soak.start()


KINDS = (Down, Removed, Renamed, Mtu, Queues, ForeignXdp, ForeignTcx, Wiped, Suspended, Overrun, Moved, DiskFull, NetlinkBurst, Flushed,
         Reloaded, Killed)


def plan(rng, seconds):
    """(second, kind, interface, how long it lasts): by the seed alone. Each kind comes once before any comes again; kills only in the
    first third, for the memory of a process is judged over its life."""
    at, out, deck = 5.0, [], []
    while True:
        if not deck:
            deck = list(KINDS)
            rng.shuffle(deck)
        kind = deck.pop()
        lasts, on, pause = round(rng.uniform(1.5, 3), 2), rng.choice(kind.where), round(rng.uniform(0.5, 3), 2)
        if kind.kills and at > max(seconds / 3, 30):
            continue
        if at + lasts + 8 > seconds:
            return out
        out.append((round(at, 2), kind, on, lasts))
        at += lasts + pause
