"""A stopped watcher has no open port: who connects is refused at once instead of waiting for nobody."""

import signal
import socket
from pathlib import Path

import pytest

from .harness import Circusd, circusd, eventually, kill
from .processes import process


def is_refused(c: Circusd) -> bool:
    """Say whether a connection to the port of "web" is refused."""
    try:
        with socket.create_connection(("127.0.0.1", c.watchers["web"].port), timeout=1):
            return False
    except ConnectionRefusedError:
        return True


def test_a_stop_closes_the_port_that_a_forked_child_of_a_dead_worker_holds(tmp_path: Path) -> None:
    """Given a child that outlived its worker with the socket in hand, when stopped, then connections are refused."""
    with circusd(tmp_path) as c:
        parent, _ = c.wait_ready()
        c.tell(parent, "heir")
        (child,) = eventually(lambda: [found for found in c.processes() if "sleep 600" in found.command])
        kill(parent)
        c.wait_ready()
        assert child.alive

        c.do("stop", name="web", waiting=True)

        eventually(lambda: is_refused(c), what="the port is closed")
        c.do("start", name="web", waiting=True)
        c.wait_ready()
        assert c.serves()


@pytest.mark.parametrize("by", ["stop", "SIGTERM"])
def test_a_stop_refuses_connections_at_once_while_workers_drain(tmp_path: Path, by: str) -> None:
    """Given a request in flight, when its watcher or circusd is stopped, then nobody waits in the queue meanwhile.

    A connection there would be taken by the kernel, have no answer, and be reset when the last worker has ended.
    """
    with circusd(tmp_path, options={"graceful_timeout": 60}) as c:
        c.wait_ready()
        c.set("held", "yes")
        with socket.create_connection(("127.0.0.1", c.watchers["web"].port)) as client, client.makefile("rb") as answer:
            client.sendall(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n")
            assert answer.readline().startswith(b"HTTP/1.1 200")
            if by == "stop":
                c.do("stop", name="web")
            else:
                process(c.pid).signal(signal.SIGTERM)
            eventually(lambda: is_refused(c), what="the port is closed")
            c.set("held", "")

            assert answer.read().endswith(b"\r\n0\r\n\r\n")  # it was not at the drain's limit
