"""What tells that clients reach a listener no longer, on real sockets."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xboard_circus.supervisor import listener as listeners
from xboard_circus.supervisor.listener import unreachable_because

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="options and namespaces of Linux")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel tells it to root alone")


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as made:
        yield made


@pytest.mark.parametrize("cookie", [listeners._SO_NETNS_COOKIE, 9999])
def test_a_listener_of_this_network_is_known_with_and_without_cookies(
    listener: socket.socket, cookie: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_SO_NETNS_COOKIE", cookie)

    assert unreachable_because(listener) == ""


@as_root
def test_a_unix_listener_is_reached_where_its_path_is_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(os.fspath(path))
        listener.listen()
        reasons = [unreachable_because(listener)]
        path.unlink()
        reasons.append(unreachable_because(listener))
        other.bind(os.fspath(path))
        reasons.append(unreachable_because(listener))

    assert reasons == ["", *["its path is another file here"] * 2]
