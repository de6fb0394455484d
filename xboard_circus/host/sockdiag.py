"""Query the Linux kernel (sock_diag) for sockets that listen on a TCP port.

Over netlink, as ``ss`` does: there the kernel picks the listeners of one port by itself, and says whether a socket on
``::`` takes IPv4 connections too. /proc/net/tcp6 does not say that, and has to be read past every open connection of
the machine; it is read where netlink is barred (a sandbox, RestrictAddressFamilies of systemd).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_SKV6ONLY = 11
_TCP_LISTEN = 10

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, sender
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, wanted states
_SOCKET_ID = struct.Struct("=2s2s16s16sIQ")  # ports and addresses in network order, interface, cookie
_STATE = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_COUNTS = struct.Struct("=IIIII")  # expires, two queues, uid, inode
_ATTRIBUTE = struct.Struct("=HH")  # length, type

_PATIENCE = 2.0


class Listener(NamedTuple):
    """A TCP socket that listens.

    Attributes:
        v6only: Takes no IPv4 connection; of meaning for IPv6 sockets only.
        inode: What a descriptor of it is called in /proc/PID/fd: ``socket:[inode]``.
    """

    address: IPv4Address | IPv6Address
    v6only: bool
    inode: int
    uid: int


def listening(port: int) -> list[Listener]:
    """Return every TCP socket of this network namespace that listens on *port*, whoever holds it."""
    try:
        return [*by_netlink(port, socket.AF_INET), *by_netlink(port, socket.AF_INET6)]
    except OSError:
        return [*by_table(port, "/proc/net/tcp"), *by_table(port, "/proc/net/tcp6")]


def by_netlink(port: int, family: int) -> Iterator[Listener]:
    """Yield the listeners on *port* of one family; OSError where netlink is barred."""
    wanted = _SOCKET_ID.pack(port.to_bytes(2, "big"), b"", b"", b"", 0, 0xFFFF_FFFF_FFFF_FFFF)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN) + wanted
    length = _HEADER.size + len(request)
    header = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_PATIENCE)
        netlink.sendto(header + request, (0, 0))
        while True:
            for kind, message in _records(_HEADER, netlink.recv(1 << 17)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -int.from_bytes(message[:4], sys.byteorder, signed=True)
                    raise OSError(number or errno.EPROTO, "sock_diag refused")
                yield _listener(message)


def by_table(port: int, path: str) -> Iterator[Listener]:
    """Yield the listeners on *port* that a table of the kernel's lists; those on ``::`` as if they took IPv4."""
    try:
        with open(path, encoding="ascii") as table:
            for line in table:
                _, local, _, state, *rest = line.split()
                if state == f"{_TCP_LISTEN:02X}" and local.endswith(f":{port:04X}"):
                    yield Listener(_address(local.partition(":")[0]), False, int(rest[5]), int(rest[3]))
    except FileNotFoundError:  # a machine without IPv6
        return


def _address(digits: str) -> IPv4Address | IPv6Address:
    """Read an address that the kernel wrote in 32-bit words of the machine's own order."""
    words = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _listener(message: bytes) -> Listener:
    family, *_ = _STATE.unpack_from(message)
    _, _, source, *_ = _SOCKET_ID.unpack_from(message, _STATE.size)
    *_, uid, inode = _COUNTS.unpack_from(message, _STATE.size + _SOCKET_ID.size)
    attributes = dict(_records(_ATTRIBUTE, message[_STATE.size + _SOCKET_ID.size + _COUNTS.size :]))
    address = IPv4Address(source[:4]) if family == socket.AF_INET else IPv6Address(source)
    return Listener(address, attributes.get(_INET_DIAG_SKV6ONLY, b"\0") != b"\0", inode, uid)


def _records(header: struct.Struct, rest: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, content) of records whose *header* begins with their length and type, aligned to 4 bytes."""
    while len(rest) >= header.size:
        size, kind, *_ = header.unpack_from(rest)
        yield kind, rest[header.size : size]
        rest = rest[max(header.size, (size + 3) & ~3) :]
