"""Two clients that connect from the same source port within microseconds of each other, again and again.

They meet in shared memory: each writes the number of its round and spins until the other has written it too. Each needs a
CPU of its own for that.
"""

import json
import mmap
import os
import select
import socket
import struct
import sys
import time

from .net import SERVER
from .traffic import CLIENT_CLOSES

SIZE = 4096
STOP = 16  # offset of the word that ends it; the clients' own are at 0 and 8
DONE = 1 << 40
WAIT = 5.0  # for the other one, and for connections at the end


def memory(path):
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), SIZE)


def make(path):
    """The place where they meet."""
    with open(path, "wb") as f:
        f.write(bytes(SIZE))
    return memory(path)


def stop(shared):
    struct.pack_into("=Q", shared, STOP, 1)


def meet(shared, own, other, number):
    """True once both are in this round."""
    struct.pack_into("=Q", shared, own, number)
    unpack, until = struct.Struct("=Q").unpack_from, time.monotonic() + WAIT
    while True:
        for _ in range(1000):
            (there,) = unpack(shared, other)
            if there >= number:
                return there < DONE
        if time.monotonic() > until:
            return False


def main(argv):
    """`race N PATH ROUNDS FIRST_PORT`, N 0 or 1."""
    n, path, rounds, first_port = int(argv[0]), argv[1], int(argv[2]), int(argv[3])
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[n % len(cpus)]})
    shared = memory(path)
    poll, begun, took = select.poll(), {}, []

    def settle(timeout):
        for fd, _ in poll.poll(timeout):
            s, at = begun.pop(fd)
            poll.unregister(fd)
            took.append((time.monotonic() - at) if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 else None)
            s.close()

    for number in range(1, rounds + 1):
        if n == 0 and struct.unpack_from("=Q", shared, STOP)[0]:
            break
        s = socket.socket()
        s.setblocking(False)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", first_port + number))
        if not meet(shared, 8 * n, 8 * (1 - n), number):
            break
        at = time.monotonic()
        s.connect_ex((SERVER, CLIENT_CLOSES))
        begun[s.fileno()] = (s, at)
        poll.register(s.fileno(), select.POLLOUT)
        time.sleep(0.0005)
        settle(0)
    struct.pack_into("=Q", shared, 8 * n, DONE)
    until = time.monotonic() + WAIT
    while begun and time.monotonic() < until:
        settle(100)
    ok = [t for t in took if t is not None]
    print(json.dumps({"connects": len(took) + len(begun), "ok": len(ok), "slow": sum(t > 0.9 for t in ok),
                      "never": len(begun), "longest_ms": round(max(ok, default=0) * 1e3, 1)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
