"""A test, and a command in it, that do not end by themselves; `test_harness` interrupts the run that it belongs to."""

import os
from pathlib import Path

from .harness import circusd


def test_held_open(tmp_path: Path) -> None:
    with circusd(tmp_path, armed=False, numprocesses=1) as c:
        c.wait_ready()
        Path(os.environ["HELD_OPEN"]).touch()
        c.run_cli("logs", "--follow", timeout=600)
