import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from plugin_fakes import FakeCircusd, FakeClock, FakeWorkers
from state_views import watcher_view, worker_view

from xboard_circus.host.procs import Identity
from xboard_circus.plugins._base import BusEvent
from xboard_circus.plugins.http_health import HealthProber
from xboard_circus.probe import Outcome, Target, UrlAnswer, WorkerAnswer

ME = Identity(99, 990)
SPAWN = BusEvent("web", "spawn")
PERIOD = 2.0


async def no_frames(pid: int, within: float) -> str:
    return ""


class Bench:
    """A prober with everything around it faked, and a clock that moves by one period a round."""

    def __init__(self, *views: Mapping[str, Any], **seams: Any) -> None:
        self.clock = FakeClock()
        self.circusd = FakeCircusd({"watchers": list(views)})
        self.workers = FakeWorkers(self.clock)
        own: dict[str, Any] = {"ask_workers": self.workers, "read_native": no_frames}
        self.prober = HealthProber(self.circusd, identity=ME, clock=self.clock, **(own | seams))

    async def rounds(self, *moods: str | Mapping[int, str]) -> None:
        """Run a round for each of *moods*: of each worker, or of all the same."""
        for mood in moods:
            pids = [worker["pid"] for view in (self.circusd.state or {})["watchers"] for worker in view["workers"]]
            self.workers.mood = dict.fromkeys(pids, mood) if isinstance(mood, str) else dict(mood)
            await self.prober.tick()
            self.clock.sleep(PERIOD)

    def change(self, *views: Mapping[str, Any]) -> None:
        """Have circusd show something else, and publish an event."""
        self.circusd.state = {"watchers": list(views)}
        self.prober.handle_event(SPAWN)

    def asked_for(self) -> list[tuple[str, int | None, str]]:
        """Return what circusd was asked to do or to publish: kind or event, whose, why."""
        return [
            (properties.get("kind") or properties["event"], properties.get("pid"), properties["reason"])
            for properties in self.circusd.named("xboard_replace", "xboard_event")
        ]

    def last_report(self) -> dict[str, Any]:
        return dict(self.circusd.named("xboard_report")[-1]["workers"])


def one() -> Any:
    return watcher_view(worker_view(1))


def two() -> Any:
    return watcher_view(worker_view(1), worker_view(2))


# What is done about what is seen

HISTORIES: dict[str, tuple[list[str | Mapping[int, str]], list[tuple[str, int | None]]]] = {
    "all well": (["well"] * 5, []),
    "silent twice only": (["well", {1: "silent"}, {1: "silent"}, "well", {1: "silent"}], []),
    "silent three times": (["well", *[{1: "silent"}] * 3], [("hung", 1), ("unhealthy", 1)]),
    "still silent: asked for again": (
        ["well", *[{1: "silent"}] * 4],
        [("hung", 1), ("unhealthy", 1), ("hung", 1)],
    ),
    "sick three times": (["well", *[{2: "sick"}] * 3], [("sick", 2), ("unhealthy", 2)]),
    "both sick: a dependency is down": (["well", *["sick"] * 4, "well"], [("unhealthy", None), ("recovered", None)]),
    "both silent: one is replaced as a trial": (
        ["well", *["silent"] * 4],
        [("hung", 1), ("unhealthy", None), ("unhealthy", 1), ("unhealthy", 2), ("hung", 1)],
    ),
    "busy for ever": (["well", *["busy"] * 8], []),
    "connections take all descriptors for ever": (["well", *["crowded"] * 8], []),
    "one has leaked its descriptors": (["well", *[{2: "leaking"}] * 3], [("sick", 2), ("unhealthy", 2)]),
    "not ready for ever": (["well", *["not ready"] * 8], []),
    "never well, and nobody knows it as ready": (["starting"] * 8, []),
    "draining": (["well", *["draining"] * 8], []),
    "nothing is known of it": (["well", *["unclear"] * 8], []),
    "silence counts from anew after an unclear answer": (
        ["well", {1: "silent"}, {1: "silent"}, {1: "unclear"}, "well", {1: "silent"}, {1: "silent"}],
        [],
    ),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_what_is_asked_for(history: str) -> None:
    rounds, expected = HISTORIES[history]
    bench = Bench(two())

    asyncio.run(bench.rounds(*rounds))

    assert [(what, pid) for what, pid, _ in bench.asked_for()] == expected


def test_a_replacement_carries_the_start_of_the_probe_and_the_reason() -> None:
    bench = Bench(one())

    asyncio.run(bench.rounds("well", "silent", "silent", "silent"))

    assert bench.circusd.named("xboard_replace") == [
        {
            "name": "web",
            "pid": 1,
            "started": 10,
            "kind": "hung",
            "probed_at": 1000.0 + 3 * PERIOD,
            "reason": "no answer 3 times in a row: no answer within 2 s",
        }
    ]


def test_native_frames_are_read_of_a_hung_worker_that_tells_nothing_itself() -> None:
    """Given a worker whose own thread tells what its loop runs, then py-spy is not asked: its GIL is free."""

    async def frames(pid: int, within: float) -> str:
        return f"Thread {pid}"

    for state, native in (("running", None), ("in flight", "Thread 1")):
        bench = Bench(one(), read_native=frames)
        requests = [{"state": state, "age": 1.0}]
        bench.circusd.answers["xboard_requests"] = {"workers": [{"pid": 1, "requests": requests}]}
        asyncio.run(bench.rounds("well", "silent", "silent", "silent"))

        (order,) = bench.circusd.named("xboard_replace")
        assert order.get("native") == native


# A successor before it is known that a worker hangs


def test_circusd_is_asked_once_for_a_successor_of_a_blocked_worker_and_anew_after_it_was_back() -> None:
    bench = Bench(two())

    asyncio.run(bench.rounds("well", {1: "blocked"}, {1: "blocked"}, "well", {1: "blocked"}))

    asked = bench.circusd.named("xboard_replace")
    assert [each["kind"] for each in asked] == ["blocked", "blocked"]
    assert asked[0] == {
        "name": "web",
        "pid": 1,
        "started": 10,
        "kind": "blocked",
        "probed_at": 1000.0 + PERIOD - 0.35,
        "reason": "event loop blocked for 2.5 s",
    }


def test_a_refused_successor_is_asked_for_at_each_look_and_the_refusal_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(two())
    bench.circusd.refuses["xboard_replace"] = "not now"

    asyncio.run(bench.rounds("well", {1: "blocked"}))

    assert len(bench.circusd.named("xboard_replace")) == 3
    assert caplog.text.count("not now") == 1


def test_a_circusd_that_does_not_answer_costs_no_round() -> None:
    bench = Bench(one())
    workers = bench.workers

    def go(command: str, _: object) -> None:
        bench.circusd.is_gone = command == "xboard_replace"

    bench.circusd.on_call = go
    asyncio.run(bench.rounds("well"))
    bench.circusd.on_call = lambda command, _: None
    asyncio.run(bench.rounds({1: "blocked"}, "well"))

    assert len(workers.asked) == 3


def test_none_gets_a_successor_while_both_are_blocked() -> None:
    bench = Bench(two())

    asyncio.run(bench.rounds("well", "blocked"))

    assert bench.circusd.named("xboard_replace") == []


def test_an_event_of_a_worker_names_it() -> None:
    bench = Bench(one())

    asyncio.run(bench.rounds("well", "sick", "sick", "sick", "well"))

    assert bench.circusd.named("xboard_event") == [
        {
            "name": "web",
            "event": "unhealthy",
            "reason": "sick: live path failed 3 times in a row: answered 500",
            "pid": 1,
            "wid": 1,
        },
        {"name": "web", "event": "recovered", "reason": "ok again", "pid": 1, "wid": 1},
    ]


def test_a_refused_replacement_is_asked_for_again_in_the_next_round() -> None:
    bench = Bench(one())
    bench.circusd.refuses["xboard_replace"] = "restart budget used up, next try in 12 s"

    asyncio.run(bench.rounds("well", *["sick"] * 4))

    assert len(bench.circusd.named("xboard_replace")) == 2


def test_a_sick_worker_whose_replacement_is_refused_keeps_no_other_from_one() -> None:
    """Given two sick of five, when circusd refuses the first, as with its slot's restarts used up, then the other is
    asked for, and the first again after that."""
    bench = Bench(watcher_view(*(worker_view(number) for number in range(1, 6))))
    bench.circusd.refuses["xboard_replace"] = "restart budget used up, next try in 300 s"
    two_sick = {1: "sick", 2: "sick", 3: "well", 4: "well", 5: "well"}

    asyncio.run(bench.rounds("well", *[two_sick] * 5))

    assert [each["pid"] for each in bench.circusd.named("xboard_replace")] == [1, 2, 1]


# Who is asked


def test_what_circusd_said_of_its_workers_holds_for_some_rounds() -> None:
    bench = Bench(one())

    asyncio.run(bench.rounds(*["well"] * 7))

    assert bench.circusd.asked == 2
    assert len(bench.circusd.named("xboard_report")) == 7


def test_after_an_event_circusd_is_asked_anew() -> None:
    bench = Bench(one())
    asyncio.run(bench.rounds("well"))

    bench.change(two())
    asyncio.run(bench.rounds("well"))

    assert bench.circusd.asked == 2
    assert set(bench.last_report()) == {"1", "2"}


def test_after_an_event_that_the_answer_may_not_know_circusd_is_asked_anew() -> None:
    bench = Bench(one())

    def publish_meanwhile(command: str, _: object) -> None:
        if command == "xboard_state":
            bench.prober.handle_event(SPAWN)

    bench.circusd.on_call = publish_meanwhile

    asyncio.run(bench.rounds("well", "well"))

    assert bench.circusd.asked == 2


def test_after_a_refusal_circusd_is_asked_anew() -> None:
    bench = Bench(one())
    bench.circusd.refuses["xboard_report"] = "not now"

    asyncio.run(bench.rounds("well", "well"))

    assert bench.circusd.asked == 2


@pytest.mark.parametrize("phase", ["held", "leaving"])
def test_a_worker_that_circusd_holds_back_is_not_asked(phase: str) -> None:
    bench = Bench(watcher_view(worker_view(1, phase=phase), worker_view(2)))

    asyncio.run(bench.rounds("well"))

    assert bench.workers.asked == [[2]]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"status": "stopped"}, id="stopped"),
        pytest.param({"status": "stopping"}, id="stopping"),
        pytest.param({"armed": False}, id="not armed"),
        pytest.param({"probe": "none"}, id="nothing to ask"),
    ],
)
def test_a_watcher_that_is_not_to_be_probed_is_left_alone(more: dict[str, Any]) -> None:
    bench = Bench(watcher_view(worker_view(1), **more))

    asyncio.run(bench.rounds("well"))

    assert bench.workers.asked == []
    assert bench.last_report() == {}  # said all the same: silence would mean that the prober hangs


def test_a_stop_forgets_what_was_counted() -> None:
    bench = Bench(one())

    async def scenario() -> None:
        await bench.rounds("well", "silent", "silent")
        bench.change(watcher_view(worker_view(1), status="stopping"))
        await bench.rounds("silent")
        bench.change(one())
        await bench.rounds("well", "silent", "silent")

    asyncio.run(scenario())

    assert bench.asked_for() == []


def test_a_successor_with_the_same_pid_begins_with_a_clean_count() -> None:
    bench = Bench(one())

    async def scenario() -> None:
        await bench.rounds("well", "silent", "silent")
        bench.change(watcher_view(worker_view(1, started=77, ready_for=None)))
        await bench.rounds("silent", "silent", "silent")

    asyncio.run(scenario())

    assert bench.asked_for() == []


def test_each_watcher_is_asked_in_its_own_period() -> None:
    slow = watcher_view(worker_view(7), name="slow", options={"health.period": "6"})
    bench = Bench(one(), slow)

    asyncio.run(bench.rounds(*["well"] * 6))

    assert [sorted(asked) for asked in bench.workers.asked].count([7]) == 2
    assert [sorted(asked) for asked in bench.workers.asked].count([1]) == 6


def test_the_options_of_the_watcher_rule_and_may_change() -> None:
    bench = Bench(one())

    async def scenario() -> None:
        await bench.rounds("well", "silent")
        options = {"health.failure_threshold": 2, "health.timeout": 0.5}
        bench.change(watcher_view(worker_view(1), options=options))
        await bench.rounds("silent")

    asyncio.run(scenario())

    assert [what for what, _, _ in bench.asked_for()] == ["hung", "unhealthy"]
    assert [request.split(b" ")[1] for request in bench.workers.requests] == [
        b"/-/worker?live=%2Flive&timeout=1.6",
        b"/-/worker?live=%2Flive&timeout=1.6",
        b"/-/worker?timeout=0.4",
    ]


# What circusd is told


def test_one_report_tells_of_all_workers_of_all_watchers() -> None:
    bench = Bench(two(), watcher_view(worker_view(7), name="api"))

    asyncio.run(bench.rounds({1: "well", 2: "not ready", 7: "busy"}))

    [report] = bench.circusd.named("xboard_report")
    assert {key: report[key] for key in ("plugin", "pid", "started", "at")} == {
        "plugin": "http_health",
        "pid": 99,
        "started": 990,
        "at": 1000.0,
    }
    assert {pid: (told["health"], told["ready"], told["reason"]) for pid, told in report["workers"].items()} == {
        "1": ("ok", True, ""),
        "2": ("ok", False, "not ready: answered 500"),
        "7": ("busy", True, "thread pool full: answered 500"),
    }


@pytest.mark.parametrize(
    ("mood", "health", "ready"),
    [
        pytest.param("well", "ok", True, id="well"),
        pytest.param("busy", "busy", True, id="busy"),
        pytest.param("crowded", "failing", True, id="out of descriptors"),
        pytest.param("silent", "failing", False, id="silent for the first time"),
        pytest.param("starting", "unknown", None, id="starting"),
        pytest.param("unclear", "unknown", None, id="nothing is known"),
    ],
)
def test_the_health_of_a_worker(mood: str, health: str, ready: bool | None) -> None:
    bench = Bench(one())

    asyncio.run(bench.rounds("well", mood))

    told = bench.last_report()["1"]
    assert (told["health"], told["ready"]) == (health, ready)


def test_that_a_beginner_has_no_socket_yet_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(watcher_view(worker_view(1, phase="starting", ready_for=None)))

    asyncio.run(bench.rounds("unclear"))

    told = bench.last_report()["1"]
    assert (told["health"], told["reason"], caplog.text) == ("unknown", "", "")


def test_that_nothing_is_known_of_a_worker_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(one())

    asyncio.run(bench.rounds("well", "unclear", "unclear"))

    assert bench.last_report()["1"]["reason"] == "private socket unreachable: gone"
    assert caplog.text.count("nothing is known of worker 1") == 1


def test_what_a_worker_says_of_itself_goes_on_to_circusd() -> None:
    bench = Bench(one())

    asyncio.run(bench.rounds("busy"))

    assert {name: bench.last_report()["1"].get(name) for name in ("latency", "lag", "threads_used", "live")} == {
        "latency": 0.001,
        "lag": 0.0,
        "threads_used": 40,
        "live": None,
    }


# A prober that was away


def test_after_a_pause_of_its_own_nothing_old_counts() -> None:
    bench = Bench(one())

    async def scenario() -> None:
        await bench.rounds("well", "silent", "silent")
        bench.clock.sleep(60)
        await bench.rounds("silent", "silent")

    asyncio.run(scenario())

    assert bench.asked_for() == []


def test_a_round_in_which_the_prober_did_not_get_to_run_does_not_count() -> None:
    clock = FakeClock()
    workers = FakeWorkers(clock)

    async def ask_and_be_stopped(targets: Iterable[Target]) -> dict[int, WorkerAnswer]:
        answers = await workers(targets)
        if workers.mood[1] == "silent":
            clock.sleep(5)
        return answers

    bench = Bench(one(), ask_workers=ask_and_be_stopped)
    bench.prober = HealthProber(bench.circusd, identity=ME, clock=clock, ask_workers=ask_and_be_stopped)
    bench.workers, bench.clock = workers, clock

    asyncio.run(bench.rounds("well", *["silent"] * 5))

    assert bench.asked_for() == []


@pytest.mark.parametrize("mood", ["silent", "sick"])
def test_a_new_prober_goes_on_with_workers_that_the_last_one_knew(mood: str) -> None:
    bench = Bench(watcher_view(worker_view(1, latency=0.002), worker_view(2, latency=0.002), worker_view(3)))

    asyncio.run(bench.rounds(*[{1: mood}] * 3))

    assert [pid for _, pid, _ in bench.asked_for()] == [1, 1]


def test_a_worker_that_got_stuck_before_its_first_answer_is_hung_all_the_same() -> None:
    bench = Bench(one())

    asyncio.run(bench.rounds(*["silent"] * 3))

    why = "no answer 3 times in a row: no answer within 2 s"
    assert bench.asked_for() == [("hung", 1, why), ("unhealthy", 1, f"hung: {why}")]


def test_a_worker_that_never_got_ready_is_left_to_the_startup_timeout() -> None:
    bench = Bench(watcher_view(worker_view(1, phase="starting", ready_for=None)))

    asyncio.run(bench.rounds(*["silent"] * 9))

    assert bench.asked_for() == []


# circusd


def test_without_an_armed_watcher_there_is_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.circusd.state = None

    asyncio.run(bench.prober.tick())
    asyncio.run(bench.prober.tick())

    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "nothing to probe" in caplog.text


def test_a_probe_that_fails_in_itself_costs_one_round(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def fail_once(targets: Iterable[Target]) -> dict[int, WorkerAnswer]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug")
        return {target.pid: WorkerAnswer(Outcome.REPORT, "", 0.0, 0.0, {"pid": target.pid}) for target in targets}

    bench = Bench(one(), ask_workers=fail_once)

    asyncio.run(bench.rounds("well", "well"))

    assert "a bug" in caplog.text
    assert list(bench.last_report()) == ["1"]


# Rounds that take their time, on the real clock


def slow_prober(circusd: FakeCircusd, ask: Callable[[Iterable[Target]], Any]) -> HealthProber:
    return HealthProber(circusd, identity=ME, ask_workers=ask)


async def run(prober: HealthProber, until: Callable[[], bool]) -> None:
    async def tick_on() -> None:
        while not until():
            await asyncio.sleep(max(0.01, await prober.tick()))

    try:
        await asyncio.wait_for(tick_on(), 60)
    finally:
        await prober.close()


def test_a_round_that_still_runs_is_not_begun_again_and_holds_up_no_other() -> None:
    options = {"health.period": 0.1, "health.timeout": 5}
    circusd = FakeCircusd(
        {
            "watchers": [
                watcher_view(worker_view(1), name="stuck", options=options),
                watcher_view(worker_view(2), name="well", options=options),
            ]
        }
    )
    asked: list[int] = []

    async def ask(targets: Iterable[Target]) -> dict[int, WorkerAnswer]:
        [target] = targets
        asked.append(target.pid)
        if target.pid == 1:
            await asyncio.Event().wait()
        return {target.pid: WorkerAnswer(Outcome.REPORT, "", 0.0, 0.0, {"pid": target.pid, "state": "ready"})}

    asyncio.run(run(slow_prober(circusd, ask), lambda: asked.count(2) >= 5))

    reported = [pid for report in circusd.named("xboard_report") for pid in report["workers"]]
    assert asked.count(1) == 1
    assert reported.count("2") >= 4


# health.url


def url_view(*workers: Mapping[str, Any]) -> Any:
    return watcher_view(*workers, probe="url", options={"health.url": "http://127.0.0.1:1/health"})


class FakeUrl:
    def __init__(self) -> None:
        self.is_well = True
        self.asked: list[tuple[str, float]] = []

    def __call__(self, url: str, *, timeout: float) -> UrlAnswer:
        self.asked.append((url, timeout))
        return UrlAnswer(True, "", 200, 0.01) if self.is_well else UrlAnswer(False, "answered 500", 500, 0.01)


def probe_by_url(bench: Bench, url: FakeUrl, *well: bool) -> None:
    async def scenario() -> None:
        for url.is_well in well:
            await bench.rounds("well")

    asyncio.run(scenario())


def test_the_only_worker_behind_a_failing_url_is_replaced() -> None:
    url = FakeUrl()
    bench = Bench(url_view(worker_view(1)), ask_url=url)

    probe_by_url(bench, url, True, False, False, False)

    why = "live path failed 3 times in a row: health.url: answered 500"
    assert bench.asked_for() == [("sick", 1, why), ("unhealthy", 1, f"sick: {why}")]
    assert url.asked == [("http://127.0.0.1:1/health", 2.0)] * 4
    assert bench.last_report()["1"]["health"] == "sick"


def test_of_several_workers_behind_a_failing_url_none_can_be_blamed() -> None:
    url = FakeUrl()
    bench = Bench(url_view(worker_view(1), worker_view(2)), ask_url=url)

    probe_by_url(bench, url, True, *[False] * 5, True)

    why = "sick: live path failed 3 times in a row: health.url: answered 500"
    assert bench.asked_for() == [("unhealthy", None, why), ("recovered", None, "ok again")]
    assert [report["workers"]["2"]["ready"] for report in bench.circusd.named("xboard_report")] == [
        True,
        *[False] * 5,
        True,
    ]


def test_a_url_without_a_running_worker_is_not_asked() -> None:
    url = FakeUrl()
    bench = Bench(url_view(worker_view(1, phase="held")), ask_url=url)

    probe_by_url(bench, url, True)

    assert url.asked == []


def test_a_call_that_hangs_is_not_joined_by_another() -> None:
    release = threading.Event()
    calls: list[str] = []

    def hang(url: str, *, timeout: float) -> UrlAnswer:
        calls.append(url)
        release.wait(10)
        return UrlAnswer(True, "", 200, 0.0)

    view = watcher_view(
        worker_view(1),
        probe="url",
        options={"health.url": "http://x/", "health.period": 0.1, "health.timeout": 0.1},
    )
    circusd = FakeCircusd({"watchers": [view]})
    prober = HealthProber(circusd, identity=ME, ask_url=hang)

    def told() -> bool:
        return any("still running" in str(report) for report in circusd.named("xboard_report"))

    try:
        asyncio.run(run(prober, told))
    finally:
        release.set()

    assert calls == ["http://x/"]
