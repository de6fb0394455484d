#!/usr/bin/env python3
"""Become a Chromium to which the kernel does not show network interfaces.

Chromium breaks off every request of the moment in which an interface of the machine comes or goes, whichever it is and
whatever the request goes to (ERR_NETWORK_CHANGED), and does so up to two seconds later; containers of other tests make
and remove some all the time. Where it gets no netlink socket it takes the network for one that never changes.
"""

import ctypes
import errno
import os
import platform
import shutil
import socket
import struct
import sys

SOCKET = {"x86_64": 41, "aarch64": 198}
"""Number of the system call socket(2), by machine."""
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def refuse_netlink() -> None:
    """Have socket(AF_NETLINK, ...) fail in this process and in all that it becomes or starts, see seccomp(2)."""
    number = SOCKET.get(platform.machine())
    if number is None:
        return
    steps = (
        (LOAD, 0, 0, 0),  # the number of the call
        (JUMP_IF_EQUAL, 0, 3, number),
        (LOAD, 0, 0, 16),  # its first argument
        (JUMP_IF_EQUAL, 0, 1, socket.AF_NETLINK),
        (RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT),
        (RETURN, 0, 0, ALLOW),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filtered = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    for order in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filtered, 0, 0)):
        if libc.prctl(*order) != 0:
            print(f"netlink can't be refused: {os.strerror(ctypes.get_errno())}", file=sys.stderr)


if __name__ == "__main__":
    refuse_netlink()
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium") or "/usr/bin/chromium"
    os.execv(found, [found, *sys.argv[1:]])
