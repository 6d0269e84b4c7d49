"""Workers alone: input in memory, no rings, no writer."""

from .run import meter

NAMES = {16: "64 k", 20: "1 M", 24: "16 M"}
GOALS = {16: 15, 20: 25, 24: 35}
# A goal of its own: what a packet costs beside what memory alone does.
TIMES_THE_LIMIT = 2.5
BYTES = 80


def packets(bits, quick):
    """Two whole cycles of lives where that is quick, so that births and deaths are in."""
    return min(20 << bits, 4_000_000) if quick else min(20 << bits, 12_000_000)


def one(results, bits, v6, quick):
    name = f"worker, {NAMES[bits]} flows, IPv{6 if v6 else 4}"
    m = meter("worker", "--bits", bits, "--packets", packets(bits, quick), *(["--v6"] if v6 else []), timeout=300)
    if "skipped" in m:
        results.skip(name, m["skipped"])
        return None
    results.add(name, m["ns_a_packet"], "ns/packet", limit=m["limit_ns"], most=None if v6 else GOALS[bits],
                note="CPU time of decode, track and detect; the limit is a batched update of one cache line", **m)
    if not v6:
        results.add(f"{name}, times the limit", m["ns_a_packet"] / m["limit_ns"], "x", most=TIMES_THE_LIMIT)
    return m


def alone(results, quick):
    sizes = (16, 20) if quick else (16, 20, 24)
    for bits in sizes:
        four = one(results, bits, False, quick)
        if four is None:
            # With fewer digests in the flight recorder it may fit yet.
            continue
        six = one(results, bits, True, quick) if bits == 20 or (not quick and bits == 16) else None
        if six:
            results.add(f"IPv6 to IPv4, {NAMES[bits]} flows", six["ns_a_packet"] / four["ns_a_packet"], "x", most=1.3)
        if bits == sizes[-1]:
            results.add("memory, a flow in the table", four["bytes_a_flow_in_the_table"], "bytes", most=BYTES,
                        note="what the table takes for each flow it has room for")
            results.add("memory, a flow and its share of the recorder", four["resident_bytes_a_flow"], "bytes",
                        note=f"resident, with {four['recorder_digests']} digests for {four['flows']} flows")
        if bits == 20:
            results.add("allocations in the steady state", four["allocations"] / four["packets"], "/packet", most=0,
                        note="after start; anomalies may", anomalies=four["anomalies"], allocations=four["allocations"])
    for mix, what in (("births", "each life a new tuple"), ("full", "a full table, each life a new tuple"), ("flood", "a SYN flood")):
        m = meter("worker", "--bits", 20 if not quick else 16, "--mix", mix, "--packets", 3_000_000 if not quick else 1_000_000)
        results.add(f"worker, {what}", m["ns_a_packet"], "ns/packet", limit=m["limit_ns"], **m)


def together(results, quick):
    m = meter("pair", "--bits", 18 if quick else 19, "--packets", 300_000 if quick else 1_000_000, "--runs", 5 if quick else 9)
    if "skipped" in m:
        results.skip("two workers to one", m["skipped"])
        return
    results.add("two workers to one", m["speed_up"], "x", least=1.9,
                note="median of interleaved runs; input in memory", **m)


def measure(results, quick):
    alone(results, quick)
    together(results, quick)
