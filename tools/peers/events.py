"""Events that peers report, each looked for among syntap's anomalies and connections by the tables of `mapping`."""

import collections
import re

from . import mapping
from .facts import detail, ends, shown
from .mapping import Not, Shown


class Events:
    """The comparison for one capture."""

    def __init__(self, facts, capture, score):
        self.facts, self.capture, self.score = facts, capture, score

    def of(self, peer, *names):
        return (r for r in self.facts if r["peer"].split()[0] == peer and r["fact"] in names)

    def is_shown(self, entry, key):
        kinds = {a["kind"] for a in self.capture.anomalies_of(key)}
        return bool(kinds & entry.kinds) or (
            entry.connection is not None and any(entry.connection(c) for c in self.capture.connections_of(key)))

    def look(self, what, table, event, row, key=None, times=1):
        """One event of a peer's."""
        frame = int(row["frame"]) if row["frame"].isdigit() else None
        text = f"{event} {shown(row)}" + (f" frame {frame}" if frame else "")
        entry = table.get(event)
        if reason := mapping.contradicted(self.capture.name, event, frame):
            self.score.differs(what, text, reason)
        elif isinstance(entry, Not):
            self.score.aside(what, entry.reason)
        elif entry is None:
            self.score.fact(what, False, f"{text}: in no table")
        elif times == 0:
            self.score.fact(what, not self.is_shown(entry, key), f"{text}: shown, and should not be")
        else:
            self.score.fact(what, self.is_shown(entry, key), f"{text}: none of {sorted(entry.kinds)}")

    def suricata(self):
        """Events of a run, unless the snap length made Suricata skip packets."""
        unreliable = any(r["value"] == "unreliable" for r in self.of("suricata", "note"))
        for row in self.of("suricata", "anomaly", "anomaly_count"):
            event = row["value"] if row["fact"] == "anomaly" else row["detail"]
            layer, _, name = event.partition(".")
            if unreliable:
                self.score.aside("suricata", "Suricata skipped packets that the snap length cut")
            elif layer == "stream":
                self.look("suricata", mapping.SURICATA, name, row, ends(row))
            elif name.startswith("tcp."):
                self.look("suricata", mapping.SURICATA, name, row, ends(row))
            else:
                self.score.aside("suricata", mapping.DECODER.reason)

    def suricata_verify(self):
        """What Suricata's own tests expect: rules about stream events and flags, states, counters."""
        for row in self.of("suricata-verify", "alert", "stats", "stream_tcp"):
            text = row["detail"]
            times = int(row["value"]) if row["value"].isdigit() else 1
            if found := re.search(r"stream\.(\w+)[ =]", text):
                self.look("suricata", mapping.SURICATA, found.group(1), row, times=times)
            elif found := re.search(r"events\[0\]=stream\.(\w+)", text):
                self.look("suricata", mapping.SURICATA, found.group(1), row, times=times)
            elif found := re.search(r"decode-event=([\w.]+)", text):
                self.look("suricata", mapping.SURICATA, found.group(1), row, times=times)
            elif found := re.search(r"tcp\.flags=([A-Z,]+)", text):
                field = "rst" if "R" in found.group(1) else "syn"
                entry = Shown(connection=lambda c, f=field: c[f] > 0)
                self.look("suricata", {found.group(0): entry}, found.group(0), row, times=times)
            elif found := re.search(r"session\.state=(\w+)", text):
                entry = Shown(connection=mapping.has(mapping.STREAM_STATE[found.group(1)]))
                self.look("suricata", {found.group(1): entry}, found.group(1), row, times=times)
            else:
                self.score.fact("suricata", False, f"{text}: not understood")

    def snort(self):
        for row in self.of("snort3", "alert"):
            self.look("snort", mapping.SNORT, row["value"], row, ends(row))

    def deepflow(self):
        for row in self.of("deepflow", "close_type"):
            self.look("deepflow", mapping.DEEPFLOW, row["value"].split()[0], row, ends(row))
        for row in (r for r in self.facts if r["peer"] == "deepflow" and r["fact"].startswith("perf.")):
            entry = mapping.DEEPFLOW_PERF.get(row["fact"])
            if entry is None:
                self.score.aside("deepflow", mapping.DATA.reason)
            elif isinstance(entry, str):
                mine = sum(c[entry] for c in self.capture.connections)
                self.score.fact("deepflow", mine == int(row["value"]), f"{row['fact']} {row['value']}, ours {mine}")
            else:
                self.look("deepflow", mapping.DEEPFLOW_PERF, row["fact"], row, times=int(row["value"]))

    def reused_ports(self):
        """Each SYN that tshark takes for a reuse begins a connection of syntap's, or an anomaly tells what it is."""
        of_tuple = collections.defaultdict(list)
        for row in self.of("tshark", "reused_ports"):
            of_tuple[ends(row)].append(row)
        for key, rows in of_tuple.items():
            syns = [r for r in rows if r["value"] == "SYN"]
            lives = len(self.capture.connections_of(key)) > len(syns)
            for row in rows:
                entry = mapping.REUSED_SYN if row["value"] == "SYN" else mapping.REUSED_SYN_ACK
                found = row["value"] == "SYN" and lives or self.is_shown(entry, key)
                text = f"{row['value']} {shown(row)} frame {row['frame']}: none of {sorted(entry.kinds)}"
                self.score.fact("tshark.reused", found, text)

    def ndpi(self):
        for row in self.of("ndpi", "flow_risk"):
            self.look("ndpi", mapping.NDPI, row["value"], row, ends(row))

    def weird(self):
        for row in self.of("zeek", "weird"):
            self.look("zeek.weird", mapping.ZEEK_WEIRD, row["value"], row, ends(row))


def compare(facts, capture, score):
    events = Events(facts, capture, score)
    for of_peer in (events.suricata, events.suricata_verify, events.snort, events.deepflow, events.reused_ports,
                    events.ndpi, events.weird):
        of_peer()
