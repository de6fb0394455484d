"""A program that another user of the host runs, with nothing of this test's: no environment, no folder, no group."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

PYTHON = "/usr/bin/python3"
"""A Python that every user may run, unlike the one of the tests; a test that needs it looks whether it is there."""

# As dbus-daemon does, it takes what anybody sends it, and knows nothing of it.
TAKES = """
import socket, sys
door = socket.socket(socket.AF_UNIX)
door.bind("\\0" + sys.argv[1])
door.listen()
print("takes", flush=True)
taken = socket.recv_fds(door.accept()[0], 1, 1)
print("has it", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def taking_descriptors(name: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process of root's that takes a descriptor from anybody at an abstract socket, within the block."""
    with running_as("root", TAKES, name) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "takes\n"
        yield taker


def run_as(user: str | None, code: str, *words: object) -> Any:
    """Run *code* as *user*, or as the test's own where that is None; return the JSON that it prints."""
    done = completed_as(user, [PYTHON, "-I", "-c", code, *map(str, words)])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def completed_as(user: str | None, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run *command* as *user*, or as the test's own where that is None, and return how it ended."""
    return subprocess.run(command, **_as(user), env=env, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def running_as(user: str, code: str, *words: object, stdin: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """Run *code* as *user* within the block, with pipes to its input, or *stdin*, and its output."""
    command = [PYTHON, "-I", "-c", code, *map(str, words)]
    with subprocess.Popen(command, **_as(user), env={}, stdin=stdin, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def _as(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": user, "extra_groups": None if user is None else [], "cwd": "/"}
