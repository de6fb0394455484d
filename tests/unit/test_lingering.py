"""Sockets whose last close waits as long as their sender likes: nothing of ours does that close."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circus.sockets import CircusSocket
from lingering import LINGER, attached, leave_unsent, server_that_attaches
from test_forks import order
from test_probe import probe, report

from xboard_circus import probe as module
from xboard_circus.host import worker_files
from xboard_circus.probe import Outcome
from xboard_circus.supervisor import handover
from xboard_circus.supervisor.patches import boot
from xboard_circus.supervisor.port import PortGuard

MOMENT = 0.3


@pytest.fixture(params=["this kernel", "a kernel before 6.16"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "this kernel":
        monkeypatch.setattr("xboard_circus.host.unix_sockets.PASSRIGHTS", 9999)


@contextmanager
def not_waiting() -> Iterator[None]:
    """Assert that the block is over long before a socket of those stops lingering."""
    began_at = time.monotonic()
    yield
    assert time.monotonic() - began_at < LINGER / 2


def after_a_moment(what: Callable[..., Any]) -> Callable[..., Any]:
    """Return *what*, but later: the sender has closed its own descriptor by then, so ours is the last one."""

    def late(*given: Any) -> Any:
        time.sleep(MOMENT)
        return what(*given)

    return late


def until_closed(channel: socket.socket) -> None:
    """Wait until the other end is closed, so that what was passed is the receiver's alone."""
    channel.settimeout(LINGER * 2)
    with suppress(ConnectionResetError):
        while channel.recv(4096):
            pass


@pytest.mark.parametrize("answer", [report(), report() + b"more"], ids=["all of it", "more"])
def test_a_prober_does_not_wait_for_what_a_worker_attaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(module, "_missing", after_a_moment(module._missing))
    with server_that_attaches(tmp_path / "w.sock", answer), not_waiting():
        found = probe(tmp_path / "w.sock", timeout=10)

    assert found.outcome is not Outcome.SILENCE


@pytest.mark.parametrize("answer", [b"here", b""], ids=["here", "empty"])
def test_circusd_does_not_wait_for_what_a_forkserver_attaches(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    def attach(channel: socket.socket) -> None:
        with attached(channel, b"nonsense"), attached(channel, answer), attached(channel, b""):
            until_closed(channel)

    with not_waiting():
        worker, _ = order(monkeypatch, attach)

    assert worker is None


def test_a_takeover_does_not_wait_for_what_a_worker_attaches(tmp_path: Path) -> None:
    with server_that_attaches(tmp_path / "w.sock", b"HTTP/1.0 200 OK\r\n\r\n{}"), not_waiting():
        address = ("127.0.0.1", 1)
        assert handover.take_over(tmp_path / "w.sock", instance="i", address=address, timeout=10) is None


def test_a_look_at_a_private_socket_does_not_wait_for_what_a_worker_attaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.socket.connect

    def connect_and_wait(*given: Any) -> None:
        connect(*given)
        time.sleep(MOMENT)

    monkeypatch.setattr(socket.socket, "connect", connect_and_wait)
    with server_that_attaches(tmp_path / "w.sock", b"x"), not_waiting():
        assert worker_files.takes_connections(tmp_path / "w.sock")


def close(shared: Any) -> None:
    boot.install()
    shared.close()


def release(shared: Any) -> None:
    PortGuard._release(SimpleNamespace(), shared)  # type: ignore[arg-type]
    shared.close()


@pytest.mark.parametrize("let_go", [close, release])
def test_a_listener_that_a_worker_has_connected_is_closed_without_waiting(let_go: Callable[[Any], None]) -> None:
    shared = CircusSocket("web", host="127.0.0.1", port=0)
    # As a worker leaves it that shuts the listener down and connects it. Newer kernels, such as 6.18.44, refuse to
    # connect what has listened, so it does not listen here.
    shared.bind((shared.host, shared.port))
    with socket.create_server(("127.0.0.1", 0)) as other:
        leave_unsent(shared, other)
        with other.accept()[0], not_waiting():
            let_go(shared)
