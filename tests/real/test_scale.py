"""Two hundred workers cost the one who probes them, and circusd, next to nothing."""

import json
import socket
import sys
import time
from pathlib import Path

import pytest

from xboard_circus.core.history import rows_of
from xboard_circus.core.verdict import word_of
from xboard_circus.ledger.history_store import read_totals

from .harness import BUNDLE, HERE, PATIENCE, Circusd, Watcher, circusd, eventually
from .processes import process

SECONDS = 8.0


def test_two_hundred_private_sockets_are_cheap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given 200 live private sockets and a period of 2 s, then http_health takes under 15 % of a core, circusd 5 %."""
    # The argument is what the guard knows our worker by; the program answers the private socket in 8 MB.
    command = f"{sys.executable} -I -S {HERE / 'fake_worker.py'} xboard_circus.worker"
    options = {"health.period": 2, "health.live_path": "/health/live", "health.ready_path": "/health/ready"}
    many = Watcher(numprocesses=200, command=command, listens=False, options=options)
    with circusd(tmp_path, watchers=[many], plugins=BUNDLE, check_delay=5) as c:

        def all_probed() -> bool:
            workers = c.watcher()["workers"]
            return len(workers) == 200 and all(worker["latency"] is not None for worker in workers)

        eventually(all_probed, every=0.5)
        prober, master = c.plugin("xboard"), process(c.pid)
        socket_path = c.watcher()["workers"][-1]["socket"]
        before, asked_before = (prober.cpu, master.cpu), times_asked(socket_path)
        began, asked = time.monotonic(), 0
        while asked < SECONDS / 2 and time.monotonic() < began + PATIENCE:  # it is not by sleeping that it is cheap
            rest_for(SECONDS)
            seconds, after = time.monotonic() - began, (prober.cpu, master.cpu)
            asked = times_asked(socket_path) - asked_before

        shares = [100 * (later - earlier) / seconds for later, earlier in zip(after, before, strict=True)]
        with capsys.disabled():
            print(
                f"\n200 workers, period 2 s: http_health {shares[0]:.1f} % of a core, {prober.memory / 1e6:.0f} MB; "
                f"circusd {shares[1]:.1f} %, {master.memory / 1e6:.0f} MB"
            )
        assert {word_of(worker) for worker in c.watcher()["workers"]} == {"up"}
        eventually(lambda: requests_of(c, "GET /api/v1/things7/{id}") > 200 * 97, what="those of all are counted")
        assert c.failures() == []
        assert asked >= SECONDS / 2
        assert shares[0] < 15
        assert shares[1] < 5


def rest_for(seconds: float) -> None:
    """Let so many seconds pass, which is the measurement itself."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


def requests_of(c: Circusd, route: str) -> int:
    """Return how many requests of *route* the history has counted."""
    return rows_of(read_totals(c.folder / "ledger-history.db")["web"].traffic)[route][0]


def times_asked(socket_path: str) -> int:
    """Ask one worker as the prober does; return how often it has been asked."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(socket_path)
        connection.sendall(b"GET /-/worker HTTP/1.0\r\n\r\n")
        body = connection.makefile("rb").read().partition(b"\r\n\r\n")[2]
    return int(json.loads(body)["requests_served"])
