"""Root installs a service and types its command: what of root's the service's user gets by that."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from .harness import eventually
from .machine import Machine
from .operations import Checkout
from .test_operations_service import AS_USER, checkout, host_of, in_place_of_python  # noqa: F401 - a fixture
from .test_users import USER, open_folder, pytestmark, python  # noqa: F401 - fixtures, and the marks

TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441  # unlock a terminal, and open it, beside its master
TIOCGDEV = 0x80045432  # which terminal it is, also where it was opened as /dev/tty
# What a process of the service's user has, another one of that user has, which may trace it.
SPY = """
import fcntl, json, os, sys, termios
links = [f"/proc/self/fd/{each}" for each in [*range(3, 10), 200]]
files = [os.readlink(link) for link in links if os.path.exists(link)]
terminals = []
for place in (0, 1, 2, "/dev/tty"):
    try:
        opened = os.open(place, os.O_RDWR) if place == "/dev/tty" else place
        device = int.from_bytes(fcntl.ioctl(opened, TIOCGDEV, bytes(4)), "little")
    except OSError:
        continue
    may = ["read"] if fcntl.fcntl(opened, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY else []
    try:
        fcntl.ioctl(opened, termios.TIOCSTI, b"#")
        may.append("type")
    except OSError:
        pass
    terminals.append((device, may))
told = {"files": files, "environ": dict(os.environ), "terminals": terminals, "words": sys.argv[1:]}
told["pid"] = os.getppid()
print(json.dumps(told), file=open("TRACE", "a"))
"""
SPYING = """#!/bin/sh
[ "$(id -u)" = 0 ] || /usr/bin/python3 -I {spy} "$@"
case "$*" in
*" hang") exec sleep 60 ;;
*" copy") exec cat ;;
*" fail") exit 7 ;;
esac
exec {python} "$@"
"""
BACKEND = "/usr/local/bin/xboard-backend"


class Terminal:
    """A terminal of root's on the machine, with a secret in its environment and in an open file."""

    def __init__(self, host: Machine) -> None:
        self._host = host
        self._master = os.open(f"/proc/{host.pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(self._master, TIOCSPTLCK, bytes(4))
        self._slave = fcntl.ioctl(self._master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        self.device = int.from_bytes(fcntl.ioctl(self._slave, TIOCGDEV, bytes(4)), "little")

    def start(self, command: str, enter: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        inside = ["nsenter", "--mount", "--pid", f"--target={self._host.pid}", "--", *enter]
        env = {**self._host.environ, "SECRET": "hunter2", "TERM": "xterm"}
        script = f"cd / && exec 5</etc/passwd 200</etc/passwd && {command}"
        command_line = ["setsid", "--ctty", *inside, "bash", "-c", script]
        return subprocess.Popen(command_line, env=env, stdin=self._slave, stdout=self._slave, stderr=self._slave)

    def run(self, command: str, enter: Sequence[str] = ()) -> tuple[int, str]:
        """Run *command* in a shell; return its exit code, and what the terminal shows."""
        code = self.start(command, enter).wait(60)
        shown = os.read(self._master, 65536).decode() if select.select([self._master], [], [], 0)[0] else ""
        return code, shown.replace("\r\n", "\n")

    def interrupt(self) -> None:
        os.write(self._master, b"\x03")

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


def test_no_process_of_the_services_user_has_roots_terminal_environment_or_files(checkout: Checkout) -> None:  # noqa: F811
    """Given a spy in each process of the service's user, when root installs the service and types its command, alone or
    beside a pipe, then that user can neither type into root's terminal nor read what root types there, and the
    command works as any other: exit code, input, output, Ctrl-C.
    """
    spy, trace = checkout.folder.with_name("spy.py"), checkout.folder.with_name("trace")
    spy.write_text(SPY.replace("TIOCGDEV", str(TIOCGDEV)).replace("TRACE", str(trace)))
    trace.touch()
    shutil.chown(trace, USER)
    in_place_of_python(checkout, SPYING, spy=spy)

    def traces() -> list[dict[str, Any]]:
        return [json.loads(line) for line in trace.read_text().splitlines()]

    with host_of(checkout) as host, contextlib.closing(Terminal(host)) as terminal:
        code, shown = terminal.run(f"{checkout.folder}/scripts/install_service.sh unit --run-as {USER} >/dev/null")
        assert code == 0, shown
        assert terminal.run(f"{BACKEND} fail")[0] == 7
        assert terminal.run(f"{BACKEND} fail >/dev/null")[0] == 7
        assert "xboard-circus" in terminal.run(f"{BACKEND} --version")[1]
        assert terminal.run(f"echo text | {BACKEND} copy | od -An -c") == (0, "   t   e   x   t  \\n\n")
        assert terminal.run(f"echo some text | {BACKEND} copy")[1].endswith("some text\n")
        assert terminal.run(f"{BACKEND} copy | cat") == (0, "")
        for command in (f"{BACKEND} hang", f"{BACKEND} hang | cat"):
            before = len(traces())
            running = terminal.start(command)
            eventually(lambda: len(traces()) > before)  # noqa: B023
            terminal.interrupt()
            assert running.wait(90) in (130, -signal.SIGINT)
            eventually(lambda: host.inside(["test", "-e", f"/proc/{traces()[-1]['pid']}"]).returncode == 1)
        assert {words for each in traces() for words in each["words"]} >= {"check", "import xboard_circus", "hang"}
        for each in traces():
            assert not {"SECRET", "SUDO_COMMAND"} & set(each["environ"]), each
            assert [may for device, may in each["terminals"] if device == terminal.device and may] == [], each
            assert each["files"] == [], each

        own = terminal.run(f"{BACKEND} fail", AS_USER)
        assert own[0] == 7
        assert traces()[-1]["environ"]["SECRET"] == "hunter2"
