"""What systemd is told: the decision, and who sends it."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from plugin_fakes import FakeCircusd, FakeClock

from xboard_circus.core.service import Notice, ServiceState
from xboard_circus.plugins.systemd_notify import Notifier, expected_by, sender_to


def worker(state: str, reason: str = "") -> dict[str, Any]:
    return {"state": state, "reason": reason}


def watcher(*workers: dict[str, Any], name: str = "web", **more: Any) -> dict[str, Any]:
    return {"name": name, "status": "active", "armed": True, "numprocesses": 2, "workers": list(workers), **more}


def state(*watchers: dict[str, Any], age: float = 0.5, stopping: bool = False) -> dict[str, Any]:
    return {
        "circusd": {"config_file": "circus.ini", "stopping": stopping},
        "probers": [{"plugin": "http_health", "pid": 1, "round_age": age}],
        "watchers": list(watchers),
    }


UP = watcher(worker("ready"), worker("busy"))
OTHER = watcher(worker("waiting"), name="stock", armed=False)


@pytest.mark.parametrize(
    ("watchers", "ready", "status"),
    [
        pytest.param([UP], True, "web: 1 of 2 ready, 1 busy", id="all serve"),
        pytest.param([UP, OTHER], True, "web: 1 of 2 ready, 1 busy", id="what is not armed does not matter"),
        pytest.param([watcher(worker("ready"))], False, "web: 1 of 2 ready", id="one is missing"),
        pytest.param(
            [watcher(worker("ready"), worker("starting"))], False, "web: 1 of 2 ready, 1 starting", id="one starts"
        ),
        pytest.param(
            [watcher(worker("ready"), worker("ready"), worker("spare"))], True, "web: 2 of 2 ready, 1 spare", id="spare"
        ),
        pytest.param(
            [watcher(worker("waiting", "cooling down, next try in 12 s"))],
            False,
            "web: 0 of 2 ready, 1 waiting: cooling down",
            id="the reason, without seconds that make it new each time",
        ),
        pytest.param([watcher(status="stopped")], False, "web: 0 of 2 ready (stopped)", id="not yet started"),
        pytest.param([], False, "web: circusd runs without it", id="circusd dropped it"),
    ],
)
def test_ready_is_when_all_that_matter_are(watchers: list[dict[str, Any]], ready: bool, status: str) -> None:
    notice = ServiceState(["web"]).judge(state(*watchers), asked_at=100.0)

    assert notice == Notice(ready=ready, proven=True, stopping=False, reloading=False, status=status)


def test_with_no_armed_watcher_it_is_never_ready() -> None:
    notice = ServiceState([]).judge(state(OTHER), asked_at=100.0)

    assert (notice.ready, notice.status) == (False, "no watcher of the ini file is armed")


@pytest.mark.parametrize(
    ("looks", "proofs"),
    [
        pytest.param([(100, 0.5), (101, 0.5)], [True, True], id="a round between"),
        pytest.param([(100, 0.5), (101, 1.5), (102, 2.5)], [True, False, False], id="the same round again"),
        pytest.param([(100, 9.0), (101, 10.0), (102, 0.1)], [True, False, True], id="it goes on"),
    ],
)
def test_a_round_is_a_proof_once(looks: list[tuple[float, float]], proofs: list[bool]) -> None:
    service = ServiceState(["web"])

    assert [service.judge(state(UP, age=age), asked_at=at).proven for at, age in looks] == proofs


def test_without_a_prober_nothing_is_proven() -> None:
    assert not ServiceState(["web"]).judge({**state(UP), "probers": []}, asked_at=100.0).proven


class Talk:
    """A notifier, and what it has sent."""

    def __init__(self, *, watchdog: float | None = 30.0) -> None:
        self.clock, self.circusd = FakeClock(), FakeCircusd(state(UP))
        self.sent: list[str] = []
        self.is_deaf = False
        self.notifier = Notifier(
            self.circusd, self._take, expected=lambda file: ["web"], watchdog=watchdog, clock=self.clock
        )

    def _take(self, message: str) -> None:
        if self.is_deaf:
            raise OSError("nobody there")
        self.sent += message.split("\n")

    def tick(self, told: dict[str, Any] | None = None) -> list[str]:
        self.circusd.state = told or self.circusd.state
        self.sent.clear()
        self.clock.sleep(1)
        asyncio.run(self.notifier.tick())
        return list(self.sent)


def test_it_tells_what_is_new_and_the_watchdog_what_is_proven() -> None:
    talk = Talk()

    starting = state(watcher(worker("starting")))
    assert talk.tick(starting) == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000", "STATUS=web: 0 of 2 ready, 1 starting"]
    assert talk.tick(state(UP)) == ["READY=1", "WATCHDOG=1", "STATUS=web: 1 of 2 ready, 1 busy"]
    assert talk.tick() == ["WATCHDOG=1"]
    assert talk.tick(state(UP, age=2.5)) == []
    assert talk.tick(state({**UP, "reload": {"state": "running"}})) == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000"]
    assert talk.tick(state(watcher(worker("ready")))) == ["WATCHDOG=1", "STATUS=web: 1 of 2 ready"]
    assert talk.tick(state(UP, stopping=True)) == ["STOPPING=1", "STATUS=stopping; web: 1 of 2 ready, 1 busy"]
    assert talk.tick() == []


def test_where_systemd_wants_no_watchdog_it_hears_none() -> None:
    assert Talk(watchdog=None).tick() == ["READY=1", "STATUS=web: 1 of 2 ready, 1 busy"]


def test_a_circusd_that_does_not_answer_gets_no_watchdog() -> None:
    talk = Talk()
    talk.tick()
    talk.circusd.is_gone = True

    assert [line.partition(":")[0] for line in talk.tick()] == ["STATUS=circusd gives no state"]


def test_what_could_not_be_told_is_told_again() -> None:
    talk = Talk()
    talk.is_deaf = True
    talk.tick()
    talk.is_deaf = False

    assert talk.tick() == ["READY=1", "WATCHDOG=1", "STATUS=web: 1 of 2 ready, 1 busy"]


def test_at_its_end_it_says_stopping_only_where_circusd_stops_too() -> None:
    talk = Talk()
    talk.tick()
    talk.sent.clear()

    asyncio.run(talk.notifier.close())
    assert "STOPPING=1" not in talk.sent
    talk.circusd.state = state(UP, stopping=True)
    asyncio.run(talk.notifier.close())
    assert "STOPPING=1" in talk.sent
    talk.circusd.is_gone = True
    asyncio.run(talk.notifier.close())


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_goes_to_the_socket_that_systemd_names(tmp_path: Path, abstract: bool) -> None:
    name = f"@xb-test-{os.getpid()}" if abstract else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name[1:]}" if abstract else name)
        sender_to(name)("READY=1")

        assert systemd.recv(100) == b"READY=1"


def test_those_that_matter_are_armed_and_start_by_themselves(tmp_path: Path) -> None:
    arm = "hooks.before_start = xboard_circus.plugins.guard.arm\n"
    file = tmp_path / "circus.ini"
    file.write_text(
        f"[watcher:web]\ncmd = a\n{arm}[watcher:later]\ncmd = a\nautostart = False\n{arm}"
        f"[watcher:once]\ncmd = a\nrespawn = False\n{arm}[watcher:stock]\ncmd = a\n"
    )

    assert expected_by(str(file)) == ["web"]
    assert expected_by(str(tmp_path / "none.ini")) == []
