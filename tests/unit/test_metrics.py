"""The metrics of a circusd; of real ones in tests/real/test_metrics.py."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from state_views import state_view, watcher_view, worker_view

from xboard_circus.core.route_counts import STRIDE
from xboard_circus.core.state_schema import parse_traffic
from xboard_circus.dashboard import views
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.metrics import exposition
from xboard_circus.ledger.history_store import Totals


def exposed(server: SimpleNamespace, **traffic: dict[str, list[int]]) -> str:
    """What `/metrics` answers of one server; *traffic* is what each watcher's workers have counted, by route."""
    totals = {}
    for name, rows in traffic.items():
        counts = [count for row in rows.values() for count in row]
        found = parse_traffic({"active": 0, "routes": [*rows], "counts": counts})
        assert found is not None
        totals[name] = Totals(0.0, found)
    evidence = SimpleNamespace(totals=lambda: totals)
    return exposition(cast(Hub, SimpleNamespace(servers={"local": server}, evidence=evidence))).decode()


@pytest.mark.parametrize(("lost", "figure"), [(None, "0.0"), ({"pid": 7}, "1.0")], ids=["in order", "lost"])
def test_it_is_told_whether_the_circusd_before_was_lost(lost: dict[str, Any] | None, figure: str) -> None:
    told = {"circusd": {"uptime": 3.0, "lost": lost}, "probers": [], "watchers": []}
    server = SimpleNamespace(id="local", endpoint="ipc://x", state=told, is_reachable=True, age=lambda: 0.1)

    text = exposed(server)

    assert f'xboard_circusd_follows_loss{{server="local"}} {figure}' in text


def test_one_worker_that_reports_nonsense_costs_only_its_own_figures() -> None:
    odd = worker_view(1, "up", probe={"threads_limit": 10**400, "threads_used": "text", "lag": 0.25})
    sound = worker_view(2, "hung", probe={"threads_limit": 40})
    state = state_view(watcher_view(odd, sound))
    told = {**state, "watchers": [views.watcher(each, {}) for each in state["watchers"]]}
    server = SimpleNamespace(id="local", endpoint="ipc://x", state=told, is_reachable=True, age=lambda: 0.1)

    text = exposed(server)

    of = 'server="local",slot="{0}",watcher="web"'
    assert 'xboard_worker_loop_lag_seconds{pid="1",' + of.format(1) + "} 0.25" in text
    assert 'xboard_worker_threads_limit{pid="2",' + of.format(2) + "} 40.0" in text
    assert 'xboard_worker_threads_limit{pid="1"' not in text
    assert 'xboard_watcher_verdict{server="local",verdict="degraded",watcher="web"} 1.0' in text
    assert 'xboard_workers{server="local",state="hung",watcher="web"} 1.0' in text


def test_requests_are_shown_by_route_method_and_status() -> None:
    state = state_view(watcher_view(worker_view(1, "up", probe={"requests_active": 2}), worker_view(2, "up")))
    told = {**state, "watchers": [views.watcher(each, {}) for each in state["watchers"]]}
    server = SimpleNamespace(id="local", endpoint="ipc://x", state=told, is_reachable=True, age=lambda: 0.1)
    row = [7, 0, 2, 0, 1_500_000, 0, 0, 8, 0, 1, *[0] * 10]
    assert len(row) == STRIDE

    text = exposed(server, web={"GET /items/{id}": row, "POST /a b": [0] * STRIDE}, gone={"GET /": row})

    of = 'method="GET",route="/items/{id}",server="local"'
    assert f'xboard_http_requests_total{{{of},status="2xx",watcher="web"}} 7.0' in text
    assert f'xboard_http_requests_total{{{of},status="4xx",watcher="web"}} 2.0' in text
    assert 'status="5xx"' not in text
    buckets = 'xboard_http_request_duration_seconds_bucket{le="%s",' + of + ',watcher="web"} %s'
    counts = {"0.0025": "0.0", "0.005": "8.0", "0.01": "8.0", "0.025": "9.0", "30.0": "9.0", "+Inf": "9.0"}
    for bound, count in counts.items():
        assert buckets % (bound, count) in text
    assert f'xboard_http_request_duration_seconds_sum{{{of},watcher="web"}} 1.5' in text
    assert f'xboard_http_request_duration_seconds_count{{{of},watcher="web"}} 9.0' in text
    assert 'xboard_http_in_flight{server="local",watcher="web"} 2.0' in text
    assert 'watcher="gone"' not in text
    assert 'method="POST",route="/a?b"' in text
