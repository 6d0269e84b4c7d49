"""Connections as Zeek, Arkime, tcptrace and tshark count and name them."""

import collections
import re

from . import mapping
from .facts import detail, ends, ends_of, shown

# Tests of Zeek's that change what Zeek sees or keeps: their connections are another program's answer to another
# question. docs/differences.md says why, one by one.
OTHER_SETUPS = {
    "core.checksums_ignore_nets/": "packets with bad checksums are thrown away",
    "core.expire-all-timers/conn-all": "all timers expire at the first packet",
    "core.pcap.dynamic-filter/": "a packet filter changes while it runs",
    "core.connection_flipped/": "roles are exchanged by the script",
    "scripts.base.protocols.ftp.gridftp/": "the analyzer stops following a bulk transfer",
}


def zeek(facts, capture, score):
    """Each connection of Zeek's must be one of ours with the same word and letters; both are taken in order."""
    ours = capture.by_tuple()
    # The same capture stands under several test set-ups; each connection is compared once.
    sets = collections.defaultdict(list)
    for row in facts:
        if row["peer"] == "zeek" and row["fact"] == "conn":
            if any(row["source"].startswith(s) for s in OTHER_SETUPS):
                score.aside("zeek", "a set-up that changes what Zeek sees")
                continue
            sets[(row["source"], detail(row).get("zeek_cmd"))].append(row)
    # Where Zeek's set-ups contradict each other on one connection (bare mode knows no server ports, and does not turn
    # a connection round), agreeing with one of them is agreeing.
    said = collections.defaultdict(set)
    for row in (r for rs in sets.values() for r in rs):
        said[ends(row)].add((row["value"], detail(row).get("history", "")))
    for rows_of_set in sets.values():
        left = {k: list(v) for k, v in ours.items()}
        for row in rows_of_set:
            key, history = ends(row), detail(row).get("history", "")
            # Some of Zeek's tests print only the words: any connection of the file will do.
            mine = left.get(key, []) if key else [c for cs in left.values() for c in cs]
            best = max(mine, key=lambda c: ((c["conn_state"] == row["value"]) + (c["history"] == history)), default=None)
            if best is None:
                score.fact("conn_state", False, f"{shown(row)} {row['value']} {history}: no such connection")
                score.fact("history", False, f"{shown(row)} missing")
                continue
            for cs in left.values():
                if best in cs:
                    cs.remove(best)
                    break
            if history != best["history"] and (best["conn_state"], best["history"]) in said[ends_of(best)]:
                score.aside("zeek", "set-ups of Zeek that contradict each other")
                continue
            score.fact("conn_state", best["conn_state"] == row["value"],
                       f"{shown(row)} {row['value']} ({history}), ours {best['conn_state']} ({best['history']})")
            score.fact("history", best["history"] == history, f"{shown(row)} {history}, ours {best['history']}")


def tcptrace(facts, capture, score):
    """tcptrace's verdict on each connection: in how many directions it saw a SYN, and in how many a FIN.

    "yes" is both in both. The letters of a history say the same of syntap's: S or H and F of the originator, in lower
    case of the responder.
    """
    left = capture.by_tuple()
    for row in facts:
        if row["peer"] != "tcptrace" or row["fact"] != "conn":
            continue
        if row["value"].startswith("RESET"):
            theirs = "RESET"
        else:
            said = re.search(r"SYNs: (\d)\) \(FINs: (\d)", row["value"])
            theirs = tuple(map(int, said.groups())) if said else (2, 2)

        def ours(c):
            h = c["history"]
            if theirs == "RESET":
                return theirs if set(h) & set("Rr") else h
            syns = bool(set(h) & set("SH")) + bool(set(h) & set("sh"))
            return syns, ("F" in h) + ("f" in h)

        mine = left.get(ends(row), [])
        best = max(mine, key=lambda c: ours(c) == theirs, default=None)
        if best is not None:
            mine.remove(best)
        score.fact("tcptrace.conn", best is not None and ours(best) == theirs,
                   f"{shown(row)} {row['value']}, ours {best['history'] if best else 'missing'}")


def counts(facts, capture, score):
    """Packets by class for each tuple: Arkime's and tcptrace's sums, tshark's totals."""
    ours = capture.by_tuple()
    total = collections.Counter()
    for c in capture.connections:
        for name in ("syn", "syn_ack", "fin", "rst"):
            total[name] += c[name]
    sums = collections.defaultdict(collections.Counter)
    for row in facts:
        if row["peer"] == "arkime" and row["fact"] == "session" and row["proto"] == "tcp":
            flags = row["detail"].split(";")[0].removeprefix("flags ")
            theirs = dict(p.split("=") for p in flags.split(",") if "=" in p)
            for mine, name in (("syn", "syn"), ("syn_ack", "syn-ack"), ("fin", "fin"), ("rst", "rst")):
                sums[("arkime", ends(row))][mine] += int(theirs.get(name, 0))
        if row["peer"] == "tcptrace" and row["fact"] == "conn":
            pair = detail(row).get("syn_fin", "")
            a, b = [p.split("/") for p in pair.split(",")]
            both = sums[("tcptrace", ends(row))]
            both["syn+syn_ack"] += int(a[0]) + int(b[0])
            both["fin"] += int(a[1]) + int(b[1])
    for (peer, key), theirs in sums.items():
        if key is None:
            continue
        mine = collections.Counter()
        for c in ours.get(key, []):
            for name in ("syn", "syn_ack", "fin", "rst"):
                mine[name] += c[name]
            mine["syn+syn_ack"] += c["syn"] + c["syn_ack"]
        for name, n in theirs.items():
            score.fact(f"{peer}.counts", mine[name] == n, f"{sorted(map(str, key))} {name}: {n}, ours {mine[name]}")
    for row in facts:
        if row["peer"].startswith("tshark") and row["fact"] in ("count.syn", "count.synack", "count.fin"):
            name = {"count.syn": "syn", "count.synack": "syn_ack", "count.fin": "fin"}[row["fact"]]
            text = f"{name}: {row['value']}, ours {total[name]}"
            agrees = total[name] == int(row["value"])
            reason = None if agrees else mapping.contradicted(capture.name, row["fact"], None)
            if reason:
                score.differs("tshark.counts", text, reason)
            else:
                score.fact("tshark.counts", agrees, text)


def community(facts, capture, score):
    ours = {c["community_id"] for c in capture.connections}
    for row in facts:
        if row["fact"] == "community_id" and row["proto"] == "tcp" and row["value"].startswith("1:"):
            if "seed=1" in row["detail"] or ends(row) is None:
                continue
            # Suricata orders an address talking to itself the other way than the specification's own library.
            if row["peer"].startswith("suricata") and row["orig_h"] == row["resp_h"]:
                continue
            score.fact("community_id", row["value"] in ours, f"{row['peer']} {row['value']} {row['orig_h']}:{row['orig_p']}")
