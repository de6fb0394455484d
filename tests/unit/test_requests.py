"""Who is known to have asked for what, with an arbiter that does as the test says."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from circus.exc import ConflictError, MessageError

from xboard_circus.supervisor.bus.journal import Journal
from xboard_circus.supervisor.bus.requests import Requests
from xboard_circus.supervisor.patches import patch
from xboard_circus.supervisor.reconfigure import refuse_options
from xboard_circus.supervisor.supervisor import Supervisor


class FakeFuture:
    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done


class FakeSocket:
    closed = False

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send_multipart(self, parts: list[bytes]) -> None:
        self.sent.append((parts[0].decode(), json.loads(parts[1])))


class FakeCommand:
    def __init__(self) -> None:
        self.work: Callable[[], Any] = lambda: None

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        return self.work()


class FakeWatcher:
    def __init__(self, name: str) -> None:
        self.name = name


class FakeController:
    def __init__(self, arbiter: "FakeArbiter") -> None:
        self.arbiter = arbiter
        names = ("stop", "signal", "quit", "set", "incr", "add", "kill", "status", "xboard_leave")
        self.commands = {name: FakeCommand() for name in names}

        self.answers: list[Any] = []

    def send_error(self, mid: Any, cid: Any, msg: Any, reason: str, **more: Any) -> None:
        self.answers.append(reason)

    def send_response(self, mid: Any, cid: Any, msg: Any, resp: Any, cast: bool = False) -> None:
        self.answers.append(resp)

    def dispatch(self, job: tuple[bytes | None, str]) -> Any:
        message = json.loads(job[1])
        return self.commands[message["command"]].execute(self.arbiter, message["properties"])


class FakeArbiter:
    _exclusive_running_command: str | None = None
    _stopping = False

    def __init__(self) -> None:
        self.watchers = [FakeWatcher("Web"), FakeWatcher("web2"), FakeWatcher("api")]
        self._watchers_names = {each.name.lower(): each for each in self.watchers}
        self.evpub_socket = FakeSocket()
        self.ctrl = FakeController(self)


class Bench:
    publish = Supervisor.publish

    def __init__(self) -> None:
        self.arbiter, self.armed = FakeArbiter(), dict[str, Any]()
        self.journal = Journal(epoch="e")
        self.requests = Requests(cast(Supervisor, self))
        patch.install(self.requests.patches())

    def give(
        self, command: str, work: Callable[[], Any] = lambda: None, *, cid: bytes | None = b"1", **props: Any
    ) -> Any:
        self.arbiter.ctrl.commands[command].work = work
        return self.arbiter.ctrl.dispatch((cid, json.dumps({"command": command, "properties": props})))

    def told(self) -> list[tuple[str, str]]:
        return [(topic, message["reason"]) for topic, message in self.arbiter.evpub_socket.sent]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("command", "props", "expected"),
    [
        pytest.param(
            "stop", {"name": "Web", "by": "ann"}, [("watcher.web.command", "stop, requested by ann")], id="one"
        ),
        pytest.param("stop", {}, [("watcher.circusd.command", "stop, requested by circusctl")], id="all, by nobody"),
        pytest.param(
            "stop",
            {"name": "web*"},
            [(f"watcher.{name}.command", "stop, requested by circusctl") for name in ("web", "web2")],
            id="a pattern",
        ),
        pytest.param(
            "signal",
            {"name": "api", "signum": 15, "pid": 71},
            [("watcher.api.command", "signal SIGTERM pid 71, requested by circusctl")],
            id="a signal",
        ),
        pytest.param(
            "set",
            {"name": "api", "options": {"env": {"TOKEN": "hunter2"}, "numprocesses": 3}},
            [("watcher.api.command", "set env numprocesses, requested by circusctl")],
            id="values may be secrets",
        ),
        pytest.param(
            "add",
            {"name": "new", "cmd": "serve --token hunter2"},
            [("watcher.new.command", "add serve --token ***, requested by circusctl")],
            id="so may be a command line",
        ),
        pytest.param(
            "xboard_leave", {"by": "ann"}, [("watcher.circusd.command", "leave, requested by ann")], id="one of ours"
        ),
        pytest.param("status", {"name": "api"}, [], id="what changes nothing"),
        pytest.param(
            "stop",
            {"name": "no\nsuch", "match": "simple", "by": "x\n" * 500},
            [("watcher.no_such.command", f"stop, requested by {('x ' * 500)[:117]}...")],
            id="hostile",
        ),
    ],
)
def test_a_command_that_changes_something_is_told(
    bench: Bench, command: str, props: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    bench.give(command, **props)

    assert bench.told() == expected


def test_who_asked_is_known_while_it_is_done(bench: Bench) -> None:
    work = FakeFuture()

    bench.give("stop", lambda: work, name="web", by="xboard-circus stop, user ann")

    assert bench.requests.asker_of("Web") == "xboard-circus stop, user ann"
    assert bench.requests.asker_of("api") is None
    work.is_done = True
    assert bench.requests.asker_of("web") is None
    bench.give("signal", name="api", signum=1)
    assert bench.requests.asker_of("web") is None


def test_circusctl_does_not_say_for_what_so_the_command_is_told(bench: Bench) -> None:
    seen: list[str | None] = []

    bench.give("signal", lambda: seen.append(bench.requests.asker_of("api")), name="api", signum=15)

    assert seen == ["circusctl signal"]


def test_a_signal_to_circusd_is_nobodys_command(bench: Bench) -> None:
    bench.give("quit", FakeFuture, cid=None)

    assert bench.requests.asker_of("web") == "a signal to circusd"


def test_a_stop_that_met_another_is_carried_out_in_its_turn(bench: Bench) -> None:
    is_busy = True

    def stop() -> asyncio.Future[str]:
        if is_busy:
            raise ConflictError("arbiter is already running")
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        done.set_result("stopped")
        return done

    async def steps() -> None:
        nonlocal is_busy
        bench.arbiter._exclusive_running_command = "watcher_decr"
        answer = bench.give("stop", stop, name="web")
        assert bench.requests.asker_of("web") == "circusctl stop"
        is_busy, bench.arbiter._exclusive_running_command = False, None
        assert await answer == "stopped"

    asyncio.run(steps())
    assert bench.told() == [("watcher.web.command", "stop, requested by circusctl")]


def test_one_that_met_another_is_not_told(bench: Bench) -> None:
    def conflict() -> None:
        raise ConflictError("arbiter is already running")

    bench.arbiter._exclusive_running_command = "arbiter_stop"
    with pytest.raises(ConflictError):
        bench.give("set", conflict, name="web")

    assert bench.told() == []
    assert bench.requests.asker_of("web") is None


def test_a_refusal_is_told(bench: Bench) -> None:
    def refuse() -> None:
        raise MessageError("no such signal")

    with pytest.raises(MessageError):
        bench.give("signal", refuse, name="api", signum=10)

    assert bench.told()[-1][1] == "signal SIGUSR1, requested by circusctl; refused: no such signal"


@pytest.mark.parametrize(
    ("command", "props", "why"),
    [
        ("set", {"options": {"stop_signal": 99999}}, "stop_signal = 99999: no signal of this system"),
        ("set", {"options": {"graceful_timeout": float("nan")}}, "graceful_timeout = nan: Circus cannot read this"),
        ("set", {"options": {"numprocesses": 10**23}}, f"numprocesses = {10**23}: too large"),
        ("incr", {"nb": 10**9}, f"numprocesses = {10**9}: too large"),
        ("add", {"options": {"stop_signal": "KILL"}}, "stop_signal = KILL: it kills a worker"),
        ("kill", {"graceful_timeout": float("inf")}, "graceful_timeout = inf: Circus cannot read this"),
    ],
)
def test_an_option_that_no_watcher_takes_is_refused(bench: Bench, command: str, props: Any, why: str) -> None:
    with pytest.raises(MessageError, match=re.escape(why)):
        bench.give(command, lambda: "done", name="api", **props)

    assert f"refused: {why}" in bench.told()[-1][1]


@pytest.mark.parametrize("name", ["Web", "web", "WEB"])
def test_no_spelling_of_a_watchers_name_passes_what_harms_its_workers(name: str) -> None:
    """Circus keeps the name as the ini has it, and finds a watcher by it in small letters."""
    with pytest.raises(MessageError, match="send_hup = True"):
        refuse_options({"name": name, "options": {"send_hup": True}}, ["Web"])


def test_options_that_circus_takes_from_a_command_are_taken(bench: Bench) -> None:
    options = {"graceful_timeout": 30.0, "numprocesses": 0, "shell": True, "env": {}, "stop_signal": 15, "uid": "ann"}

    assert bench.give("set", lambda: "done", name="api", options={**options, "warmup_delay": 0.5}) == "done"


def test_what_fails_in_the_telling_fails_no_command(bench: Bench) -> None:
    bench.arbiter.evpub_socket = cast(FakeSocket, None)
    bench.arbiter.watchers = cast(Any, None)

    assert bench.give("stop", lambda: "done", name="web") == "done"


@pytest.mark.parametrize(
    "message",
    [
        *("null", "[]", '"stop"', "{", "[" * 50_000, b"\xff"),
        *(
            '{"command": null}',
            '{"command": "stop", "properties": [1]}',
        ),
    ],
)
def test_a_message_that_is_no_command_is_answered_and_reaches_none(bench: Bench, message: Any) -> None:
    bench.arbiter.ctrl.dispatch((b"1", message))

    assert bench.told() == []
    assert ["this is no command" in answer for answer in bench.arbiter.ctrl.answers] == [True]


def test_a_command_with_a_property_of_a_wrong_type_is_answered_and_reaches_none(bench: Bench) -> None:
    bench.give("stop", name=[])

    assert bench.told() == []
    assert bench.arbiter.ctrl.answers == ["name = []: wrong type"]


def test_an_empty_message_is_answered_with_an_error(bench: Bench) -> None:
    bench.arbiter.ctrl.send_response(None, b"1", b"", "error: empty command")

    assert bench.arbiter.ctrl.answers == [{"status": "error", "reason": "error: empty command"}]


def test_a_kill_in_a_watcher_that_there_is_not_is_no_error_of_ours(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.give("kill", name="nobody", pid=7)

    assert caplog.text == ""
