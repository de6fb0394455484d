import os
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from xboard_circus.errors import PortError
from xboard_circus.host.sockets import overlaps, pids_of_sockets, targets


@pytest.mark.parametrize(
    ("wanted", "listening", "v6only", "meets"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", False, True, id="the same"),
        pytest.param("127.0.0.1", "127.0.0.2", False, False, id="another address"),
        pytest.param("127.0.0.1", "0.0.0.0", False, True, id="it has all of IPv4"),
        pytest.param("0.0.0.0", "127.0.0.1", False, True, id="we want all of IPv4"),
        pytest.param("0.0.0.0", "::", False, True, id="it has all"),
        pytest.param("127.0.0.1", "::", False, True, id="it has all, we want one"),
        pytest.param("127.0.0.1", "::", True, False, id="it has all of IPv6 alone"),
        pytest.param("127.0.0.1", "::1", False, False, id="one of each family"),
        pytest.param("0.0.0.0", "::1", False, False, id="all of IPv4, one of IPv6"),
        pytest.param("::", "127.0.0.1", False, True, id="we want all"),
        pytest.param("::", "::", True, True, id="both all of IPv6"),
        pytest.param("::1", "::", False, True, id="IPv6 in its all"),
        pytest.param("::1", "0.0.0.0", False, False, id="IPv6 beside all of IPv4"),
        pytest.param("127.0.0.1", "::ffff:127.0.0.1", False, True, id="IPv4 in the clothes of IPv6"),
        pytest.param("::ffff:127.0.0.1", "127.0.0.2", False, False, id="another one in them"),
    ],
)
def test_overlaps(wanted: str, listening: str, v6only: bool, meets: bool) -> None:
    assert overlaps(ip_address(wanted), ip_address(listening), v6only=v6only) is meets


@pytest.mark.parametrize(("host", "address"), [("", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_a_host_stands_for_addresses(host: str, address: str) -> None:
    assert [str(target.address) for target in targets(host, 80)] == [address]


def test_a_host_that_is_none_is_told() -> None:
    with pytest.raises(PortError, match=r"no such host\.invalid is no address"):
        targets("no such host.invalid", 80)
    with pytest.raises(PortError, match="99999 is no port"):  # as in an endpoint, which no rule has looked at yet
        targets("127.0.0.1", 99999)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
def test_a_look_at_all_open_files_ends_in_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = os.fstat(server.fileno()).st_ino

        assert pids_of_sockets({inode}) == {inode: {os.getpid()}}
        assert pids_of_sockets({inode}, within=0.0) == {}
