"""Show another command line and environment of this process, in `ps` and in /proc."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_NO_FILE = 2**32 - 1
_PLACES = "start_code end_code start_data end_data start_brk brk start_stack arg_start arg_end env_start env_end auxv"
_FIRST_FIELD = 3
"""Of what stands behind the name in /proc/self/stat (proc_pid_stat(5))."""

_shown: list[object] = []  # the kernel reads it for as long as the process lives


class _Map(ctypes.Structure):
    """``struct prctl_mm_map`` of <linux/prctl.h>."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in _PLACES.split()),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


def show(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Show *words* and *environ* as if the kernel had started this process with them; raise OSError if it cannot.

    By PR_SET_MM_MAP (prctl(2)), which needs no privilege, and which container runtimes and systemd use as well. A
    title as setproctitle writes it would go over the environment, by which others recognise this process.
    """
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    start_code, end_code, start_stack, start_data, end_data, start_brk = (
        int(fields[number - _FIRST_FIELD]) for number in (26, 27, 28, 45, 46, 47)
    )
    command = b"".join(os.fsencode(word) + b"\0" for word in words)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environ.items())
    text = ctypes.create_string_buffer(command + variables)
    begin = ctypes.addressof(text)
    middle, end = begin + len(command), begin + len(command + variables)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    places = (start_code, end_code, start_data, end_data, start_brk, libc.sbrk(ctypes.c_long(0)), start_stack)
    new = _Map(*places, begin, middle, middle, end, 0, 0, _NO_FILE)
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(new), ctypes.sizeof(new), 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _shown[:] = [text]
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(os.path.basename(words[0]))
