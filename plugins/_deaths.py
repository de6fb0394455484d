"""Count the deaths of a watcher's processes from outside circusd. No effects.

Circus publishes a ``reap`` for most of them and forgets it for up to a third; the rest shows in that a pid is no longer
listed. Both are needed: a list alone misses what was born and died between two looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

REMEMBERED = 60.0


@dataclass(frozen=True, slots=True)
class DeadProcess:
    """A process that ended without having been told to; *exit_code* is None where nobody saw how."""

    pid: int
    exit_code: int | None
    lived: float


@dataclass(slots=True)
class _Process:
    seen_at: float
    killed_at: float | None = None
    is_missing: bool = False


class DeathCount:
    """Each process of one watcher, from its spawn until its end was counted, once.

    A process that Circus signalled (``kill``) within *kill_seconds* before its end was commanded to end. *now* is in
    seconds of one clock.

    >>> deaths = DeathCount(kill_seconds=40)
    >>> deaths.spawned(71, now=0)
    >>> deaths.reaped(71, exit_code=-9, now=2)
    DeadProcess(pid=71, exit_code=-9, lived=2)
    >>> deaths.listed([], asked_at=3)
    []
    """

    def __init__(self, *, kill_seconds: float) -> None:
        self.kill_seconds = kill_seconds
        self._processes: dict[int, _Process] = {}
        self._settled_at: dict[int, float] = {}

    def spawned(self, pid: int, *, now: float) -> None:
        """Note a new process; its pid may have been another's before."""
        self._processes[pid] = _Process(now)
        self._settled_at.pop(pid, None)

    def killed(self, pid: int, *, now: float) -> None:
        """Note that Circus signalled a process, one that was never seen or a child of one perhaps."""
        self._processes.setdefault(pid, _Process(now)).killed_at = now

    def reaped(self, pid: int, *, exit_code: int | None, now: float) -> DeadProcess | None:
        """Note the end of a process; return it, unless it was commanded or is settled already."""
        if pid in self._settled_at:
            return None
        process = self._processes.pop(pid, None) or _Process(now)
        return self._ended(pid, process, exit_code, now)

    def listed(self, pids: Iterable[int], *, asked_at: float) -> list[DeadProcess]:
        """Compare with the pids that circusd listed when asked at *asked_at*; return who ended without a word.

        A pid has to be missing twice: its reap event may be on its way while the list is here already.
        """
        present = set(pids)
        ended = []
        for pid, process in list(self._processes.items()):
            if pid in present or process.seen_at >= asked_at:
                process.is_missing = False
            elif not process.is_missing:
                process.is_missing = True
            else:
                del self._processes[pid]
                found = self._ended(pid, process, None, asked_at)
                ended += [found] if found else []
        for pid in present - self._processes.keys():
            # One that was settled after the list was made is on it by mistake.
            if self._settled_at.get(pid, float("-inf")) < asked_at:
                self.spawned(pid, now=asked_at)
        self._settled_at = {pid: at for pid, at in self._settled_at.items() if asked_at - at < REMEMBERED}
        return ended

    def forget(self) -> None:
        """Forget everybody: the watcher was stopped, and whoever was left was commanded to end."""
        self._processes.clear()

    def _ended(self, pid: int, process: _Process, exit_code: int | None, now: float) -> DeadProcess | None:
        self._settled_at[pid] = now
        if process.killed_at is not None and now - process.killed_at <= self.kill_seconds:
            return None
        return DeadProcess(pid, exit_code, max(0.0, now - process.seen_at))
