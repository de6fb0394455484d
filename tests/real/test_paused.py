"""Everything stands still for a while (docker pause, a suspended laptop): nobody is blamed for it."""

import signal
import time
from pathlib import Path

import pytest

from .harness import Circusd, Watcher, circusd, eventually, holds
from .processes import Process, process, queued

TIMEOUT = 10.0
PRINTED = "a request" * 20 + "\n"  # by printing_app


def pause(paused: list[Process]) -> None:
    for each in paused:
        each.signal(signal.SIGSTOP)


def resume(c: Circusd, paused: list[Process]) -> None:
    """Let circusd go on first: it looks at its clock before a worker could get ready."""
    process(c.pid).signal(signal.SIGCONT)
    eventually(lambda: c.call("numwatchers")["status"] == "ok")
    for each in paused:
        each.signal(signal.SIGCONT)


def test_a_start_that_was_paused_is_no_failed_start(tmp_path: Path) -> None:
    """Given a worker that starts, when all is paused for longer than health.startup_timeout, it gets its time."""
    options = {"health.startup_timeout": TIMEOUT, "graceful_timeout": 2}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options, told={"boot": "held"})]) as c:
        start = eventually(c.starts)[0]
        paused = c.processes()

        pause(paused)
        holds(lambda: process(start.pid).alive, seconds=TIMEOUT + 1)
        resume(c, paused)
        c.set("boot", "")

        assert c.wait_ready() == [start.pid]
        assert c.failures() == []


@pytest.mark.parametrize("times", [3])
def test_pauses_in_a_row_do_not_make_a_hanging_start_live_for_ever(tmp_path: Path, times: int) -> None:
    """Given a start that hangs, when all is paused now and then, it is a failed start all the same in the end."""
    options = {"health.startup_timeout": 2, "graceful_timeout": 0.5}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options, told={"boot": "hang"})]) as c:
        start = eventually(c.starts)[0]
        for _ in range(times):
            paused = c.processes()
            pause(paused)
            holds(lambda: process(c.pid).alive, seconds=0.5)
            resume(c, paused)

        eventually(lambda: [failure for failure in c.failures() if failure.pid == start.pid])


def test_a_worker_that_prints_serves_while_circusd_stands_still(tmp_path: Path) -> None:
    """Given a print in each request, when circusd reads none of it, then all are answered, what is lost is logged."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, app="printing_app:app")]) as c:
        worker, supervisor = process(c.wait_ready()[0]), process(c.pid)

        supervisor.signal(signal.SIGSTOP)
        printed, answered_in = 0, []
        while printed < 200 << 10:
            began, waited = time.monotonic(), worker.queued + queued(Path("/proc/thread-self"))
            assert c.get()
            waited = worker.queued + queued(Path("/proc/thread-self")) - waited  # for a core, beside other tests
            answered_in.append(time.monotonic() - began - waited)
            printed += len(PRINTED)
        supervisor.signal(signal.SIGCONT)
        eventually(lambda: c.log("web").count(PRINTED) > 300, what="circusd reads what is left")
        c.get()

        eventually(lambda: "bytes of output were dropped: nothing read them for" in c.log("web"))
        assert {line for line in c.log("web").splitlines() if "a request" in line} == {PRINTED.strip()}
        assert sum(each > 0.9 for each in answered_in) <= 1, "one waits for a second, and no other"
