"""Run the forkserver of one watcher: a process that has imported the server, and forks workers on our orders.

A forked worker is circusd's own child, because the kernel gives it to its nearest subreaper as its parent ends at once.
So Circus, the signals and the reaping notice no difference. No spawn depends on it: if it does not fork at once, a
worker is started as ever. Only the start of a watcher and a reload wait for its import.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from circus import logger

from xboard_circus.core.amounts import size_text
from xboard_circus.core.causes import Death, cause_of
from xboard_circus.core.durations import backoff, exactly
from xboard_circus.core.names import runs_dashboard
from xboard_circus.core.reason import data_of
from xboard_circus.core.sentences import Say, as_said
from xboard_circus.core.state_schema import PreloadEntry
from xboard_circus.host import procs, session, unix_sockets, users
from xboard_circus.host.request_slots import VARIABLE
from xboard_circus.masking import safe_text
from xboard_circus.supervisor import prepared_forkserver
from xboard_circus.supervisor.boundary import is_shortage
from xboard_circus.supervisor.forkable import USUAL, command_text, why_not_forkable
from xboard_circus.supervisor.life.command_line import launch_command
from xboard_circus.supervisor.life.count_end import LEFT_BEHIND_GRACE
from xboard_circus.supervisor.life.output import LastWords
from xboard_circus.supervisor.life.start import found_late
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.patches.circus_process import Forked
from xboard_circus.supervisor.run_once import read_output, started
from xboard_circus.worker import fork_orders

if TYPE_CHECKING:
    from xboard_circus.supervisor.watcher import ArmedWatcher

ANSWERS_WITHIN = 0.2
AS_LONG_AS_A_START = 0.05
MOST_WAITED, FORGOTTEN_IN = 2.0, 60.0
"""Besides the time of a start, circusd waits for answers for 2 s at most; within a minute that is forgotten."""
MOST_UNANSWERED = 2
MOST_RENEWED = 3  # for the environment of the next worker, one after the other
MOST_GROWN = 2  # times its memory after the import: a hook of the app's that runs at each fork may keep something
KILLED = [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP]
"""How a forkserver ends that has not crashed by itself."""
IMPORTS_WITHIN = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
OF_ONE_WORKER = ("--wid", "--worker", "--env")


class _Basis(NamedTuple):
    """Common basis of a forkserver and its workers: a change of it takes another forkserver."""

    options: list[tuple[str, str]]
    command: list[str]
    env: dict[str, str]


class Forks:
    """The forkserver of one armed watcher, if it has one.

    Attributes:
        state: "off", "importing", "ready" or "failed".
        reason: Why none forks, or why it has imported less than configured.
    """

    _next: Forks | None = None
    """What imports the current code in a reload, to take its place."""

    def __init__(self, armed: ArmedWatcher) -> None:
        self.armed = armed
        self.state, self.reason = "off", ""
        self._level = self._why = ""
        self._configured_for: tuple[str, tuple[str, ...]] = "", ()
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._leader: procs.Identity | None = None
        self._orders: socket.socket | None = None
        self._basis: _Basis | None = None
        self._user = os.geteuid()
        self.words = LastWords(armed.hide)
        self._answered = asyncio.Event()
        self._failures = self._unanswered = self._renewed = 0
        self._says_nothing = False
        self._began_at = self._again_at = self._waited_at = float("-inf")
        self._waited, self._most_memory = 0.0, float("inf")

    def view(self) -> PreloadEntry:
        """Return its entry in `xboard_state`."""
        pid = None if self._process is None else self._process.pid
        reason, say = self.reason, data_of(self.reason)
        return {"level": self._level, "state": self.state, "pid": pid, "reason": reason, "say": say}

    def pids(self) -> list[int]:
        return [each._process.pid for each in (self, self._next) if each is not None and each._process is not None]

    def keep_up(self) -> None:
        """Start one if it is configured and missing, and the last one did not fail a moment ago."""
        armed = self.armed
        level, why_not = self._configured()
        if level == "off":
            if why_not and why_not != self.reason:
                logger.warning("xboard: %s: %s", armed.name, why_not)
            self._end(why_not)
            return
        if self._orders is not None and self._wanted() != self._configured_for:
            self._end()  # the options have changed
        limit = armed.options.health.startup_timeout
        if self.state == "importing" and armed.clock() - self._began_at > limit:
            self._give_up(limit)
        is_missing = self._orders is None and armed.is_running() and not armed.before.lacks_env
        if is_missing and armed.clock() >= self._again_at:
            self._configured_for = self._wanted()
            self._begin(level)

    def _configured(self) -> tuple[str, str]:
        """Return the configured level, and why it is "off" in spite of the options."""
        armed, watcher = self.armed, self.armed.watcher
        text = command_text(watcher.cmd, watcher.args)
        # The page is one process without waiting clients: a second one to fork it from would cost 20 MiB.
        if armed.options.worker.preload == "off" or not armed.has_private_socket or runs_dashboard(text):
            return "off", ""
        if not sys.platform.startswith("linux"):
            return "off", Say.NO_FORKS_HERE()
        why_not = why_not_forkable(text, {name: getattr(watcher, name) for name in USUAL})
        return ("off", why_not) if why_not else (armed.options.worker.preload, "")

    def _wanted(self) -> tuple[str, tuple[str, ...]]:
        return self.armed.options.worker.preload, self.armed.options.worker.preload_modules or ()

    async def for_start(self) -> None:
        """Wait for the import, so that the workers of a start are forked; not for long, since no worker serves."""
        await self._until_ready(IMPORTS_WITHIN)
        if self.state == "importing" and self._level == "app":
            self.reason = Say.IMPORT_TAKES_LONG(limit=exactly(IMPORTS_WITHIN))
            self.armed.note_reason(self.reason)

    async def _until_ready(self, seconds: float) -> None:
        self.keep_up()
        give_up_at = self.armed.clock() + seconds
        # It may be another one by then: an app that must not be forked is left to the workers.
        while self.state == "importing" and self.armed.clock() < give_up_at:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._answered.wait(), give_up_at - self.armed.clock())

    async def renew(self) -> tuple[str, str]:
        """Have one with the current code take its place; return why the app was not imported, "" if it was, and the
        output of that.

        The old workers serve meanwhile, so the import of an app may take as long as a start, and this one forks until
        it has succeeded. One that is killed or stopped in the middle says nothing of the code, and has a second try.
        """
        new = self._next = Forks(self.armed)
        is_app = self._configured()[0] == "app"
        for _ in range(2):
            new._again_at, new._says_nothing = float("-inf"), False
            await new._until_ready(self.armed.options.health.startup_timeout if is_app else IMPORTS_WITHIN)
            if self._next is not new:  # the watcher was stopped
                return "", ""
            new.keep_up()  # which gives up what takes too long
            if not new._says_nothing:
                break
        self._next = None
        if new.state == "failed" and new._level == "app":
            return (Say.IMPORT_BROKEN_OFF if new._says_nothing else Say.NOT_IMPORTED)(why=new._why), new.words.tail
        self._end()
        self.armed.forks = new
        return "", ""

    def end(self) -> None:
        """End it, and the one that was to take its place."""
        for each in filter(None, (self, self._next)):
            each._end()
        self._next = None

    def _end(self, reason: str = "") -> None:
        """End it, and what a failed import has started. It holds nothing that another process needs."""
        orders, process, leader = self._orders, self._process, self._leader
        self._orders = self._process = self._leader = self._basis = None
        self.state, self.reason = "off", reason
        self._answered.set()
        if orders is not None:
            self.armed.supervisor.loop.remove_reader(orders)
            unix_sockets.close(orders)
        if process is not None:
            with suppress(psutil.Error):
                process.kill()  # first looks whether it is dead
        if leader is not None:
            ended = asyncio.to_thread(session.end_with_leader, leader, procs.now(), LEFT_BEHIND_GRACE, self._user)
            self.armed.supervisor.run(ended, f"the end of what forkserver {leader.pid} left behind")

    # Start

    def _begin(self, level: str, *, instead: str = "") -> None:
        """Start one of *level*; *instead* is the reason for another level than the configured one."""
        armed = self.armed
        procs.adopt_orphans()
        env = armed.environment_of_spawn()
        command = launch_command(armed.watcher, wid=0, token="forkserver")
        arguments = circus_process.arguments(armed.watcher, command, env)
        self._user = users.uid_of(armed.watcher)
        self._level, self._basis, self.words = level, _basis(arguments, env), LastWords(armed.hide)
        self._began_at, self._unanswered = armed.clock(), 0
        self._answered.clear()
        try:
            self._process, ours, output = self._spawn(arguments, env)
        except OSError as error:
            self._failed(str(error))
            return
        ours.setblocking(False)
        self._orders, self.state, self.reason = ours, "importing", instead
        pid = self._process.pid
        self._leader = procs.Identity.of(pid)
        reading = read_output(armed.watcher, armed.tails, pid, output, self.words)
        self._output = armed.supervisor.run(reading, f"the output of forkserver {pid}")
        armed.supervisor.loop.add_reader(ours, self._read_messages)

    def _spawn(
        self, arguments: list[str], env: dict[str, str]
    ) -> tuple[subprocess.Popen[bytes] | Forked, socket.socket, int]:
        """Start it by a launcher's *arguments*; return it, and our ends of its channel and its output."""
        arbiter = self.armed.supervisor.arbiter
        with ExitStack() as theirs, ExitStack() as ours:
            channel, their_channel = _channel()
            ours.enter_context(channel)
            theirs.enter_context(their_channel)
            output, their_output = os.pipe()
            ours.callback(os.close, output)
            theirs.callback(os.close, their_output)
            env = {**env, **fork_orders.variables(their_channel, self._level, self._configured_for[1])}
            number = their_channel.fileno()
            umask = arbiter.umask if isinstance(arbiter.umask, int) else None
            paths = {(each.env or {}).get("PYTHONPATH", "") for each in arbiter.watchers if not each.copy_path}
            pid = prepared_forkserver.take(arguments, env, paths, umask, [their_output, number])
            process: subprocess.Popen[bytes] | Forked = (
                started(arguments, env, their_output, stdin=subprocess.DEVNULL, pass_fds=(number,))
                if pid is None
                else Forked(pid, None, None)
            )
            ours.pop_all()
            return process, channel, output

    def _read_messages(self) -> None:
        """Read its messages: that it is ready, or why it cannot fork; or notice its end."""
        assert self._orders is not None
        assert self._process is not None
        try:
            said, pid = _receive(self._orders, 4096)
        except BlockingIOError:
            return
        except OSError:
            said, pid = b"", 0
        if said == fork_orders.READY and pid == self._process.pid and self.state == "importing":  # once, not in a flood
            self.state, self._why = "ready", ""
            self._most_memory = MOST_GROWN * (circus_process.resident(pid) or float("inf"))
            self._answered.set()
        elif said and self._level == "app":
            why = Say.NOT_FORKED_FROM(why=as_said(safe_text(self.armed.hide(said).decode(errors="replace"))))
            self.armed.note_reason(why)
            self._end()
            self._begin("server", instead=why)
        elif said:
            self._failed(as_said(safe_text(said.decode(errors="replace"))))
        else:
            self.armed.supervisor.loop.remove_reader(self._orders)
            pid = self._process.pid
            self.armed.supervisor.run(self._note_end(self._orders, pid), f"the end of forkserver {pid}")

    async def _note_end(self, orders: socket.socket, pid: int) -> None:
        """Note that it has ended, and why: a moment after the end of its channel it is a zombie, its last line read."""
        until = self.armed.clock() + ANSWERS_WITHIN
        await asyncio.wait([self._output], timeout=ANSWERS_WITHIN)
        while (code := circus_process.exit_status(pid)) is None and self.armed.clock() < until:
            await asyncio.sleep(ANSWERS_WITHIN / 20)
        if self._orders is orders:
            self._says_nothing = code in KILLED
            self._failed(self._why_ended(code))

    def _why_ended(self, code: int | None) -> str:
        lines = self.words.tail.strip().splitlines()
        if code in (1, None):
            return as_said(lines[-1]) if lines else Say.FORKSERVER_ENDED()  # a traceback's, in words of the app
        # Until its imports are done it may be the launcher, whose exit codes have a meaning.
        was_up, command = self.state == "ready", str(self.armed.watcher.cmd)
        death = Death(exit_code=code, was_up=was_up, log_tail=self.words.tail, command=command)
        return Say.FORKSERVER_ENDED_BY(why=cause_of(death)[1])

    def _give_up(self, limit: float) -> None:
        """Give up an import that takes longer than a start may."""
        assert self._process is not None
        thread = procs.first_thread(self._process.pid)
        is_stopped, late = thread is not None and thread.is_stopped, Say.NOT_UP_IN_TIME(timeout=exactly(limit))
        why = Say.FORKSERVER_STOPPED(limit=exactly(limit)) if is_stopped else found_late(late, self._process.pid, limit)
        self._says_nothing = why != late
        self._failed(why)

    def _failed(self, why: str, *, pause: float = 0.0) -> None:
        is_new = why != self._why
        self._end(Say.FORKSERVER_FAILED(why=why))
        self.state, self._why = "failed", why
        self._failures = 1 if self.armed.clock() - self._began_at > LONGEST_PAUSE else self._failures + 1
        pause = pause or backoff(self._failures, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self._again_at = self.armed.clock() + pause
        if is_new:  # each try would hide what has happened since
            self.armed.note_reason(self.reason)
        self.armed.supervisor.soon(pause)

    # Orders

    def fork(self, process: Any) -> Forked | None:
        """Have a worker forked in place of Circus's *process*; None if it has to be started."""
        if self.state != "ready" or self._process is None:
            return None
        arguments = circus_process.arguments_of(process)
        if self._wanted() != self._configured_for or _basis(arguments, process.env) != self._basis:
            self._renew_soon()  # its options have changed a moment ago, or its environment, user or limits
            self._renewed += 1
            if self._renewed == MOST_RENEWED:
                self._renewed = 0
                self._failed(Say.NO_TWO_WORKERS_ALIKE(), pause=LONGEST_PAUSE)
            return None
        try:
            worker = self._order(process, _options(arguments))
            self._unanswered = self._renewed = 0
            if worker is not None and (circus_process.resident(self._process.pid) or 0) > self._most_memory:
                self._failed(Say.FORKSERVER_GROWN(limit=size_text(self._most_memory)))
            return worker
        except (OSError, ValueError, psutil.Error) as error:
            is_silent = isinstance(error, TimeoutError)
            self._unanswered += is_silent
            # One late answer proves nothing on a crowded machine, since a child that comes too late ends; and a
            # shortage is circusd's own.
            if not is_shortage(error) and not 0 < self._unanswered < MOST_UNANSWERED:
                late = Say.FORKSERVER_SILENT(limit=exactly(ANSWERS_WITHIN), n=MOST_UNANSWERED) if is_silent else ""
                self._failed(late or str(error) or type(error).__name__)
            return None
        finally:
            if self._waited > MOST_WAITED:
                self._failed(Say.FORKSERVER_SLOW(waited=exactly(MOST_WAITED)), pause=FORGOTTEN_IN)

    def _renew_soon(self) -> None:
        self._end()
        self.armed.supervisor.soon(0)

    def _order(self, process: Any, options: list[tuple[str, str]]) -> Forked | None:
        assert self._orders is not None
        assert self._process is not None
        with ExitStack() as kept, ExitStack() as given_away:
            ours, theirs = _channel()
            given_away.callback(unix_sockets.close, ours)
            given_away.enter_context(theirs)
            ours.settimeout(ANSWERS_WITHIN)
            given, pipes = {1: 1, 2: 2}, {}
            piped = {1: process.pipe_stdout, 2: process.pipe_stderr}
            for number in filter(piped.get, piped):
                end, given[number] = os.pipe()
                given_away.callback(os.close, given[number])
                pipes[number] = kept.enter_context(open(end, "rb"))
                if os.geteuid() == 0:  # as the launcher does
                    os.fchown(given[number], self._user, -1)
            given |= circus_process.own_sockets(process.watcher)
            values = dict(options)
            env = {"XBOARD_WID": values["--wid"], "XBOARD_WORKER": values["--worker"]}
            env |= dict(value.split("=", 1) for name, value in options if name == "--env")
            if (requests := env.pop(VARIABLE, None)) is not None:
                given[fork_orders.ANYWHERE] = int(requests)
            order = {"env": env, "folder": values["--chdir"], "is_down": not self.armed.fleet.up(), "numbers": [*given]}
            try:
                socket.send_fds(self._orders, [json.dumps(order).encode()], [theirs.fileno(), *given.values()])
            except ConnectionError:  # it has ended a moment ago
                raise ValueError(self._why_ended(circus_process.exit_status(self._process.pid))) from None
            theirs.close()
            said, pid = self._wait_for_answer(ours)
            if said == fork_orders.OUTDATED:
                self._renew_soon()
                return None
            if said == fork_orders.UNSAFE:
                self.state = "failed"  # until its reason is read, a moment later, and another one begun
                return None
            if said != fork_orders.HERE or not self._is_new_child(pid):
                raise ValueError(Say.FORKSERVER_FORKED_NONE())
            worker = Forked(pid, pipes.get(1), pipes.get(2))
            try:
                ours.send(fork_orders.GO)
            except OSError:  # it has closed its end, and would live on as a child of ours without a watcher
                circus_process.send(worker, signal.SIGKILL)
                raise
            kept.pop_all()
            return worker

    def _wait_for_answer(self, channel: socket.socket) -> tuple[bytes, int]:
        """Wait, and account for the time, because circusd does nothing else meanwhile.

        A forkserver that the app has taken over could block it by many forks, each answered just in time.
        """
        began_at = self.armed.clock()
        try:
            return _receive(channel, 16)
        finally:
            now = self.armed.clock()
            left = max(0.0, self._waited - (began_at - self._waited_at) * MOST_WAITED / FORGOTTEN_IN)
            self._waited, self._waited_at = left + max(0.0, now - began_at - AS_LONG_AS_A_START), now

    def _is_new_child(self, pid: int) -> bool:
        """Return whether *pid* is a child of ours without a watcher, and not the forkserver itself."""
        assert self._process is not None
        others = self.armed.supervisor.arbiter.watchers
        with suppress(ChildProcessError, ValueError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return pid != self._process.pid and not any(pid in watcher.processes for watcher in others)
        return False


def _basis(arguments: list[str], env: dict[str, str]) -> _Basis:
    options = [option for option in _options(arguments) if option[0] not in OF_ONE_WORKER]
    return _Basis(options, arguments[arguments.index("--") + 1 :], dict(env))


def _options(arguments: list[str]) -> list[tuple[str, str]]:
    """Return the options of a launcher's command line, each with its value."""
    words = arguments[4 : arguments.index("--")]
    return list(zip(words[::2], words[1::2], strict=True))


def _channel() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a channel; the kernel names the sender of messages to the first one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    unix_sockets.refuse_descriptors(ours)
    return ours, theirs


def _receive(channel: socket.socket, size: int) -> tuple[bytes, int]:
    """Return a message, and the pid of its sender from the kernel; empty if the other end is closed."""
    said, descriptors, pid = unix_sockets.receive(channel, size)
    unix_sockets.discard(descriptors)
    return said, pid
