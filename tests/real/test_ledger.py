"""The ledger of a real circusd when its disk is full, its file locked or damaged, and when much happens."""

import contextlib
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from xboard_circus.circus_client import CircusdClient
from xboard_circus.ledger import LedgerError, Record
from xboard_circus.ledger.query import search

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .processes import process

SLEEPERS = Watcher(numprocesses=2, command="sleep 600", listens=False, options=FAST_RESTARTS)
SECONDS, RATE = 60, 100


@contextlib.contextmanager
def recorded(folder: Path, file: str = "ledger.db") -> Iterator[Circusd]:
    """circusd with two sleepers, whose ledger is *file*."""
    with circusd(folder, watchers=[SLEEPERS], plugins=BUNDLE, check_delay=1, start=False) as c:
        c.write_ini(plugin__xboard={"ledger.file": file})
        c.start_again()
        eventually(lambda: len(c.workers()) == 2)
        eventually(lambda: "Bundle" in c.log("plugin-xboard"), what="the plugin runs")
        yield c


def deaths(path: Path) -> dict[int, Record]:
    """The recorded deaths by pid."""
    try:
        found = search(path, kind={"restart", "end"}, limit=100_000)
    except LedgerError as error:  # it may be damaged, or in the making
        raise LookupError(str(error)) from error
    return {record.pid or 0: record for record in found}


def kill_one(c: Circusd) -> int:
    """Kill a worker and wait for its successor; return its pid."""
    pid = c.workers()[0]
    kill(pid)
    eventually(lambda: len(c.workers()) == 2 and pid not in c.workers())
    return pid


def test_on_a_full_disk_it_says_so_and_goes_on(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    """Given a disk of 1 MB, when it is full for a while, then that is logged, `why` shows deaths all the same, workers
    come back, nothing is lost."""
    disk = small_disk("disk", "1m")
    path = disk / "ledger.db"
    with recorded(tmp_path, str(path)) as c:
        before = kill_one(c)
        eventually(lambda: before in deaths(path))
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

        during = [kill_one(c)]
        while "events wait in memory" not in c.log("plugin-xboard"):  # there may be a page left for the first ones
            during.append(kill_one(c))
            assert len(during) < 100
        during.append(kill_one(c))
        # The ledger has none of them yet, and is not all that is asked.
        assert during[-1] not in deaths(path)
        told, listed = c.run_cli("why", str(during[-1])), c.run_cli("events", "--rows").stdout
        assert f"(pid {during[-1]}) was killed from outside" in told.stdout, told.stderr
        assert "not in it yet: circusd has this in memory" in told.stdout
        assert f"(pid {during[-1]})  restart [killed from outside] (not in the ledger yet)" in listed
        filler.unlink()
        after = kill_one(c)
        # It tries again after longer and longer pauses, 30 s at most.
        eventually(lambda: {before, *during, after} <= deaths(path).keys(), timeout=90)

        assert "not in it yet" not in c.run_cli("why", str(during[-1])).stdout
        assert "events wait in memory" in c.log("plugin-xboard")
        eventually(lambda: "written again" in c.log("plugin-xboard"), what="it says that it writes again")


def test_a_locked_file_only_delays(tmp_path: Path) -> None:
    """Given somebody's transaction on the file, when workers die meanwhile, then they are recorded after it."""
    path = tmp_path / "ledger.db"
    with recorded(tmp_path) as c:
        before = kill_one(c)
        eventually(lambda: before in deaths(path))

        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            during = kill_one(c)
            eventually(lambda: "database is locked" in c.log("plugin-xboard"))
            other.execute("ROLLBACK")

        eventually(lambda: {before, during} <= deaths(path).keys(), timeout=90)


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """Given a file that was overwritten, when a recorder opens it, then a new one is begun, and the old one kept."""
    path = tmp_path / "ledger.db"
    with recorded(tmp_path) as c:
        before = kill_one(c)
        eventually(lambda: before in deaths(path))

        # Of a recorder that has it open it would be mended in passing: SQLite has all of so small a file in memory.
        plugin, supervisor = c.plugin("xboard"), process(c.pid)
        kill(c.pid, signal.SIGSTOP)  # so that no other is started before all is overwritten
        kill(plugin.pid)
        for found in tmp_path.glob("ledger.db*"):
            found.write_bytes(b"no database " * 2000)
        supervisor.signal(signal.SIGCONT)
        during = kill_one(c)
        eventually(lambda: during in deaths(path), timeout=90)

        assert [found.name for found in tmp_path.glob("ledger.db.damaged-*")] != []
        assert "is damaged" in c.log("plugin-xboard")
        assert "set aside as ledger.db.damaged-" in c.log("plugin-xboard")
        assert before in deaths(path)  # circusd had it still


def test_what_happened_without_a_recorder_is_recorded_once(tmp_path: Path) -> None:
    """Given the plugin killed, when a worker dies before another runs, then that is asked for, and nothing is twice."""
    path = tmp_path / "ledger.db"
    with recorded(tmp_path) as c:
        before = kill_one(c)
        eventually(lambda: before in deaths(path))
        plugin = c.plugin("xboard")

        kill(plugin.pid, signal.SIGSTOP)  # Circus would start another at once
        during = kill_one(c)
        kill(plugin.pid)
        eventually(lambda: c.plugin("xboard") != plugin)
        eventually(lambda: during in deaths(path))
        after = kill_one(c)
        eventually(lambda: after in deaths(path))

        found = search(path, kind={"restart"}, limit=1000)
        assert sorted(record.pid or 0 for record in found) == sorted([before, during, after])


def test_a_death_carries_for_how_long_the_worker_was_up(tmp_path: Path) -> None:
    """Given a worker that served, and one that never came up, when each is killed, then its record says which."""
    path = tmp_path / "ledger.db"
    with circusd(tmp_path, numprocesses=1, plugins=BUNDLE, options=FAST_RESTARTS) as c:
        [served] = c.wait_ready()
        eventually(lambda: (c.watcher()["workers"][0]["ready_for"] or 0) > 1)
        c.set("boot", "slow 30")
        kill(served)
        [starting] = eventually(lambda: [pid for pid in c.workers() if pid != served])
        eventually(lambda: c.watcher()["workers"][0]["phase"] == "starting")
        kill(starting)
        eventually(lambda: {served, starting} <= deaths(path).keys())
        found = deaths(path)

        first, second = found[served].data, found[starting].data
        assert 1 < first["ready_for"] < first["lived"]
        assert second["ready_for"] is None
        assert second["lived"] >= 0


def test_a_hundred_events_a_second_for_a_minute(tmp_path: Path) -> None:
    """Given 100 events a second for a minute, when it is over, then each is recorded, once and in order."""
    path = tmp_path / "ledger.db"
    with recorded(tmp_path) as c, CircusdClient(c.endpoint) as client:
        start = time.monotonic()
        wanted: list[str] = []
        # As many as these, in a minute at best: a crowded machine takes longer to send them.
        while (number := len(wanted)) < SECONDS * RATE:
            ahead = start + number / RATE - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            reason = f"event {number}"
            client.call("xboard_event", name="web", event="recovered", reason=reason)
            wanted.append(reason)

        def stored() -> list[str]:
            return [record.reason for record in search(path, kind={"recovered"}, limit=100_000)]

        eventually(lambda: len(stored()) >= len(wanted), every=0.5)

        assert stored() == wanted
        assert process(c.plugin("xboard").pid).memory < 200_000_000
