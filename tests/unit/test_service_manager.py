"""Listening sockets that systemd keeps between two circusds, with a stand-in for systemd."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xboard_circus.host import service_manager

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

TAKE = """
import os, sys
from xboard_circus.host import service_manager
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
found = service_manager.take()
print(*(each.getsockname()[1] for each in found), any(each.get_inheritable() for each in found))
print(*(name for name in os.environ if name.startswith("LISTEN_")), *service_manager.take())
"""


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(tmp_path / "notify"))
        door.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield door


def test_listeners_are_stored_by_a_name_of_ours(systemd: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service_manager.store([listener])
        message, (number,), _, _ = socket.recv_fds(systemd, 1000, 5)
        with socket.socket(fileno=number) as stored:
            assert stored.getsockname() == listener.getsockname()

    assert message.decode().split("\n") == ["FDSTORE=1", "FDNAME=xboard", "FDPOLL=0"]


def test_without_systemd_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service_manager.store([listener])


@pytest.mark.parametrize("mine", [True, False], ids=["for this process", "for another, which has passed them on"])
def test_what_was_stored_is_taken_once_and_removed(systemd: socket.socket, mine: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as other:
        # a shell gives the child its sockets the numbers from 3 on, as systemd does
        script = f'exec 3<&{other.fileno()} 4<&{ours.fileno()}; exec "$@"'
        listen = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": f"web.socket:{service_manager.NAME}"}
        done = subprocess.run(
            ["bash", "-c", script, "-", sys.executable, "-c", TAKE, "0" if mine else "1"],
            env={**os.environ, **listen},
            pass_fds=[ours.fileno(), other.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        port = ours.getsockname()[1]

    assert done.stdout == (f"{port} False\n\n" if mine else "False\n\n")
    if mine:
        assert systemd.recv(1000) == b"FDSTOREREMOVE=1\nFDNAME=xboard"
    else:
        with pytest.raises(BlockingIOError):
            systemd.recv(1000)


def test_what_is_no_socket_is_removed_and_keeps_no_circusd_from_starting(systemd: socket.socket) -> None:
    """Given a file that a worker has stored in the name of its service, then the next circusd takes the listener."""
    with socket.create_server(("127.0.0.1", 0)) as ours, open(os.devnull, "rb") as file:
        script = f'exec 3<&{file.fileno()} 4<&{ours.fileno()}; exec "$@"'
        listen = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": f"{service_manager.NAME}:{service_manager.NAME}"}
        done = subprocess.run(
            ["bash", "-c", script, "-", sys.executable, "-c", TAKE, "0"],
            env={**os.environ, **listen},
            pass_fds=[ours.fileno(), file.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.stdout == f"{ours.getsockname()[1]} False\n\n"
    assert systemd.recv(1000) == b"FDSTOREREMOVE=1\nFDNAME=xboard"
