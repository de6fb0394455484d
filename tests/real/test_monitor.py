"""The monitor, beside a real circusd that it did not start."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from xboard_circus.circus_client import CircusdClient, CircusdGone

from .free_ports import free_port, stranger
from .harness import Circusd, circusd, eventually, fill, holds
from .test_restart import under_load

ROOT = Path(__file__).resolve().parents[2]
FULL = """
exec 7< "$3" 8< "$1" 9< "$2"
mount -t tmpfs -o size=16k,nr_inodes=50 tmpfs /tmp
mkdir -p "$1" "$2" "$3"
mount -c --bind /proc/self/fd/8 "$1"
mount -c --rbind /proc/self/fd/9 "$2"
mount -c --bind /proc/self/fd/7 "$3"
dd if=/dev/zero of=/tmp/full bs=4k 2> /dev/null || :
mount --bind /tmp /var/tmp
exec 7<&- 8<&- 9<&-
shift 3
exec "$@"
"""
"""A shell that hides the temporary folders behind full ones from a command, but for three that may be below them."""


@contextlib.contextmanager
def monitor(
    running: Circusd, *, patience: float = 30, notes: str = "circusd answers", within: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a monitor of *running*, in another folder than circusd's, by the command *within*."""
    options = ["-c", str(running.ini), "--interval", "0.2", "--patience", str(patience)]
    process = subprocess.Popen(
        [*within, running.python, "-m", "xboard_circus.monitor", *options],
        cwd="/",
        env=running.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: notes in running.log("monitor"))
        yield process
    finally:
        process.terminate()
        process.wait(90)


def has_successor(running: Circusd) -> bool:
    """Another circusd than the one that the test started answers."""
    with CircusdClient(running.endpoint) as client:
        try:
            return client.pid() != running.pid
        except CircusdGone:
            return False


def test_a_killed_circusd_is_back_and_a_stopped_one_is_left_alone(tmp_path: Path) -> None:
    """Given a monitor, when circusd is killed, then it and its workers are back; when stopped, then it stays so."""
    with circusd(tmp_path) as c, monitor(c) as process:
        c.wait_ready()
        # `python -m` looks in its folder first, before `check` can refuse a folder that others may write.
        (tmp_path / "sqlite3.py").write_text("raise SystemExit('planted')\n")

        c.kill9()

        eventually(lambda: has_successor(c), what="a new circusd answers")
        c.wait_ready()
        log = c.log("monitor")
        assert "circusd is gone: restart budget: 1 of 5 used" in log, log

        eventually(lambda: c.log("monitor").count("circusd answers") == 2, what="the start is over")
        stop = [c.python, "-m", "xboard_circus", "-c", str(c.ini), "stop"]
        subprocess.run(stop, env=c.environ(), check=True, stdin=subprocess.DEVNULL)

        eventually(lambda: "stopped by an operator" in c.log("monitor"))
        holds(lambda: [p.pid for p in c.processes()] == [process.pid], seconds=1, what="only the monitor runs")


def test_a_circusd_that_does_not_answer_is_replaced_without_a_lost_request(tmp_path: Path) -> None:
    """Given load and a monitor, when circusd hangs, and goes on in the end, then it was killed and 0 are lost."""
    with circusd(tmp_path) as c, monitor(c, patience=1):
        before = c.wait_ready()
        old = c.past[-1]

        with under_load(c):
            os.kill(old.pid, signal.SIGSTOP)
            eventually(lambda: "has not answered for" in c.log("monitor"), every=0.01)
            old.signal(signal.SIGCONT)

            eventually(lambda: not old.alive, what="the circusd that hung is gone")
            eventually(lambda: has_successor(c), what="a new circusd answers")
            eventually(lambda: not set(before) & set(c.wait_ready()), what="others have taken over")
            eventually(lambda: not {each.pid for each in c.processes()} & set(before))
        assert f"SIGKILL to circusd (pid {old.pid})" in c.log("monitor")


def test_a_taken_endpoint_is_logged_once_and_another_one_in_the_ini_is_used(tmp_path: Path) -> None:
    """Given a stranger on an endpoint, when the monitor looks again and again, then its log says so once; when the ini
    names another endpoint, then circusd is started there."""
    waits = "circusd is started when it can be"
    with circusd(tmp_path, start=False) as c, contextlib.ExitStack() as held:
        held.enter_context(stranger(int(c.pubsub.rpartition(":")[2]), tmp_path))
        held.enter_context(monitor(c, notes=waits))
        holds(lambda: c.log("monitor").count(waits) == 1, seconds=3)

        c.pubsub = f"tcp://127.0.0.1:{free_port()}"
        c.write_ini()

        eventually(lambda: c.call("numwatchers", timeout=1)["status"] == "ok", timeout=60, what="it is started")
        c.wait_ready()


def test_a_second_monitor_names_the_first_and_ends(tmp_path: Path) -> None:
    """Given a monitor, when another is started for the same ini, then it says who is there and ends with 1."""
    with circusd(tmp_path) as c, monitor(c) as process:
        command = [c.python, "-m", "xboard_circus.monitor", "-c", str(c.ini)]
        second = subprocess.run(command, env=c.environ(), stdin=subprocess.DEVNULL, capture_output=True, text=True)

        assert second.returncode == 1
        assert second.stderr == f"error: a monitor of this backend runs already, with pid {process.pid}\n"
        assert process.poll() is None


def test_on_a_full_disk_circusd_is_started_again(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    """Given a disk that is full, also for temporary files, when circusd is killed, then the monitor starts another."""
    with circusd(small_disk("disk", "2m")) as c:
        old = c.wait_ready()
        folders = [str(c.runtime), str(tmp_path), str(ROOT)]
        with monitor(c, within=["unshare", "-m", "sh", "-ec", FULL, "sh", *folders]):
            fill(c.folder)

            c.kill9()

            eventually(lambda: has_successor(c), what="a new circusd answers")
            assert (serving := int(c.get())) in old or serving in c.workers(), "old ones serve until others are ready"
