"""A worker of 8 MB that starts in 15 ms: answers the private socket as the real one does, and serves nothing."""

import faulthandler
import json
import os
import socket
import time

FOLDER, TOKEN, PID = os.environ["XBOARD_WORKER_DIR"], os.environ["XBOARD_WORKER"], os.getpid()
STARTED = time.monotonic()
IS_LIGHT = "FAKE_LIGHT" in os.environ  # one request for each probe
ROUTES = ["GET /"] if IS_LIGHT else sorted(f"GET /api/v1/things{n}/{{id}}" for n in range(20))
ROW = [97, 0, 2, 1, 1_234_567, 0, 0, 0, 60, 30, 9, 1, *[0] * 8]  # see core.route_counts
if IS_LIGHT:
    ROW = [1, 0, 0, 0, 4000, 0, 0, 0, 1, *[0] * 11]
HELD = os.path.join(os.environ.get("BACKEND_DIR", ""), "boot")  # while it is there, none gets up
served = 0


def answer() -> bytes:
    ok = {"ok": True, "status": 200, "reason": "", "latency": 0.0005}
    state = {
        "pid": PID,
        "watcher": os.environ["XBOARD_WATCHER"],
        "wid": int(os.environ["XBOARD_WID"]),
        "uptime": time.monotonic() - STARTED,
        "state": "up",
        "lag": 0.0,
        "threads_used": 0,
        "threads_limit": 40,
        "requests_active": 0,
        "requests_served": served,
        "rss": 8_000_000,
        "cpu": time.process_time(),
        # Every route is busy: each of its numbers is another one at each probe.
        "traffic": {"active": 1, "routes": ROUTES, "counts": [number * served for number in ROW] * len(ROUTES)},
        "live": ok,
        "ready": ok,
        "version": "fake",
    }
    body = json.dumps(state).encode()
    head = f"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main() -> None:
    global served
    faulthandler.enable()
    path = f"{FOLDER}/{TOKEN}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{path}.sock")
        listener.listen(16)
        while os.path.exists(HELD):
            time.sleep(0.05)
        for mark in ("up", "ready"):
            with open(f"{path}.{mark}", "w"):
                pass
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.recv(4096)
                    connection.sendall(answer())
                except OSError:
                    continue
            served += 1


if __name__ == "__main__":
    main()
