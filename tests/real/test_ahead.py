"""A worker whose event loop is blocked gets a successor before it is known to hang, and is harmed by nothing."""

import contextlib
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .bus import Event
from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .test_health import probed
from .test_reload import reload_of
from .test_runtime_folder_lost import take_away

HANGS = ("sleep", "spin", "deadlock", "regex")
RUNS = "restart budget used up; its successor runs already"
BLOCK = "/block?s=20"
"""A loop that stands still: long enough for a successor on a crowded machine, and for less than SPARED probes."""
SPARED = 60
OPTIONS = {"health.period": 1, "health.timeout": 1, **FAST_RESTARTS}


def place(events: list[dict[str, object]], kind: str, **facts: object) -> int:
    """Return where the first of *events* of a *kind* with these *facts* is among them; ValueError if nowhere."""
    found = [each["kind"] == kind and all(each.get(name) == fact for name, fact in facts.items()) for each in events]
    return found.index(True)


def told(c: Circusd) -> list[dict[str, object]]:
    """Return what circusd has published, in order."""
    return [{**message, "kind": kind} for _, kind, message in c.call("xboard_events", after=0)["events"]]


def ahead(c: Circusd) -> list[Event]:
    return [each for each in c.told("replace") if "a successor is started" in each.reason]


def test_a_successor_serves_before_a_hung_worker_is_killed(tmp_path: Path) -> None:
    """Given nine workers, when two hang, and then two, each in another way, then the successor of each is up before it
    is killed as hung; its death counts once, with its stacks and its place taken."""
    options = {**OPTIONS, "health.timeout": 10, "health.failure_threshold": 2, "restart.burst": 1}
    watcher = Watcher(numprocesses=9, options=options)
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        pids = probed(c)
        hung = dict(zip(HANGS, pids, strict=False))

        def are_killed(number: int) -> bool:
            return len(c.failures()) == number

        for count, (how, pid) in enumerate(hung.items(), 1):
            c.tell(pid, f"hang {how}")
            if count % 2 == 0:  # with four of nine at once, one that is late on a crowded machine would make it half
                eventually(partial(are_killed, count), what="both are killed")

        events = told(c)
        for how, pid in hung.items():
            assert place(events, "ready", follows=pid) < place(events, "restart", pid=pid, cause="unhealthy"), how
        assert {failure.pid for failure in c.failures()} == set(hung.values())
        assert all("hung: no answer" in failure.reason for failure in c.failures())
        assert {failure.message["next"] for failure in c.failures()} == {RUNS}
        assert len(probed(c)) == watcher.numprocesses
        assert len(c.starts()) == watcher.numprocesses + len(HANGS)
        assert set(pids) - set(hung.values()) <= set(c.workers())


def test_a_worker_that_comes_back_drains_and_loses_nothing(tmp_path: Path) -> None:
    """Given the only worker with a long request, when another blocks its loop for a while, then its successor answers
    meanwhile; both requests are answered by it, it drains, nothing is counted, and the next block gets no successor."""
    watcher = Watcher(numprocesses=1, options={**OPTIONS, "health.period": 0.3, "health.failure_threshold": SPARED})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c, ThreadPoolExecutor(1) as pool:
        (old,) = probed(c)
        held = c.hold_each([old])

        blocks = pool.submit(c.get, BLOCK)
        (new,) = eventually(lambda: [each.pid for each in c.told("ready") if each.message["follows"] == old])
        assert c.get() == str(new)
        assert not blocks.done()
        assert blocks.result() == str(old)
        c.finish(held)
        eventually(lambda: c.workers() == [new], what="it has drained")

        assert c.failures() == []
        assert c.watcher()["budget"]["used"] == 0
        (end,) = eventually(lambda: [each for each in c.told("restart") if each.pid == old])
        assert (end.message["cause"], "it answers again" in end.reason) == ("commanded", True)
        assert all("; its event loop ran GET /block, for" in each.reason for each in (end, ahead(c)[0]))
        assert c.get("/block?s=2") == str(new)
        assert (c.workers(), len(ahead(c))) == ([new], 1)


def test_a_blocked_worker_is_shown_as_such_beside_its_successor(tmp_path: Path) -> None:
    """Given the only worker, when it gets a successor long before a probe of it fails, then the verdict is not `ok`,
    and a reload of it says that it is being replaced; and when it is ended as hung, then no next try is announced."""
    options = {**OPTIONS, "health.timeout": 20, "health.failure_threshold": 1}
    with circusd(tmp_path, numprocesses=1, options=options, plugins=BUNDLE) as c:
        (old,) = probed(c)

        c.tell(old, "hang sleep")
        eventually(lambda: [each for each in c.told("ready") if each.message["follows"] == old])

        verdict = c.watcher()["verdict"]
        assert (verdict["word"], "#1: event loop blocked for" in verdict["cause"]) == ("degraded", True)
        (new,) = {*c.workers()} - {old}
        assert c.replace(old, "operator")["reason"] == f"worker {old} is being replaced already, by pid {new}"
        assert c.failures() == []
        (failure,) = eventually(c.failures)
        assert failure.message["next"].endswith("1 of 50 used in 600 s; its successor runs already")


def test_one_whose_successor_fails_is_kept_until_it_hangs(tmp_path: Path) -> None:
    """Given the only worker, when it hangs and no new one comes up, then it is kept and killed as ever; the failed
    successor uses no restart budget."""
    watcher = Watcher(numprocesses=1, options={**OPTIONS, "health.failure_threshold": 12})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        (old,) = probed(c)

        c.set("boot", "die")
        c.tell(old, "hang sleep")
        (kept,) = eventually(lambda: c.told("kept"))
        c.set("boot", "")
        (failure,) = eventually(lambda: [each for each in c.failures() if each.pid == old])

        assert (kept.pid, failure.message["cause"]) == (old, "unhealthy")
        assert failure.message["budget"]["after"] == 1
        probed(c)
        assert len(ahead(c)) == 1


def test_one_that_comes_back_serves_on_while_its_successor_does_not(tmp_path: Path) -> None:
    """Given the only worker, when its loop is blocked, and its successor hangs and is killed, and none comes up after
    it, then the successor got none ahead, and the old one serves until another does, and drains then."""
    # On a quick machine more than fifty die within the block, and with them gone the next try would be minutes off.
    options = {**OPTIONS, "health.period": 0.3, "health.failure_threshold": SPARED, "restart.burst": 1000}
    watcher = Watcher(numprocesses=1, options=options)
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c, ThreadPoolExecutor(1) as pool:
        (old,) = probed(c)

        blocks = pool.submit(c.get, BLOCK)
        (new,) = eventually(lambda: [each.message["pid"] for each in c.told("ready") if each.message["follows"] == old])
        c.set("boot", "die")
        c.tell(new, "hang sleep")
        eventually(lambda: "2 times in a row" in c.worker(new)["reason"])
        kill(new)
        assert blocks.result() == str(old)
        before = c.last_told()
        eventually(lambda: len(c.failures(after=before)) > 4, what="it answered some probes, and none came up")

        assert (c.get(), c.worker(old)["phase"]) == (str(old), "up")
        c.set("boot", "")
        eventually(lambda: old not in c.workers(), what="it has drained")
        assert c.serves()
        assert len(ahead(c)) == 1
        assert old not in {each.pid for each in c.failures()}


def test_one_that_can_be_asked_no_more_leaves_its_successor_alone(tmp_path: Path) -> None:
    """Given the only worker with a blocked loop, when its successor serves, and the runtime folder goes with the socket
    on which the old one would answer again, then it does not serve beside the new ones: it is ended, not as hung."""
    watcher = Watcher(numprocesses=1, options={**OPTIONS, "health.failure_threshold": 300, "graceful_timeout": 3})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        (old,) = probed(c)

        c.tell(old, "hang sleep")
        (new,) = eventually(lambda: [each.message["pid"] for each in c.told("ready") if each.message["follows"] == old])
        eventually(lambda: c.worker(new)["role"] == "serving", what="its successor has taken over")
        take_away(c)
        eventually(lambda: old not in c.workers(), timeout=90, what="the old one has ended")

        assert old not in {each.pid for each in c.failures()}
        assert c.serves()


def test_a_reload_replaces_one_that_is_kept_since_its_successor_died(tmp_path: Path) -> None:
    """Given the only worker, when its loop is blocked, and a reload begins, and then its successor dies in its start,
    then the reload replaces the old worker, whose request is answered."""
    watcher = Watcher(numprocesses=1, options={**OPTIONS, "health.period": 0.3, "health.failure_threshold": SPARED})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c, ThreadPoolExecutor(1) as pool:
        (old,) = probed(c)

        c.set("boot", "held")
        blocks = pool.submit(c.get, BLOCK)
        (new,) = eventually(lambda: [pid for pid in c.workers() if pid != old])
        c.do("xboard_reload", name="web", by="the test")
        eventually(lambda: reload_of(c).get("step") == "workers")
        kill(new)
        c.set("boot", "")
        eventually(lambda: reload_of(c)["state"] != "running")

        assert reload_of(c)["state"] == "done"
        assert blocks.result() == str(old)
        eventually(lambda: old not in c.workers(), what="it has drained")
        assert c.serves()


def test_a_hung_worker_whose_successor_was_reloaded_leaves_no_slot_to_fill(tmp_path: Path) -> None:
    """Given a blocked worker whose successor was replaced by a reload, when it hangs and its restart budget is used up,
    then no next try is announced: another worker runs in its slot."""
    with circusd(tmp_path, numprocesses=1, options={"restart.burst": 1}) as c:
        (old,) = c.wait_ready()
        assert c.replace(old, "blocked")["status"] == "ok"
        (new,) = eventually(lambda: [each.pid for each in c.told("ready") if each.message["follows"] == old])
        c.do("xboard_reload", name="web", by="the test")
        eventually(lambda: reload_of(c)["state"] == "done" and new not in c.workers(), what="the successor is replaced")

        assert c.replace(old, "hung")["status"] == "ok"

        (failure,) = eventually(c.failures)
        assert (failure.pid, failure.message["next"]) == (old, RUNS)


def test_all_that_are_stopped_are_replaced_and_so_are_their_successors(tmp_path: Path) -> None:
    """Given two workers, when a signal stops both and then each successor, then none waits for the pause between the
    replacements of workers that a dependency may block, and no healthy one is ended."""
    options = {**OPTIONS, "health.period": 0.3, "health.failure_threshold": 100}  # that pause takes 90 s
    with circusd(tmp_path, numprocesses=2, options=options, plugins=BUNDLE) as c:
        probed(c)
        stopped: set[int] = set()

        def are_stopped_twice() -> bool:
            for pid in {*c.ready()} - stopped:
                kill(pid, signal.SIGSTOP)
                stopped.add(pid)
            return len(stopped) >= 4

        eventually(are_stopped_twice)
        eventually(lambda: not stopped & {*c.workers()}, what="all that are stopped have ended")

        probed(c)
        assert {failure.pid for failure in c.failures()} == stopped
        assert not any("hang together" in each.reason for each in c.told("unhealthy"))


def test_one_whose_live_path_waits_gets_none(tmp_path: Path) -> None:
    """Given the only worker, when its live path waits longer than a probe, as for a database, then its loop is not
    taken for blocked: it is sick, replaced as such, and counted."""
    options = {**OPTIONS, "health.live_path": "/health/live", "health.timeout": 3, "health.failure_threshold": 2}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options)], plugins=BUNDLE) as c:
        (old,) = probed(c)

        c.set(f"live.pid-{old}", "hang")
        (failure,) = eventually(c.failures)

        assert (failure.pid, "sick: " in failure.reason) == (old, True)
        assert ahead(c) == []


def test_a_successor_that_the_next_request_blocks_is_up_and_hangs_too(tmp_path: Path) -> None:
    """Given the only worker, whose live path takes its time, when each request blocks the loop that takes it, then its
    successor is up before it takes one, and hangs as any other does; it is not taken for one that starts."""
    options = {**OPTIONS, "health.live_path": "/health/live", "health.failure_threshold": 8}
    watcher = Watcher(numprocesses=1, options=options)
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c, contextlib.ExitStack() as clients:
        (old,) = probed(c)

        c.set("live", "slow 0.1")

        def two_hang() -> list[Event] | None:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", watcher.port)))
            client.sendall(b"GET /block?s=600 HTTP/1.1\r\nhost: x\r\n\r\n")
            return c.failures()[:2] if len(c.failures()) > 1 else None

        first, second = eventually(two_hang, every=0.1)
        assert (first.pid, second.message["follows"]) == (old, old)
        assert {each.message["cause"] for each in (first, second)} == {"unhealthy"}
        assert "hung: no answer" in second.reason
