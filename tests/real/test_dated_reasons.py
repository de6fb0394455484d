"""`status` tells a reason with its time, and no reason of what has long been over."""

import re
import time
from pathlib import Path

from .harness import FAST_RESTARTS, circusd, eventually, kill


def last_line(text: str) -> str:
    """Return the line in which `status` tells the last reason; empty where it tells none."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("last")]
    return lines[0] if lines else ""


def test_status_dates_the_last_reason_by_its_own_event(tmp_path: Path) -> None:
    """Given a worker that was killed and is back for a while, then `status` tells that reason as long ago as the kill,
    without the next try, which is over."""
    with circusd(tmp_path, options={**FAST_RESTARTS, "restart.reset_after": 2}) as c:
        pid, _ = c.wait_ready()
        before = time.monotonic()
        kill(pid)
        eventually(c.failures)
        seen = time.monotonic()
        c.wait_ready()
        eventually(lambda: c.told("recovered"), what="its failures are forgotten")

        asked = time.monotonic()
        age = c.watcher()["last_reason_age"]
        assert asked - seen - 0.01 <= age <= time.monotonic() - before + 0.01
        told = last_line(c.run_cli("status").stdout)
        assert re.fullmatch(r"last: killed from outside by SIGKILL \((\d+ (min|s) )+ago\)", told), told


def test_a_watcher_without_its_folder_tells_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Given a file in the place of the runtime folder, when circusd starts, then the reason names that path, and
    `status` tells that and no other."""
    with circusd(tmp_path, start=False) as c:
        folder = c.runtime / "r" / c.instance
        folder.mkdir(parents=True, mode=0o700)
        (c.runtime / "r").chmod(0o700)
        (folder / "web").write_text("in the way")
        c.start_again()

        reason = eventually(lambda: c.watcher()["last_reason"], what="a reason is told")

        assert str(folder / "web") in reason
        assert reason.startswith("runs without health checks and restart limits: ")
        assert last_line(c.run_cli("status").stdout) == f"last: {reason}"
