"""The first plugin of a circusd is forked from it; one that is started again is a program. Both are alike."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.host import procs

from .harness import BUNDLE, Circusd, circusd, eventually, kill
from .processes import Process, open_files, process

ALIKE = ("SigBlk:", "SigIgn:", "SigCgt:", "Umask:", "Uid:", "Gid:", "NoNewPrivs:", "Seccomp:", "Name:")


def plugin_of(c: Circusd, *, beside: int = 0) -> int:
    def found() -> int:
        pids = [pid for pid in c.call("list", name="plugin:xboard").get("pids", []) if pid != beside]
        return pids[0] if pids and is_up(c, pids[0]) else 0

    return eventually(found, what="the plugin is up")


def is_up(c: Circusd, pid: int) -> bool:
    """Return whether the plugin *pid* has written its first line, and then begun to handle SIGTERM."""
    log = c.folder / "logs" / "plugin-xboard.log"
    has_begun = log.exists() and f"pid {pid}, for circusd {c.pid}" in log.read_text()
    return has_begun and bool(int(str(facts(pid)["SigCgt:"]), 16) >> (signal.SIGTERM - 1) & 1)


def is_forked(c: Circusd, pid: int) -> bool:
    """Return whether *pid* has its stack where circusd has it: the kernel chooses another place for each program."""
    return end_of_stack(pid) == end_of_stack(c.pid)


def end_of_stack(pid: int) -> str:
    """Return the address at which the stack of *pid* begins to grow downwards."""
    areas = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(area.split()[0].partition("-")[2] for area in areas if area.endswith("[stack]"))


def facts(pid: int) -> dict[str, object]:
    """Return what others see of a process, and what it inherited."""
    status = [line.split(maxsplit=1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    streams = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
    return {
        **{line[0]: line[1] for line in status if line[0] in ALIKE},
        "streams": streams,
        "folder": os.readlink(f"/proc/{pid}/cwd"),
        "command": Path(f"/proc/{pid}/cmdline").read_bytes(),
        "environ": dict(procs.environ(pid) or {}),
        "limits": Path(f"/proc/{pid}/limits").read_text(),
        "leads its session": procs.session_of(pid) == pid,
    }


def files(pid: int) -> set[str]:
    return {name for name in open_files(pid).values() if name.startswith("/")}


def test_the_first_plugin_is_forked_and_is_like_one_that_is_started(tmp_path: Path) -> None:
    """Given a forked plugin, then nothing tells it from one that is started, and it holds no file of circusd's."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        first = plugin_of(c)
        c.wait_ready()
        assert is_forked(c, first)
        was = facts(first)
        assert files(first) & files(c.pid) == {"/dev/null"} < files(c.pid)
        kill(first)
        second = plugin_of(c, beside=first)

        assert not is_forked(c, second)
        assert facts(second) == was


def test_a_forked_plugin_does_its_work_and_ends_with_circusd(tmp_path: Path) -> None:
    """Given a forked plugin, when a worker hangs, then it has it replaced; when circusd is killed, it ends."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        plugin = plugin_of(c)
        sick = c.wait_ready()[0]
        kill(sick, signal.SIGSTOP)
        eventually(lambda: sick not in c.workers(), what="the hung worker is replaced")
        c.wait_ready()
        assert is_forked(c, plugin)
        assert c.call("list", name="plugin:xboard")["pids"] == [plugin]
        c.kill9()
        eventually(lambda: plugin not in [each.pid for each in c.processes()], what="the plugin has ended")


def test_a_plugin_whose_output_circusd_reads_is_started(tmp_path: Path) -> None:
    """Given a circusd that reads the output of its plugins, then the plugin is a program, and nothing waits."""
    with circusd(tmp_path, plugins=BUNDLE, circus={"debug": True}) as c:
        plugin = plugin_of(c)

        assert not is_forked(c, plugin)
        eventually(lambda: waiting(c) == [], what="what was prepared has ended")


def waiting(c: Circusd) -> list[int]:
    return [each.pid for each in c.processes() if "waits to become" in each.command]


PREPARE = """
import sys, time
from circus.plugins import get_plugin_cmd
from circus.process import Process
from xboard_circus.supervisor.patches import plugin_process
prepared = plugin_process.prepare()
print(prepared.pid, flush=True)
sys.stdin.readline()
bundle = {"use": "xboard_circus.plugins.bundle.Bundle"}
command = get_plugin_cmd(bundle, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", 5, None)
streams = dict(pipe_stdout=False, pipe_stderr=False)
print(prepared.become(Process("plugin:xboard", 1, command, spawn=False, **streams)), flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def prepared_child() -> Iterator[tuple[subprocess.Popen[str], Process]]:
    """Run a program that has prepared a plugin, and orders it when it reads a line; yield it and the child."""
    command = [sys.executable, "-c", PREPARE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            child = process(int(parent.stdout.readline()))
            eventually(lambda: "waits to become a plugin" in child.command, what="it waits")
            yield parent, child
        finally:
            parent.kill()
        eventually(lambda: not child.alive, what="the child has ended")


def test_what_waits_to_become_a_plugin_ends_with_a_killed_circusd() -> None:
    """Given a child that waits to become a plugin, when its parent is killed, then it ends."""
    with prepared_child() as (_, child):
        assert os.getsid(child.pid) == child.pid
        assert child.alive


def test_a_plugin_is_started_where_what_was_prepared_has_ended() -> None:
    """Given a child that waits to become a plugin, when it is killed, then circusd has nothing that becomes one."""
    with prepared_child() as (parent, child):
        kill(child.pid)
        eventually(lambda: not child.alive, what="it is dead")
        assert parent.stdin is not None
        assert parent.stdout is not None
        print(file=parent.stdin, flush=True)
        assert parent.stdout.readline() == "None\n"


NO_PROCESS_LEFT = """
import os, signal

def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")

os.fork = fork
from xboard_circus.supervisor.patches import plugin_process
print(plugin_process.prepare(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_a_circusd_that_may_not_fork_still_gets_its_signals() -> None:
    """Given no process left for circusd, when it would prepare a plugin, then it has none, and blocks no signal."""
    done = subprocess.run([sys.executable, "-c", NO_PROCESS_LEFT], capture_output=True, text=True, check=True)

    assert done.stdout == "None set()\n"
