"""`[socket:NAME] path = x.sock`: kill -9 of circusd, stop and quit leave no file behind that keeps anybody out."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from xboard_circus.host.worker_files import is_socket

from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .state_words import is_port_taken

FILE = "x.sock"
UNIX = {"path": FILE, "host": None, "port": None, "so_reuseport": None}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a unix socket may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="xb-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def c(folder: Path) -> Iterator[Circusd]:
    watcher = Watcher(options={**FAST_RESTARTS, "graceful_timeout": 5}, socket_options=UNIX)
    with circusd(folder, watchers=[watcher]) as c:
        yield c


def ask(c: Circusd, timeout: float = 5, at: Path | None = None) -> int:
    """Return the pid of the worker that answers at the unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(os.fspath(at or c.folder / FILE))
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as answer:
            return int(answer.read().rpartition(b"\r\n")[2])


def nobody_answers(c: Circusd) -> bool:
    """Say whether who connects hears at once that nobody is there."""
    try:
        ask(c, timeout=1)
    except (FileNotFoundError, ConnectionRefusedError):
        return True
    return False


@pytest.mark.parametrize("command", [False, True], ids=["bare circusd", "the command"])
def test_it_serves_again_after_circusd_was_killed(c: Circusd, command: bool) -> None:
    """Given workers on a unix socket, when circusd is killed, and started again bare or by `start`, then new workers
    serve on the same listener, and the old ones are gone."""
    old = c.wait_ready()
    assert ask(c) in old
    c.kill9()

    if command:
        # It gives up where circusd does not answer for 20 s, as on a crowded machine; the next one finds it.
        eventually(lambda: c.run_cli("start").returncode == 0, timeout=240, what="`start` says that it is ready")
    else:
        c.start_again()

    fresh = c.wait_ready()
    eventually(lambda: not {found.pid for found in c.processes()} & set(old), what="the old ones are gone")
    assert not set(fresh) & set(old)
    assert ask(c) in c.workers()
    assert f"took {FILE}:0 over from a worker of an earlier circusd" in c.log("circusd")


def test_after_a_stop_nobody_waits_and_a_start_serves(c: Circusd) -> None:
    """Given workers on a unix socket, when the watcher is stopped, then who connects is refused, and its file is gone;
    when it is started again, then it serves."""
    c.wait_ready()

    c.do("stop", name="web", waiting=True)

    eventually(lambda: nobody_answers(c), what="the socket answers nobody")
    eventually(lambda: not (c.folder / FILE).exists(), what="its file is gone")
    c.do("start", name="web", waiting=True)
    c.wait_ready()
    eventually(lambda: ask(c) in c.workers(), what="it serves again")


def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    """Given a file of another kind at the path, when circusd starts, then the file keeps its content."""
    (folder / FILE).write_text("precious")
    watcher = Watcher(options={**FAST_RESTARTS, "port.retry": 0.5}, socket_options=UNIX)
    with circusd(folder, watchers=[watcher], start=False) as c, contextlib.suppress(AssertionError, RuntimeError):
        c.start_again()  # stock Circus ends here, as it does for any path that exists

    assert (folder / FILE).read_text() == "precious"


def test_a_start_after_a_kill_of_everything_serves(folder: Path) -> None:
    """Given the socket files of an armed watcher and of another one, whose processes are all gone, when circusd starts,
    then both serve."""
    watcher = Watcher(options={**FAST_RESTARTS, "graceful_timeout": 5}, socket_options=UNIX)
    plain = Watcher(name="plain", numprocesses=1, armed=False, socket_options={**UNIX, "path": "plain.sock"})
    with circusd(folder, watchers=[watcher, plain]) as c:
        c.wait_ready()
        c.kill9()
        for left in c.processes():
            left.signal(9)
        eventually(lambda: c.processes() == [])
        assert is_socket(folder / FILE)
        assert is_socket(folder / "plain.sock")

        c.start_again()

        c.wait_ready()
        assert ask(c) in c.workers()
        eventually(lambda: ask(c, at=folder / "plain.sock") in c.workers("plain"), what="the other one serves")


def test_the_file_of_a_stranger_who_listens_is_left_alone(folder: Path) -> None:
    """Given another server at the path, when circusd starts and ends, then it does not take the path away from that
    server."""
    watcher = Watcher(options={**FAST_RESTARTS, "port.retry": 0.5}, socket_options=UNIX)
    with circusd(folder, watchers=[watcher], start=False) as c, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(folder / FILE))
        listener.listen()
        inode = (folder / FILE).stat().st_ino

        c.start_again()

        eventually(lambda: is_port_taken(c.watcher()), what="the path is taken")
        assert (folder / FILE).stat().st_ino == inode
        assert FILE in c.watcher()["port"]["reason"]
        assert "or stop what listens there" in c.watcher()["verdict"]["cure"]
        c.stop()
        assert (folder / FILE).stat().st_ino == inode


def test_a_unix_socket_whose_file_or_folder_is_deleted_is_made_anew(folder: Path) -> None:
    """Given a socket file, or its folder, that somebody deletes, then others serve at the same path: at once, or when
    the folder is there again. Until then no restart is begun, and the words say why."""
    place = folder / "s"
    place.mkdir()
    options = {**FAST_RESTARTS, "port.retry": 0.5}
    with circusd(folder, watchers=[Watcher(options=options, socket_options={**UNIX, "path": place / FILE})]) as c:
        pids = c.wait_ready()
        before = c.pid
        (place / FILE).unlink()
        (event,) = eventually(lambda: c.told("port_shut"), what="it is told")
        assert f"{place / FILE}, the file of the listening socket, was deleted" in event.message["reason"]
        eventually(lambda: ask(c, at=place / FILE) in c.workers(), what="it serves again")
        fresh = c.wait_ready()
        assert not set(fresh) & set(pids)

        shutil.rmtree(place)
        refused = c.run_cli("restart", "--no-preflight")
        assert refused.returncode == 1
        assert f"{place} is no folder in which circusd may make the socket" in refused.stderr + refused.stdout
        assert c.state()["circusd"]["pid"] == before
        place.mkdir()
        c.kill9()
        c.start_again()
        eventually(lambda: ask(c, at=place / FILE) in c.workers(), what="it serves there again")
        assert {each.message["cause"] for each in c.told("restart")} <= {"commanded"}


def test_a_unix_socket_that_a_worker_shuts_down_is_made_anew(c: Circusd) -> None:
    """Given a worker that shuts the shared unix socket down, then others serve at the same path."""
    pids = c.wait_ready()
    c.tell(pids[0], "shut")

    eventually(lambda: c.told("port_shut"))
    fresh = c.wait_ready()

    assert ask(c) in fresh
    assert not set(fresh) & set(pids)
    assert {each.message["cause"] for each in c.told("restart")} == {"commanded"}
