"""A stopped watcher has no open port: who connects is refused at once instead of waiting for nobody."""

import socket
from pathlib import Path

from .harness import Circusd, circusd, eventually, kill


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
