"""Keep the memory of this process small."""

import re
from contextlib import suppress

SETTLED = 2.5  # seconds after which a process has read what only its start needs
_ONLY_READ = re.compile(rb"^(\w+)-(\w+) r-[x-]p \S+ \S+ [1-9].*\n(?:[A-Z].*\n)*?Anonymous: +0 kB", re.MULTILINE)
"""Mappings of files in /proc/PID/smaps (proc_pid_smaps(5)), without a page that the process has written."""


def keep_large_blocks_apart() -> None:
    """Have malloc take each block of 128 KiB or more from the kernel, and give it back, for as long as we live.

    glibc stops that once such a block was freed. Then the next, such as a larger table of Python's interned strings,
    grows its heap, where the last one leaves a hole that is too small for it. Do nothing where there is no mallopt.
    """
    import ctypes  # circusd has it already, and with it the plugin that it forks

    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 128 << 10)  # M_MMAP_THRESHOLD


def give_back_libraries() -> None:
    """Unmap the pages of libraries that were only read, most of them in the import; the kernel's cache keeps them.

    Those that are read again are mapped again. What this process has itself written to a mapping, such as addresses
    that the linker put in, would be lost (madvise(2)), so a mapping with any such page keeps all.
    """
    import ctypes  # not in the time of a start, and in no worker

    libc = ctypes.CDLL(None)
    with suppress(OSError), open("/proc/self/smaps", "rb") as maps:  # some kernels have none
        for start, end in _ONLY_READ.findall(maps.read()):
            first, size = int(start, 16), int(end, 16) - int(start, 16)
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), 4)  # MADV_DONTNEED
