"""Poison: requests that kill worker after worker are told of, and cost nobody else anything."""

from __future__ import annotations

import contextlib
import http.client
import signal
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .bus import Event
from .facts_of_state import pace_of
from .harness import BUNDLE, Circusd, Watcher, circusd, eventually, kill
from .load import Load
from .test_why import why

DEADLY = "GET /v1/die/{how}/{token}"
CONNECTIONS = 16
KEPT = "--ws none --timeout-keep-alive 75"  # a crowded client leaves connections idle for longer than 5 s


def send_one(c: Circusd, path: str) -> int:
    """Send a request to *path*; return the status of its answer, 0 where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", c.watchers["web"].port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return 0


def until_served(load: Load, more: int) -> None:
    enough = load.answered + more
    eventually(lambda: load.answered > enough, what=f"{more} requests more were answered")


def until_up(c: Circusd, count: int) -> None:
    eventually(lambda: c.words() == ["up"] * count, what=f"{count} workers are up")


def crashes(c: Circusd) -> list[Event]:
    """The deaths in which a worker that was up ended itself; a crowded machine may also fail to start one."""
    return [event for event in c.failures() if event.message["cause"] == "crash"]


def until_dead(c: Circusd, count: int) -> None:
    eventually(lambda: len(crashes(c)) >= count, timeout=120, what=f"{count} workers died")


def order(c: Circusd, *, causes: Sequence[str] = ("crash",)) -> list[str]:
    """What circusd decided of the workers, in its order."""
    kept = c.call("xboard_events", after=0)["events"]
    return [
        kind
        for of, kind, message in kept
        if of == "web" and kind in ("restart", "poison", "cooldown") and message.get("cause", causes[0]) in causes
    ]


def test_a_request_that_kills_is_poison_and_costs_the_others_nothing(tmp_path: Path) -> None:
    """Given four workers and 100 good requests a second, when a client sends a deadly one each second, then its route
    is reported at the third death, no slot cools, and no good request is lost but those in flight in a dead worker."""
    web = Watcher(app="deadly_app:app", numprocesses=4, arguments=KEPT)
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE, check_delay=1) as c:
        until_up(c, 4)
        while_dying: list[tuple[float, float]] = []
        with Load(c.url + "/pid", rate=100, connections=CONNECTIONS, timeout=30) as good:
            for count in range(1, 13):
                until_up(c, 4)
                until_served(good, 100)  # a second, more on a machine that is crowded
                sent = time.monotonic()
                send_one(c, "/v1/die/exit/x")
                until_dead(c, count)
                while_dying.append((sent, time.monotonic()))
            state = c.watcher()
            until_up(c, 4)
            until_served(good, 100)
        deaths = crashes(c)

        assert order(c)[:4] == ["restart"] * 3 + ["poison"], order(c)
        assert Counter(order(c)) == {"restart": len(deaths), "poison": 1}
        assert [event.message["blames"] for event in deaths] == [DEADLY] * len(deaths)
        assert [event.message["failures"] for event in deaths[2:]] == [0] * (len(deaths) - 2)
        assert state["budget"]["used"] == 0
        assert state["poison"]["routes"] == [DEADLY]
        (found,) = c.told("poison")
        assert found.message["reason"].startswith(f"poison: {DEADLY} ended 3 workers within ")
        assert state["poison"]["reason"].startswith(f"poison: {DEADLY} ended ")
        assert state["poison"]["reason"].split("last request ")[1] in state["last_reason"]
        print("lost", [(each.outcome, each.worker) for each in good.lost], "answered", good.answered)
        dead = {str(event.pid) for event in deaths}
        by_worker = Counter(each.worker for each in good.lost)
        assert {each.outcome for each in good.lost} <= {"reset", "closed"}
        assert by_worker.keys() <= {*dead, ""}  # "": the first on its connection
        # How many are in flight at a time, a crowded machine says: one on each connection at most.
        assert all(count <= CONNECTIONS for worker, count in by_worker.items() if worker), by_worker
        assert all(
            any(lost.start <= gone and sent <= lost.start + lost.latency for sent, gone in while_dying)
            for lost in good.lost
        )

        _, text = why(c, deaths[2].pid or 0)
        assert "not counted against the restart budget" in text, text
        assert f"poison: {DEADLY} ended 3 workers" in text, text
        assert f"poison: {DEADLY} ended" in c.run_cli("status").stdout


@pytest.mark.parametrize("workers", [4, 1])
def test_a_request_that_kills_each_second_is_poison_within_the_third_death(tmp_path: Path, workers: int) -> None:
    """Given 100 good requests a second, when a deadly one comes each second, whether or not the dead worker has a
    successor yet, then its route is reported at the third death, and each death is the route's and not the slot's."""
    web = Watcher(app="deadly_app:app", numprocesses=workers, arguments=KEPT)
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE, check_delay=1) as c:
        until_up(c, workers)
        with Load(c.url + "/pid", rate=100, connections=16, timeout=30) as good, ThreadPoolExecutor(12) as senders:
            until_served(good, 100)
            for _ in range(12):
                senders.submit(send_one, c, "/v1/die/exit/x")
                time.sleep(1)
        eventually(lambda: c.words() == ["up"] * workers, timeout=120, what="all are up again")
        kept = c.failures()
        words = [kind for kind in order(c, causes=("crash", "failed start")) if kind != "restart"]

        assert len(kept) >= 4
        assert words == ["poison"], order(c)
        assert order(c, causes=("crash", "failed start"))[:4] == ["restart"] * 3 + ["poison"], kept
        assert [event.message.get("blames") for event in kept] == [DEADLY] * len(kept), kept
        assert c.watcher()["budget"]["used"] == 0
        dead = {str(event.pid) for event in kept}
        assert {each.worker for each in good.lost} <= {*dead, ""}


def test_a_busy_route_is_not_poison_where_workers_die_of_something_else(tmp_path: Path) -> None:
    """Given a route that is in flight in each worker at any time, when they crash one after the other for another
    reason, then it began last each time, and is not blamed; the deaths count as ever."""
    web = Watcher(
        app="deadly_app:app",
        options={"restart.burst": 50, "restart.delay": 0.1, "restart.delay_max": 0.2},
        arguments="--ws none --loop asyncio",
        env={"EXITS_ON_SIGNAL": "1"},
    )
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE, check_delay=1) as c:
        with Load(c.url + "/busy", rate=100, connections=None, timeout=30) as load:
            seen: list[Event] = []
            while sum(is_of_busy(event) for event in seen) < 5:
                assert len(seen) < 20, seen
                until_up(c, 2)
                until_served(load, 200)
                kill(c.workers()[0], signal.SIGUSR1)
                until_dead(c, len(seen) + 1)
                seen = crashes(c)

        assert not [event for event in seen if event.message.get("blames")]
        assert not c.told("poison")
        assert c.watcher()["budget"]["used"] >= len(seen)


def is_of_busy(death: Event) -> bool:
    """Say whether a request to the busy route began last before a death."""
    first, *_ = death.message.get("requests") or [{}]
    return (first.get("route"), first.get("state")) == ("/busy", "last")


def test_a_poisonous_route_is_refused_where_that_is_wanted(tmp_path: Path) -> None:
    """Given request.refuse_poison, when a route was poison, then each worker that has started since answers it with
    that status and lives on, and all else as before."""
    web = Watcher(app="deadly_app:app", options={"request.refuse_poison": 503}, arguments="--ws none")
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE, check_delay=1) as c:
        with Load(c.url + "/pid", rate=100, connections=None, timeout=30) as good:
            answers: list[int] = []
            while answers[-10:] != [503] * 10:
                assert len(answers) < 30
                until_up(c, 2)
                until_served(good, 100)
                answers.append(send_one(c, f"/v1/die/exit/x{len(answers)}"))
        deaths = crashes(c)

        assert answers.count(0) == len(deaths)
        # Two workers, of which the later one was started before that was known.
        assert 3 <= len(deaths) <= 3 + 2
        assert c.get("/waiting") == "0"
        assert send_one(c, "/pid") == 200


def test_workers_that_claim_poison_are_not_restarted_without_a_pace(tmp_path: Path) -> None:
    """Given workers that die and claim each time that another request ran, then it is believed; but a slot is started
    once in `restart.delay` at most, and not at once as after its first failure."""
    web = Watcher(app="deadly_app:app", options={"restart.delay": 1.5}, arguments="--ws none")
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE, check_delay=1) as c:
        for count in range(1, 11):
            until_up(c, 2)
            for _ in range(8):
                assert send_one(c, "/waiting") == 200  # so that each worker has served
            send_one(c, "/v1/die/claim/x")
            until_dead(c, count)
        deaths = crashes(c)

        assert c.told("poison")
        assert {event.message["blames"] for event in deaths[:10]} == {"GET /claimed"}
        assert min(pace_of(death) for death in deaths[2:]) > 1.2
