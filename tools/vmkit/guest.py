"""Runs in the guest: the smoke set, one line of JSON for each thing tried, on standard output.

  python3 -m vmkit.guest [--only NAME]
"""

import json
import os
import subprocess
import sys
import time
import traceback

from labkit import scenarios
from labkit.net import Lab, sh
from labkit.scenarios import Tap, lines, short, start_server

from . import nics

SYNTAP = "/syntap/syntap"
# Cells of the rule of TIME_WAIT: enough of it to be sure that a refusal is told and a healthy reuse is not.
CELLS = ["story", "isn_next", "ts_older_isn_after", "half_open_isn_before"]
TOO_SLOW = {"no_connection", "no_answer", "no_last_ack", "late", "not_finished"}
MEBIBYTES, CONNECTIONS = 8, 200
# Receive queues that a driver is asked for, where it has more than one.
QUEUES = {"virtio_net": 4, "igb": 2}


def told(**fields):
    print(json.dumps(fields), flush=True)


def log(text):
    with open("/dev/console", "w") as console:
        console.write(f"vm: {text}\n")


def check(_):
    """What it says of itself."""
    done = subprocess.run([SYNTAP, "check"], capture_output=True, text=True)
    hook = next((x.strip() for x in done.stdout.splitlines() if x.strip().startswith(("ok    Linux", "note  Linux", "NO    Linux"))), "")
    refused = [x.strip() for x in done.stdout.splitlines() if "--transport" in x and not x.strip().startswith("ok")]
    ok = done.returncode == 0 and not refused
    seen = "; ".join([hook.split(None, 1)[-1], *refused, "" if refused else "both transports open"]).removesuffix("; ")
    return ok, seen, {"said": done.stdout}, done.stdout.splitlines()


def hooked(traces):
    """Programs at each hook of the lab's gateway, by whichever mechanism."""
    return [n + traces["classic"][hook] for hook, n in traces["tcx"].items()]


def mirror(transport):
    os.environ["SYNTAP_TRANSPORT"] = transport
    truth = scenarios.mirror(SYNTAP, f"/tmp/mirror-{transport}", MEBIBYTES, CONNECTIONS)
    at = truth["tapped"]
    whole = at["bulk"]["bytes"] == MEBIBYTES << 20 and at["bulk"]["wrong_blocks"] == 0 and at["short"]["ok"] == CONNECTIONS
    # Of connections. A client on a slow machine may answer what comes after its own end with a reset, tapped or not.
    resets = sum(at[part]["EstabResets"] for part in ("bulk", "short"))
    lost = next((x for x in truth["stderr"] if x.startswith("lost")), "lost not told").split(None, 1)[1]
    each = hooked(truth["during"])
    clean = truth["before"] == truth["after"]
    ok = whole and resets == 0 and clean and truth["exit"] == 0 and each == [1] * 4 and lost.startswith("0 dropped, 0 missed")
    seen = (f"{MEBIBYTES} MiB and {at['short']['ok']} of {CONNECTIONS} connections whole, {resets} reset; {lost}; "
            f"{'nothing left' if clean else 'SOMETHING IS LEFT'}")
    return ok, seen, truth, truth["stderr"]


def killed(how):
    os.environ["SYNTAP_TRANSPORT"] = "ringbuf"
    truth = scenarios.killed(SYNTAP, f"/tmp/killed-{how}", how, 400)
    whole = sum(r["ok"] for r in truth["results"])
    clean = truth["before"] == truth["after"]
    ok = whole == 400 and truth["counters"]["EstabResets"] == 0 and clean and truth["exit"] == (-9 if how == "kill" else 0)
    seen = f"{whole} of 400 connections whole, {'nothing left' if clean else 'SOMETHING IS LEFT: ' + str(truth['after'])}"
    return ok, seen, truth, truth["stderr"]


def refusals(_):
    os.environ["SYNTAP_TRANSPORT"] = "ringbuf"
    wanted, good, lines = list(CELLS), 0, []
    for n in range(3):
        records = f"/tmp/refusals-{n}"
        truth = scenarios.refusals(SYNTAP, records, None, wanted)
        lines = truth["stderr"]
        shown = [json.loads(x) for x in sh(SYNTAP, "show", "--json", records).splitlines()]
        again = []
        for cell in truth["cells"]:
            if cell["outcome"] in TOO_SLOW:
                again.append(cell["cell"])
                continue
            mine = [r for r in shown if r["src_port"] == cell["sport"] and r["kind"] == "tuple_reuse_refused"
                    and r["interface"] == "out0"]
            if cell["stale_acks"]:
                facts = mine[0]["facts"] if len(mine) == 1 else {}
                right = all(facts.get(k) == cell[k] for k in ("isn", "rcv_nxt", "rule", "old_state", "stale_acks"))
            else:
                right = not mine
            right = right and cell["outcome"] == cell["expected"]
            good += right
            if not right:
                lines.append(f"not told as it was: {cell} {mine}")
        wanted = again
        if not wanted:
            break
    seen = f"{good} of {len(CELLS)} cells of the rule told with the kernel's own numbers"
    return good == len(CELLS), seen, {"too_slow": wanted}, lines


def stepped(_):
    """Somebody sets the clock an hour on and an hour back: times are told apart by the clock that nobody sets."""
    os.environ["SYNTAP_TRANSPORT"], records, hour = "ringbuf", "/tmp/stepped", 3600
    with Lab() as lab:
        start_server(lab)
        tap = Tap(lab, SYNTAP, records)
        whole = 0
        for by in (0, hour, -hour):
            time.clock_settime(time.CLOCK_REALTIME, time.time() + by)
            time.sleep(2.5)
            whole += lines(short(lab, 0, 100), 120)[0]["ok"]
        code = tap.stop()
        said = tap.lines
    all_ = [json.loads(x) for x in sh(SYNTAP, "show", "--json", records).splitlines()]
    loud = [r["kind"] for r in all_ if r["severity"] != "info"]
    odd = [r["kind"] for r in all_ if r["last_ns"] < r["first_ns"] or r["last_ns"] - r["first_ns"] > hour * 1e9 / 2]
    verified = subprocess.run([SYNTAP, "verify", records], capture_output=True, text=True)
    ok = whole == 300 and code == 0 and not loud and not odd and verified.returncode == 0
    seen = (f"{whole} of 300 connections whole; above info: {', '.join(loud) or 'none'}; records of impossible length: "
            f"{', '.join(odd) or 'none'}; ended with {code}; shards {'whole' if verified.returncode == 0 else 'NOT WHOLE'}")
    return ok, seen, {}, said + verified.stdout.splitlines()


def modules():
    """Loads what udev would for the machine's devices, and what nftables asks for by itself: a failure is worth a line here."""
    for name in ("crc32c_generic", "nf_tables", "nft_chain_nat", "nft_masq", "nf_conntrack_netlink", "virtio_pci", "virtio_net", "e1000e", "vmxnet3", "igb"):
        done = subprocess.run(["/sbin/modprobe", name], capture_output=True, text=True)
        if done.returncode != 0:
            log(f"modprobe {name}: {done.stderr.strip()}")


def on_veth():
    yield "check", "", "load", check, None
    for transport in ("ringbuf", "afxdp"):
        yield f"inline-{transport}", "veth", f"inline, {transport}", mirror, transport
    yield "killed", "veth", "inline, killed with -9", killed, "kill"
    yield "stopped", "veth", "inline, stopped and continued", killed, "stop"
    yield "refusals", "veth", "a refused reuse is named", refusals, None
    yield "stepped", "veth", "the clock set an hour on, and back", stepped, None


def main(argv):
    only = argv[argv.index("--only") + 1] if "--only" in argv else ""
    told(release=os.uname().release)
    modules()

    def attempt(name, driver, mode, what, *args):
        if only and only not in name:
            return
        begun = time.monotonic()
        log(name)
        try:
            ok, seen, facts, lines = what(*args)
        except Exception as e:
            ok, seen, facts, lines = False, f"it failed: {e}", {}, traceback.format_exc().splitlines()
        told(name=name, driver=driver, mode=mode, ok=ok, seen=seen, facts=facts, lines=lines,
             seconds=round(time.monotonic() - begun, 1))

    for name, driver, mode, what, arg in on_veth():
        attempt(name, driver, mode, what, arg)
    os.environ.pop("SYNTAP_TRANSPORT", None)
    sh("ip", "link", "add", "va", "type", "veth", "peer", "name", "vb")
    ports = {"veth": ["va", "vb"], **nics.pairs()}
    for driver, (tapped, peer, *_) in ports.items():
        queues = QUEUES.get(driver, 1)
        try:
            nics.set_up(tapped, peer, queues)
            attempt(f"span-{driver}", driver, f"span, {queues} queue{'s' * (queues > 1)}", nics.span, SYNTAP, driver, tapped, peer)
            for transport in ("ringbuf", "afxdp") if driver != "veth" else ():
                attempt(f"nic-{driver}-{transport}", driver, f"inline, {transport}", nics.inline, SYNTAP, driver, tapped, peer,
                        "--transport", transport)
                sh("ip", "addr", "flush", "dev", tapped)
                sh("ip", "-n", nics.PEER, "addr", "flush", "dev", peer)
        except Exception as e:  # one driver's trouble shall not hide the others
            told(name=f"set-up-{driver}", driver=driver, mode="set up", ok=False, seen=f"it failed: {e}", facts={},
                 lines=traceback.format_exc().splitlines(), seconds=0)
        finally:
            nics.take_down(tapped, peer)
    told(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
