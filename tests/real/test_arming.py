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

from .harness import BUNDLE, FAST_RESTARTS, PATIENCE, Circusd, Watcher, circusd, eventually, kill
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


SPOILED = [
    pytest.param(put_a_file_there, id="a file in its place"),
    pytest.param(give_it_away, id="another's, mode 0700", marks=as_root),
    pytest.param(open_it_to_all, id="mode 0777"),
    pytest.param(fill_the_disk, id="disk full", marks=as_root),
]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    """A circusd that runs "web"; its ini takes "odd" in and out, while "web" runs on.

    Its runtime folder is a small file system, which can be filled, where one can be mounted.
    """
    watchers = [Watcher(options=OPTIONS), Watcher("odd", numprocesses=1, options=OPTIONS)]
    folder = tmp_path_factory.mktemp("arming")
    with circusd(folder, watchers=watchers, plugins=BUNDLE, check_delay=1, start=False) as c:
        place = c.runtime / "r"
        place.mkdir(mode=0o711)
        options = f"size={ROOM},nr_inodes={ENOUGH_TO_START},mode=711"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        is_small = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
        try:
            odd = c.watchers.pop("odd")
            c.write_ini()
            c.start_again()
            c.watchers["odd"] = odd
            c.wait_ready(name="web")
            yield c
        finally:
            if is_small:
                subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def c(beside: Circusd) -> Iterator[Circusd]:
    """circusd with "odd" in its ini, of which it does not know yet."""
    beside.write_ini()
    yield beside
    odd = beside.watchers.pop("odd")
    try:
        beside.write_ini()
        beside.do("reloadconfig", waiting=True)
        eventually(lambda: "odd" not in {each["name"] for each in beside.state()["watchers"]})
    finally:
        beside.watchers["odd"] = odd


@pytest.mark.parametrize("spoil", SPOILED)
def test_it_serves_plainly_and_its_siblings_are_probed(c: Circusd, spoil: Spoil) -> None:
    """Given a watcher whose folder is unusable at its first start, and again at a later one, then it serves each time,
    the reason and its cure are on show, its sibling is probed as before, and the next start after the cure arms it."""
    if spoil is fill_the_disk and not (c.runtime / "r").is_mount():
        pytest.skip("a file system cannot be mounted here")
    web = c.wait_ready(name="web")

    cure = spoil(c)
    c.do("reloadconfig", waiting=True)
    runs_plainly_until(cure, c)

    c.do("stop", name="odd", waiting=True)
    cure = spoil(c)
    c.do("start", name="odd", waiting=True)
    runs_plainly_until(cure, c)

    assert c.wait_ready(name="web") == web


def runs_plainly_until(cure: Callable[[], None], c: Circusd) -> None:
    """Insist that "odd" serves and says why it is not armed, that "web" is probed, and that the cure arms "odd"."""
    try:
        eventually(lambda: c.serves("odd"), what="odd serves, though it could not be armed")
        serves_as_it_would(c)
        eventually(lambda: {"web", "odd", "plugin:xboard"} == {each["name"] for each in c.state()["watchers"]})
        shows_why(c)
        comes_back(c)
        traces = c.log("circusd").count("Traceback")
        start = c.run_cli("start")
        assert start.returncode == 0 or "can't be trusted" in start.stderr, "what it waits for is up"
        is_probed(c, "web")  # by rounds of the prober: one that gets no answer for all leaves a traceback each time
        assert c.log("circusd").count("Traceback") == traces
    finally:
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
