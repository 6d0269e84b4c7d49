"""A capture of ten million packets of a million connections, through syntap and through others, packets a CPU second each.

Others that are slow get the beginning of it: the same generator with a smaller number. What they do is not the same: argus, softflowd
and tcptrace keep flows and report each, tshark dissects every packet and counts conversations.
"""

import os
import shutil
import tempfile

from .run import SYNTAP, WORK, meter, timed

GOAL = 20

# Packets a second to expect: who is slow gets less.
PEERS = {
    "argus": (1.0, lambda f, d: ["argus", "-F", "/dev/null", "-X", "-r", f, "-w", os.path.join(d, "argus.out")]),
    # With a control socket it would wait for somebody to call.
    "softflowd": (1.0, lambda f, d: ["softflowd", "-d", "-r", f, "-m", "2097152", "-p", os.path.join(d, "pid"), "-c", "none"]),
    "tcptrace": (0.05, lambda f, d: ["tcptrace", "-n", f]),
    "tshark": (0.05, lambda f, d: ["tshark", "-n", "-r", f, "-q", "-z", "conv,tcp"]),
}


def trace(packets, bits):
    """The capture, made once."""
    os.makedirs(WORK, exist_ok=True)
    path = os.path.join(WORK, f"trace-{packets}-{bits}.pcap")
    if not os.path.exists(path):
        fresh = f"{path}.{os.getpid()}"
        meter("trace", fresh, "--packets", packets, "--bits", bits)
        os.rename(fresh, path)
    # Read once, so that nobody waits for the disk.
    with open(path, "rb") as f:
        while f.read(1 << 24):
            pass
    return path


def measure(results, effort):
    packets, bits = effort.of((10_000_000, 20), (2_000_000, 18), (20_000, 10))
    bound = effort.of(90, 30, 10)
    whole = trace(packets, bits)
    with tempfile.TemporaryDirectory(prefix="syntap-bench-") as scratch:
        ours, walls = [], []
        for _ in range(effort.of(3, 2, 1)):
            t = timed([SYNTAP, "replay", "--max-flows", str(5 << (bits - 2)), whole], 240)
            if t is None or t["exit"] != 0:
                results.skip("replay", f"syntap replay ended with {t and t['exit']}")
                return
            ours.append(packets / t["cpu"])
            walls.append(packets / t["wall"])
        peers, details = {}, {}
        for name, (share, argv) in PEERS.items():
            if not shutil.which(name):
                results.skip(f"replay by {name}", "it is not installed and could not be")
                continue
            n = int(packets * share)
            path = whole if share == 1 else trace(n, bits)
            t = timed(argv(path, scratch), bound)
            if t is None:
                results.skip(f"replay by {name}", f"not done with {n} packets in {bound} s")
                continue
            peers[name] = n / t["cpu"]
            details[name] = {"packets": n, "wall_s": t["wall"], "cpu_s": t["cpu"], "exit": t["exit"]}
    best = max(ours)
    results.add("replay", best, "packets/CPU s", peers=peers, note=f"{packets} packets, {1 << bits} connections at once",
                packets_a_second=max(walls), runs=ours, peers_ran=details)
    if peers:
        results.add("replay to the fastest peer", best / max(peers.values()), "x", least=GOAL)
