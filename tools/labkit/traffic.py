"""Servers and clients over real sockets: deterministic bytes, so that every one of them can be checked."""

import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time

from .net import SERVER

CLOSE_FIRST = 8080  # answers one request and closes
CLIENT_CLOSES = 8082  # answers requests until the client closes
BULK = 8081  # streams as many bytes as it is asked for
CLOSED = 9200  # nobody listens
FILTERED = 9300  # dropped by a filter
REPLY = 271  # bytes of an answer, as in the story


def reply(request):
    block = hashlib.sha256(request).digest()
    return (block * (REPLY // len(block) + 1))[:REPLY]


def pattern(n, size=65536):
    """Block n of the bulk stream."""
    seed = hashlib.sha256(struct.pack("!Q", n)).digest()
    return seed * (size // len(seed))


def read_exactly(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            break
        data += part
    return data


def one_cpu():
    """Keeps this thread on the last CPU. Both ends of a bulk stream do: packets sent by two CPUs, by the sender's call
    and by the acknowledgement that lets more go, overtake each other in the backlogs between namespaces, and TCP
    retransmits what was never lost."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def serve_one(port, conn):
    try:
        with conn:
            if port == BULK:
                one_cpu()
                (size,) = struct.unpack("!Q", read_exactly(conn, 8))
                for n in range(size // 65536):
                    conn.sendall(pattern(n))
                return
            while True:
                # A request is 320 bytes, as in the story.
                request = read_exactly(conn, 320)
                if len(request) < 320:
                    return
                conn.sendall(reply(request))
                if port == CLOSE_FIRST:
                    return
    except OSError:
        pass


def serve():
    """All services; runs until it is killed. Says `ready` when they listen."""
    listeners = []
    for port in (CLOSE_FIRST, CLIENT_CLOSES, BULK):
        s = socket.create_server(("0.0.0.0", port), backlog=1024)
        listeners.append(s)

    def accept(port, s):
        while True:
            conn, _ = s.accept()
            threading.Thread(target=serve_one, args=(port, conn), daemon=True).start()

    for port, s in zip((CLOSE_FIRST, CLIENT_CLOSES, BULK), listeners):
        threading.Thread(target=accept, args=(port, s), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def short(count, port=CLOSE_FIRST, pause=0.0, seed=0, first_port=0):
    """Short connections one after the other. Prints what came of them."""
    done = {"ok": 0, "wrong": 0, "errors": 0, "slow": 0, "longest_ms": 0.0}
    for n in range(count):
        request = hashlib.sha256(struct.pack("!QQ", seed, n)).digest() * 10
        begun = time.monotonic()
        try:
            with socket.socket() as s:
                s.settimeout(10)
                # Each client has ports of its own, each used once: a gateway that must not translate the port has no
                # reason to hand a tuple on, and a reuse refused by the server would not be the tap's doing.
                if first_port:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("", first_port + n))
                s.connect((SERVER, port))
                s.sendall(request)
                answer = read_exactly(s, REPLY)
                rest = s.recv(1) if port == CLOSE_FIRST else b""
                done["ok" if answer == reply(request) and not rest else "wrong"] += 1
        except OSError:
            done["errors"] += 1
        took = time.monotonic() - begun
        done["slow"] += took > 0.9
        done["longest_ms"] = max(done["longest_ms"], round(took * 1e3, 3))
        if pause:
            time.sleep(pause)
    print(json.dumps(done), flush=True)


def bulk(mebibytes):
    """One long transfer, each byte compared."""
    one_cpu()
    size = mebibytes << 20
    got, wrong = 0, 0
    with socket.socket() as s:
        s.settimeout(60)
        # A window that the queues between the namespaces hold: beyond it this machine drops, tapped or not.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
        s.connect((SERVER, BULK))
        s.sendall(struct.pack("!Q", size))
        for n in range(size // 65536):
            block = read_exactly(s, 65536)
            got += len(block)
            wrong += block != pattern(n)
    print(json.dumps({"bytes": got, "wrong_blocks": wrong}), flush=True)


def knock(port, count=1, timeout=2.5):
    """Tries to connect and counts what happens."""
    done = {"refused": 0, "timeout": 0, "connected": 0}
    for _ in range(count):
        try:
            socket.create_connection((SERVER, port), timeout).close()
            done["connected"] += 1
        except ConnectionRefusedError:
            done["refused"] += 1
        except OSError:
            done["timeout"] += 1
    print(json.dumps(done), flush=True)


def main(argv):
    what, args = argv[0], [float(a) if "." in a else int(a) for a in argv[1:]]
    {"serve": serve, "short": short, "bulk": bulk, "knock": knock}[what](*args)


if __name__ == "__main__":
    main(sys.argv[1:])
