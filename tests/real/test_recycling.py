"""A worker that has grown, served or lived enough makes room: new one first, one at a time, nothing lost."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .harness import BUNDLE, Circusd, circusd, eventually, holds, is_well
from .load import Load

IN_THE_MAKING = {"starting", "held"}


def recycled(c: Circusd) -> list[dict[str, Any]]:
    return [event.message for event in c.events.named("restart") if event.message.get("by") == "recycle"]


def test_a_leaking_worker_is_replaced_without_a_loss_and_one_at_a_time(tmp_path: Path) -> None:
    """Given two leaking workers under load, when they pass worker.max_rss ten times, then nothing is ever lost."""
    with circusd(tmp_path, options={"worker.max_rss": "80M"}) as c:
        c.wait_ready()
        seen: list[list[dict[str, Any]]] = []

        def one_more_than(before: int) -> bool:
            seen.append(c.watcher()["workers"])
            return len(recycled(c)) > before

        with Load(c.url, rate=100, connections=8) as load, Load(c.url, rate=50) as new:
            while (number := len(recycled(c))) < 10:
                for pid in c.ready()[:2]:
                    c.tell(pid, "leak 80")
                eventually(partial(one_more_than, number), what="one more was recycled")
            assert load.answered > 300

        assert [workers for workers in seen if len([each for each in workers if is_well(each)]) < 2] == []
        assert [
            workers for workers in seen if len([each for each in workers if each["phase"] in IN_THE_MAKING]) > 1
        ] == []
        assert load.lost + new.lost == []
        assert all("worker.max_rss = 80 MiB" in message["reason"] for message in recycled(c))
        assert c.watcher()["restarts"] == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"worker.max_age": 1.0}, "worker.max_age = 1 s", id="age"),
        pytest.param({"worker.max_requests": 20, "health.period": 0.3}, "worker.max_requests = 20", id="requests"),
    ],
)
def test_age_and_requests_are_limits_too(tmp_path: Path, options: dict[str, object], reason: str) -> None:
    """Given a limit of age or of requests, when a worker reaches it, then its successor takes over first."""
    with circusd(tmp_path, numprocesses=1, options=options, plugins=BUNDLE) as c:
        (first,) = c.wait_ready()

        with Load(c.url, rate=50) as load:
            eventually(lambda: recycled(c) and first not in c.workers())

        assert reason in recycled(c)[0]["reason"]
        assert load.lost == []


def test_a_successor_that_never_gets_ready_is_not_tried_again_and_again(tmp_path: Path) -> None:
    """Given a limit of age and new code that dies, when a worker is due, then it serves on and one try is made."""
    with circusd(tmp_path, numprocesses=1, options={"worker.max_age": 1.0}) as c:
        (first,) = c.wait_ready()
        c.set("boot", "die")

        eventually(lambda: "kept" in c.watcher()["last_reason"])

        holds(lambda: len(c.starts()) == 2 and c.ready() == [first], seconds=2)
        assert c.serves()
