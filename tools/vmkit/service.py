"""Runs in a guest that systemd has started: the package there, from its installation to its purge, one line of JSON for each thing tried.

  python3 -m vmkit.service
"""

import json
import os
import re
import subprocess
import time
import traceback
from pathlib import Path

from labkit.bpf import programs
from labkit.net import sh

from .guest import log, told

DEB, CONFIG, RECORDS = "/tmp-syntap.deb", Path("/etc/syntap/syntap.toml"), "/var/lib/syntap"
FAR, HERE, THERE, REFUSING = "far", "10.9.0.1", "10.9.0.2", 5001
NEEDS = """[Service]
AmbientCapabilities=CAP_NET_RAW CAP_IPC_LOCK
CapabilityBoundingSet=CAP_NET_RAW CAP_IPC_LOCK
"""
NEEDS_AFXDP = NEEDS + """AmbientCapabilities=CAP_SYS_ADMIN
CapabilityBoundingSet=CAP_SYS_ADMIN
RestrictNamespaces=net
"""


class Wrong(Exception):
    """Something is not as it should be."""


def hold(that, words):
    if not that:
        raise Wrong(words)


def until(what, seconds, words):
    """Waits for it; its last answer."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        hold(time.monotonic() < end, f"{words} within {seconds} s")
        time.sleep(0.2)
    return answer


def unit(*names):
    """Properties of the unit, as systemd tells them."""
    said = sh("systemctl", "show", "syntap", *(f"--property={name}" for name in names))
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return [values.get(name, "") for name in names]


def journal():
    return sh("journalctl", "--unit=syntap", "--output=cat", "--no-pager")


def state():
    return unit("ActiveState")[0]


def runs():
    """It is ready, by its own word; the main process."""
    # `systemctl reload` may return a moment before the unit is told to be active again.
    until(lambda: (now := state()) != "reloading" and now, 10, "it is still reloading")
    hold(state() == "active", f"the unit is {state()}: {journal()[-600:]}")
    pid = int(unit("MainPID")[0])
    fields = dict(re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M))
    hold(fields["Uid"].split()[0] != "0", "it runs as root")
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        hold(int(fields[name], 16) == 0, f"{name} is {fields[name]}")
    hold(fields["Seccomp"] == "2" and fields["NoNewPrivs"] == "1", "it is not shut in")
    return pid


def hooks():
    """Programs at the interface's hooks, by whichever mechanism, as the kernel tells."""
    filters = [sh("tc", "filter", "show", "dev", "near", hook, check=False) for hook in ("ingress", "egress")]
    found = sum("handle" in line for shown in filters for line in shown.splitlines())
    try:
        return found + programs(["near"])
    except OSError:
        return found  # before 6.6 there are no others


def configure(*lines):
    """The packaged file with these lines in place of what it shows."""
    text = Path(f"{CONFIG}.packaged")
    if not text.exists():
        text.write_text(CONFIG.read_text())
    whole = text.read_text()
    for line in lines:
        name = line.split(" = ")[0]
        whole, n = re.subn(rf"^#?{re.escape(name)} = .*$", line, whole, count=1, flags=re.M)
        hold(n == 1, f"the packaged configuration has no {name}")
    CONFIG.write_text(whole)


def override(text):
    folder = Path("/etc/systemd/system/syntap.service.d")
    folder.mkdir(exist_ok=True)
    (folder / "override.conf").write_text(text)
    sh("systemctl", "daemon-reload")


def refused(port):
    """A connection that nobody listens for, from the other side of the wire."""
    code = f"import socket; s = socket.socket(); s.settimeout(5); s.bind(('', {port})); print(s.connect_ex(('{HERE}', {REFUSING})))"
    hold(sh("ip", "netns", "exec", FAR, "python3", "-c", code).strip() == "111", "it was not refused")


def recorded(port):
    said = subprocess.run(["syntap", "show", "--json", RECORDS], capture_output=True, text=True).stdout
    return [r for r in map(json.loads, said.splitlines()) if r["kind"] == "syn_refused" and port in (r["src_port"], r["dst_port"])]


def seen(port):
    """What happens on the wire comes into the records."""
    refused(port)
    until(lambda: recorded(port), 20, f"the refusal of port {port} is in no record")


def installed():
    began = time.monotonic()
    sh("dpkg", "--install", DEB)
    enabled = sh("systemctl", "is-enabled", "syntap", check=False).strip()
    hold((enabled, state()) == ("disabled", "inactive"), f"after the installation it is {enabled} and {state()}")
    return f"dpkg --install in {time.monotonic() - began:.0f} s; disabled, inactive"


def empty():
    done = subprocess.run(["systemctl", "start", "syntap"], capture_output=True, text=True)
    hold(done.returncode != 0, "it ran without an interface")
    line = next((x for x in journal().splitlines() if "--interface" in x), "")
    hold(line, f"nobody says that an interface is missing: {journal()}")
    sh("systemctl", "stop", "syntap")
    sh("systemctl", "reset-failed", "syntap", check=False)
    return "the start fails, and the journal says that no interface is named"


def started():
    configure('interface = ["near=inside"]')
    began = time.monotonic()
    sh("systemctl", "start", "syntap")
    took = time.monotonic() - began
    runs()
    status, user = unit("StatusText", "User")
    hold(user == "syntap", f"the user is {user}")
    seen(40001)
    until(lambda: unit("StatusText")[0], 20, f"no status line: '{status}'")
    tight = sh("find", RECORDS, "-type", "f", "-printf", "%u %m\n").split("\n")
    hold(set(filter(None, tight)) == {"syntap 640"}, f"records are {tight}")
    return f"ready after {took:.1f} s, as {user}, without a capability, seccomp on; a refusal is recorded; status: {unit('StatusText')[0]}"


def exposed():
    said = sh("systemd-analyze", "security", "syntap", "--no-pager", check=False)
    score = re.search(r"Overall exposure level for syntap.service: ([\d.]+)", said)
    hold(score and float(score[1]) <= 2.0, f"exposure: {said[-200:]}")
    return f"systemd-analyze security, of the unit as it runs: {score[1]}"


def reloaded():
    pid = runs()
    configure('interface = ["near=inside"]', 'ports = "443"')
    sh("systemctl", "reload", "syntap")
    hold(runs() == pid, "another process")
    refused(40002)
    configure('interface = ["near=inside"]')
    sh("systemctl", "reload", "syntap")
    seen(40003)
    hold(not recorded(40002), "a port that was taken out is in the records")
    hold(runs() == pid, "another process")
    return "systemctl reload with other ports and back: the same process, the port is out and in again"


def killed():
    pid, before = runs(), hooks()
    os.kill(pid, 9)
    until(lambda: unit("NRestarts")[0] == "1" and state() == "active", 40, "it is not started again")
    hold(runs() != pid and hooks() == before, f"{before} hooks before, {hooks()} after")
    seen(40004)
    return f"kill -9: started again by systemd, {before} hooks before and after, a refusal is recorded"


def watched():
    override("[Service]\nWatchdogSec=12s\nTimeoutAbortSec=5s\n")
    sh("systemctl", "restart", "syntap")
    pid = runs()
    # Longer than the watchdog's time, and it is fed.
    time.sleep(20)
    hold(runs() == pid, "it was restarted though it lives")
    os.kill(pid, 19)
    began = time.monotonic()
    until(lambda: state() == "active" and unit("MainPID")[0] not in (str(pid), "0"), 60, "it is not started anew")
    took = time.monotonic() - began
    runs()
    seen(40005)
    hold("atchdog" in sh("journalctl", "--no-pager", "--output=cat"), "the journal does not say why")
    override("")
    return f"SIGSTOP, WatchdogSec=12: fed for 20 s, then ended and started anew after {took:.0f} s"


def span():
    override(NEEDS)
    # A span interface has no address: nothing but copies come to it. What the other end sends by itself will do for some.
    sh("ip", "link", "add", "copies", "type", "veth", "peer", "name", "from", "netns", FAR)
    for at, name in (((), "copies"), (("-n", FAR), "from")):
        sh("ip", *at, "link", "set", name, "up")
    configure('interface = ["copies=span"]')
    sh("systemctl", "restart", "syntap")
    runs()
    sh("ip", "-n", FAR, "addr", "add", "10.9.1.2/24", "dev", "from")
    code = "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('10.9.1.1', 80))"
    sh("ip", "netns", "exec", FAR, "python3", "-c", code)
    said = until(lambda: [x for x in journal().splitlines() if "span: XDP" in x], 5, "no XDP")[-1]
    sh("systemctl", "stop", "syntap")
    asked = re.findall(r"(\d+) ARP or neighbour", journal())
    hold(asked and int(asked[-1]) > 0, f"nothing came: {journal()[-800:]}")
    return f"with the capabilities of docs/operations.md: {said.split('copies ')[-1]}"


def afxdp():
    override(NEEDS_AFXDP)
    configure('interface = ["near=inside"]', 'transport = "afxdp"')
    sh("systemctl", "restart", "syntap")
    runs()
    seen(40007)
    override("")
    return "with the capabilities of docs/operations.md: a refusal is recorded"


def stopped():
    configure('interface = ["near=inside"]')
    sh("systemctl", "restart", "syntap")
    runs()
    began = time.monotonic()
    sh("systemctl", "stop", "syntap")
    took = time.monotonic() - began
    result, code = unit("Result", "ExecMainStatus")
    hold((state(), result, code) == ("inactive", "success", "0"), f"it is {state()}, {result}, {code}")
    hold(hooks() == 0, f"{hooks()} hooks are left")
    verified = subprocess.run(["syntap", "verify", RECORDS], capture_output=True, text=True)
    # The shards of runs that were killed were not closed; nothing written is lost.
    hold(verified.returncode in (0, 1), verified.stderr)
    return f"stopped in {took:.1f} s, ended with 0, no hook left"


def purged():
    sh("systemctl", "enable", "--now", "syntap")
    runs()
    done = subprocess.run(["dpkg", "--purge", "syntap"], capture_output=True, text=True)
    hold(done.returncode == 0, done.stderr)
    load, active = unit("LoadState", "ActiveState")
    hold((load, active) == ("not-found", "inactive"), f"the unit is {load}, {active}")
    hold(hooks() == 0, f"{hooks()} hooks are left")
    hold(not Path("/usr/bin/syntap").exists() and list(Path(RECORDS).iterdir()), "the program stayed, or records went")
    wanted = list(Path("/etc/systemd/system").rglob("*syntap.service"))
    hold(not wanted, f"left: {wanted}")
    return "dpkg --purge of the running service: stopped, no hook, no unit; records are kept"


TRIED = [
    ("installed", "installed", installed), ("empty", "started as it comes", empty), ("started", "started with an interface", started),
    ("exposed", "exposure", exposed), ("reloaded", "reload", reloaded), ("killed", "killed with -9", killed),
    ("watched", "watchdog", watched), ("span", "span interface", span), ("afxdp", "transport afxdp", afxdp),
    ("stopped", "stop", stopped), ("purged", "purged while it runs", purged),
]


def main():
    told(release=os.uname().release)
    sh("ip", "netns", "add", FAR)
    sh("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", FAR)
    for at, name, address in (((), "near", HERE), (("-n", FAR), "far", THERE)):
        sh("ip", *at, "addr", "add", f"{address}/24", "dev", name)
        sh("ip", *at, "link", "set", name, "up")
    system = sh("systemctl", "--version").split(")")[0].replace("(", "").split()
    driver = " ".join(system[:2])
    for name, mode, what in TRIED:
        began = time.monotonic()
        log(name)
        try:
            ok, words, lines = True, what(), []
        except Exception as e:
            ok, words = False, f"it failed: {e}"
            lines = traceback.format_exc().splitlines() + journal().splitlines()[-30:]
        told(name=name, driver=driver, mode=mode, ok=ok, seen=words, facts={}, lines=lines, seconds=round(time.monotonic() - began, 1))
    told(done=True)


if __name__ == "__main__":
    main()
