"""Query the Linux kernel (sock_diag) for sockets that listen on a TCP port, and for the other end of a connection.

Over netlink, as ``ss`` does: there the kernel filters the listeners of one port, and reports whether a socket on ``::``
takes IPv4 connections too. /proc/net/tcp6 does not show that, and has to be read past every open connection of the
machine; it is read where netlink is barred (a sandbox, RestrictAddressFamilies of systemd).
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_SKV6ONLY, _INET_DIAG_MD5SIG = 11, 18
_WITH_INFO = 1 << (2 - 1)  # INET_DIAG_INFO: keys come with it
_TCP_ESTABLISHED, _TCP_LISTEN = 1, 10

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, sender
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKET_ID = struct.Struct("=2s2s16s16sIQ")  # ports and addresses in network order, interface, cookie
_STATE = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_COUNTS = struct.Struct("=IIIII")  # expires, two queues, uid, inode
_ATTRIBUTE = struct.Struct("=HH")  # length, type

_PATIENCE = 2.0
_FULL = 0.75  # of a listener's queue, which is read while connections come and go


class Listener(NamedTuple):
    """A TCP socket that listens.

    Attributes:
        v6only: Takes no IPv4 connection; of meaning for IPv6 sockets only.
        inode: Its name in /proc/PID/fd: ``socket:[inode]``.
        has_md5_keys: Drops unsigned packets; the kernel reports that to root alone (CAP_NET_ADMIN).
    """

    address: IPv4Address | IPv6Address
    v6only: bool
    inode: int
    uid: int
    has_md5_keys: bool = False


def listening(port: int) -> list[Listener]:
    """Return every TCP socket of this network namespace that listens on *port*.

    Each once: the kernel lists one twice where others begin or end while it is read.
    """
    try:
        found = [*by_netlink(port, socket.AF_INET), *by_netlink(port, socket.AF_INET6)]
    except OSError:
        found = [*by_table(port, "/proc/net/tcp"), *by_table(port, "/proc/net/tcp6")]
    return list(dict.fromkeys(found))


def is_full(port: int) -> bool:
    """Return whether connections fill the queue of a listener on *port*, so that the kernel drops new ones; False where
    the kernel does not say."""
    with suppress(OSError):
        for message in _query(socket.AF_INET, 1 << _TCP_LISTEN, _id_of(port), _NLM_F_DUMP):
            _, queued, most, *_ = _COUNTS.unpack_from(message, _STATE.size + _SOCKET_ID.size)
            if queued > most * _FULL:
                return True
    return False


class Peer(NamedTuple):
    """The other end of a TCP connection within this host.

    Attributes:
        maker: The uid that made the socket. It proves nothing of who uses it: a listener that root made and handed on
            to a worker of another user can be shut down, and connected anew, by that worker.
        inode: Its name in /proc/PID/fd: ``socket:[inode]``.
    """

    maker: int
    inode: int


def peer_of(connection: socket.socket) -> Peer | None:
    """Return the other end of a TCP connection within this host.

    None where it is unknown: the other end is on another host, or closed already. The kernel gives a socket that no
    process has open any longer to user 0, so a connection closed at its other end proves nothing.
    """
    near, far = (end[:2] for end in (connection.getsockname(), connection.getpeername()))
    with suppress(OSError):
        return _peer_by_netlink(near, far)
    return _peer_by_table(near, far)


def knows_users() -> bool:
    """Return whether `peer_of` works on this host; a sandbox may have neither netlink nor the tables."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            with client, server.accept()[0] as accepted:
                peer = peer_of(accepted)
                return peer is not None and peer.maker == os.geteuid()
    except OSError:
        return False


def _peer_by_netlink(near: tuple[str, int], far: tuple[str, int]) -> Peer | None:
    family = socket.AF_INET6 if ":" in far[0] else socket.AF_INET
    addresses = [socket.inet_pton(family, host) for host, _ in (far, near)]
    ports = b"".join(port.to_bytes(2, "big") for _, port in (far, near))
    socket_id = _SOCKET_ID.pack(ports[:2], ports[2:], *addresses, 0, 0xFFFF_FFFF_FFFF_FFFF)
    with suppress(FileNotFoundError):
        for message in _query(family, 1 << _TCP_ESTABLISHED, socket_id, 0):
            _, state, *_ = _STATE.unpack_from(message)
            found = _listener(message)
            return Peer(found.uid, found.inode) if state == _TCP_ESTABLISHED and found.inode else None
    return None


def _peer_by_table(near: tuple[str, int], far: tuple[str, int]) -> Peer | None:
    ends = [(ip_address(host), port) for host, port in (far, near)]
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(path, encoding="ascii") as table:
            for line in table:
                _, local, remote, state, *rest = line.split()
                if state == f"{_TCP_ESTABLISHED:02X}" and [_end(local), _end(remote)] == ends and rest[5] != "0":
                    return Peer(int(rest[3]), int(rest[5]))
    return None


def _end(digits: str) -> tuple[IPv4Address | IPv6Address, int]:
    host, _, port = digits.partition(":")
    address = _address(host)
    return (address.version == 6 and address.ipv4_mapped) or address, int(port, 16)


def by_netlink(port: int, family: int) -> Iterator[Listener]:
    """Yield the listeners on *port* of one family; OSError where netlink is barred."""
    yield from map(_listener, _query(family, 1 << _TCP_LISTEN, _id_of(port), _NLM_F_DUMP, _WITH_INFO))


def _id_of(port: int) -> bytes:
    return _SOCKET_ID.pack(port.to_bytes(2, "big"), b"", b"", b"", 0, 0xFFFF_FFFF_FFFF_FFFF)


def _query(family: int, states: int, socket_id: bytes, flags: int, extensions: int = 0) -> Iterator[bytes]:
    """Query the kernel for one socket or, with _NLM_F_DUMP, for all; yield its replies."""
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, states) + socket_id
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, 1, 0)
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
                yield message
                if not flags:
                    return


def by_table(port: int, path: str) -> Iterator[Listener]:
    """Yield the listeners on *port* in a table of the kernel; those on ``::`` as if they took IPv4."""
    with suppress(FileNotFoundError), open(path, encoding="ascii") as table:  # a machine without IPv6
        for line in table:
            _, local, _, state, *rest = line.split()
            if state == f"{_TCP_LISTEN:02X}" and local.endswith(f":{port:04X}"):
                yield Listener(_address(local.partition(":")[0]), False, int(rest[5]), int(rest[3]))


def _address(digits: str) -> IPv4Address | IPv6Address:
    """Parse an address that the kernel wrote in 32-bit words of the machine's own order."""
    words = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _listener(message: bytes) -> Listener:
    family, *_ = _STATE.unpack_from(message)
    _, _, source, *_ = _SOCKET_ID.unpack_from(message, _STATE.size)
    *_, uid, inode = _COUNTS.unpack_from(message, _STATE.size + _SOCKET_ID.size)
    attributes = dict(_records(_ATTRIBUTE, message[_STATE.size + _SOCKET_ID.size + _COUNTS.size :]))
    address = IPv4Address(source[:4]) if family == socket.AF_INET else IPv6Address(source)
    v6only = attributes.get(_INET_DIAG_SKV6ONLY, b"\0") != b"\0"
    return Listener(address, v6only, inode, uid, _INET_DIAG_MD5SIG in attributes)


def _records(header: struct.Struct, rest: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, content) of records whose *header* begins with their length and type, aligned to 4 bytes."""
    while len(rest) >= header.size:
        size, kind, *_ = header.unpack_from(rest)
        yield kind, rest[header.size : size]
        rest = rest[max(header.size, (size + 3) & ~3) :]
