"""What circusd does with the time in which it, or the whole machine, stood still."""

from types import SimpleNamespace
from typing import Any

import pytest

from xboard_circus.host import procs
from xboard_circus.supervisor.supervisor import Supervisor

PLUGIN = procs.Identity(7, 1)


@pytest.mark.parametrize(
    ("reported", "due", "now", "moved", "is_ended"),
    [
        pytest.param(100.0, 102.0, 146.0, 144.0, False, id="circusd stood still"),
        pytest.param(145.5, 102.0, 146.0, 146.0, False, id="a report came before the look"),
        pytest.param(100.0, 146.0, 146.0, 100.0, True, id="the plugin alone is silent"),
    ],
)
def test_a_standstill_is_no_silence_of_the_plugin(
    monkeypatch: pytest.MonkeyPatch, reported: float, due: float, now: float, moved: float, is_ended: bool
) -> None:
    watchers = [SimpleNamespace(processes={PLUGIN.pid: None})]
    probers = {"http_health": (PLUGIN, reported)}
    found: Any = SimpleNamespace(
        clock=lambda: now, armed={}, probers=probers, paused_for=0.0, arbiter=SimpleNamespace(watchers=watchers)
    )
    found._ticked_at, found._due_at = now, due
    ended: list[int] = []
    monkeypatch.setattr(procs, "send_signal", lambda pid, *_: ended.append(pid))

    Supervisor._note_pause(found)
    last = found.probers["http_health"][1]
    Supervisor._end_stuck_probers(found)

    assert (last, ended) == (moved, [PLUGIN.pid] if is_ended else [])
