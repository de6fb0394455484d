"""The metrics of a circusd; of real ones in tests/real/test_metrics.py."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from state_views import state_view, watcher_view, worker_view

from xboard_circus.dashboard import views
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.metrics import exposition


@pytest.mark.parametrize(("lost", "figure"), [(None, "0.0"), ({"pid": 7}, "1.0")], ids=["in order", "lost"])
def test_it_is_told_whether_the_circusd_before_was_lost(lost: dict[str, Any] | None, figure: str) -> None:
    told = {"circusd": {"uptime": 3.0, "lost": lost}, "probers": [], "watchers": []}
    server = SimpleNamespace(id="local", endpoint="ipc://x", state=told, is_reachable=True, age=lambda: 0.1)

    text = exposition(cast(Hub, SimpleNamespace(servers={"local": server}))).decode()

    assert f'xboard_circusd_follows_loss{{server="local"}} {figure}' in text


def test_one_worker_that_reports_nonsense_costs_only_its_own_figures() -> None:
    odd = worker_view(1, "up", probe={"threads_limit": 10**400, "threads_used": "text", "lag": 0.25})
    sound = worker_view(2, "hung", probe={"threads_limit": 40})
    state = state_view(watcher_view(odd, sound))
    told = {**state, "watchers": [views.watcher(each, {}) for each in state["watchers"]]}
    server = SimpleNamespace(id="local", endpoint="ipc://x", state=told, is_reachable=True, age=lambda: 0.1)

    text = exposition(cast(Hub, SimpleNamespace(servers={"local": server}))).decode()

    of = 'server="local",slot="{0}",watcher="web"'
    assert 'xboard_worker_loop_lag_seconds{pid="1",' + of.format(1) + "} 0.25" in text
    assert 'xboard_worker_threads_limit{pid="2",' + of.format(2) + "} 40.0" in text
    assert 'xboard_worker_threads_limit{pid="1"' not in text
    assert 'xboard_watcher_verdict{server="local",verdict="degraded",watcher="web"} 1.0' in text
    assert 'xboard_workers{server="local",state="hung",watcher="web"} 1.0' in text
