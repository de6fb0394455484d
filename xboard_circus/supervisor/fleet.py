"""Hold the workers of one watcher, each with its process and its life, and answer queries about all of them."""

import io
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.core.restart_limits import RestartBudget
from xboard_circus.core.state_names import Health, Role
from xboard_circus.core.worker_phases import Leaving, Life, Starting, Up
from xboard_circus.host import procs
from xboard_circus.supervisor.patches import circus_process

PROBES_KEPT = 6


@dataclass(eq=False)
class Worker:
    """One process of a watcher and what is known of it. Times are seconds of the monotonic clock.

    Attributes:
        process: Circus's own object for it.
        slot: Its slot in the watcher, for which its restarts are counted. A successor has its predecessor's, so it may
            differ from Circus's *wid*.
        started: Start time of the process (see `procs.start_time`), its identity together with *pid*.
        token: The name of its files in the runtime folder.
        ended_at: When its end was seen first, as a start time; from then on the system may give its pid away again.
        is_lost: At the last look it was up without its private socket; that is reported once.
        user: The number of its user.
        follows: Pid of the worker that it replaced, or None.
        spread: From 0 to 1, by which its limits of requests and age differ from its siblings'.
        rss: Resident memory in bytes at the last look, or None.
        native: The native frames of its threads, which the prober read when it was hung.
        probes: The last probes, oldest first: their time (`at`), and the prober's evidence.
        requests: The memory in which it notes its requests in flight, or None.
        probe: The figures of the prober's last report: latency, loop lag, threads, requests, memory.
    """

    process: Any
    pid: int
    wid: int
    slot: int
    started: int
    token: str
    spawned_at: float
    life: Life
    user: int
    follows: int | None = None
    ended_at: int | None = None
    is_lost: bool = False
    probe: Mapping[str, Any] = field(default_factory=dict)
    probes: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=PROBES_KEPT))
    rss: int | None = None
    native: str = ""
    requests: io.FileIO | None = None
    spread: float = field(default_factory=random.random)

    @property
    def ids(self) -> dict[str, int]:
        """Return the names of the worker in an event."""
        return {"pid": self.pid, "wid": self.wid, "slot": self.slot}

    @property
    def is_starting(self) -> bool:
        return isinstance(self.life.phase, Starting)

    @property
    def is_up(self) -> bool:
        return isinstance(self.life.phase, Up)

    @property
    def is_leaving(self) -> bool:
        return isinstance(self.life.phase, Leaving)

    @property
    def up_since(self) -> float | None:
        """Return when its start was complete; None before that."""
        return self.life.up_since

    @property
    def drains(self) -> bool:
        """Return whether it leaves because its successor has taken over."""
        return self.is_leaving and self.life.role is Role.RETIRING

    def has_ended(self) -> bool:
        """Return whether the process is dead, perhaps not reaped yet."""
        has_ended = circus_process.has_ended(self.process)
        if has_ended and self.ended_at is None:
            self.ended_at = procs.now()
        return has_ended


class Fleet:
    """The workers of one watcher, by pid, until their end is known.

    Attributes:
        ends: How many workers ended by which cause, commanded ones too.
        last_requests: What the worker that ended last had in flight, by its pid.
        ended_in: By slot, the pid of the last worker that ended there, until another takes its place.
    """

    def __init__(self, budget: RestartBudget, clock: Callable[[], float]) -> None:
        self.budget = budget
        self.clock = clock
        self.workers: dict[int, Worker] = {}
        self.ends: Counter[str] = Counter()
        self.ended_in: dict[int, int] = {}
        self.last_requests: dict[int, dict[str, Any]] = {}
        self.failures = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self.workers.values()))

    def __contains__(self, pid: object) -> bool:
        return pid in self.workers

    def find(self, pid: int, started: int) -> Worker | None:
        """Return the worker that is this very process."""
        found = self.workers.get(pid)
        return found if found is not None and found.started == started else None

    def counted(self) -> list[Worker]:
        """Return the workers that count as some of the watcher's `numprocesses`."""
        return [worker for worker in self if worker.life.counts]

    def up(self) -> list[Worker]:
        """Return the workers that are up."""
        return [worker for worker in self if worker.is_up]

    def all_ready(self, wanted: int, *, within: float) -> bool:
        """Return whether *wanted* workers are ready, or have been up for *within* seconds without getting ready."""
        now = self.clock()
        up = [worker for worker in self.counted() if worker.is_up and worker.up_since is not None]
        ready = [each for each in up if each.life.was_ready or now - (each.up_since or now) > within]
        return len(ready) >= wanted

    def free_slot(self, wanted: int = 1) -> int:
        """Return a free slot: of the first *wanted* the one that may be tried soonest, otherwise the lowest."""
        return next(iter(self.free_slots(wanted)), 0) or _first_free(self.used_slots())

    def free_slots(self, wanted: int) -> list[int]:
        """Return the free ones among the first *wanted* slots, the one that may be tried soonest first.

        A waiting slot must not delay its healthy siblings.
        """
        now, used = self.clock(), self.used_slots()

        def wait(slot: int) -> tuple[bool, float, int]:
            return not self.budget.may_start(slot, now), self.budget.wait(slot, now), slot

        return sorted((slot for slot in range(1, wanted + 1) if slot not in used), key=wait)

    def used_slots(self) -> set[int]:
        """Return the slots that are taken; that of a retiring worker is its successor's, or free."""
        return {worker.slot for worker in self if worker.life.role is not Role.RETIRING}

    def free_wid(self, slot: int, wanted: int) -> int:
        """Return Circus's number for a new worker of *slot*: that of the slot, otherwise the lowest that no other will
        need.

        A command may name it (`$(circus.wid)`), so a held slot keeps its own.
        """
        used = {worker.wid for worker in self}
        return slot if slot not in used else _first_free({*used, *self.free_slots(wanted)})

    def least_serving(self, extra: int) -> list[Worker]:
        """Return the *extra* workers that serve least, the oldest first among equals."""

        def rank(worker: Worker) -> tuple[int, float]:
            health = worker.life.health
            sick, failing = health in (Health.HUNG, Health.SICK), health is Health.FAILING
            return (worker.is_leaving, worker.is_starting, sick, failing, True).index(True), worker.spawned_at

        return sorted(self.counted(), key=rank)[: max(extra, 0)]

    def drop(self, worker: Worker) -> bool:
        """Remove *worker*, once; return whether it was there."""
        return self.workers.pop(worker.pid, None) is not None

    def note_up(self) -> None:
        """Pass the number of workers that are up to the budget: while none is, no wait exceeds `restart.delay_max`."""
        self.budget.up = len(self.up())

    def count_up(self, worker: Worker) -> None:
        """Count a worker as up."""
        self.note_up()
        self.budget.ready(worker.slot, self.clock())

    def forgive(self) -> list[Worker]:
        """Report to the budget for how long workers have been up; return those that had failures forgiven."""
        now, forgiven = self.clock(), []
        for worker in self.up():
            up_for = now - (worker.up_since or now)
            if self.budget.reset_if_stable(worker.slot, up_for):
                forgiven.append(worker)
            else:
                self.budget.stays_up(worker.slot, up_for, now)
        return forgiven


def _first_free(taken: Iterator[int] | Any) -> int:
    used = set(taken)
    return next(slot for slot in range(1, len(used) + 2) if slot not in used)
