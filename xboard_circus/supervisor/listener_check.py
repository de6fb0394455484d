"""Check whether clients of this host reach a listening socket that processes of another user share.

Each of these processes can shut it down, or set options on it that have the kernel drop connections, and the options
outlive the process; a worker that was taken over can pass on a socket that only looks like the port's. Everything here
is read from the kernel in microseconds, and connects to nothing: load makes no false alarm.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress

from xboard_circus.host import sockdiag, unix_sockets
from xboard_circus.host.backlog import backlog_of

# asm-generic/socket.h, linux/in.h, in6.h and un.h; Python has no names for them
_SO_DETACH_FILTER, _SO_MEMINFO, _SO_NETNS_COOKIE = 27, 55, 71
_SIOCUNIXFILE = 0x89E0
_MEMORY = struct.Struct("=9I")
_OPTION_MEMORY = 6  # SK_MEMINFO_OPTMEM: of filters, keys and the like; no server needs any
_LARGEST = 16
_SHORT_BACKLOG = 64
"""No server chooses a shorter queue: asyncio's is 100, uvicorn's 2048."""
_DEAFENING = {
    "SO_BINDTODEVICE": (socket.SOL_SOCKET, getattr(socket, "SO_BINDTODEVICE", 25)),
    "SO_DONTROUTE": (socket.SOL_SOCKET, socket.SO_DONTROUTE),
    "IP_TTL": (socket.IPPROTO_IP, socket.IP_TTL),
    "IP_MINTTL": (socket.IPPROTO_IP, 21),
    "IPV6_UNICAST_HOPS": (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    "IPV6_MINHOPCOUNT": (socket.IPPROTO_IPV6, 73),
}
_INHERITED = {
    "SO_RCVLOWAT": (socket.SOL_SOCKET, socket.SO_RCVLOWAT),
    "SO_LINGER": (socket.SOL_SOCKET, socket.SO_LINGER),
}
if sys.platform == "linux":
    _INHERITED |= {f"SO_{name}": (socket.SOL_SOCKET, number) for name, number in {
        "REUSEADDR": 2, "SNDBUF": 7, "RCVBUF": 8, "REUSEPORT": 15, "RCVTIMEO": 20, "SNDTIMEO": 21, "MARK": 36,
        "TIMESTAMPING": 37, "BUSY_POLL": 46, "MAX_PACING_RATE": 47, "PREFER_BUSY_POLL": 69, "BUF_LOCK": 72,
    }.items()}  # fmt: skip
    _INHERITED |= {f"TCP_{name}": (socket.IPPROTO_TCP, number) for name, number in {
        "NODELAY": 1, "MAXSEG": 2, "CORK": 3, "KEEPIDLE": 4, "KEEPINTVL": 5, "KEEPCNT": 6, "SYNCNT": 7, "LINGER2": 8,
        "DEFER_ACCEPT": 9, "WINDOW_CLAMP": 10, "CONGESTION": 13, "USER_TIMEOUT": 18, "NOTSENT_LOWAT": 25,
        "TX_DELAY": 37, "RTO_MAX_MS": 44,
    }.items()}  # fmt: skip
    _INHERITED |= {f"IP_{name}": (socket.IPPROTO_IP, number) for name, number in {
        "TOS": 1, "MTU_DISCOVER": 10, "RECVERR": 11,
    }.items()}  # fmt: skip
    _INHERITED |= {f"IPV6_{name}": (socket.IPPROTO_IPV6, number) for name, number in {
        "MTU_DISCOVER": 23, "RECVERR": 25, "TCLASS": 67,
    }.items()}  # fmt: skip
"""What connections inherit and what cuts, stalls or slows them, as tried on Linux 6.18. The rest of what they inherit
(SO_KEEPALIVE alone, SO_OOBINLINE, SO_ZEROCOPY, TCP_QUICKACK, IP_PKTINFO and the like) does no harm."""
_CHOSEN_BY_SERVERS = frozenset({"SO_SNDBUF", "SO_RCVBUF", "SO_REUSEPORT", "SO_BUF_LOCK", "TCP_DEFER_ACCEPT"})
_WRITTEN = {
    "SO_LINGER": unix_sockets.DOES_NOT_LINGER,
    "TCP_MAXSEG": bytes(4),  # it reads as 536 where it is not set
    "TCP_WINDOW_CLAMP": struct.pack("=i", 0xFFFF << 14),  # the largest window: a listener takes no 0
}


class CannotPutBack(OSError):
    """Options of a listener that the kernel does not let us restore."""


def is_listening(of: socket.socket) -> bool:
    """Return whether a socket accepts connections."""
    return bool(of.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def is_shut_down(listener: socket.socket) -> bool:
    """Return whether a process with this listener has shut it down; it then refuses all connections."""
    look = select.poll()
    look.register(listener, getattr(select, "POLLRDHUP", 0))
    # The kernel still reports a unix socket as listening.
    return not is_listening(listener) or bool(look.poll(0))


def deafened_by(listener: socket.socket) -> str:
    """Return the name of an option on *listener* by which the kernel drops connections; "" without one.

    Options are compared with those of a fresh socket, because the host sets the default of a TTL. A filter is not read,
    because the kernel would write all of it into our buffer, of any size: it is removed, which fails with ENOENT
    without one. The kernel shows MD5 keys to root alone, and TCP-AO keys to no user.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    with socket.socket(listener.family, listener.type) as fresh:
        for name, option in _DEAFENING.items():
            with suppress(OSError):  # of the other family, or not in this kernel
                if listener.getsockopt(*option, _LARGEST) != fresh.getsockopt(*option, _LARGEST):
                    return name
    if not _option_memory(listener):
        return ""
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return "TCP_MD5SIG" if any(each.has_md5_keys for each in _listed(listener)) else ""
    return "SO_ATTACH_FILTER"


def inherited(like: socket.socket, *, ours: bool = True) -> dict[str, bytes]:
    """Return the options that a listener of the family of *like* has when circusd has just bound it.

    They are read from a fresh socket, because *like* may come from a worker. If the server is not *ours*, what servers
    choose for themselves is left out. From a unix socket connections inherit none of them; circusd closes it itself.
    """
    with socket.socket(like.family, like.type) as fresh:
        if like.family == socket.AF_UNIX:
            names = {"SO_RCVLOWAT", "SO_LINGER"}
        else:
            names = _INHERITED.keys() - (() if ours else _CHOSEN_BY_SERVERS)
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = {name: _value(fresh, name) for name in _INHERITED if name in names}
    return {name: value for name, value in found.items() if value is not None}


def put_back(listener: socket.socket, wanted: Mapping[str, bytes], *, backlog: int, blocking: bool | None) -> str:
    """Restore what connections inherit from *listener*, as `inherited` noted it; return the names of what was changed.

    The listener is one for all workers: TCP_USER_TIMEOUT resets slow readers, SO_RCVLOWAT leaves requests unread,
    SO_LINGER cuts answers or blocks the workers that close, without O_NONBLOCK they hang in accept(), and a short queue
    drops connections. With None as *blocking* that is the server's choice.

    Raises:
        CannotPutBack: The kernel refuses to restore some.
    """
    changed = [name for name, value in wanted.items() if _value(listener, name) not in (value, _WRITTEN.get(name))]
    for name in [*changed, *({"SO_BUF_LOCK"} & wanted.keys() if changed else ())]:  # SO_RCVBUF and SO_SNDBUF set it
        value = _WRITTEN.get(name, wanted[name])
        if name in ("SO_SNDBUF", "SO_RCVBUF"):  # the kernel doubles them
            value = struct.pack("=i", int.from_bytes(value, sys.byteorder) // 2)
        with suppress(OSError):
            listener.setsockopt(*_INHERITED[name], value)
    if stuck := [name for name in changed if _value(listener, name) not in (wanted[name], _WRITTEN.get(name))]:
        raise CannotPutBack(", ".join(stuck))
    if blocking is not None and os.get_blocking(listener.fileno()) != blocking:
        os.set_blocking(listener.fileno(), blocking)
        changed.append("O_NONBLOCK")
    if (waiting := backlog_of(listener)) is None or waiting < min(_SHORT_BACKLOG, backlog):
        listener.listen(backlog)
        if waiting is not None and waiting != backlog_of(listener):  # the host may allow no more
            changed.append("backlog")
    return ", ".join(changed)


def _value(of: socket.socket, name: str) -> bytes | None:
    """Return the value of an option; None if the family or this kernel has no such option."""
    with suppress(OSError):
        return of.getsockopt(*_INHERITED[name], 4 if name == "SO_LINGER" else _LARGEST)  # the time without it is kept
    return None


def file_at(path: str) -> tuple[int, int] | None:
    """Return which file is at *path*; None without one. OSError where that is not known."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def unreachable_because(listener: socket.socket) -> str:
    """Return why no client of this host reaches *listener*, which another process has passed on; "" if one may.

    A user namespace needs no rights, and in one any user can bind any address, or make any path.
    """
    if sys.platform != "linux":
        return ""
    if listener.family == socket.AF_UNIX:
        return "" if _is_bound_to_the_file_here(listener) else "its path is another file here"
    if not _is_in_our_network(listener):
        return "it listens in another network namespace"
    option = deafened_by(listener)
    return option and f"{option} is set on it"


def _option_memory(listener: socket.socket) -> int:
    with suppress(OSError):
        memory = listener.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
        return int(_MEMORY.unpack(memory)[_OPTION_MEMORY])
    return 0


def _is_in_our_network(listener: socket.socket) -> bool:
    try:
        with socket.socket(listener.family, listener.type) as ours:
            cookies = {each.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) for each in (listener, ours)}
    except OSError:  # Linux before 5.14
        return bool(_listed(listener))
    return len(cookies) == 1


def _listed(listener: socket.socket) -> list[sockdiag.Listener]:
    """Return *listener* as listed in our network namespace."""
    inode = os.fstat(listener.fileno()).st_ino
    with suppress(OSError):
        return [each for each in sockdiag.listening(listener.getsockname()[1]) if each.inode == inode]
    return []


def _is_bound_to_the_file_here(listener: socket.socket) -> bool:
    """Return whether the file at the path of *listener* is its own; True for any file where only root may know."""
    try:
        descriptor = fcntl.ioctl(listener, _SIOCUNIXFILE)
    except OSError as error:
        return error.errno != errno.ENOENT and os.path.exists(listener.getsockname())
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(listener.getsockname()))
    except OSError:
        return False
    finally:
        os.close(descriptor)
