"""A soak: mixed traffic without pause, faults from a seed, and at the end what must be true of the tap."""

import json
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from . import faults
from .bpf import attached
from .net import Lab, sh, within
from .scenarios import Tap, lines, python, start_server, story
from .trouble import piped
from .verdict import records_in

# A message may be late by a look of the tap, and on a busy machine by more.
LATE_S = 6
# What the tap counts is shown after a look, each second.
LOOK_S = 1.2
# What is said often of one interface, or of the disk, is held back for a minute; the last of it is said then, with how many came before.
HELD_S = 62 + LATE_S
# A translation that is lost by a flush is told within this time: 60 s that it gathers, and some.
FLUSH_S = 90
# What a disturbing fault explains goes on for a while after it: TCP waits twice as long with each try.
AFTER_S = 6
# Tables that remember tuples have room for 262,144; memory grows until they are full, and is judged from then on. They are filled by
# SYNs that are refused, after the last kill, in runs that are long enough.
FILL, FILL_RATE, FILL_FROM_MINUTES = 270_000, 4_000, 5
WARM_S = 20
# Memory may grow so much afterwards.
GROWTH_KIB = 4 << 10
DISK = "96m"


class Told(Tap):
    """A tap whose lines have times."""

    def __init__(self, *args, **kw):
        self.times = []
        super().__init__(*args, **kw)

    def read(self):
        for line in self.process.stderr:
            self.times.append((time.time(), line.rstrip()))
            self.lines.append(line.rstrip())
            if "records go to" in line:
                self.ready.set()
        self.ready.set()


class Soak:
    def __init__(self, syntap, lab, directory, seed, seconds):
        self.syntap, self.lab, self.seed, self.seconds = syntap, lab, seed, seconds
        self.disk = Path(directory) / "disk"
        self.disk.mkdir()
        sh("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "syntap-soak", str(self.disk))
        self.records, self.config = self.disk / "records", Path(directory) / "syntap.toml"
        self.metrics, self.cut = Path(directory) / "metrics.sock", []
        self.tap, self.said, self.memory, self.kills, self.left = None, [], [], 0, []
        self.begun, self.filled = time.monotonic(), None
        self.over, self.trouble = threading.Event(), Counter()

    def configure(self, ports):
        self.config.write_text(f'ports = "{ports}"\n')

    def start(self):
        # Those beside carry no forwarded traffic.
        which = "in0=inside,out0=outside," + ",".join(f"{name}=inside" for name in faults.AUX)
        more = ("--config", self.config, "--reattach", "--max-flows", 4096, "--status", 0, "--metrics", self.metrics)
        self.tap = Told(self.lab, self.syntap, self.records, *more, interfaces=which)
        self.memory.append([])

    def finish(self):
        code = self.tap.stop()
        self.said += self.tap.times
        return code

    def kill(self):
        self.tap.process.kill()
        self.tap.process.wait()
        self.tap.reader.join(5)
        self.said += self.tap.times
        self.kills += 1
        self.left.append(self.attached())
        self.cut.append(max(verified(self.syntap, self.records), key=lambda shard: shard["shard"]))

    def attached(self):
        return attached(self.lab.gateway, ["in0", "out0", *faults.AUX])

    def mirrored(self, name):
        """How many packets of an interface the tap has put into its rings, as it said last: it looks each second."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(str(self.metrics))
            s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: s.recv(1 << 16), b"")).decode()
        counts = re.findall(rf'^syntap_mirrored_packets_total{{[^}}]*interface="{name}"[^}}]*}} (\d+)', text, re.M)
        if not counts:
            raise RuntimeError(f"the tap shows no packets of {name}")
        return sum(map(int, counts))

    def fill(self):
        """Fills the tap's tables once no kill will empty them again."""
        if self.seconds < FILL_FROM_MINUTES * 60 or self.over.wait(self.seconds / 3 + 8):
            return
        lines(python(self.lab, self.lab.client(2), "steady", "fill", 2, FILL, FILL_RATE), 600)
        self.filled = time.monotonic() - self.begun

    def watch_memory(self):
        begun = self.begun
        while not self.over.wait(1):
            try:
                text = Path(f"/proc/{self.tap.pid}/status").read_text()
            except OSError:
                continue
            found = [int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")]
            if found and self.memory:
                self.memory[-1].append((time.monotonic() - begun, found[0]))

    def aux_traffic(self):
        """Connections that nobody listens for, over the interfaces beside."""
        with within(self.lab.server):
            n = 0
            while not self.over.wait(0.1):
                n += 1
                with socket.socket() as s:
                    s.settimeout(0.3)
                    try:
                        s.connect((faults.aux_near(n % len(faults.AUX)), 9200))
                    except OSError:
                        pass

    def mixed(self):
        """Trouble as the lab has it, in turn, until it is over. What a fault breaks of it is none of its checks."""
        turn = 0
        while not self.over.is_set():
            turn += 1
            port = 56_000 + turn % 40 * 200
            what = [
                lambda: lines(python(self.lab, self.lab.client(2), "odd", "everything", 2, 10, 2), 60),
                lambda: lines(python(self.lab, self.lab.client(2), "traffic", "knock", 9200, 20), 60),
                lambda: lines(python(self.lab, self.lab.client(2), "traffic", "knock", 9300, 1), 60),
                lambda: lines(python(self.lab, self.lab.client(2), "crowd", "short", 100, 10, port), 60),
                lambda: lines(python(self.lab, self.lab.client(2), "traffic", "bulk", 4), 90),
            ][turn % 5]
            try:
                what()
                self.trouble["done"] += 1
            except (RuntimeError, subprocess.TimeoutExpired, IndexError):
                self.trouble["broken"] += 1


def verified(syntap, path):
    """What `verify` says of each shard."""
    out = subprocess.run([str(syntap), "verify", "--json", str(path)], capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def around(fault, at):
    return fault["from"] - 0.5 <= at <= fault["to"] + LATE_S


def is_gap_of(fault, gap):
    """Whether a fault accounts for a `capture_gap`."""
    cause, source = fault["gap"] or fault["may_gap"] or (None, None)
    facts = gap["facts"]
    return facts["cause"] == cause and facts["source"] == (source or facts["source"]) \
        and gap["first_ns"] / 1e9 <= fault["to"] + LATE_S and gap["last_ns"] / 1e9 >= fault["from"] - 2


def nearest(done, gap):
    """The fault that shares most of its time with a gap that it accounts for."""
    def shared(fault):
        return min(gap["last_ns"] / 1e9, fault["to"]) - max(gap["first_ns"] / 1e9, fault["from"])

    return max((f for f in done if is_gap_of(f, gap)), key=shared, default={"what": "no fault"})["what"]


def judge_fault(fault, said, gaps, ends):
    """What of a fault was told, and whether that is what it must be."""
    heard = [text for at, text in said if around(fault, at)]
    missing = [want for want in fault["said"] if not any(want in text for text in heard)]
    if fault["gap"]:
        cause, source = fault["gap"]
        if not any(is_gap_of(fault, g) for g in gaps):
            missing.append(f"capture_gap {cause} of {source or 'any interface'}")
    if fault["blind"]:
        missing.append(f"nothing of {fault['seen']} was mirrored meanwhile")
    if fault["written"] and not any(fault["from"] <= at <= fault["to"] for at in ends):
        missing.append("no record of that time is there")
    return missing


LEFT_OUT = re.compile(r"\((\d+) messages? on this")


def held_back(done, said):
    """Takes from what was not told of faults what was held back: said within the minute, counted in what was, or killed with the tap."""
    def subject(text):
        return next((f["on"] for f in done if f["on"] and f"{f['on']} " in text), "")

    left = Counter()
    for _, text in said:
        if m := LEFT_OUT.search(text):
            left[subject(text)] += int(m.group(1))
    kills = [f["from"] for f in done if f["kills"]]
    for f in done:
        late = [text for at, text in said if f["to"] < at <= f["to"] + HELD_S]
        killed = any(f["to"] <= at <= f["to"] + HELD_S for at in kills)
        # A gap is over, and written, a look after the interface is back.
        cut = any(f["to"] - LOOK_S <= at <= f["to"] + LATE_S for at in kills)
        still = []
        for want in f["missing"]:
            if cut and want.startswith("capture_gap"):
                continue
            if want in f["said"] and (killed or any(want in text for text in late)):
                continue
            if want in f["said"] and left[f["on"]]:
                left[f["on"]] -= 1
                continue
            still.append(want)
        f["missing"] = still


def lost_translations(done, records):
    """Translations that were told to be lost though nobody flushed connection tracking or took an interface down."""
    kinds = ("nat_remapped", "nat_mapping_lost", "reset_by_gateway", "untranslated_packet")
    told = [r for r in records if r["kind"] in kinds and r["severity"] != "info"]
    flushes = [f for f in done if f["disturbs"]]
    return [f"{r['kind']} {r['src_ip']}:{r['src_port']} at {r['time']}" for r in told
            if not any(f["from"] - 1 <= r["first_ns"] / 1e9 <= f["to"] + FLUSH_S for f in flushes)]


# What a run says whatever happens: as it begins, and of an interface of which it has much to say, once it is quiet.
ANYWAY = ("runs as ", "tapping ", "listening to ", "following all ports; records go to ", "messages on this", "message on this")


def unasked(done, said):
    """What the tap said without a fault that accounts for it: it cried wolf."""
    def accounted(at, text):
        pieces = [piece for f in done if around(f, at) for piece in (*f["said"], *f["may"])]
        pieces += [piece for f in done if f["to"] < at <= f["to"] + HELD_S for piece in f["said"]]
        return any(piece in text for piece in (*ANYWAY, *pieces))

    return [text for at, text in said if text.startswith("syntap: ") and not accounted(at, text)]


def goes_on(soak, fault, lasts):
    """Waits, and whether the tap has mirrored packets of the fault's interface since the fault was there."""
    time.sleep(LOOK_S)
    before, until = soak.mirrored(fault.seen), time.monotonic() + LATE_S
    time.sleep(max(0, lasts - LOOK_S))
    while soak.mirrored(fault.seen) == before and time.monotonic() < until:
        time.sleep(0.1)
    return soak.mirrored(fault.seen) > before


def inject(soak, rng, begun, tell):
    """The faults of the plan, each at its second; what was done, with times."""
    done = []
    for at, kind, on, lasts in faults.plan(rng, soak.seconds):
        time.sleep(max(0, begun + at - time.time()))
        fault = kind(soak, on)
        row = {"what": kind.__doc__, "on": on or "", "planned": at, "from": time.time(), "lasts": lasts, "said": fault.said,
               "gap": fault.gap, "disturbs": fault.disturbs, "kills": kind.kills, "seen": fault.seen, "blind": False,
               "written": fault.written, "may": fault.may, "may_gap": fault.may_gap}
        tell(f"{at:7.2f} s  {kind.__doc__} {on or ''}")
        fault.begin()
        if fault.seen:
            row["blind"] = not goes_on(soak, fault, lasts)
        else:
            time.sleep(lasts)
        fault.end()
        row["to"] = time.time()
        done.append(row)
    return done


def soak(syntap, directory, minutes, seed, tell, keep=None):
    """Runs it: checks, faults and figures. `keep` is a directory that the records are copied into."""
    seconds, rng = minutes * 60, random.Random(seed)
    with Lab() as lab:
        for n in range(len(faults.AUX)):
            faults.add_aux(lab, n)
        start_server(lab)
        server = piped(lab, lab.server, "steady", "serve")
        if server.stdout.readline().strip() != "ready":
            raise RuntimeError("the server did not start")
        s = Soak(syntap, lab, directory, seed, seconds)
        try:
            return run(s, server, rng, tell)
        finally:
            s.over.set()
            if keep:
                shutil.copytree(s.records, keep, dirs_exist_ok=True)
            sh("umount", "-l", str(s.disk), check=False)


def run(s, server, rng, tell):
    lab = s.lab
    s.configure("1-65535")
    s.start()
    clients = [piped(lab, lab.client(n), "steady", "ask", n, 25) for n in range(2)]
    threads = [threading.Thread(target=t, daemon=True) for t in (s.watch_memory, s.aux_traffic, s.mixed, s.fill)]
    heard = [[], [], []]
    threads += [threading.Thread(target=lambda c=c, to=to: to.extend(map(json.loads, c.stdout)), daemon=True)
                for c, to in zip([*clients, server], heard)]
    for t in threads:
        t.start()
    begun = time.time()
    done = inject(s, rng, begun, tell)
    time.sleep(max(0, begun + s.seconds - 6 - time.time()))
    for c in clients:
        c.stdin.close()
    s.over.set()
    for t in threads[:-1]:
        t.join(60)
    # That it sees what it saw before: the story, after the last fault.
    last = time.time()
    (cell,) = story(lab, cells=["story"])
    time.sleep(1.5)
    rss_end = s.memory[-1][-1][1] if s.memory[-1] else 0
    code = s.finish()
    lasted = time.time() - begun
    server.stdin.close()
    threads[-1].join(60)
    left = s.attached()
    shards = verified(s.syntap, s.records)
    records = records_in(s.syntap, s.records)
    return judge(s, done, heard, records, shards, cell, last, code, left, rss_end) | {"seconds": round(lasted)}


def judge(s, done, heard, records, shards, cell, last, code, left, rss_end):
    checks = []

    def check(what, wanted, found, ok=None):
        checks.append({"what": what, "wanted": wanted, "found": found, "ok": wanted == found if ok is None else bool(ok)})

    *totals, served = [h[-1] for h in heard]
    troubled = [row for h in heard for row in h[:-1]]
    disturbing = [f for f in done if f["disturbs"]]
    explained = [r for r in troubled if any(r["begun"] <= f["to"] + AFTER_S and r["ended"] >= f["from"] - 0.1 for f in disturbing)]
    unexplained = [r for r in troubled if r not in explained]
    asked, ok = sum(t["asked"] for t in totals), sum(t["ok"] for t in totals)
    failed = sum(t["failed"] for t in totals)
    check("healthy connections asked for = whole at the client + explained by a fault", asked,
          ok + sum(r["what"] == "failed" for r in explained))
    check("connections, seen from either end, that failed or of which a packet was sent again, and no fault explains it", 0,
          len(unexplained))
    check("answers that the server gave, between those whole at the clients and all", f"{ok} to {ok + failed}",
          served["answered"], ok <= served["answered"] <= ok + failed)

    gaps = [r for r in records if r["kind"] == "capture_gap"]
    ends = [r["last_ns"] / 1e9 for r in records]
    for f in done:
        f["missing"] = judge_fault(f, s.said, gaps, ends)
    held_back(done, s.said)
    missed = [f"{f['what']} {f['on']}: {', '.join(f['missing'])}" for f in done if f["missing"]]
    check("faults that were not told of as they must be", "none", "; ".join(missed) or "none")

    wolf = unasked(done, s.said) + [f"capture_gap {g['facts']['cause']} of {g['facts']['source']}" for g in gaps
                                    if g["facts"]["cause"] != "ring_full" and not any(is_gap_of(f, g) for f in done)]
    check("messages and gaps, but for full rings, that no fault accounts for", "none", "; ".join(wolf) or "none")

    wolf = lost_translations(done, records)
    check("translations called lost though nothing was done to them", "none", "; ".join(wolf[:9]) or "none")
    blind = [r for r in records if r["kind"] == "nat_remapped" and r["loss"] and r["severity"] != "info"]
    check("changed translations, above info, of a time in which the tap lost packets", 0, len(blind))

    if s.filled and s.memory[-1]:
        life = s.memory[-1]
        after = [rss for at, rss in life if at >= s.filled + WARM_S]
        half = max(after[:len(after) // 2])
        check(f"RSS with all tables full, {len(after)} s: most in the first half, then in the second",
              f"grows by {GROWTH_KIB >> 10} MiB at most", f"{half / 1024:.1f}, {max(after) / 1024:.1f} MiB", max(after) <= half + GROWTH_KIB)
    bad = [t for t in shards if not t["whole"] or t["lost_bytes"] or t["lost_records"] or t["odd_lines"]]
    check("shards with something lost, at most one for each kill -9", f"at most {s.kills}", len(bad), len(bad) <= s.kills)
    later = {shard["shard"]: shard for shard in shards}
    kept = [c for c in s.cut if c["end"] == "not closed" and later.get(c["shard"]) == c]
    check("shards of killed runs that are called not closed, and are at the end what they were after the kill", s.kills, len(kept))
    check("programs left on hooks after each kill -9, and at the end", 0, sum(s.left) + left)
    check("exit code of the last run", 0, code)
    refused = [r for r in records if r["kind"] == "tuple_reuse_refused" and r["last_ns"] / 1e9 > last]
    check(f"the story's reuse after the last fault ({cell['outcome']}), as tuple_reuse_refused", True, bool(refused))
    kinds = Counter(r["kind"] for r in records)
    lost_by = Counter(g["facts"]["cause"] for g in gaps)
    full = [g for g in gaps if g["facts"]["cause"] == "ring_full"]
    full_by = Counter(nearest(done, g) for g in full)
    return {"checks": checks, "faults": done, "unexplained": unexplained, "explained": len(explained), "kinds": kinds,
            "gaps": lost_by, "full": full_by, "asked": asked, "ok": ok, "kills": s.kills, "mixed": dict(s.trouble), "said": s.said,
            "rss_end": rss_end, "memory": s.memory}

