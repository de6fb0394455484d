"""Answers of circusd to ``xboard_state``, made by the code that makes the real ones."""

import math
from collections.abc import Mapping
from typing import Any

from xboard_circus.core.state_schema import parse_state
from xboard_circus.core.unarmed import unarmed_watcher, unarmed_worker
from xboard_circus.core.verdict import Word, judge

OF_WORDS: dict[str, dict[str, Any]] = {
    "up": {"health": "ok", "ready": True},
    "not ready": {"health": "ok", "ready": False},
    "unknown": {},
    "busy": {"health": "busy"},
    "failing": {"health": "failing"},
    "sick": {"health": "sick"},
    "hung": {"health": "hung"},
    "held": {"phase": "held", "held_by": "delay", "ready_for": None},
    "cooling": {"phase": "held", "held_by": "cooldown", "ready_for": None},
    "starting": {"phase": "starting", "ready_for": None},
    "leaving": {"phase": "leaving"},
}


def worker_view(pid: int, word: str = "unknown", **more: Any) -> Any:
    """Return a worker of that *word*: up for long and never probed, unless it says something else."""
    plain = unarmed_worker(pid=pid, started=pid * 10, wid=pid, leaves=False, age=100.0)
    return {**plain, "ready_for": 90.0, "socket": f"/run/x/{pid}.sock", **OF_WORDS[word], **more}


def watcher_view(*workers: Mapping[str, Any] | str, **more: Any) -> Any:
    """Return an armed watcher with *workers*, entries or words, and the verdict on them."""
    entries = [worker_view(n, each) if isinstance(each, str) else each for n, each in enumerate(workers, start=1)]
    plain = unarmed_watcher(name="web", status="active", numprocesses=len(entries), options={}, workers=[])
    options = {"health.live_path": "/live", "health.ready_path": None, "health.url": None}
    shown: dict[str, Any] = {**plain, "armed": True, "probe": "private", "options": options, "workers": entries}
    shown |= more
    budget = {"used": 1, "limit": 5} if shown["last_reason"] else None
    judged: Any = {**shown, "budget": budget, "last_failure": shown["last_reason"]}
    judged["options"] = {"health.startup_timeout": math.inf}
    verdict = judge(judged)
    is_troubled = shown["armed"] and Word(verdict["word"]).is_trouble
    incident = {"age": 0.0, "worst": verdict["word"]} if is_troubled else None
    return {**shown, "verdict": verdict, "incident": incident, **more}


def state_view(*watchers: Mapping[str, Any], **circusd: Any) -> Any:
    """Return the answer to `xboard_state`."""
    return parse_state({"circusd": {"pid": 4711, "started": 1, **circusd}, "watchers": list(watchers)})
