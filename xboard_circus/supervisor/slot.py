"""One process that Circus spawned for an armed watcher, from its spawn until its end is known."""

from __future__ import annotations

import os
import random
import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xboard_circus.core.causes import Cause
from xboard_circus.core.states import WorkerState

PROBES_KEPT = 6


@dataclass
class Spawned:
    """A process and what we know of it. Times are seconds of the monotonic clock.

    Attributes:
        slot: The place in the watcher whose restarts it is counted with. A replacement inherits it from the worker
            that it replaces, so it may differ from Circus's *wid*.
        started: Start time of the process (see `procs.start_time`), its identity together with *pid*.
        circus_started: What Circus takes for its start, by which it finds the oldest ones.
        gate: A file that exists while the launcher must wait, or None.
        released_at: When the launcher was let go, or the spawn if it never had to wait.
        spare: It has imported the app and waits to serve.
        follows: Pid of the one whose place it took, if there was one.
        retiring: A successor takes its place; it is not counted as serving any more.
        draining: Its successor is ready, and it was told to go.
        signals: Signals that Circus sent it, in order.
        commanded_by: Who asked for its end, if anybody did.
        spread: From 0 to 1, by which its limits of requests and age differ from its siblings'.
        our_kill: The cause, where we decided to end it.
        rss: Resident memory in bytes when it was last looked at, or None.
        probes: The last probes, oldest first: when (`at`), and what the prober told as evidence.
        probe: What the prober's last report told of it: latency, loop lag, threads, requests, memory.
    """

    process: Any
    pid: int
    wid: int
    slot: int
    started: int
    spawned_at: float
    circus_started: float
    gate: Path | None = None
    released_at: float | None = None
    ready_at: float | None = None
    spare: bool = False
    follows: int | None = None
    retiring: bool = False
    draining: bool = False
    signals: list[int] = field(default_factory=list)
    commanded_by: str | None = None
    our_kill: Cause | None = None
    our_reason: str = ""
    seen: WorkerState | None = None
    seen_reason: str = ""
    ready_now: bool | None = None
    probe: Mapping[str, Any] = field(default_factory=dict)
    probes: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=PROBES_KEPT))
    rss: int | None = None
    spread: float = field(default_factory=random.random)

    @property
    def counts(self) -> bool:
        """Say whether it is one of the watcher's `numprocesses`."""
        return not (self.spare or self.retiring)

    def judged(self, state: WorkerState, reason: str, *, ready: bool | None, asked_at: float) -> None:
        """Take what the prober found; what it asked while the worker still started says nothing of a ready one."""
        if self.ready_at is None or asked_at >= self.ready_at:
            self.seen, self.seen_reason, self.ready_now = state, reason, ready

    def became_ready(self, now: float) -> None:
        """Note that it told so; what was seen of its start is over."""
        self.ready_at = now
        if self.seen is WorkerState.STARTING:
            self.seen, self.seen_reason, self.ready_now = None, "", None

    def set_aside(self) -> None:
        """Take it out of what Circus counts and kills.

        Circus takes the oldest process for the surplus, and leaves alone what is `stopping`: so `numprocesses` can stay
        what the operator set, and no healthy worker is killed for one that is more.
        """
        self.process.stopping = True
        self.process.started = 0

    def put_back(self) -> None:
        """Let Circus count it again."""
        self.process.started = self.circus_started
        if self.commanded_by is None:
            self.process.stopping = False

    def open_gate(self) -> None:
        """Let the launcher go."""
        if self.gate is not None:
            self.gate.unlink(missing_ok=True)

    def wake_up(self) -> None:
        """Let a process that somebody halted (SIGSTOP) hear the signal that is to end it.

        It would stay pending, and Circus wait for all of `graceful_timeout` with everything else locked.
        """
        if not self.has_ended():
            os.kill(self.pid, signal.SIGCONT)

    def exit_code(self) -> int | None:
        """Return how it ended (negative: by that signal), or None where nobody can tell any more.

        Reads the status without taking it away from Circus, which waits for its children in three places.
        """
        code = self.process._worker.returncode
        if code is not None:
            return int(code)
        try:
            status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        if status is None:
            return None
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def has_ended(self) -> bool:
        """Say whether the process is dead, reaped or not."""
        if self.process._worker.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True
