"""`status` tells a reason with its time, and no reason of what has long been over."""

from pathlib import Path

from .harness import FAST_RESTARTS, circusd, eventually, kill


def last_line(text: str) -> str:
    """Return the line in which `status` tells the last reason; empty where it tells none."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("last")]
    return lines[0] if lines else ""


def test_status_dates_the_last_reason_or_drops_it(tmp_path: Path) -> None:
    """Given a worker that was killed and is back for a while, when `status` is run, no undated reason is in it."""
    with circusd(tmp_path, options={**FAST_RESTARTS, "restart.reset_after": 2}) as c:
        pid, _ = c.wait_ready()
        kill(pid)
        c.wait_ready()
        eventually(lambda: c.told("recovered"), what="its failures are forgotten")

        told = last_line(c.run_cli("status").stdout)

        assert told == "" or " ago" in told, told


def test_a_watcher_without_its_folder_tells_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Given a file in the place of the runtime folder, when circusd starts, then the reason names that path."""
    with circusd(tmp_path, start=False) as c:
        folder = c.runtime / "r" / c.instance
        folder.mkdir(parents=True, mode=0o700)
        (c.runtime / "r").chmod(0o700)
        (folder / "web").write_text("in the way")
        c.start_again()

        reason = eventually(lambda: c.watcher()["last_reason"], what="a reason is told")

        assert str(folder / "web") in reason
        assert "cannot be run: ;" not in reason
