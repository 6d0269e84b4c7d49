"""One long connection, each end of it led by commands on standard input, a line of JSON for each.

  send N   sends N bytes
  recv T   waits up to T seconds for bytes: what came, or how it ended
  close    closes
"""

import json
import socket
import sys

PORT = 6783


def received(s, seconds):
    s.settimeout(seconds)
    try:
        data = s.recv(65536)
        return {"got": len(data)} if data else {"got": "closed"}
    except TimeoutError:
        return {"got": "nothing"}
    except ConnectionResetError:
        return {"got": "reset"}
    except OSError as e:
        return {"got": type(e).__name__}


def sent(s, size):
    try:
        s.sendall(bytes(size))
        return {"sent": size}
    except OSError as e:
        return {"sent": type(e).__name__}


def main(argv):
    """`talk serve`, or `talk connect ADDRESS OWN_PORT`."""
    if argv[0] == "serve":
        listener = socket.create_server(("0.0.0.0", PORT))
        print("ready", flush=True)
        s, peer = listener.accept()
        print(json.dumps({"peer": peer}), flush=True)
    else:
        s = socket.socket()
        s.settimeout(10)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", int(argv[2])))
        s.connect((argv[1], PORT))
        print(json.dumps({"own": s.getsockname()}), flush=True)
    for line in sys.stdin:
        what, *number = line.split()
        if what == "send":
            answer = sent(s, int(number[0]))
        elif what == "recv":
            answer = received(s, float(number[0]))
        else:
            s.close()
            answer = {"closed": True}
        print(json.dumps(answer), flush=True)


class Talker:
    """One end, from the lab's side."""

    def __init__(self, process):
        self.process = process

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("an end of the long connection died")
        return line if line.startswith("ready") else json.loads(line)

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.line()


if __name__ == "__main__":
    main(sys.argv[1:])
