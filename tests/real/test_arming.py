"""One watcher cannot be armed: it serves plainly and says why, and nobody else notices.

What fails is its folder below the runtime folder, without which there is no private socket.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import BUNDLE, FAST_RESTARTS, PATIENCE, Circusd, Watcher, circusd, eventually, holds, kill
from .processes import process

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away, or mount one")
NOBODY = 65534
ENOUGH_TO_START, ROOM = "200", "1m"  # files, size
OPTIONS = {
    "health.ready_path": "/health/ready",
    "health.period": 0.3,
    "health.timeout": 1,
    "graceful_timeout": 2,
    **FAST_RESTARTS,
}
Spoil = Callable[[Circusd], Callable[[], None]]


def folder_of(c: Circusd, name: str = "odd") -> Path:
    return c.runtime / "r" / c.instance / name


def put_a_file_there(c: Circusd) -> Callable[[], None]:
    shutil.rmtree(folder_of(c), ignore_errors=True)
    folder_of(c).touch()
    return folder_of(c).unlink


def give_it_away(c: Circusd) -> Callable[[], None]:
    above = folder_of(c).parent
    mode = above.stat().st_mode
    os.chown(above, NOBODY, NOBODY)
    above.chmod(0o700)

    def back() -> None:
        os.chown(above, os.geteuid(), os.getegid())
        above.chmod(mode)

    return back


def open_it_to_all(c: Circusd) -> Callable[[], None]:
    above = folder_of(c).parent
    mode = above.stat().st_mode
    above.chmod(0o777)
    return lambda: above.chmod(mode)


def put_files_into(folder: Path) -> None:
    for number in range(int(ENOUGH_TO_START)):
        (folder / str(number)).touch()


def fill_the_disk(c: Circusd) -> Callable[[], None]:
    shutil.rmtree(folder_of(c), ignore_errors=True)
    rubbish = c.runtime / "r" / "rubbish"
    with contextlib.suppress(FileExistsError):
        rubbish.mkdir()
    with pytest.raises(OSError, match="No space left"):
        put_files_into(rubbish)
    return lambda: shutil.rmtree(rubbish)


SPOILED = [  # each kind once, at the first start or at a later one: the same code looks at the folder
    pytest.param("first", put_a_file_there, id="a file in its place"),
    pytest.param("second", give_it_away, id="another's, mode 0700", marks=as_root),
    pytest.param("second", open_it_to_all, id="mode 0777"),
    pytest.param("first", fill_the_disk, id="disk full", marks=as_root),
]


@contextlib.contextmanager
def small_runtime(c: Circusd, spoil: Spoil) -> Iterator[None]:
    """Mount a small file system in the place of the runtime folder, where it is to be filled."""
    if spoil is not fill_the_disk:
        yield
        return
    place = c.runtime / "r"
    place.mkdir()
    options = f"size={ROOM},nr_inodes={ENOUGH_TO_START},mode=711"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def begin(c: Circusd, start: str, spoil: Spoil) -> Callable[[], None]:
    """Start the watcher "odd" for the first or the second time with a spoiled folder; return the cure."""
    odd = c.watchers["odd"]
    if start == "first":
        del c.watchers["odd"]
        c.write_ini()
    c.start_again()
    c.wait_ready(name="web")
    if start == "first":
        c.watchers["odd"] = odd
        c.write_ini()
        cure = spoil(c)
        c.do("reloadconfig", waiting=True)
    else:
        c.wait_ready(name="odd")
        c.do("stop", name="odd", waiting=True)
        cure = spoil(c)
        c.do("start", name="odd", waiting=True)
    return cure


@pytest.mark.parametrize(("start", "spoil"), SPOILED)
def test_it_serves_plainly_and_its_siblings_are_probed(tmp_path: Path, spoil: Spoil, start: str) -> None:
    """Given two watchers, when the folder of one is unusable at its start, then it serves, the reason and its cure
    are on show, the other is probed as before, and the next start after the cure arms it."""
    watchers = [Watcher(options=OPTIONS), Watcher("odd", numprocesses=1, options=OPTIONS)]
    with circusd(tmp_path, watchers=watchers, plugins=BUNDLE, check_delay=1, start=False) as c, small_runtime(c, spoil):
        cure = begin(c, start, spoil)

        eventually(lambda: c.serves("odd"), what="odd serves, though it could not be armed")
        serves_as_it_would(c)
        eventually(lambda: {"web", "odd", "plugin:xboard"} == {each["name"] for each in c.state()["watchers"]})
        shows_why(c)
        is_probed(c, "web")
        comes_back(c)
        traces = c.log("circusd").count("Traceback")
        holds(lambda: c.log("circusd").count("Traceback") == traces, seconds=1.5, what="tracebacks without end")

        cure()
        c.do("restart", name="odd", waiting=True)
        c.wait_ready(name="odd")
        assert c.watcher("odd")["armed"] is True
        is_probed(c, "odd")


def serves_as_it_would(c: Circusd) -> None:
    facts = json.loads(c.get("/facts", name="odd"))
    assert facts["prefix"] == sys.prefix, "run by another Python than the one beside circusd's"
    assert facts["environ"]["XBOARD_INSTANCE"] == c.instance
    assert c.status("odd") == "active"


def shows_why(c: Circusd) -> None:
    odd = c.watcher("odd")
    assert odd["armed"] is False
    assert c.runtime.name in odd["last_reason"], "the folder is named"
    assert "XBOARD_RUNTIME_DIR" in odd["last_reason"] or "remove" in odd["last_reason"], "the cure is named"
    assert c.watcher("web")["armed"] is True


def is_probed(c: Circusd, name: str) -> None:
    """Wait until something is seen of a worker that nobody but a prober at work sees."""
    pid = c.workers(name)[0]
    c.set(f"ready.pid-{pid}", "503", name)
    eventually(lambda: c.worker(pid, name)["ready"] is False, what=f"{name} is probed")
    c.set(f"ready.pid-{pid}", "", name)
    eventually(lambda: c.worker(pid, name)["ready"], what=f"{name} is probed again")


def comes_back(c: Circusd) -> None:
    old = process(int(c.get(name="odd")))
    kill(old.pid)
    eventually(lambda: int(c.get(name="odd", timeout=1)) != old.pid, what="another worker of odd serves")


def test_without_any_runtime_folder_the_watchers_serve_plainly(tmp_path: Path) -> None:
    """Given a file in the place of the whole runtime folder, when circusd starts, then its watcher serves, and
    `circusctl status` says active."""
    with circusd(tmp_path, options=OPTIONS, start=False) as c:
        (c.runtime / "r").touch()

        c.start_again()

        eventually(c.serves, what="web serves, though nothing could be armed")
        assert json.loads(c.get("/facts"))["prefix"] == sys.prefix
        assert c.status() == "active"


def test_a_circusd_whose_output_nobody_reads_starts_and_replaces(tmp_path: Path) -> None:
    """Given a bare circusd below `| less`, whose pipe is full, when a worker ends, then it is replaced."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1)], start=False) as c:
        command = [c.python, "-m", "circus.circusd", str(c.ini)]
        bare = subprocess.Popen(
            command, cwd=c.folder, env=c.environ(), stdout=writing, stderr=writing, start_new_session=True
        )
        try:
            (worker,) = c.wait_ready()
            c.tell(worker, "exit 3")
            eventually(lambda: c.wait_ready() != [worker], what="it is replaced")
        finally:
            bare.send_signal(signal.SIGTERM)
            c.close()
            bare.wait(PATIENCE)
            for end in (reading, writing):
                os.close(end)


def test_a_circusd_whose_streams_are_closed_gives_no_socket_of_its_own_to_workers(tmp_path: Path) -> None:
    """Given a bare circusd without stdin, stdout and stderr, as `ssh HOST 'circusd ... <&- >&- 2>&-'` starts it, then
    its workers, forked ones too, have /dev/null there, not what circusd has opened under these numbers."""
    streams = {f"{name}_stream.{part}": None for name in ("stdout", "stderr") for part in ("class", "filename")}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=streams)], start=False) as c:
        command = f"exec {c.python} -m circus.circusd {c.ini} <&- >&- 2>&-"
        bare = subprocess.Popen(["sh", "-c", command], cwd=c.folder, env=c.environ(), start_new_session=True)
        try:
            (worker,) = c.wait_ready()
            c.tell(worker, "exit 3")
            eventually(lambda: c.wait_ready() != [worker], what="it is replaced")
            for pid in (bare.pid, *c.wait_ready()):
                assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {os.devnull}
            assert c.state()["circusd"]["pid"] == bare.pid
        finally:
            c.close()
            bare.wait(PATIENCE)
