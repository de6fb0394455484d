"""What tells that clients reach a listener no longer, on real sockets."""

import ctypes
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from xboard_circus.host.backlog import backlog_of
from xboard_circus.supervisor import listener_check as listeners
from xboard_circus.supervisor.listener_check import deafened_by, is_shut_down, put_back, unreachable_because
from xboard_circus.worker.__main__ import open_public

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="options and namespaces of Linux")


def is_net_admin() -> bool:
    """Return whether this process has CAP_NET_ADMIN, which root in a container has not."""
    status = Path("/proc/self/status")
    found = re.search(r"CapEff:\s*([0-9a-f]+)", status.read_text() if status.exists() else "")
    return found is not None and bool(int(found[1], 16) >> 12 & 1)


as_root = pytest.mark.skipif(not is_net_admin(), reason="the kernel shows it to CAP_NET_ADMIN alone")
ATTACH_FILTER, LOCK_FILTER, MD5SIG_EXT, DEFER_ACCEPT = 26, 44, 32, 9


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as circusd does
        yield made


def set_filter(of: socket.socket) -> None:
    """Have the kernel drop everything, with a filter longer than a buffer for an int."""
    code = (ctypes.c_uint64 * 100)(*[0x06] * 100)  # BPF_RET 0
    of.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HxxxxxxP", 100, ctypes.addressof(code)))


def lock_filter(of: socket.socket) -> None:
    set_filter(of)
    of.setsockopt(socket.SOL_SOCKET, LOCK_FILTER, 1)


def set_md5_key(of: socket.socket) -> None:
    """Have the kernel drop what is not signed, of every address."""
    address = struct.pack("=H126x", of.family)
    key = struct.pack("=BBHi80s", 1, 0, 1, 0, b"k")
    try:
        of.setsockopt(socket.IPPROTO_TCP, MD5SIG_EXT, address + key)
    except OSError as error:
        pytest.skip(f"this kernel has no MD5 signatures: {error}")


def bind_to_loopback(of: socket.socket) -> None:
    of.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")


def dont_route(of: socket.socket) -> None:
    of.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)


def reach_nowhere(of: socket.socket) -> None:
    of.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)


def want_a_large_ttl(of: socket.socket) -> None:
    if of.family == socket.AF_INET:
        of.setsockopt(socket.IPPROTO_IP, 21, 255)
    else:
        of.setsockopt(socket.IPPROTO_IPV6, 73, 255)


@pytest.mark.parametrize(
    ("deafen", "names"),
    [
        pytest.param(want_a_large_ttl, {"IP_MINTTL", "IPV6_MINHOPCOUNT"}, id="a TTL that no packet has"),
        pytest.param(reach_nowhere, {"IP_TTL"}, id="a TTL that reaches nobody"),
        pytest.param(dont_route, {"SO_DONTROUTE"}, id="no router"),
        pytest.param(bind_to_loopback, {"SO_BINDTODEVICE"}, id="one device"),
        pytest.param(set_filter, {"SO_ATTACH_FILTER"}, id="a filter"),
        pytest.param(lock_filter, {"SO_ATTACH_FILTER"}, id="a filter that cannot be removed"),
        pytest.param(set_md5_key, {"TCP_MD5SIG"}, id="a key", marks=as_root),
    ],
)
def test_what_has_the_kernel_drop_connections_is_found(
    listener: socket.socket, deafen: Callable[[socket.socket], None], names: set[str]
) -> None:
    assert deafened_by(listener) == ""
    deafen(listener)

    assert deafened_by(listener) in names


def test_what_servers_set_and_a_full_queue_are_nothing(listener: socket.socket) -> None:
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, DEFER_ACCEPT, 5),
        (socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000),
    ):
        listener.setsockopt(level, option, value)
    listener.listen(1)
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(socket.socket(listener.family))
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(listener.getsockname())

        assert (deafened_by(listener), is_shut_down(listener), unreachable_because(listener)) == ("", False, "")


@pytest.mark.parametrize("cookie", [listeners._SO_NETNS_COOKIE, 9999])
def test_a_listener_of_this_network_is_known_with_and_without_cookies(
    listener: socket.socket, cookie: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_SO_NETNS_COOKIE", cookie)

    assert unreachable_because(listener) == ""


def test_a_deaf_listener_is_not_taken_over(listener: socket.socket) -> None:
    dont_route(listener)

    assert unreachable_because(listener) == "SO_DONTROUTE is set on it"


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


def linger(of: socket.socket) -> None:
    of.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def want_much_at_once(of: socket.socket) -> None:
    of.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 20)


def cut_after_a_millisecond(of: socket.socket) -> None:
    of.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)


def state_of(listener: socket.socket) -> tuple[object, ...]:
    return (
        listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT),
        listener.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[:4],
        os.get_blocking(listener.fileno()),
        backlog_of(listener),
    )


@pytest.mark.parametrize(
    ("change", "names"),
    [
        pytest.param(want_much_at_once, "SO_RCVLOWAT, SO_RCVBUF", id="connections that are never readable"),
        pytest.param(linger, "SO_LINGER", id="answers that are cut"),
        pytest.param(lambda of: os.set_blocking(of.fileno(), True), "O_NONBLOCK", id="workers that hang in accept"),
        pytest.param(lambda of: of.listen(0), "backlog", id="a queue for one connection"),
    ],
)
def test_what_connections_inherit_is_put_back(
    listener: socket.socket, change: Callable[[socket.socket], None], names: str
) -> None:
    listener.setblocking(False)
    listener.listen(200)
    before, wanted = state_of(listener), listeners.inherited(listener)
    assert put_back(listener, wanted, backlog=200, blocking=False) == ""
    change(listener)
    assert state_of(listener) != before

    assert put_back(listener, wanted, backlog=200, blocking=False) == names
    assert state_of(listener) == before
    assert put_back(listener, wanted, backlog=200, blocking=False) == ""


HARMFUL = {
    "SO_REUSEADDR": struct.pack("i", 0),
    "SO_REUSEPORT": struct.pack("i", 1),
    "SO_SNDBUF": struct.pack("i", 1),
    "SO_RCVBUF": struct.pack("i", 1),
    "SO_RCVTIMEO": struct.pack("ll", 0, 1000),
    "SO_SNDTIMEO": struct.pack("ll", 0, 1000),
    "SO_TIMESTAMPING": struct.pack("i", 0x12),
    "SO_MAX_PACING_RATE": struct.pack("i", 1),
    "TCP_NODELAY": struct.pack("i", 0),
    "TCP_MAXSEG": struct.pack("i", 88),
    "TCP_CORK": struct.pack("i", 1),
    "TCP_KEEPIDLE": struct.pack("i", 1),
    "TCP_KEEPINTVL": struct.pack("i", 1),
    "TCP_KEEPCNT": struct.pack("i", 1),
    "TCP_SYNCNT": struct.pack("i", 1),
    "TCP_LINGER2": struct.pack("i", -1),
    "TCP_DEFER_ACCEPT": struct.pack("i", 100),
    "TCP_WINDOW_CLAMP": struct.pack("i", 1),
    "TCP_CONGESTION": b"reno",
    "TCP_USER_TIMEOUT": struct.pack("i", 1),
    "TCP_NOTSENT_LOWAT": struct.pack("i", 1),
    "TCP_TX_DELAY": struct.pack("i", 1_000_000),
    "TCP_RTO_MAX_MS": struct.pack("i", 1000),
    "IP_TOS": struct.pack("i", 0x20),
    "IP_MTU_DISCOVER": struct.pack("i", 3),
    "IP_RECVERR": struct.pack("i", 1),
    "IPV6_TCLASS": struct.pack("i", 0x20),
    "IPV6_MTU_DISCOVER": struct.pack("i", 3),
    "IPV6_RECVERR": struct.pack("i", 1),
}


def accepted_values(listener: socket.socket) -> dict[str, bytes | None]:
    """Return the options of one more accepted connection."""
    with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as accepted:
        return {name: listeners._value(accepted, name) for name in HARMFUL}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_connection_inherits_no_harmful_option_that_was_put_back(listener: socket.socket, name: str) -> None:
    wanted = listeners.inherited(listener)
    assert put_back(listener, wanted, backlog=128, blocking=None) == ""
    before, value = accepted_values(listener), HARMFUL[name]
    try:
        listener.setsockopt(*listeners._INHERITED[name], value)
    except OSError as error:
        pytest.skip(f"this kernel, or family, has no {name}: {error}")
    if listeners._value(listener, name) == wanted[name]:
        pytest.skip(f"{value!r} is the default here")

    assert put_back(listener, wanted, backlog=128, blocking=None).split(", ")[0] == name
    assert accepted_values(listener) == before
    assert put_back(listener, wanted, backlog=128, blocking=None) == ""


def test_a_slow_reader_gets_all_after_a_timeout_of_a_millisecond_was_put_back(listener: socket.socket) -> None:
    """Given a TCP_USER_TIMEOUT of 1 ms on the listener, put back, then a client that reads late is not reset."""
    wanted = listeners.inherited(listener)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)
    put_back(listener, wanted, backlog=128, blocking=None)
    with socket.create_connection(listener.getsockname()[:2]) as client, listener.accept()[0] as accepted:
        accepted.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # until the window of the client is full
                accepted.send(b"x" * (1 << 20))
        time.sleep(0.5)  # the kernel would count this

        assert client.recv(1) == b"x"
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_what_cannot_be_put_back_is_named(listener: socket.socket) -> None:
    wanted = {**listeners.inherited(listener), "TCP_SYNCNT": b"\xff\xff\xff\xff"}

    with pytest.raises(listeners.CannotPutBack, match="TCP_SYNCNT"):
        put_back(listener, wanted, backlog=128, blocking=None)


def test_what_is_accepted_inherits_no_change_of_the_listener(listener: socket.socket) -> None:
    """Given a listener that a sibling has changed, then a worker's connections are as ever, and it hangs for none."""
    public = open_public(os.dup(listener.fileno()))
    for change in (want_much_at_once, linger, cut_after_a_millisecond):
        change(listener)
    listener.setblocking(True)
    with public, socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = public.accept()
        with accepted:
            assert state_of(accepted)[:2] == (1, b"\0\0\0\0")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        with pytest.raises(BlockingIOError):
            public.accept()


def test_all_that_was_changed_is_named(listener: socket.socket) -> None:
    for change in (linger, want_much_at_once):
        change(listener)

    changed = put_back(listener, listeners.inherited(listener), backlog=128, blocking=None)
    assert changed == "SO_RCVLOWAT, SO_LINGER, SO_RCVBUF"


def test_a_server_may_choose_its_backlog_and_one_that_blocks(listener: socket.socket) -> None:
    """Given a server of the user's that blocks in accept, and chose queue and buffers, then these are left."""
    listener.listen(100)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    listener.setsockopt(socket.IPPROTO_TCP, DEFER_ACCEPT, 5)

    assert put_back(listener, listeners.inherited(listener, ours=False), backlog=2048, blocking=None) == ""
    assert (os.get_blocking(listener.fileno()), backlog_of(listener)) == (True, 100)


def test_the_queue_of_a_unix_listener_is_put_back(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(os.fspath(tmp_path / "x.sock"))
        listener.listen(0)

        assert put_back(listener, listeners.inherited(listener), backlog=100, blocking=False) == "O_NONBLOCK"
        for _ in range(50):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(listener.getsockname())
