"""`circusctl kill` reaches a worker in whatever it is, also one whose successor is being made."""

from pathlib import Path

from .harness import FAST_RESTARTS, Watcher, circusd, eventually
from .processes import process


def test_a_kill_of_a_worker_that_is_being_replaced_ends_it(tmp_path: Path) -> None:
    """Given a worker whose successor starts, when an operator kills the worker, it is gone, and two serve in the end.

    Circus answers "ok" and does nothing where it takes a process for one that stops already.
    """
    watcher = Watcher(options={**FAST_RESTARTS, "graceful_timeout": 5})
    with circusd(tmp_path, watchers=[watcher]) as c:
        old, _ = c.wait_ready()
        whom = process(old)
        c.set("boot", "held")
        assert c.replace(old, "sick")["status"] == "ok"
        eventually(lambda: len(c.starts()) == 3, what="the successor starts")

        reply = c.call("kill", name="web", pid=old, waiting=True)

        assert reply["status"] == "ok"
        eventually(lambda: not whom.alive, what="the old one is gone")
        c.set("boot", "")
        c.wait_ready()
