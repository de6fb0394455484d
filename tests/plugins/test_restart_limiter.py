import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from plugin_fakes import FakeClock
from state_views import state_view

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.plugins._base import BusEvent
from xboard_circus.plugins._limited import DeadProcess, DeathCount
from xboard_circus.plugins.restart_limiter import Limiter, stopped_under

BUSY = "still busy after 1 s (arbiter is already running manage_watchers command)"
OPTIONS = {"restart.burst": "3", "restart.cooldown": "300", "restart.window": "600", "graceful_timeout": 30}


class CrashingWatcher:
    """circusd with one watcher that carries no hook, and its bus: what happens to it is published at once.

    Attributes:
        is_busy: Circus refuses to stop and start, because it is at work.
        has_state: One watcher somewhere is armed, so that circusd knows our commands.
    """

    def __init__(self, clock: FakeClock, *, has_state: bool = True, **options: Any) -> None:
        self.clock = clock
        self.has_state = has_state
        self.options = OPTIONS | options
        self.name = "My Api"
        self.status = "active"
        self.pids = [100]
        self.next_pid = 101
        self.is_busy = False
        self.is_gone = False
        self.loses_replies = False
        self.sent: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.listeners: list[Callable[[BusEvent], object]] = []

    async def call(self, command: str, *, deadline: float = 2.0, **properties: Any) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        if self.is_gone:
            raise CircusdGone("ipc://fake", "silent", listening=False)
        if command.startswith("xboard_") and not self.has_state:
            raise CommandRefused(command, "unknown command")
        if command == "xboard_event":
            self.events.append((properties["event"], properties["reason"]))
        if command in ("stop", "start"):
            assert properties == {"name": self.name, "match": "simple", "by": "the restart limiter"}
            if self.is_busy:
                raise CommandRefused(command, BUSY)
            self.sent.append(command)
            (self.stop if command == "stop" else self.start)()
            if self.loses_replies:
                raise CircusdGone("ipc://fake", "silent", listening=True)
        replies: dict[str, dict[str, Any]] = {
            "xboard_state": state_view(self.view(), {**self.view(), "name": "armed", "armed": True}),
            "status": {"statuses": {self.name: self.status, "plugin:x": "active", "other": "active"}},
            "list": {"pids": list(self.pids)},
            "options": {"options": self.options if properties.get("name") == self.name else {"numprocesses": 1}},
        }
        return replies.get(command, {})

    def view(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "armed": False,
            "numprocesses": 1,
            "options": self.options,
            "workers": [{"pid": pid} for pid in self.pids],
        }

    def publish(self, kind: str, **data: Any) -> None:
        for listener in self.listeners:
            listener(BusEvent("my_api", kind, data))

    # What happens to it

    def spawn(self, *, told: bool = True) -> None:
        self.pids.append(self.next_pid)
        self.next_pid += 1
        if told:
            self.publish("spawn", process_pid=self.pids[-1])

    def die(self, *, told: bool = True, exit_code: int = 1) -> None:
        pid = self.pids.pop()
        if told:
            self.publish("reap", process_pid=pid, exit_code=exit_code)
        self.spawn(told=told)

    def kill(self) -> None:
        self.publish("kill", process_pid=self.pids[-1])
        self.die(exit_code=-15)

    def stop(self) -> None:
        if self.status == "stopped":
            return
        for pid in self.pids:
            self.publish("kill", process_pid=pid)
            self.publish("reap", process_pid=pid, exit_code=-15)
        self.pids = []
        self.status = "stopped"
        self.publish("stop")

    def start(self) -> None:
        if self.status == "stopped":
            self.status = "active"
            self.spawn()
            self.publish("start")

    def restart(self) -> None:
        self.stop()
        self.start()


class Bench:
    """A limiter and a watcher; `play` runs a story of events, each at its second."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.clock = FakeClock(0.0)
        self.watcher = CrashingWatcher(self.clock, **options)
        self.path = tmp_path / "logs" / "restart-limiter.json"
        self.limiter = self.new_limiter()

    def new_limiter(self, circusd: str = "1:10") -> Limiter:
        limiter = Limiter(self.watcher, memory=self.path, circusd=circusd, clock=self.clock)
        self.watcher.listeners = [limiter.handle_event]
        return limiter

    def tick_until(self, second: float) -> None:
        """Tick once a second until *second*, as the plugin's host does."""

        async def tick() -> None:
            while self.clock.now < second:
                await self.limiter.tick()
                self.clock.sleep(1)

        asyncio.run(tick())

    def play(self, *story: tuple[float, str]) -> None:
        """Do each thing of *story* at its second: a method of the watcher, or nothing but wait."""
        for second, what in story:
            self.tick_until(second)
            if what:
                getattr(self.watcher, what)()


CRASHES = [(1, "die"), (2, "die"), (3, "die")]

STORIES: dict[str, tuple[list[tuple[float, str]], list[str]]] = {
    "two crashes are fine": ([(1, "die"), (2, "die"), (400, "")], []),
    "the third one stops it": ([*CRASHES, (10, "")], ["stop"]),
    "it is started after its cooldown": ([*CRASHES, (310, "")], ["stop", "start"]),
    "and not before": ([*CRASHES, (302, "")], ["stop"]),
    "half open: one more crash stops it again": ([*CRASHES, (310, "die"), (320, "")], ["stop", "start", "stop"]),
    "for ever": (
        [*CRASHES, (310, "die"), (620, "die"), (940, "")],
        ["stop", "start", "stop", "start", "stop", "start"],
    ),
    "until it has held for reset_after": (
        [*CRASHES, (700, "die"), (710, "die"), (720, "")],
        ["stop", "start"],
    ),
    "crashes of another day do not add up": ([(1, "die"), (700, "die"), (1400, "die"), (1500, "")], []),
    "an operator's kill is no failure": ([(second, "kill") for second in range(1, 9)], []),
    "an operator's restart clears the count": (
        [(1, "die"), (2, "die"), (3, "restart"), (4, "die"), (5, "die"), (9, "")],
        [],
    ),
    "an operator's start ends the cooldown": ([*CRASHES, (50, "start"), (400, "")], ["stop"]),
    "an operator's start and stop in the cooldown: it stays stopped": (
        [*CRASHES, (50, "start"), (60, "stop"), (400, "")],
        ["stop"],
    ),
    "an operator's start, then crashes: stopped anew": (
        [*CRASHES, (50, "start"), (51, "die"), (52, "die"), (53, "die"), (60, "")],
        ["stop", "stop"],
    ),
    "an operator's stop is left alone": ([(1, "die"), (2, "stop"), (900, "")], []),
}


@pytest.mark.parametrize("has_state", [True, False], ids=["by xboard_state", "by Circus's own commands"])
@pytest.mark.parametrize("story", STORIES)
def test_what_is_sent(tmp_path: Path, story: str, has_state: bool) -> None:
    events, expected = STORIES[story]
    bench = Bench(tmp_path, has_state=has_state)
    bench.tick_until(1)

    bench.play(*events)

    assert bench.watcher.sent == expected


def test_deaths_without_a_word_are_counted_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for second in (3, 7, 11):
        bench.tick_until(second)
        bench.watcher.die(told=False)

    bench.tick_until(20)

    assert bench.watcher.sent == ["stop"]


def test_a_refused_stop_is_sent_again_until_it_is_taken(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tick_until(1)
    bench.watcher.is_busy = True
    bench.play(*CRASHES, (20, ""))
    assert bench.watcher.sent == []

    bench.watcher.is_busy = False
    bench.tick_until(22)

    assert bench.watcher.sent == ["stop"]


def test_a_stop_of_the_operator_that_came_before_ours_stands(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tick_until(1)
    bench.watcher.is_busy = True
    bench.play(*CRASHES, (5, ""))
    bench.watcher.stop()
    bench.watcher.is_busy = False

    bench.tick_until(900)

    assert bench.watcher.sent == []
    assert bench.watcher.status == "stopped"


def test_a_stop_whose_reply_was_lost_is_still_ours(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tick_until(1)
    bench.watcher.loses_replies = True
    bench.play((1, "die"), (2, "die"), (3, "die"))
    with pytest.raises(CircusdGone):
        asyncio.run(bench.limiter.tick())
    bench.watcher.loses_replies = False

    bench.tick_until(400)

    assert bench.watcher.sent == ["stop", "start"]


def test_a_limiter_that_was_restarted_starts_what_its_predecessor_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tick_until(1)
    bench.play(*CRASHES, (10, ""))
    bench.limiter = bench.new_limiter()

    bench.tick_until(310)

    assert bench.watcher.sent == ["stop", "start"]


def test_what_was_stopped_under_another_circusd_is_none_of_its_business(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tick_until(1)
    bench.play(*CRASHES, (10, ""))
    bench.limiter = bench.new_limiter(circusd="2:20")

    bench.tick_until(400)

    assert bench.watcher.sent == ["stop"]


@pytest.mark.parametrize("content", ["", "[]", '{"circusd": "1:10", "until": {"x": "soon"}}', '{"circusd": "1:10"}'])
def test_a_memory_that_makes_no_sense_is_no_memory(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)

    assert stopped_under("1:10", tmp_path / "file") == {}


def test_a_memory_that_cannot_be_written_holds_nothing_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    bench = Bench(tmp_path)
    bench.tick_until(1)

    bench.play(*CRASHES, (310, ""))

    assert bench.watcher.sent == ["stop", "start"]
    assert "cannot be written" in caplog.text


def test_the_story_is_published(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tick_until(1)

    bench.play(*CRASHES, (700, ""))

    used_up = "restart budget used up (3 failures in 600 s)"
    assert bench.watcher.events == [
        ("restart", "exited with code 1 before it was up; restart budget: 1 of 3 used in 600 s"),
        ("restart", "exited with code 1 before it was up; restart budget: 2 of 3 used in 600 s"),
        ("restart", "exited with code 1 before it was up; restart budget: 3 of 3 used in 600 s"),
        ("cooldown", f"exited with code 1 before it was up; {used_up}: cooling down, next try in 299 s"),
        ("recovered", "ran for 300 s without a failure: restart budget reset"),
    ]


def test_news_wait_while_circusd_is_silent(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tick_until(1)
    bench.watcher.die()
    bench.watcher.is_gone = True
    with pytest.raises(CircusdGone):
        asyncio.run(bench.limiter.tick())
    assert bench.watcher.events == []
    bench.watcher.is_gone = False

    asyncio.run(bench.limiter.tick())

    assert [event for event, _ in bench.watcher.events] == ["restart"]


def test_a_watcher_without_our_options_is_not_limited(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.watcher.options = {"numprocesses": 1}
    bench.tick_until(1)

    bench.play(*[(second, "die") for second in range(1, 20)])

    assert bench.watcher.sent == []


@pytest.mark.parametrize(
    ("watcher", "by", "outcome", "starts"),
    [
        ("my_api", "circusctl", "", 0),
        ("circusd", "circusctl", "", 0),
        ("my_api", Say.BY_LIMITER(), "", 1),
        ("my_api", "circusctl", "refused: busy", 1),
        ("reports", "circusctl", "", 1),
    ],
    ids=["an operator's", "an operator's, of all", "its own", "one that was refused", "another's"],
)
def test_a_stop_in_the_cooldown_is_for_good(tmp_path: Path, watcher: str, by: str, outcome: str, starts: int) -> None:
    bench = Bench(tmp_path)
    bench.play((1, "die"), (2, "die"), (3, "die"), (10, ""))
    assert bench.watcher.sent == ["stop"]

    command = {"command": "stop", "outcome": outcome, **with_say(by, "by")}
    bench.limiter.handle_event(BusEvent(watcher, "command", command))
    bench.play((400, ""))

    assert bench.watcher.sent.count("start") == starts


@pytest.mark.parametrize(("options", "expected"), [(OPTIONS, 1.0), ({"numprocesses": 1}, 60.0)])
def test_with_nothing_to_limit_it_looks_seldom(tmp_path: Path, options: dict[str, Any], expected: float) -> None:
    bench = Bench(tmp_path)
    bench.watcher.options = options

    assert asyncio.run(bench.limiter.tick()) == expected


def test_somebody_new_calls_for_a_look(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.watcher.options = {"numprocesses": 1}
    known, new = BusEvent("my_api", "reap"), BusEvent("reports", "spawn")

    before = bench.limiter.handle_event(known)
    asyncio.run(bench.limiter.tick())

    assert before is not None
    assert bench.limiter.handle_event(known) is None
    assert bench.limiter.handle_event(BusEvent("my_api", "updated")) is not None
    assert bench.limiter.handle_event(new) is not None


def test_a_wrong_option_is_told_once_and_its_default_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path, **{"restart.burst": "many"})
    bench.tick_until(1)

    bench.play(*[(second, "die") for second in range(1, 6)], (10, ""))

    assert bench.watcher.sent == ["stop"]
    assert caplog.text.count("restart.burst = many") == 1


# Counting deaths

Step = tuple[str, Any, float]


def deaths_after(*steps: Step) -> list[DeadProcess]:
    """Return what was counted of a watcher whose process 1 was spawned at 0; each step is (what, whom, when)."""
    count = DeathCount(kill_seconds=40)
    count.spawned(1, now=0)
    counted = []
    for what, whom, when in steps:
        match what:
            case "reaped":
                counted += [count.reaped(whom, exit_code=3, now=when)]
            case "killed":
                count.killed(whom, now=when)
            case "spawned":
                count.spawned(whom, now=when)
            case "listed":
                counted += count.listed(whom, queried_at=when)
            case _:
                count.forget()
    return [ended for ended in counted if ended is not None]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([("reaped", 1, 5)], [DeadProcess(1, 3, 5)], id="reaped"),
        pytest.param([("reaped", 1, 5), ("reaped", 1, 6)], [DeadProcess(1, 3, 5)], id="reaped twice"),
        pytest.param([("killed", 1, 1), ("reaped", 1, 5)], [], id="killed, then reaped"),
        pytest.param([("killed", 1, 1), ("reaped", 1, 50)], [DeadProcess(1, 3, 50)], id="killed long ago"),
        pytest.param([("reaped", 9, 5)], [DeadProcess(9, 3, 0)], id="never seen before"),
        pytest.param([("killed", 9, 4), ("reaped", 9, 5)], [], id="never seen before, and killed"),
        pytest.param([("listed", [], 5)], [], id="missing once"),
        pytest.param([("listed", [], 5), ("listed", [], 6)], [DeadProcess(1, None, 6)], id="missing twice"),
        pytest.param(
            [("listed", [], 5), ("reaped", 1, 5.5), ("listed", [], 6)],
            [DeadProcess(1, 3, 5.5)],
            id="missing, then reaped",
        ),
        pytest.param(
            [("listed", [], 5), ("listed", [], 6), ("reaped", 1, 7)],
            [DeadProcess(1, None, 6)],
            id="missing twice, then reaped",
        ),
        pytest.param(
            [("spawned", 2, 5), ("listed", [1], 4), ("listed", [1], 4.5)], [], id="missing in a list older than itself"
        ),
        pytest.param(
            [("reaped", 1, 5), ("listed", [1], 4), ("listed", [], 6), ("listed", [], 7)],
            [DeadProcess(1, 3, 5)],
            id="reaped while the list was made",
        ),
        pytest.param(
            [("listed", [1, 2], 5), ("listed", [1], 6), ("listed", [1], 7)],
            [DeadProcess(2, None, 2)],
            id="seen in a list only",
        ),
        pytest.param(
            [("reaped", 1, 5), ("spawned", 1, 6), ("reaped", 1, 8)],
            [DeadProcess(1, 3, 5), DeadProcess(1, 3, 2)],
            id="its pid is used again",
        ),
        pytest.param([("forgotten", 0, 1), ("listed", [], 5), ("listed", [], 6)], [], id="the watcher was stopped"),
    ],
)
def test_each_death_counts_once(steps: list[Step], expected: list[DeadProcess]) -> None:
    assert deaths_after(*steps) == expected
