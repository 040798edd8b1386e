"""Has an agent listen at a port and forward to an app: point.py SOCKET PORT APP_PORT."""

import json
import socket
import sys
import time

path, port, app = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def connect():
    for _ in range(200):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(path)
            return s
        except OSError:
            time.sleep(0.05)
    sys.exit(f"bench: no agent at {path}")


def ask(**request):
    with connect() as s:
        s.sendall(json.dumps(request).encode() + b"\n")
        reply = json.loads(s.makefile().readline())
    if reply["reply"] == "error":
        sys.exit(f"bench: {request['op']}: {reply['message']}")


which = {"service": "1/bench/app", "epoch": 1}
ask(op="put_service", service=which["service"], listen=f"127.0.0.1:{port}")
ask(op="claim", **which)
ask(op="put_slot", **which, slot="a", source={"kind": "upstreams", "addresses": [f"127.0.0.1:{app}"]})
ask(op="switch", **which, to="a")
