"""Look whether clients of this host reach a listening socket that processes of another user share.

Each of them can shut it down, and one that was taken over can pass a socket on that only looks like that of the port.
Everything here is read from the kernel in microseconds, and connects to nothing: load makes no false alarm.
"""

import errno
import fcntl
import os
import select
import socket
import sys
from contextlib import suppress

from xboard_circus.host import sockdiag

# asm-generic/socket.h and linux/un.h; Python has no names for them
_SO_NETNS_COOKIE = 71
_SIOCUNIXFILE = 0x89E0


def is_listening(of: socket.socket) -> bool:
    """Return whether a socket accepts connections."""
    return bool(of.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def is_shut_down(listener: socket.socket) -> bool:
    """Return whether a process that has this listener has shut it down; it then refuses all connections."""
    look = select.poll()
    look.register(listener, getattr(select, "POLLRDHUP", 0))
    # A unix socket is still said to listen.
    return not is_listening(listener) or bool(look.poll(0))


def unreachable_because(listener: socket.socket) -> str:
    """Return why no client of this host reaches *listener*, which another process has passed on; "" if one may.

    A user namespace needs no rights, and in one anybody can bind any address, or make any path.
    """
    if sys.platform != "linux":
        return ""
    if listener.family == socket.AF_UNIX:
        return "" if _is_bound_to_the_file_here(listener) else "its path is another file here"
    if not _is_in_our_network(listener):
        return "it listens in another network namespace"
    return ""


def _is_in_our_network(listener: socket.socket) -> bool:
    try:
        with socket.socket(listener.family, listener.type) as ours:
            cookies = {each.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) for each in (listener, ours)}
    except OSError:  # Linux before 5.14
        return bool(_listed(listener))
    return len(cookies) == 1


def _listed(listener: socket.socket) -> list[sockdiag.Listener]:
    """Return *listener* as it is listed among those of our network namespace."""
    inode = os.fstat(listener.fileno()).st_ino
    with suppress(OSError):
        return [each for each in sockdiag.listening(listener.getsockname()[1]) if each.inode == inode]
    return []


def _is_bound_to_the_file_here(listener: socket.socket) -> bool:
    """Return whether the file at the path of *listener* is its own; True where we may not know: root alone may."""
    try:
        descriptor = fcntl.ioctl(listener, _SIOCUNIXFILE)
    except OSError as error:
        return error.errno != errno.ENOENT
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(listener.getsockname()))
    except OSError:
        return False
    finally:
        os.close(descriptor)
