"""What a packet costs the kernel programs, by BPF_PROG_TEST_RUN."""

from .run import meter

# What is not selected.
PASSED_OVER = ("udp", "port not chosen", "plain, not watched", "plain with data, not watched")
GOAL_NS = 10


def measure(results, effort):
    m = meter("kernel", "--repeat", effort.of(500_000, 100_000, 1000))
    for stage in m["stages"]:
        program, packet = stage["program"], stage["packet"]
        own, parse = stage["ns"] - stage["call_ns"], stage["parse_only_ns"] - stage["call_ns"]
        goal = GOAL_NS if packet in PASSED_OVER else None
        results.add(f"{program}, {packet}", own, "ns", limit=parse, most=goal,
                    note="without the call; the limit is a program that only parses", **stage)
