"""circusd runs out of what it needs to fork: that is no fault of the app, and costs no cooldown."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from .harness import circusd, eventually, kill


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """Leave the process *pid* not one file descriptor that it does not have already."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(highest, 24), hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_workers_that_die_while_circusd_has_no_descriptor_left_are_back_soon(tmp_path: Path) -> None:
    """Given no descriptor left for some seconds, when workers die in it, then they are back once there are some."""
    options = {"restart.burst": 2, "restart.delay": 0.2, "restart.delay_max": 0.4, "restart.cooldown": 600}
    with circusd(tmp_path, options=options) as c:
        pids = c.wait_ready()
        with without_descriptors(c.pid):
            for pid in pids:
                kill(pid)
            # Past the burst, had they been counted as failures of the app.
            eventually(lambda: c.log("circusd").count("Too many open files") >= 2, what="spawns have failed")

        c.wait_ready()
        assert c.serves()
