"""Listening sockets that are passed to a process as it starts, with a real one."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.host import inbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system makes such a socket")

RECEIVE = """
import json, os, sys
from pathlib import Path
from xboard_circus.host import inbox
received = inbox.receive(Path(sys.argv[1]))
addresses = [[*each.getsockname(), each.get_inheritable()] for each in received]
print(json.dumps([addresses, os.readlink("/proc/self/fd/0")]), flush=True)
"""


def receive(stdin: Any, folder: Path) -> list[Any]:
    """Return what a process with this stdin receives, and what its stdin is afterwards."""
    command = [sys.executable, "-c", RECEIVE, str(folder)]
    found: list[Any] = json.loads(subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, check=True).stdout)
    return found


def is_free(address: tuple[str, int]) -> bool:
    try:
        with socket.create_server(address):
            return True
    except OSError:
        return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return inbox.path_of(tmp_path, 7)


@pytest.fixture
def made(path: Path) -> Iterator[socket.socket]:
    box = inbox.make(path)
    assert box is not None
    with box:
        yield box


def test_what_was_sent_keeps_its_port_until_the_receiver_ends(made: socket.socket, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        addresses = [each.getsockname() for each in (one, two)]
        inbox.send([one, two], path)

    assert not any(map(is_free, addresses))
    assert receive(made, path.parent) == [[[*each, False] for each in addresses], "/dev/null"]
    assert not path.exists()
    assert all(map(is_free, addresses))


def test_an_inbox_to_which_nothing_was_sent_is_empty_and_removed(made: socket.socket, path: Path) -> None:
    assert receive(made, path.parent) == [[], "/dev/null"]
    assert not path.exists()


def test_only_its_user_can_send_to_an_inbox(made: socket.socket, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) & 0o177 == 0


def test_a_stdin_that_is_no_inbox_of_the_folder_stays(made: socket.socket, path: Path) -> None:
    one, other = socket.socketpair()
    with one, other, socket.create_server(("127.0.0.1", 0)) as listener:
        for stdin in (made, one, listener):
            received, left = receive(stdin, path.parent / "another")
            assert received == []
            assert left.startswith("socket:")
    assert path.exists()
    assert receive(subprocess.DEVNULL, path.parent) == [[], "/dev/null"]


def test_an_inbox_replaces_one_that_was_left(made: socket.socket, path: Path) -> None:
    again = inbox.make(path)

    assert again is not None
    with again, socket.create_server(("127.0.0.1", 0)) as listener:
        inbox.send([listener], path)
        received, _ = receive(again, path.parent)
    assert len(received) == 1


def test_without_an_inbox_that_is_an_error(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(FileNotFoundError):
        inbox.send([listener], path)


def test_where_no_inbox_can_be_made_there_is_none(tmp_path: Path) -> None:
    assert inbox.make(tmp_path / ("x" * 120)) is None
    assert os.listdir(tmp_path) == []
