"""What Prometheus is told of a circusd; of real ones in tests/real/test_metrics.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.metrics import exposition


@pytest.mark.parametrize(("lost", "figure"), [(None, "0.0"), ({"pid": 7}, "1.0")], ids=["in order", "lost"])
def test_it_is_told_whether_the_circusd_before_was_lost(lost: dict[str, Any] | None, figure: str) -> None:
    told = {"circusd": {"uptime": 3.0, "lost": lost}, "probers": [], "watchers": []}
    server = SimpleNamespace(id="local", endpoint="ipc://x", told=told, is_reachable=True, age=lambda: 0.1)

    text = exposition(cast(Hub, SimpleNamespace(servers={"local": server}))).decode()

    assert f'xboard_circusd_follows_loss{{server="local"}} {figure}' in text
