"""Of a singleton no two workers run at once: no spare, and who takes its place starts when it is gone."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .processes import marked

SINGLE = {**FAST_RESTARTS, "singleton": True}


def lives(c: Circusd) -> list[tuple[float, float]]:
    """Return from when to when each app was there, by its own account; one that was killed has said no end."""
    alive = {each.pid for each in marked(XBOARD_TEST=c.mark)}
    spans = []
    for start in c.starts():
        ended = c.said("stopped", start.pid)
        unsaid = float("inf") if start.pid in alive else start.at
        spans.append((start.at, unsaid if ended is None else ended))
    return spans


def overlap(c: Circusd) -> bool:
    spans = sorted(lives(c))
    return any(end > start for (_, end), (start, _) in pairwise(spans))


def test_a_singleton_gets_no_spare(tmp_path: Path) -> None:
    """Given a singleton with worker.spares = 1, when it serves, then one app was imported, and `check` names it."""
    watcher = Watcher(numprocesses=1, options={**SINGLE, "worker.spares": 1, "health.period": 0.2}, is_sound=False)
    with circusd(tmp_path, watchers=[watcher], plugins={"xboard": "xboard_circus.plugins.bundle.Bundle"}) as c:
        (pid,) = c.wait_ready()
        eventually(lambda: c.worker(pid)["ready_for"] > 1.0)

        assert [start.pid for start in c.starts()] == [pid]
        checked = c.run_cli("check", "--json")
        assert "worker.spares" in json.dumps(json.loads(checked.stdout))


def test_a_sick_singleton_is_gone_before_its_successor_starts(tmp_path: Path) -> None:
    """Given a singleton, when the prober finds it sick, then it ends first, and then another one starts."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=SINGLE)]) as c:
        (old,) = c.wait_ready()

        assert c.replace(old, "sick")["status"] == "ok"
        eventually(lambda: [pid for pid in c.ready() if pid != old])

        assert len(c.starts()) == 2
        assert not overlap(c)


def test_a_singleton_of_a_dead_circusd_is_gone_before_the_next_one_starts(tmp_path: Path) -> None:
    """Given a singleton whose circusd was killed, when circusd starts again, then the old one ends before."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=SINGLE)]) as c:
        (old,) = c.wait_ready()
        c.kill9()

        c.start_again()
        (new,) = c.wait_ready()

        assert new != old
        assert not overlap(c)
        assert old not in {each.pid for each in marked(XBOARD_TEST=c.mark)}
