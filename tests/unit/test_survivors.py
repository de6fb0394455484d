"""What the page says of a circusd that does not answer: which workers serve on, and what keeps them."""

import http.server
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from fake_circusd import FakeCircusd, always
from state_views import state_view, watcher_view, worker_view

from xboard_circus.core.headlines import Answering
from xboard_circus.dashboard.poller import STALE, Server
from xboard_circus.host import procs
from xboard_circus.survivors import Served, serving_on


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/live" else 404)
        self.end_headers()


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Backend) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_port_counts_with_the_workers_that_are_alive(port: int) -> None:
    alive, gone = procs.Identity.of(os.getpid()), procs.Identity(2**22 + 7, 5)
    assert alive is not None
    with socket.create_server(("127.0.0.1", 0)) as other:
        shut: int = other.getsockname()[1]

    served = [(port, [alive, gone]), (shut, [alive]), (port, [gone])]
    found = serving_on(Served("0.0.0.0", at, None, workers) for at, workers in served)
    assert found == [Answering(port, 1), Answering(shut, 0), Answering(port, 0)]


def test_the_page_says_of_a_frozen_circusd_what_serves_and_advises_a_restart(port: int) -> None:
    now, own = 0.0, procs.Identity.of(os.getpid())
    assert own is not None
    worker = worker_view(own.pid, "up", slot=1, started=own.started)
    watcher = watcher_view(worker, port={"host": "127.0.0.1", "port": port, "state": "bound", "reason": ""})
    state = {"status": "ok", "time": 1.0, **state_view(watcher, pid=own.pid, started=own.started)}
    sockets = {"status": "ok", "time": 1.0, "sockets": []}
    with FakeCircusd({"xboard_state": always(state), "listsockets": always(sockets)}) as fake:
        server = Server("local", "this", fake.endpoint, deadline=5.0, clock=lambda: now)
        server._poll()
    assert server.is_reachable
    now = STALE + 1
    server._poll()
    (line,) = server.headlines(None)
    server.close()

    text = ". ".join(each["reason"] for each in line["lines"])
    assert text.startswith("circusd has not answered for 9 s, since ")
    assert text.endswith(
        f"Its workers still answer on :{port} (1 alive), the live path with 503. Cure: run `xboard-circus restart`"
    )
    assert line["command"] == "xboard-circus restart"
