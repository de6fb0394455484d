"""A worker that was taken over: it makes children of circusd's (CLONE_PARENT), 300 that live, others that end at once.

It begins when the file `begin` is there, ends when it is gone, and writes how many it has made into the file `made`.
"""

import ctypes
import os
import signal
import sys
import time

LIVING, FLOODING, SECONDS = 300, 2, 120
CLONE_VM, CLONE_VFORK, CLONE_PARENT = 0x100, 0x4000, 0x8000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
libc = ctypes.PyDLL(None)  # it keeps the interpreter's lock, which nobody would give to the child
stack = ctypes.create_string_buffer(1 << 16)
top = ctypes.c_void_p((ctypes.addressof(stack) + len(stack) - 256) & ~63)


def clone() -> bool:
    """Make a child of the parent; return whether this is the child."""
    return int(libc.syscall(SYS_CLONE, *map(ctypes.c_long, (CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)))) == 0


def clone_to_exit() -> bool:
    """Make a child of the parent that ends at once; return whether there was room for one more."""
    return int(libc.clone(libc._exit, top, CLONE_PARENT | CLONE_VM | CLONE_VFORK | signal.SIGCHLD, None)) > 0


def main(folder: str) -> None:
    signal.alarm(SECONDS)
    while not os.path.exists(f"{folder}/begin"):
        time.sleep(0.02)
    for _ in range(LIVING):
        if clone():
            signal.alarm(SECONDS)
            signal.pause()
    number = next((each for each in range(1, FLOODING) if clone()), 0)
    signal.alarm(SECONDS)
    made = tried = 0
    while True:
        made += clone_to_exit()
        tried += 1
        if tried % 500 == 0 and not os.path.exists(f"{folder}/begin"):
            break
        if number == 0 and made % 500 == 0:
            with open(f"{folder}/made.new", "w", encoding="ascii") as file:
                file.write(str(made))
            os.replace(f"{folder}/made.new", f"{folder}/made")


if __name__ == "__main__":
    main(sys.argv[1])
