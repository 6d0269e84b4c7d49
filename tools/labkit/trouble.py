"""Trouble that the two sides of a gateway show: loss here or there, the race for a port, no port left, a tuple handed on too
early; and what is odd and harmless. Each scenario runs syntap over real traffic and holds its records against what the
kernel counted.
"""

import json
import subprocess
import tempfile
import time
from collections import defaultdict

from . import race, traffic
from .kernel import conntrack_stats, moved, nft_counters
from .net import Lab, client_ip, client_mac
from .scenarios import PYTHON, TOOLS, Tap, counters, lines, python, shorts, start_server, story
from .verdict import Outcome, loud, times


def piped(lab, ns, module, *args):
    """A piece of this package that waits on its standard input."""
    command = [PYTHON, "-m", f"labkit.{module}", *map(str, args)]
    return lab.spawn(ns, *command, cwd=TOOLS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Observer:
    """What really passes an interface."""

    def __init__(self, lab, ns, interface):
        self.process = piped(lab, ns, "observer", interface)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError("the observer did not start")

    def end(self):
        """Its packets: those of TCP as dictionaries, those of ARP as such."""
        out, _ = self.process.communicate(timeout=30)
        rows = [json.loads(line) for line in out.splitlines()]
        if rows.pop()["dropped"]:
            raise RuntimeError("the observer lost packets: this machine is too busy for the truth")
        tcp = ("at", "way", "src", "sport", "dst", "dport", "flags", "seq", "ack", "len", "ttl", "mac")
        arp = ("at", "way", "what", "sender", "sender_mac", "target", "mac")
        return [dict(zip(tcp if len(row) == len(tcp) else arp, row)) for row in rows]


def tcp_only(packets):
    return [p for p in packets if "seq" in p]


def until(what, seconds, step=0.05):
    """Waits for something, for so long at most; whether it came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(step)
    return what()


def healthy(syntap, records, connections=2000):
    """Nothing wrong."""
    o = Outcome("healthy", syntap, records)
    with Lab() as lab:
        start_server(lab)
        before = counters(lab)
        tap = Tap(lab, syntap, records)
        o.truth["short"] = shorts(lab, connections)
        time.sleep(0.5)
        code = tap.stop()
        o.truth |= moved(before, counters(lab))
    o.read()
    o.unlost(tap, code)
    o.check("connections that arrived byte for byte", connections, o.truth["short"]["ok"])
    o.quiet()
    return o.result() | {"short": o.truth["short"]}


def crowd(lab, connections, threads):
    """Two clients, each with so many connections at a time; what came of them all."""
    running = [python(lab, lab.client(n), "crowd", "short", connections // 2, threads, 10_000 + 20_000 * n) for n in range(2)]
    results = [lines(p, 150)[0] for p in running]
    return {k: sum(r[k] for r in results) for k in results[0]}


def dropping(hook, *rules):
    """A chain that drops 5 % of what its rules match, and counts it by name."""
    names = [name for name, _ in rules]
    declared = "\n".join(f"counter {n} {{ }}" for n in names)
    body = "\n".join(f"{match} numgen random mod 100 < 5 counter name {n} drop" for n, match in rules)
    return f"{declared}\nchain {hook} {{\ntype filter hook {hook} priority 10;\n{body}\n}}\n"


SYN, SYN_ACK, REST = ("tcp flags & (syn|ack) == syn", "tcp flags & (syn|ack) == syn|ack", "tcp flags & syn == 0")


def lossy(syntap, records, connections=700, threads=20):
    """5 % of the packets are lost each way, beyond the gateway."""
    o = Outcome("lossy", syntap, records)
    with Lab() as lab:
        start_server(lab)
        rules = dropping("input", ("syn_lost", SYN), ("in_lost", REST)) \
            + dropping("output", ("syn_ack_lost", SYN_ACK), ("out_lost", REST))
        nft(lab.server, f"table ip loss {{\n{rules}}}\n")
        tap = Tap(lab, syntap, records)
        observer = Observer(lab, lab.gateway, "in0")
        o.truth |= crowd(lab, connections, threads)
        # An attempt that was given up is over for syntap when no further SYN came in twice the last gap.
        time.sleep(9 if o.truth["errors"] else 1)
        code = tap.stop()
        o.truth |= nft_counters(lab.server)
        o.truth["server_resets"] = lab.snmp(lab.server)["OutRsts"]
        again = sent_again(observer.end())
        o.truth["syn_sent_again"] = len(again)
    o.read()
    o.unlost(tap, code)
    o.check("blamed on the gateway", 0, len(o.of(verdict="gateway")))
    found = {(r["src_ip"], r["src_port"]) for r in o.of("syn_unanswered", interface="in0", verdict="network")}
    o.check("attempts whose SYN came again, the network's doing", len(again), len(found & again))
    o.check("and told of others", 0, len(found - again))
    # The server's kernel does reset a connection now and then that loss kept half open; that is its doing.
    theirs = lambda r: o.truth["server_resets"] and (r["kind"], r["verdict"]) == ("reset_mid_flow", "responder")
    others = [r for r in loud(o.records) if r["verdict"] not in ("network", "unknown") and not theirs(r)]
    o.check("above info with another verdict than the network's", "none",
            ", ".join(sorted({f"{r['kind']} {r['verdict']}" for r in others})) or "none")
    return o.result()


def sent_again(packets):
    """Originators (address and port) whose SYN came again before any answer to it, or just behind one that came when it was due again: of the
    two that both ends send after a second, either may be the first here."""
    waiting, late, again = {}, {}, set()
    for p in tcp_only(packets):
        if p["flags"] == "S" and p["way"] == "in":
            end = p["src"], p["sport"]
            if waiting.get(end, (None,))[0] == p["seq"] or p["at"] - late.get((*end, p["seq"]), 0) <= 200_000_000:
                again.add(end)
            waiting.setdefault(end, (p["seq"], p["at"]))
        elif p["way"] == "out":
            seq, asked = waiting.pop((p["dst"], p["dport"]), (None, 0))
            if seq is not None and p["at"] - asked >= 900_000_000:
                late[p["dst"], p["dport"], seq] = p["at"]
    return again


def nft(ns, text):
    done = subprocess.run(["ip", "netns", "exec", ns, "nft", "-f", "-"], input=text, text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"nft: {done.stderr.strip()}")


def lost_between(inside, outside):
    """SYNs that came in at one side of the gateway and did not leave at the other: (originator, ISN), by whether an answer had
    passed before. One that was answered already cost nobody anything."""
    left = defaultdict(list)
    for p in tcp_only(outside):
        if p["flags"] == "S" and p["way"] == "out":
            left[p["seq"]].append(p["at"])
    answered, lost = set(), {True: [], False: []}
    for p in tcp_only(inside):
        if p["flags"] == "S" and p["way"] == "in":
            if not any(0 <= at - p["at"] < 50_000_000 for at in left[p["seq"]]):
                lost[p["seq"] in answered].append(((p["src"], p["sport"]), p["seq"]))
        elif "S" in p["flags"]:
            answered.add((p["ack"] - 1) % (1 << 32))
    return lost


def lossy_gateway(syntap, records, connections=1200, threads=20):
    """5 % of the packets are lost in the gateway."""
    o = Outcome("lossy-gateway", syntap, records)
    with Lab() as lab:
        start_server(lab)
        rules = dropping("forward", ("syn_lost", SYN), ("syn_ack_lost", SYN_ACK), ("rest_lost", REST))
        nft(lab.gateway, f"table ip loss {{\n{rules}}}\n")
        tap = Tap(lab, syntap, records)
        observers = [Observer(lab, lab.gateway, dev) for dev in ("in0", "out0")]
        o.truth |= crowd(lab, connections, threads)
        time.sleep(9 if o.truth["errors"] else 1)
        code = tap.stop()
        o.truth |= nft_counters(lab.gateway)
        lost = lost_between(*(observer.end() for observer in observers))
    o.truth |= {"syn_lost_unanswered": len(lost[False]), "syn_lost_after_the_answer": len(lost[True])}
    o.read()
    o.unlost(tap, code)
    o.check("SYNs that nft dropped, found missing outside", o.truth["syn_lost"], len(lost[False]) + len(lost[True]))
    told = o.of("syn_lost_in_gateway", interface="in0")
    o.check("SYNs lost before any answer, in syn_lost_in_gateway", len(lost[False]), sum(r["facts"]["lost"] for r in told))
    o.check("taken for a collision or for exhaustion", 0, len(o.of("snat_collision", "snat_ports_exhausted")))
    blamed = [r for r in loud(o.records) + o.of("slow_handshake") if r["verdict"] not in ("gateway", "unknown")]
    o.check(f"{o.truth['syn_ack_lost']} SYN-ACKs and {o.truth['rest_lost']} others lost, another is blamed in", "none",
            ", ".join(sorted({f"{r['kind']} {r['verdict']}" for r in blamed})) or "none")
    return o.result()


def snat_race(syntap, records, wanted=30, rounds=4000, seconds=60):
    """Two clients take the same source port at the same moment; the gateway drops one of two SYNs now and then."""
    o = Outcome("snat-race", syntap, records)
    with Lab() as lab, tempfile.NamedTemporaryFile() as place:
        start_server(lab)
        shared = race.make(place.name)
        tap = Tap(lab, syntap, records)
        before = conntrack_stats(lab.gateway)
        insert_failed = lambda: conntrack_stats(lab.gateway)["insert_failed"] - before["insert_failed"]
        racers = [python(lab, lab.client(n), "race", n, place.name, rounds, 10_000) for n in range(2)]
        until(lambda: insert_failed() >= wanted or racers[0].poll() is not None, seconds)
        race.stop(shared)
        results = [lines(p, 30)[0] for p in racers]
        time.sleep(1)
        code = tap.stop()
        o.truth |= moved(before, conntrack_stats(lab.gateway), "insert_failed", "drop", "early_drop", "search_restart")
    o.truth |= {k: (max if k == "longest_ms" else sum)(r[k] for r in results) for k in results[0]}
    o.read()
    o.unlost(tap, code)
    found = o.of("snat_collision")
    matched = [r for r in found if r["verdict"] == "gateway" and rival_of(r)]
    o.check("insert_failed, each with its rival", o.truth["insert_failed"], sum(r["facts"]["lost"] for r in matched))
    o.check("SYNs lost in the gateway otherwise", 0, len(o.of("syn_lost_in_gateway", "snat_ports_exhausted")))
    others = [r for r in loud(o.records) if r["kind"] != "snat_collision"]
    o.quiet("anything else above info", others)
    return o.result()


def rival_of(record):
    """The rival of a record is another client with the same source port."""
    rival = record["facts"].get("rival", "")
    return f":{record['src_port']} > " in rival and not rival.startswith(f"{record['src_ip']}:")


def snat_exhaust(syntap, records, ports=32, attempts=6, timeout=5.5):
    """All ports that the gateway may use are taken by connections that stay."""
    o = Outcome("snat-exhaust", syntap, records)
    with Lab(pool=f"40000-{40_000 + ports - 1}") as lab:
        start_server(lab)
        tap = Tap(lab, syntap, records)
        before = conntrack_stats(lab.gateway)
        held = piped(lab, lab.client(0), "crowd", "hold", ports, 20_000)
        if held.stdout.readline().strip() != "ready":
            raise RuntimeError("the connections that take the ports did not open")
        o.truth |= lines(python(lab, lab.client(1), "crowd", "attempts", attempts, 30_000, timeout), 30)[0]
        o.truth |= lines(held, 30)[0]
        # An attempt is over for syntap when no further SYN came in twice the last gap.
        time.sleep(4.5)
        code = tap.stop()
        o.truth |= moved(before, conntrack_stats(lab.gateway), "insert_failed", "drop")
    o.read()
    o.unlost(tap, code)
    found = o.of("snat_ports_exhausted", verdict="gateway")
    o.check("attempts that failed", o.truth["failed"], len(found))
    o.check("insert_failed: their SYNs", o.truth["insert_failed"], sum(r["facts"]["lost"] for r in found))
    o.check("ports in use", ports, max((r["facts"]["in_use"] for r in found), default=0))
    o.check("taken for a collision or for plain loss", 0, len(o.of("snat_collision", "syn_lost_in_gateway")))
    return o.result()


def refusals_of(packets):
    """What the server refused on the outside: attempts (tuple and ISN) that got an ACK that is not theirs while nothing but
    SYNs had come for them. Each with the number of such ACKs."""
    pending, refused = {}, defaultdict(int)
    for p in tcp_only(packets):
        if p["way"] == "in":
            key = (p["src"], p["sport"], p["dst"], p["dport"])
            if p["flags"] == "S":
                pending[key] = p["seq"]
            else:
                pending.pop(key, None)
        else:
            key = (p["dst"], p["dport"], p["src"], p["sport"])
            if p["flags"] == "A" and p["len"] == 0 and key in pending and p["ack"] != (pending[key] + 1) % (1 << 32):
                refused[key, pending[key]] += 1
            elif "S" in p["flags"] or "R" in p["flags"]:
                pending.pop(key, None)
    return refused


def time_wait_reuse(syntap, records, wanted=20, rounds=8, ports=64, each=80):
    """The story's balancer, made by hand; then Linux clients behind a gateway that has few ports to translate to."""
    o = Outcome("time-wait-reuse", syntap, records)
    with Lab() as lab:
        start_server(lab)
        tap = Tap(lab, syntap, records)
        (cell,) = story(lab, cells=["story"])
        time.sleep(0.5)
        code = tap.stop()
    o.truth["story"] = cell
    o.read()
    o.unlost(tap, code)
    found = o.of("tuple_reuse_refused", interface="out0", verdict="originator")
    o.check("the story's client refused", 1 if cell["outcome"] == "refused" else cell["outcome"], len(found))
    distance = [r["facts"]["distance"] for r in found]
    o.check("its ISN lies before rcv_nxt by", cell.get("distance"), distance[0] if distance else None)

    by_hand = len(o.records)
    with Lab(pool=f"40000-{40_000 + ports - 1}") as lab:
        start_server(lab)
        tap = Tap(lab, syntap, records)
        seen = 0
        observer = Observer(lab, lab.server, "eth0")
        # By how much the clients' timestamps differ is drawn by lot for each pair of addresses.
        failed = 0
        for n in range(rounds):
            running = [python(lab, lab.client(c), "traffic", "short", each, traffic.CLOSE_FIRST, 0, c,
                              10_000 + 20_000 * c + each * n) for c in range(2)]
            failed += sum(lines(p, 120)[0]["errors"] for p in running)
            seen = lab.snmp(lab.client(0))["OutRsts"] + lab.snmp(lab.client(1))["OutRsts"]
            if seen >= wanted:
                break
        time.sleep(1.5)
        code = tap.stop()
        refused = refusals_of(observer.end())
    o.truth |= {"refused_outside": len(refused), "stale_acks": sum(refused.values()), "failed": failed,
                "client_resets": seen}
    o.read()
    o.unlost(tap, code)
    records = o.records[by_hand:]
    outside = [r for r in records if r["kind"] == "tuple_reuse_refused" and r["interface"] == "out0"]
    told = {((r["src_ip"], r["src_port"], r["dst_ip"], r["dst_port"]), r["facts"]["isn"]) for r in outside}
    o.check("SYNs the server refused, as tuple_reuse_refused", len(refused), len(told & set(refused)))
    o.check("refusals told that were none", 0, len(told - set(refused)))
    both = [r for r in outside if r["verdict"] == "gateway" and handed_on(r)]
    o.check("with verdict gateway and both inside tuples", len(refused), len(both))
    return o.result()


def handed_on(record):
    now, before = record["facts"].get("inside"), record["facts"].get("inside_before")
    return now and before and now != before and "10.77.0." in now and "10.77.0." in before


def benign_odd(syntap, records, count=100, seconds=8):
    """What is odd and harms nobody."""
    o = Outcome("benign-odd", syntap, records)
    with Lab() as lab:
        start_server(lab)
        tap = Tap(lab, syntap, records)
        observer = Observer(lab, lab.server, "eth0")
        # An address that a pair of machines hands over.
        spare = client_ip(40)
        o.truth |= lines(python(lab, lab.client(1), "odd", "gratuitous", client_mac(1), spare), 10)[0]
        o.truth |= lines(python(lab, lab.client(0), "odd", "everything", 0, count, seconds), 60)[0]
        lines(python(lab, lab.client(2), "odd", "gratuitous", client_mac(2), spare), 10)
        time.sleep(1)
        code = tap.stop()
        packets = tcp_only(observer.end())
    o.truth["strays_untranslated"] = sum(p["src"] == client_ip(0) for p in packets)
    o.truth["refused_reuses"] = len(refusals_of(packets))
    o.read()
    o.unlost(tap, code)
    o.check("reuses that the server refused", 0, o.truth["refused_reuses"])
    o.quiet()
    moves = o.of("address_moved")
    o.check("the address that moved, as info", 1, times(moves))
    return o.result()
