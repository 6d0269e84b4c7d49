"""The four stories, live, one after the other, for people to watch."""

import re
import sys
import textwrap

from . import links, mapping, trouble
from .scenarios import Tap
from .verdict import Unsupported


def say(text):
    first, *rest = textwrap.wrap(text, 92)
    print("\n".join([f"demo: {first}", *(f"      {line}" for line in rest)]), file=sys.stderr, flush=True)


def status(line):
    """Of what syntap says, the lines of the status."""
    if re.match(r"\d\d:\d\d:\d\d ", line):
        print(f"      syntap: {line.rstrip()}", file=sys.stderr, flush=True)


def reuse(syntap, records):
    say("1 of 4. A balancer reuses a source port while the server still holds its last connection in TIME_WAIT; then two Linux "
        "clients open short connections through a gateway that has 64 ports to translate them to.")
    t = trouble.time_wait_reuse(syntap, records, wanted=5, each=50)["truth"]
    stale = t["story"].get("stale_acks", 0)
    return f"the server answered {stale} of the balancer's 3 SYNs with an old ACK, and refused {t['refused_outside']} SYNs of the Linux clients"


def race(syntap, records):
    say("2 of 4. Two clients connect from the same source port within microseconds, again and again. The gateway keeps source ports "
        "where it can, and finds out too late that it gave one twice.")
    t = trouble.snat_race(syntap, records, wanted=8, seconds=8)["truth"]
    return (f"of {t['connects']} connects the gateway's kernel dropped {t['insert_failed']} SYNs (insert_failed); "
            f"{t['slow']} connects took over 0.9 s")


def mapping_lost(syntap, records):
    say("3 of 4. Containers on a bridge of the gateway; one of them talks to the server. Another one, whose port lent the bridge "
        "its MAC address, ends.")
    t = mapping.run("bridge-leave", syntap, records)["truth"]
    return (f"the bridge's MAC changed from {t['mac_before']} to {t['mac_after']}; {t['untranslated']} packets left with the "
            f"container's own address, and the gateway sent the server {t['gateway_resets']} reset of its own")


def duel(syntap, records):
    say("4 of 4. An overlay network: two containers on one bridge, and a VXLAN device that answers ARP for one of them although it "
        "is right here. At last the wrong answer comes last.")
    t = links.arp_duel(syntap, records, rounds=15, outage=3)["truth"]
    return (f"{t['answered_twice']} requests were answered twice; with the MAC learned at {t['learned_during_outage']} "
            f"{t['outage']['failed']} of {sum(t['outage'].values())} connects failed")


def demo(syntap, records):
    """Tells them; the records are left behind."""
    Tap.echo = staticmethod(status)
    Tap.options = ("--status", "2")
    say("clients - gateway - server, in network namespaces of this demo; syntap taps the gateway on both sides")
    for story in (reuse, race, mapping_lost, duel):
        try:
            say(f"What happened: {story(syntap, records)}.")
        except Unsupported as e:
            say(f"left out: {e}")
    return {}
