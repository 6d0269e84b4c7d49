"""Workers alone: input in memory, no rings, no writer."""

from .results import short
from .run import meter

NAMES = {10: "1 k", 16: "64 k", 20: "1 M", 24: "16 M"}
GOALS = {10: None, 16: 15, 20: 25, 24: 35}
# A goal of its own: what a packet costs beside what memory alone does.
TIMES_THE_LIMIT = 2.5
BYTES = 80


def packets(bits, effort):
    """Whole lives of each slot: ten packets each. One where there are many."""
    return (10 << bits) * max(1, effort.of(10_000_000, 4_000_000, 0) // (10 << bits))


def one(results, bits, v6, effort):
    name = f"worker, {NAMES[bits]} flows, IPv{6 if v6 else 4}"
    m = meter("worker", "--bits", bits, "--packets", packets(bits, effort), *(["--v6"] if v6 else []), timeout=400)
    if "skipped" in m:
        results.skip(name, m["skipped"])
        return None
    results.add(name, m["ns_a_packet"], "ns/packet", limit=m["limit_ns"], most=None if v6 else GOALS[bits],
                note="CPU time of decode, track and detect; the limit is a batched update of one cache line", **m)
    if not v6:
        results.add(f"{name}, times the limit", m["ns_a_packet"] / m["limit_ns"], "x", most=TIMES_THE_LIMIT)
    return m


def alone(results, effort):
    sizes = effort.of((16, 20, 24), (16, 20), (10,))
    for bits in sizes:
        four = one(results, bits, False, effort)
        if four is None:
            continue
        six = one(results, bits, True, effort) if bits in (10, 20) or bits == 16 and effort.at_least("whole") else None
        if six:
            results.add(f"IPv6 to IPv4, {NAMES[bits]} flows", six["ns_a_packet"] / four["ns_a_packet"], "x", most=1.3)
        if bits == sizes[-1]:
            results.add("memory, a flow in the table", four["bytes_a_flow_in_the_table"], "bytes", most=BYTES,
                        note="what the table takes for each flow it has room for")
            results.add("memory, a flow and its share of the recorder", four["resident_bytes_a_flow"], "bytes",
                        note=f"resident, with {four['recorder_digests']} digests for {four['flows']} flows")
        if bits == 20 or len(sizes) == 1:
            results.add("allocations in the steady state", four["allocations_without_anomalies"], f"in {short(four['packets'])} packets", most=0,
                        note="after start, in batches without an anomaly", anomalies=four["anomalies"], allocations=four["allocations"])
    for mix, what in (("steady", "tuples used again"), ("full", "a table that is always full"), ("flood", "a SYN flood")):
        m = meter("worker", "--bits", effort.of(18, 16, 10), "--mix", mix,
                  "--packets", effort.of(5_242_880, 1_310_720, 20_480))
        results.add(f"worker, {what}", m["ns_a_packet"], "ns/packet", limit=m["limit_ns"], **m)
    m = meter("worker", "--bits", effort.of(16, 16, 10), "--lost", 3, "--packets", effort.of(2_621_440, 1_310_720, 20_480))
    results.add("worker, a third of the packets lost", m["ns_a_packet"], "ns/packet", limit=m["limit_ns"],
                note="hardly a flow fits its line, and there are more of them than can be whole", **m)


def together(results, effort):
    m = meter("pair", "--bits", effort.of(17, 16, 10), "--packets", effort.of(1_310_720, 655_360, 10_240),
              "--runs", effort.of(9, 5, 1))
    if "skipped" in m:
        results.skip("two workers to one", m["skipped"])
        return
    results.add("two workers to one", m["speed_up"], "x", least=1.9,
                note="median of interleaved runs; input in memory", **m)


def measure(results, effort):
    alone(results, effort)
    together(results, effort)
