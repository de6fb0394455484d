"""Run one command once, beside circusd: as a worker would run it, with a limit, and never two at once."""

import asyncio
import fcntl
import os
import shlex
import subprocess
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from xboard_circus.core.one_shot import RunEnd
from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError
from xboard_circus.host import listeners, procs, runtime, session, users
from xboard_circus.supervisor.life.command_line import launch_command
from xboard_circus.supervisor.life.output import LastWords

if TYPE_CHECKING:
    from xboard_circus.supervisor.watcher import ArmedWatcher

TOKEN = "before"
"""Stands for a worker's token in the environment of such a run."""

REPORTING = '"$@" </dev/null; echo $? >&0'
"""A shell in front of the command writes its exit code into a pipe, because Circus reaps every child and drops the
code."""

LONGEST_CODE = 4
"""An exit code and the end of its line. The command can take this pipe out of the shell, and write into it."""

LEADER_BYTES = 64
"""Room in the lock's file for the leader of a run, taken before that is started: a full disk may have none after it."""

LOCK_POLL = 0.2
LAST_OUTPUT = 1.0
GRACE = 5.0


class OneShot:
    """One run of *command* for a watcher."""

    def __init__(self, armed: "ArmedWatcher", command: str, *, timeout: float) -> None:
        self._armed = armed
        self._command = shlex.split(command)
        self._folder = os.path.realpath(armed.watcher.working_dir)  # the same one through a link too
        self._timeout = timeout
        self._stop = asyncio.Event()
        self._words = LastWords(armed.hide)

    def stop(self) -> None:
        """End the run."""
        self._stop.set()

    async def run(self) -> RunEnd:
        """Run it, and return how it ended. Leftovers of such a run of an earlier circusd are ended first.

        Another circusd, and another watcher with the same command and folder, waits until the run has ended, even if
        this circusd is killed meanwhile: see `_lock`.
        """
        await asyncio.to_thread(_end_left, self._armed.supervisor.instance, self._armed.name)
        try:
            lock = await self._lock()
            if lock is None:
                return RunEnd(stopped=self._stop.is_set(), not_run=Say.BEFORE_WAITED(path=self._lock_file()))
            try:
                return await self._run(lock)
            finally:
                os.close(lock)
        except (OSError, XboardError) as error:
            return RunEnd(not_run=str(error))

    def _lock_file(self) -> str:
        key = runtime.digest("\0".join([self._folder, *self._command]))
        return str(runtime.root() / f"before-{key[:16]}.lock")

    async def _lock(self) -> int | None:
        """Return the lock as a descriptor, or None if another run has it for the whole time.

        The command does not inherit it: its user could write into root's file, and have a child keep the lock. A kill
        of circusd ends the lock, and the file still names the leader of the run's session.
        """
        lock = os.open(self._lock_file(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        give_up_at = self._armed.clock() + self._timeout
        while not self._stop.is_set() and self._armed.clock() < give_up_at:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not await asyncio.to_thread(_runs_still, lock):
                    return lock
            await asyncio.sleep(LOCK_POLL)
        os.close(lock)
        return None

    async def _run(self, lock: int) -> RunEnd:
        os.pwrite(lock, b" " * LEADER_BYTES, 0)
        (status, status_end), (output, output_end) = os.pipe(), os.pipe()
        try:
            popen = started(self._arguments(), self._armed.environment_of_spawn(), output_end, stdin=status_end)
        except OSError:
            for each in (status, output):
                os.close(each)
            raise
        finally:
            for each in (status_end, output_end):
                os.close(each)
        leader, reported = procs.Identity(popen.pid, procs.start_time(popen.pid) or 0), bytearray()
        os.pwrite(lock, str(leader).ljust(LEADER_BYTES).encode(), 0)
        watcher, tails = self._armed.watcher, self._armed.tails
        reading = asyncio.ensure_future(read_output(watcher, tails, popen.pid, output, self._words))

        def is_too_long(data: bytes) -> bool:
            reported.extend(data)
            return len(reported) > LONGEST_CODE

        ending = asyncio.ensure_future(read_all(status, is_too_long))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            done, _ = await asyncio.wait({ending, stopping}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(session.end_with_leader, leader, procs.now(), GRACE, users.uid_of(watcher))
            await asyncio.wait({reading}, timeout=LAST_OUTPUT)
        finally:
            for task in (reading, ending, stopping):
                task.cancel()
        popen.poll()
        code = int(reported) if reported.strip().isdigit() and len(reported) <= LONGEST_CODE else None
        late = self._timeout if not done else None
        return RunEnd(code, late, stopping in done and ending not in done, output=self._words.tail)

    def _arguments(self) -> list[str]:
        watcher = self._armed.watcher
        command = shlex.join(["/bin/sh", "-c", REPORTING, "sh", *self._command])
        given = {name: getattr(watcher, name) for name in ("uid", "gid", "rlimits")}
        like = SimpleNamespace(cmd=command, working_dir=self._folder, **given)
        return shlex.split(launch_command(like, wid=0, token=TOKEN))


def started(arguments: list[str], env: dict[str, str], output: int, **more: Any) -> subprocess.Popen[bytes]:
    """Start a process of ours beside the workers; the launcher in *arguments* enters the folder of the watcher."""
    return subprocess.Popen(arguments, cwd="/", env=env, stdout=output, stderr=output, start_new_session=True, **more)


async def read_output(watcher: Any, tails: dict[int, LastWords], pid: int, output: int, words: LastWords) -> None:
    """Write the output of a process that Circus does not know into the log to its end; then nothing stays in memory."""

    def take(data: bytes) -> None:
        words.add(data)
        if (stream := watcher.stderr_stream or watcher.stdout_stream) is not None:
            stream({"data": data, "pid": pid, "name": "stderr"})

    try:
        await read_all(output, take)
    finally:
        for stream in (watcher.stderr_stream, watcher.stdout_stream):
            if hasattr(stream, "forget"):
                stream.forget(pid)
        tails.pop(pid, None)


async def read_all(descriptor: int, take: Callable[[bytes], object]) -> None:
    """Pass the data of a pipe to *take*, until its other end is closed or *take* returns True; then close it."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        while (data := await reader.read(65536)) and take(data) is not True:
            pass
    finally:
        transport.close()


def _runs_still(lock: int) -> bool:
    """Return whether the run in the lock's file goes on, or a part of it; blocks."""
    try:
        leader = procs.Identity.parse(os.pread(lock, 100, 0).decode().strip())
    except ValueError:
        return False
    if procs.is_running(leader.pid, leader.started):
        return True
    return procs.start_time(leader.pid) in (None, leader.started) and bool(session.members(leader.pid))


def _end_left(instance: str, watcher: str) -> None:
    """End, in a thread, such a run of a circusd that is gone."""
    marks = {"XBOARD_WORKER": TOKEN, "XBOARD_WATCHER": watcher}.items()
    orphans = listeners.orphans(instance)
    listeners.stop([each for each in orphans if marks <= (procs.marks(each.pid or 0) or {}).items()], grace=GRACE)
