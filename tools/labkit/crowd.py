"""Many clients at once, on source ports of their own: short connections, held ones, and attempts."""

import hashlib
import json
import socket
import struct
import sys
import threading
import time

from .net import SERVER
from .traffic import CLIENT_CLOSES, CLOSE_FIRST, REPLY, read_exactly, reply


def connect(port, own_port, timeout):
    s = socket.socket()
    s.settimeout(timeout)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", own_port))
    try:
        s.connect((SERVER, port))
    except OSError:
        s.close()
        raise
    return s


def short(count, threads, first_port, timeout=20):
    """Short connections, `threads` at a time. How long each took to open, to the millisecond."""
    lock, left, done = threading.Lock(), list(range(count)), {"ok": 0, "wrong": 0, "errors": 0, "slow": 0}

    def work():
        while True:
            with lock:
                if not left:
                    return
                n = left.pop()
            request = hashlib.sha256(struct.pack("!QQ", first_port, n)).digest() * 10
            begun, opened, what = time.monotonic(), None, "errors"
            try:
                with connect(CLOSE_FIRST, first_port + n, timeout) as s:
                    opened = time.monotonic() - begun
                    s.sendall(request)
                    what = "ok" if read_exactly(s, REPLY) == reply(request) else "wrong"
            except OSError:
                pass
            with lock:
                done[what] += 1
                done["slow"] += opened is not None and opened > 0.9

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    print(json.dumps(done), flush=True)


def hold(count, first_port):
    """Connections that stay until standard input ends; `ready` once they are open."""
    held = []
    for n in range(count):
        s = connect(CLIENT_CLOSES, first_port + n, 10)
        s.sendall(bytes(320))
        read_exactly(s, REPLY)
        held.append(s)
    print("ready", flush=True)
    sys.stdin.read()
    alive = 0
    for s in held:
        try:
            s.sendall(bytes(320))
            alive += len(read_exactly(s, REPLY)) == REPLY
        except OSError:
            pass
    print(json.dumps({"held": len(held), "alive": alive}), flush=True)


def attempts(count, first_port, timeout):
    """Attempts to connect, all at once."""
    done = {"connected": 0, "failed": 0}

    def one(n):
        try:
            connect(CLIENT_CLOSES, first_port + n, timeout).close()
            done["connected"] += 1
        except OSError:
            done["failed"] += 1

    workers = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    what, args = sys.argv[1], [float(a) if "." in a else int(a) for a in sys.argv[2:]]
    {"short": short, "hold": hold, "attempts": attempts}[what](*args)
