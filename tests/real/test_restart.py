"""``xboard-circus restart`` loses no request: another circusd takes the workers' port over, whatever happens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from .harness import BUNDLE, Circusd, circusd, eventually
from .load import Load
from .processes import Process
from .test_cli import begun, done


@contextlib.contextmanager
def under_load(c: Circusd) -> Iterator[None]:
    """Send requests all along, half of them on kept connections, and insist that none is lost."""
    with Load(c.url, rate=50) as new, Load(c.url, rate=50, connections=8) as kept:
        eventually(lambda: new.answered > 25 and kept.answered > 25)
        yield
        served = new.answered, kept.answered
        eventually(lambda: new.answered > served[0] + 25 and kept.answered > served[1] + 25)
    assert new.lost + kept.lost == []


def circusds(c: Circusd) -> list[Process]:
    """Every circusd of this test that runs now, and what waits to become one."""
    return [each for each in c.processes() if "circus.circusd" in each.command]


def test_restart_loses_nothing_and_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    """Given load on two workers, when restarted, then circusd and workers are new, 0 lost, and no loss is recorded."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        c.wait_ready()
        before = c.processes()

        with under_load(c):
            said = done(c, "restart")
            eventually(lambda: not [each for each in before if each.alive], timeout=60, what="the old ones end")

        assert "web: 2 of 2 up\nready\n" in said
        assert len(circusds(c)) == 1
        assert len(c.wait_ready()) == 2
        assert c.state()["circusd"]["lost"] is None
        kinds = [json.loads(line)["kind"] for line in done(c, "events", "--json").splitlines()]
        assert "circusd_lost" not in kinds
        assert "circusd_back" not in kinds


def test_the_successor_comes_although_restart_is_killed_once_circusd_leaves(tmp_path: Path) -> None:
    """Given a restart whose circusd ends, when the command is killed, then the successor starts, 0 lost."""
    with circusd(tmp_path) as c:
        c.wait_ready()
        before = c.processes()

        with under_load(c), begun(c, "restart", "--no-preflight") as restarting:
            eventually(lambda: len(circusds(c)) == 2, every=0.005, what="the successor waits")
            restarting.kill()
            eventually(lambda: not [each for each in before if each.alive], timeout=60, what="the old ones end")

        assert len(circusds(c)) == 1
        assert len(c.wait_ready()) == 2
