"""Count the deaths of a watcher's processes from outside circusd. No effects.

Circus publishes a ``reap`` for most of them and forgets it for up to a third; those are the pids that are no longer
listed. Both are needed: a list alone misses a process that started and died between two queries.
"""

from collections.abc import Iterable
from dataclasses import dataclass

REMEMBERED = 60.0


@dataclass(frozen=True)
class DeadProcess:
    """A process that ended without a command; *exit_code* is None where it is unknown."""

    pid: int
    exit_code: int | None
    lived: float


@dataclass(slots=True)
class _Process:
    seen_at: float
    killed_at: float | None = None
    is_missing: bool = False


class DeathCount:
    """Follow each process of one watcher from its spawn until its end is counted, once.

    The end of a process that Circus signalled (``kill``) within *kill_seconds* before was commanded. *now* is in
    seconds of one clock.

    >>> deaths = DeathCount(kill_seconds=40)
    >>> deaths.spawned(71, now=0)
    >>> deaths.reaped(71, exit_code=-9, now=2)
    DeadProcess(pid=71, exit_code=-9, lived=2)
    >>> deaths.listed([], queried_at=3)
    []
    """

    def __init__(self, *, kill_seconds: float) -> None:
        self.kill_seconds = kill_seconds
        self._processes: dict[int, _Process] = {}
        self._settled_at: dict[int, float] = {}

    def spawned(self, pid: int, *, now: float) -> None:
        """Note a new process; its pid may have been used before."""
        self._processes[pid] = _Process(now)
        self._settled_at.pop(pid, None)

    def killed(self, pid: int, *, now: float) -> None:
        """Note that Circus signalled a process; it may be an unknown one, or a child of one."""
        self._processes.setdefault(pid, _Process(now)).killed_at = now

    def reaped(self, pid: int, *, exit_code: int | None, now: float) -> DeadProcess | None:
        """Note the end of a process; return it, unless it was commanded or counted before."""
        if pid in self._settled_at:
            return None
        process = self._processes.pop(pid, None) or _Process(now)
        return self._ended(pid, process, exit_code, now)

    def listed(self, pids: Iterable[int], *, queried_at: float) -> list[DeadProcess]:
        """Compare with the pids that circusd listed at *queried_at*; return the processes that ended without a
        ``reap``.

        A pid has to be missing twice: its ``reap`` may arrive after the list.
        """
        present = set(pids)
        ended = []
        for pid, process in list(self._processes.items()):
            if pid in present or process.seen_at >= queried_at:
                process.is_missing = False
            elif not process.is_missing:
                process.is_missing = True
            else:
                del self._processes[pid]
                found = self._ended(pid, process, None, queried_at)
                ended += [found] if found else []
        for pid in present - self._processes.keys():
            # A process counted after the list was made has ended since.
            if self._settled_at.get(pid, float("-inf")) < queried_at:
                self.spawned(pid, now=queried_at)
        self._settled_at = {pid: at for pid, at in self._settled_at.items() if queried_at - at < REMEMBERED}
        return ended

    def forget(self) -> None:
        """Forget all processes: the watcher was stopped, so their ends are commanded."""
        self._processes.clear()

    def _ended(self, pid: int, process: _Process, exit_code: int | None, now: float) -> DeadProcess | None:
        self._settled_at[pid] = now
        if process.killed_at is not None and now - process.killed_at <= self.kill_seconds:
            return None
        return DeadProcess(pid, exit_code, max(0.0, now - process.seen_at))
