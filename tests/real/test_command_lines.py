"""However the worker is written in the command, it is found, probed, and never killed while it serves."""

from pathlib import Path

import pytest

from .harness import (
    BUNDLE,
    FAST_RESTARTS,
    PATIENCE,
    WORKER,
    Circusd,
    Watcher,
    circusd,
    eventually,
    kill,
    time_to_start,
)

QUICK = {
    "health.period": 0.3,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    "graceful_timeout": 2,
    **FAST_RESTARTS,
}
# As `uv run`, `doppler run` and `op run` do: the worker is a child, and signals are passed on.
WRAPPER = """#!/bin/sh
"$@" &
child=$!
trap 'kill -TERM $child' TERM
wait $child || wait $child
"""
ARGUMENTS = "-m xboard_circus.worker backend:app --fd $(circus.sockets.web) --no-access-log --ws none"


def watcher_for(way: str, folder: Path, **more: object) -> Watcher:
    options = {**QUICK, **more}
    if way == "behind a wrapper":
        (folder / "wrap.sh").write_text(WRAPPER)
        return Watcher(command=f"sh wrap.sh {WORKER}", options=options)
    if way == "behind a shell":
        return Watcher(options={**options, "shell": True})
    return Watcher(command="python", options={**options, "args": ARGUMENTS})


WAYS = ["behind a wrapper", "in args"]


def serving(c: Circusd) -> set[int]:
    """Return the pids that answer requests: not those of a wrapper."""
    return {int(c.get()) for _ in range(12)}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_probed_and_lives_beyond_its_time_to_start(tmp_path: Path, way: str) -> None:
    """Given the worker written so, when more than health.startup_timeout is over, then the same ones serve, probed."""
    startup = time_to_start()
    with circusd(
        tmp_path, watchers=[watcher_for(way, tmp_path, **{"health.startup_timeout": startup})], plugins=BUNDLE
    ) as c:
        eventually(lambda: len(serving(c)) == 2, what="both serve")
        pids, before = c.workers(), c.last_told()

        are_probed_beyond(c, startup)

        assert c.failures(after=before) == []
        assert c.workers() == pids
        assert c.serves()


def are_probed_beyond(c: Circusd, startup: float) -> None:
    """Wait until all workers were probed, and their start has been over for some rounds of circusd's."""
    eventually(lambda: [each["latency"] for each in c.watcher()["workers"]].count(None) == 0, what="each is probed")
    over = "their time to start is over"
    eventually(
        lambda: all(each["age"] > startup + 2 for each in c.watcher()["workers"]), timeout=startup + PATIENCE, what=over
    )


@pytest.mark.parametrize("way", WAYS)
def test_it_is_replaced_when_it_hangs(tmp_path: Path, way: str) -> None:
    """Given the worker written so, when one hangs, then it ends, and another takes its place."""
    watcher = watcher_for(way, tmp_path)
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        eventually(lambda: len(serving(c)) == 2, what="both serve")
        eventually(lambda: [each["latency"] for each in c.watcher()["workers"]].count(None) == 0, what="each is probed")
        hung = int(c.get())

        c.tell(hung, "block 600")

        eventually(lambda: hung not in {found.pid for found in c.processes()}, what=f"{hung} has ended")
        eventually(lambda: len(serving(c)) == 2, what="both serve")


def test_behind_a_shell_it_lives_though_the_check_refuses_it(tmp_path: Path) -> None:
    """Given shell = True, when it is checked, then `check` says why not and what to write; run all the same, by bare
    circusd, its workers are probed and outlive health.startup_timeout."""
    startup = time_to_start()
    shell = watcher_for("behind a shell", tmp_path, **{"health.startup_timeout": startup})
    with circusd(tmp_path, watchers=[shell], plugins=BUNDLE) as c:
        pids = eventually(lambda: found if len(found := serving(c)) == 2 else None, what="both serve")
        before = c.last_told()

        result = c.run_cli("check")

        assert result.returncode == 1, result
        assert "shell = True: a signal reaches only the shell" in result.stdout + result.stderr
        assert "cmd = sh -c 'exec ...'" in result.stdout + result.stderr
        are_probed_beyond(c, startup)
        assert c.failures(after=before) == []
        eventually(lambda: serving(c) == pids, what="the same ones serve")


def test_a_wrapper_that_is_killed_takes_its_worker_along(tmp_path: Path) -> None:
    """Given workers behind a wrapper, when a wrapper is killed, then no unknown worker is left on the port."""
    with circusd(tmp_path, watchers=[watcher_for("behind a wrapper", tmp_path)], plugins=BUNDLE) as c:
        old = eventually(lambda: found if len(found := serving(c)) == 2 else None, what="both serve")

        for wrapper in c.workers():
            kill(wrapper)

        eventually(lambda: not old & {found.pid for found in c.processes()}, what=f"{old} are gone")
        eventually(lambda: len(serving(c)) == 2, what="both serve")
