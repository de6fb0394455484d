"""A test that does not end by itself; `test_harness` interrupts the run that it belongs to."""

import os
import signal
from pathlib import Path

from .harness import circusd


def test_held_open(tmp_path: Path) -> None:
    with circusd(tmp_path, armed=False, numprocesses=1) as c:
        c.wait_ready()
        Path(os.environ["HELD_OPEN"]).touch()
        signal.pause()
