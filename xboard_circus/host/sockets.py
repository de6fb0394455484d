"""Find the TCP sockets that listen where a bind would, and the processes that hold each."""

import contextlib
import os
import re
import select
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from xboard_circus.errors import PortError
from xboard_circus.host import procs, sockdiag

Address = IPv4Address | IPv6Address


OTHERS_WITHIN = 1.0  # below what a command waits for its answer
LOOK_WITHIN = 10.0
"""A look at the open files of all processes, of which one may open a million, and several users several millions."""


class BindTarget(NamedTuple):
    """One address of a host name; *sockaddr* is how ``bind`` takes it."""

    family: socket.AddressFamily
    address: Address
    sockaddr: Any


class Listening(NamedTuple):
    """A listening socket.

    Attributes:
        uid: Its user; None if unknown.
        pids: Its visible holders.
    """

    address: Address
    port: int
    uid: int | None
    pids: frozenset[int]

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def targets(host: str, port: int) -> list[BindTarget]:
    """Return the addresses of *host*; "" means all of IPv4, as it does for ``bind``, and so does "*"."""
    if not 0 <= port < 1 << 16:
        raise PortError(f"{port} is no port; write one from 1 to 65535")
    try:
        found = socket.getaddrinfo("0.0.0.0" if host in ("", "*") else host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PortError(f"{host} is no address of this machine: {error.strerror}") from error
    known = [(family, place) for family, *_, place in found if family in (socket.AF_INET, socket.AF_INET6)]
    return [BindTarget(family, ip_address(str(place[0]).partition("%")[0]), place) for family, place in known]


def for_client(host: str) -> str:
    """Return the address at which a client on this host reaches a listener on *host*.

    >>> for_client("0.0.0.0"), for_client("10.0.0.7")
    ('127.0.0.1', '10.0.0.7')
    """
    return {"::": "::1", **dict.fromkeys(("0.0.0.0", "*", "localhost", ""), "127.0.0.1")}.get(host, host)


def is_loopback(host: str) -> bool:
    """Return whether only this host can reach an address."""
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def overlaps(wanted: Address, listening: Address, *, v6only: bool = False) -> bool:
    """Return whether a bind to *wanted* meets a socket that listens on the same port of *listening*.

    A socket on ``::`` takes IPv4 too unless it is *v6only*; the one to be bound will not be.

    >>> overlaps(ip_address("127.0.0.1"), ip_address("::")), overlaps(ip_address("127.0.0.1"), ip_address("::1"))
    (True, False)
    """
    wanted, listening = _plain(wanted), _plain(listening)
    if wanted.version == listening.version:
        return wanted == listening or wanted.is_unspecified or listening.is_unspecified
    return wanted.is_unspecified if wanted.version == 6 else listening.is_unspecified and not v6only


def listening(wanted: Collection[Address], port: int) -> list[Listening]:
    """Return the sockets that listen on *port* and overlap one of *wanted*."""
    return by_inode(wanted, port) if sys.platform == "linux" else by_process(wanted, port)


def by_inode(wanted: Collection[Address], port: int) -> list[Listening]:
    """Find the sockets first, then the processes that have them open."""
    listeners = sockdiag.listening(port)
    found = [each for each in listeners if any(overlaps(one, each.address, v6only=each.v6only) for one in wanted)]
    pids = pids_of_sockets({each.inode for each in found})
    return [Listening(each.address, port, each.uid, frozenset(pids[each.inode])) for each in found]


def beside(address: str, port: int) -> set[int]:
    """Return the inodes of all sockets that listen on just this address: the kernel gives each its share of the
    connections, where both have SO_REUSEPORT. None where /proc is not Linux's."""
    wanted = _plain(ip_address(address))
    found = sockdiag.listening(port) if sys.platform == "linux" else []
    return {listener.inode for listener in found if _plain(listener.address) == wanted}


def pids_of_sockets(
    inodes: Collection[int], but: Collection[int] = (), *, within: float = LOOK_WITHIN
) -> defaultdict[int, set[int]]:
    """Return the visible processes that have each of these sockets open, without those with a pid in *but*; those that
    were found *within* so many seconds.
    """
    give_up_at = time.monotonic() + within
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    pids: defaultdict[int, set[int]] = defaultdict(set)
    for pid in [pid for pid in procs.pids() if pid not in but] if wanted else ():
        for _, target in _descriptors(pid):
            if time.monotonic() > give_up_at:
                return pids
            if target in wanted:
                pids[wanted[target]].add(pid)
    return pids


def users_of_socket(inode: int, users: Collection[int]) -> dict[int, set[int]]:
    """Return, for each visible process that has a socket open, all uids that it runs under; for a thread, mostly 10 ms.

    All processes of *users* are looked at, those of others for `OTHERS_WITHIN` seconds, the newest first: they may open
    descriptors without measure, to keep *users* waiting.
    """
    name, found, give_up_at = f"socket:[{inode}]", {}, time.monotonic() + OTHERS_WITHIN
    for pid in sorted(procs.pids(), reverse=True):
        uids = procs.users_of(pid)
        is_others = not uids <= set(users)
        for _, target in _descriptors(pid):
            if target == name:
                found[pid] = uids
            if target == name or (is_others and time.monotonic() > give_up_at):
                break
    return found


def awaits_input(pid: int, inode: int) -> bool:
    """Return whether a process waits by epoll for what a socket receives. Linux 4.13 and later say so."""
    entry = re.compile(rf"^tfd: .* events: +([0-9a-f]+) .* ino:{inode:x} ", re.MULTILINE)
    for number, target in _descriptors(pid):
        if target == "anon_inode:[eventpoll]":
            with contextlib.suppress(OSError):
                entries = entry.findall(Path(f"/proc/{pid}/fdinfo/{number}").read_text(encoding="ascii"))
                if any(int(events, 16) & select.EPOLLIN for events in entries):
                    return True
    return False


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """Yield the number of each open descriptor of a visible process, and what it leads to."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for each in descriptors:
            with contextlib.suppress(OSError):
                yield each.name, os.readlink(each.path)


def ports_of_clients() -> range:
    """Return the ports that the kernel gives to clients; all where it does not say so."""
    with contextlib.suppress(OSError, ValueError):
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
        return range(first, last + 1)
    return range(1, 1 << 16)


def by_process(wanted: Collection[Address], port: int) -> list[Listening]:
    """Examine each accessible process, by psutil; it does not know whether a socket on ``::`` takes IPv4.

    Not all at once, by `psutil.net_connections`: that is for root alone on macOS, and returns one holder of each
    socket.
    """
    pids: defaultdict[Address, set[int]] = defaultdict(set)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            # Older name of it in psutil before 6.
            connections_of = process.net_connections if hasattr(process, "net_connections") else process.connections
            for connection in connections_of("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    address = ip_address(connection.laddr.ip.partition("%")[0])
                    if any(overlaps(one, address) for one in wanted):
                        pids[address].add(process.pid)
    return [Listening(address, port, None, frozenset(found)) for address, found in pids.items()]


def _plain(address: Address) -> Address:
    return (address.version == 6 and address.ipv4_mapped) or address
