"""Healthy traffic without pause, counted at both ends: what was asked for and answered, byte for byte.

  steady serve               answers until standard input ends, then says how many requests it answered
  steady ask CLIENT RATE     connects RATE times a second, until standard input ends
  steady fill CLIENT COUNT RATE   COUNT SYNs to ports where nobody listens, each of a tuple of its own, RATE a second

The first two print a JSON line for each connection that failed or of which this end's kernel sent a packet again, and the sums as the last line.
"""

import hashlib
import json
import socket
import struct
import sys
import threading
import time

from .net import SERVER
from .odd import SYN, packet_socket, segment
from .traffic import REPLY, read_exactly, reply

PORT = 8090
# tcpi_total_retrans of struct tcp_info, linux/tcp.h.
TOTAL_RETRANS = 100
# Source ports in turn: one comes again long after its TIME_WAIT.
PORTS = 20_000


def sent_again(s):
    """Segments of a connection that this end sent more than once."""
    return struct.unpack_from("=I", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS + 4), TOTAL_RETRANS)[0]


def serve():
    lock, done = threading.Lock(), {"answered": 0, "bytes": 0}

    def one(conn):
        begun = time.time()
        try:
            with conn:
                conn.settimeout(20)
                request = read_exactly(conn, 320)
                if len(request) == 320:
                    conn.sendall(reply(request))
                    with lock:
                        done["answered"] += 1
                        done["bytes"] += REPLY
                # The client closes first.
                conn.recv(1)
                again = sent_again(conn)
                if again:
                    with lock:
                        print(json.dumps({"begun": begun, "ended": time.time(), "what": "served", "again": again}), flush=True)
        except OSError:
            pass

    def accept(listener):
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=one, args=(conn,), daemon=True).start()

    threading.Thread(target=accept, args=(socket.create_server(("0.0.0.0", PORT), backlog=1024),), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    time.sleep(1)
    with lock:
        print(json.dumps(done), flush=True)


def ask(client, rate):
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    lock, done, n = threading.Lock(), {"ok": 0, "failed": 0, "bytes": 0}, 0
    running = threading.Semaphore(200)

    def one(n):
        request = hashlib.sha256(struct.pack("!QQ", client, n)).digest() * 10
        begun, what, again = time.time(), "failed", 0
        try:
            with socket.socket() as s:
                s.settimeout(15)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("", 10_000 + PORTS * client + n % PORTS))
                s.connect((SERVER, PORT))
                s.sendall(request)
                answer = read_exactly(s, REPLY)
                error = "" if answer == reply(request) else "other bytes"
                again = sent_again(s)
                what = "failed" if error else "ok"
        except OSError as e:
            error = str(e)
        ended_at = time.time()
        running.release()
        with lock:
            done[what] += 1
            done["bytes"] += REPLY if what == "ok" else 0
            if what != "ok" or again:
                told = {"begun": begun, "ended": ended_at, "what": what, "again": again, "error": error}
                print(json.dumps(told), flush=True)

    threads = []
    while not ended.is_set():
        running.acquire()
        t = threading.Thread(target=one, args=(n,))
        t.start()
        threads = [t for t in threads if t.is_alive()] + [t]
        n += 1
        time.sleep(1 / rate)
    for t in threads:
        t.join()
    print(json.dumps(done | {"asked": n}), flush=True)


def fill(client, count, rate):
    s, burst = packet_socket(), 20
    begun = time.monotonic()
    for n in range(count):
        s.send(segment(client, 1024 + n % 8000, 9200 + n // 8000, SYN, n * 77_777 & 0xFFFFFFFF))
        if n % burst == 0:
            time.sleep(max(0, begun + n / rate - time.monotonic()))
    print(json.dumps({"filled": count}), flush=True)


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "fill": fill}[sys.argv[1]](*map(int, sys.argv[2:]))
