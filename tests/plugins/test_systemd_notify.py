"""What systemd is told: the decision, and who sends it."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from plugin_fakes import FakeCircusd, FakeClock
from state_views import state_view, watcher_view, worker_view

from xboard_circus.core.sentences import Say
from xboard_circus.core.systemd_state import ServiceState, SystemdNotice
from xboard_circus.host import service_manager
from xboard_circus.plugins.systemd_notify import Notifier, expected_by


def watcher(*words: str, name: str = "web", **more: Any) -> Any:
    return watcher_view(*words, **{"name": name, "numprocesses": 2, **more})


def state(*watchers: Any, age: float = 0.5, stopping: bool = False) -> Any:
    probers = [{"plugin": "http_health", "pid": 1, "round_age": age}]
    return {**state_view(*watchers, config_file="circus.ini", stopping=stopping), "probers": probers}


UP = watcher("up", "busy")
EXTENDED = "EXTEND_TIMEOUT_USEC=60000000"
RELOAD = {"state": "running", "done": 0, "total": 2}
OTHER = watcher("held", name="stock", armed=False)
PLAIN: dict[str, Any] = {"armed": False, "last_reason_say": Say.RUNS_PLAINLY(why="its folder is not ours").as_data()}


@pytest.mark.parametrize(
    ("watchers", "ready", "status"),
    [
        pytest.param([UP], True, "web: 2 of 2 workers up", id="all serve"),
        pytest.param([UP, OTHER], True, "web: 2 of 2 workers up", id="what is not armed does not matter"),
        pytest.param(
            [watcher("up")], False, "web: degraded: 1 of 2 workers up: a worker is missing", id="one is missing"
        ),
        pytest.param(
            [watcher("up", "starting")], False, "web: deploying: starting, 1 of 2 workers up", id="one starts"
        ),
        pytest.param(
            [watcher("up", "hung")], True, "web: degraded: 1 of 2 workers up: #2 is hung", id="its start is over"
        ),
        pytest.param(
            [watcher(worker_view(1, "cooling", reason="cooling down"))],
            False,
            "web: looping: none of 2 workers is up: cooling down",
            id="the reason, without seconds that make it new each time",
        ),
        pytest.param([watcher(status="stopped")], False, "web: stopped: the watcher is stopped", id="not yet started"),
        pytest.param([], False, "web: circusd runs without it", id="circusd dropped it"),
        pytest.param([watcher("up", "up", **PLAIN)], True, "web: 2 of 2 processes run", id="it could not be armed"),
        pytest.param([watcher("up", **PLAIN)], False, "web: unknown: 1 of 2 processes run", id="one of two"),
        pytest.param([watcher("up", "up", armed=False)], False, "web: 2 of 2 processes run", id="its hook comes yet"),
    ],
)
def test_ready_is_when_all_that_matter_are(watchers: list[Any], ready: bool, status: str) -> None:
    notice = ServiceState(["web"]).judge(state(*watchers), queried_at=100.0)

    assert notice == SystemdNotice(ready=ready, proven=True, stopping=False, reloading=False, status=status)


def test_with_no_armed_watcher_it_is_never_ready() -> None:
    notice = ServiceState([]).judge(state(OTHER), queried_at=100.0)

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

    assert [service.judge(state(UP, age=age), queried_at=at).proven for at, age in looks] == proofs


def test_without_a_prober_nothing_is_proven() -> None:
    assert not ServiceState(["web"]).judge(state_view(UP), queried_at=100.0).proven


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

    starting = state(watcher("starting"))
    assert talk.tick(starting) == [
        "WATCHDOG=1",
        EXTENDED,
        "STATUS=web: deploying: starting, 0 of 2 workers up",
    ]
    assert talk.tick(state(UP)) == ["READY=1", "WATCHDOG=1", "STATUS=web: 2 of 2 workers up"]
    assert talk.tick() == ["WATCHDOG=1"]
    assert talk.tick(state(UP, age=2.5)) == []
    assert talk.tick(state({**UP, "reload": RELOAD})) == ["WATCHDOG=1", EXTENDED]
    assert talk.tick(state(watcher("up"))) == [
        "WATCHDOG=1",
        "STATUS=web: degraded: 1 of 2 workers up: a worker is missing",
    ]
    assert talk.tick(state(UP, stopping=True)) == ["STOPPING=1", "STATUS=stopping; web: 2 of 2 workers up"]
    assert talk.tick() == []


def test_where_systemd_wants_no_watchdog_it_hears_none() -> None:
    assert Talk(watchdog=None).tick() == ["READY=1", "STATUS=web: 2 of 2 workers up"]


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

    assert talk.tick() == ["READY=1", "WATCHDOG=1", "STATUS=web: 2 of 2 workers up"]


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
        service_manager.send(name, "READY=1")

        assert systemd.recv(100) == b"READY=1"


def test_those_that_matter_are_backends_that_start_by_themselves(tmp_path: Path) -> None:
    """The page is none: a start of the unit would otherwise hang where a stranger has the page's port."""
    arm = "hooks.before_start = xboard_circus.plugins.guard.arm\n"
    file = tmp_path / "circus.ini"
    file.write_text(
        f"[watcher:web]\ncmd = a\n{arm}[watcher:later]\ncmd = a\nautostart = False\n{arm}"
        f"[watcher:dashboard]\ncmd = python -m xboard_circus.worker xboard_circus.dashboard:page\n{arm}"
        f"[watcher:once]\ncmd = a\nrespawn = False\n{arm}[watcher:stock]\ncmd = a\n"
    )

    assert expected_by(str(file)) == ["web"]
    assert expected_by(str(tmp_path / "none.ini")) == []
