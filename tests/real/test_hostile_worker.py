"""A worker that was taken over, against the circusd of another user: it holds up nothing but itself."""

import os
from pathlib import Path

import pytest

from .harness import Watcher, circusd, eventually


def pipes_read_by(pid: int) -> dict[int, bool]:
    """Return the pipes that a process reads, by descriptor: whether a read of an empty one waits."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{name}").startswith("pipe:"):
            flags = int(Path(f"/proc/{pid}/fdinfo/{name}").read_text().split()[3], 8)
            if flags & os.O_ACCMODE == os.O_RDONLY:
                found[int(name)] = not flags & os.O_NONBLOCK
    return found


@pytest.mark.parametrize("preload", ["server", "off"])
def test_circusd_waits_for_no_output_of_a_worker(tmp_path: Path, preload: str) -> None:
    """Given workers, forked or started, that may take back what they print, then no pipe of circusd's blocks a read."""
    with circusd(tmp_path, watchers=[Watcher(options={"worker.preload": preload})]) as c:
        c.wait_ready()
        eventually(lambda: len(pipes_read_by(c.pid)) >= 2)

        assert [pipe for pipe, waits in pipes_read_by(c.pid).items() if waits] == []
