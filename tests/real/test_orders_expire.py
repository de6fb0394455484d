"""An order to leave that does not end a worker expires: it is probed and replaced again, as any other."""

import signal
from pathlib import Path

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill

QUICK = {
    "health.period": 0.3,
    "health.timeout": 0.5,
    "health.failure_threshold": 2,
    "graceful_timeout": 1,
    **FAST_RESTARTS,
}
VETO = """
from pathlib import Path

def before_signal(*args, **kwargs):
    return not Path("veto").exists()
"""


def probed(c: Circusd) -> list[int]:
    """Return the pids of the workers when each serves and was probed."""
    pids = c.wait_ready()
    eventually(lambda: all(c.worker(pid)["latency"] is not None for pid in pids), what="each was probed")
    return pids


def hang(c: Circusd, pid: int) -> None:
    """Block the event loop of a worker for good; return when it has begun."""
    c.tell(pid, "block 600")
    eventually(lambda: not (c.folder / "web" / f"do.pid-{pid}").exists(), what=f"{pid} hangs")


def replaced(c: Circusd, old: list[int]) -> None:
    """Wait until none of *old* is there any more, and their successors serve."""
    eventually(lambda: not set(old) & set(c.workers()), what=f"{old} are replaced")
    c.wait_ready()
    assert c.serves()


@pytest.mark.parametrize("signum", ["quit", "abrt"])
def test_a_worker_that_prints_its_stacks_when_asked_is_replaced_when_it_hangs(tmp_path: Path, signum: str) -> None:
    """Given workers that live through a SIGQUIT or SIGABRT sent by hand, when all hang, then all are replaced."""
    watcher = Watcher(options=QUICK, told={"boot": "ignore-quit"})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        pids = probed(c)
        c.do("signal", name="web", signum=signum)

        for pid in pids:
            hang(c, pid)

        replaced(c, pids)


def test_a_hung_worker_that_gets_sigterm_by_hand_is_replaced(tmp_path: Path) -> None:
    """Given a hung worker, when SIGTERM by hand comes before the prober's verdict, then it is replaced all the same."""
    with circusd(tmp_path, options=QUICK, plugins=BUNDLE) as c:
        hung, _ = probed(c)
        prober = c.plugin("xboard").pid
        kill(prober, signal.SIGSTOP)
        hang(c, hung)
        c.do("signal", name="web", pid=hung, signum="term")
        kill(prober, signal.SIGCONT)

        replaced(c, [hung])


def test_a_signal_that_a_hook_of_the_user_forbids_is_no_order(tmp_path: Path) -> None:
    """Given a before_signal that forbids a SIGTERM by hand, when the worker hangs later, then it is replaced."""
    (tmp_path / "veto_hook.py").write_text(VETO)
    options = {**QUICK, "hooks.before_signal": "veto_hook.before_signal"}
    with circusd(tmp_path, watchers=[Watcher(options=options)], plugins=BUNDLE) as c:
        pids = probed(c)
        (tmp_path / "veto").touch()
        c.do("signal", name="web", signum="term")
        (tmp_path / "veto").unlink()
        assert c.workers() == pids

        hang(c, pids[0])

        replaced(c, pids[:1])


def test_a_reload_after_a_signal_by_hand_replaces_every_worker(tmp_path: Path) -> None:
    """Given workers that live through a SIGQUIT by hand, when they are reloaded, then all are new, and it says so."""
    watcher = Watcher(options={**QUICK, "graceful_timeout": 60}, told={"boot": "ignore-quit"})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        old = probed(c)
        c.do("signal", name="web", signum="quit")

        result = c.run_cli("reload", "--no-preflight", "web")

        assert (result.returncode, result.stderr) == (0, "")
        replaced(c, old)


def test_a_reload_that_left_an_old_worker_in_its_place_failed(tmp_path: Path) -> None:
    """Given a worker that does not follow a SIGTERM by hand, when the watcher is reloaded, then it says "reloaded"
    only where that worker has been replaced."""
    watcher = Watcher(options={**QUICK, "graceful_timeout": 15}, told={"boot": "ignore-term"})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        deaf, _ = probed(c)
        c.set("boot", "")
        c.do("signal", name="web", pid=deaf, signum="term")

        result = c.run_cli("reload", "--no-preflight", "web", timeout=180)

        is_replaced = deaf not in c.workers()
        assert (result.returncode, is_replaced) in ((0, True), (1, False)), result.stdout + result.stderr
        assert ("reloaded" in result.stdout) is is_replaced
