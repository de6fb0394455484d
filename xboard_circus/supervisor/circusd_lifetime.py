"""Record that this circusd is alive and whether it got a stop request; find how the one before it ended."""

import atexit
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core.lost import BACK, CircusdLife, Loss, found
from xboard_circus.core.names import CIRCUSD
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, procs, runtime
from xboard_circus.supervisor.boundary import contained

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

SEEN_EVERY = 5.0


class Lifetime:
    """Life of this process as a circusd.

    Attributes:
        loss: How the circusd before this one ended, if it had no stop request.
        left: By watcher, the workers that it left, until they are ended, as in `CircusdLife.workers`. Their user can
            make more names in the runtime folder than are read.
        graces: By watcher, the `graceful_timeout` that the circusd before this one had.
    """

    def __init__(self, supervisor: "Supervisor", *, at_exit: Callable[..., object] = atexit.register) -> None:
        self._supervisor = supervisor
        self._at_exit = at_exit
        self._noted_at = float("-inf")
        self._is_failing = self._is_written = False
        pid, started = supervisor.identity
        self._life = CircusdLife(pid, started, boot=circusd_record.boot())
        self.loss: Loss | None = None
        self.left: dict[str, Mapping[str, str]] = {}
        self.graces: Mapping[str, float] = {}
        self._begin()

    @contained(None)
    def _begin(self) -> None:
        before = circusd_record.read(self._supervisor.instance)
        serves_elsewhere = circusd_record.claim(self._supervisor.instance, self._life, before)
        if before is not None and not serves_elsewhere and circusd_record.is_over(before, boot=self._life.boot):
            self.left, self.graces = dict(before.workers), before.graces
            kills, told = circusd_record.kills_in(before.kills), circusd_record.is_reported(before)
            boot, pid = self._life.boot, self._life.pid
            self.loss = found(before, boot=boot, kills=kills, successor=pid, now=time.time(), is_reported=told)
        self._at_exit(_wound_up, self._supervisor.instance, self._supervisor.identity)
        self.tick()
        if self.loss is not None:
            logger.warning("xboard: %s", self.loss.reason)
            self._supervisor.publish(CIRCUSD, self.loss.kind, **self.loss.as_data())

    @contained(None)
    def tick(self) -> None:
        """Renew the time of the record now and then; write all of it where workers or a count have changed."""
        now, workers = self._supervisor.clock(), self._workers()
        graces = {name: float(each.watcher.graceful_timeout) for name, each in self._supervisor.armed.items()}
        if (workers, graces) != (self._life.workers, self._life.graces):
            self._life, self._is_written = self._life._replace(workers=workers, graces=graces), False
        elif now < self._noted_at + SEEN_EVERY:
            return
        self._noted_at = now
        try:
            self._note()
            self._is_failing = False
        except (OSError, XboardError) as error:
            if not self._is_failing:
                logger.warning("xboard: if circusd is killed now, the next one will not know of it: %s", error)
            self._is_failing = True

    def _note(self) -> None:
        if self._is_written and self._life.kills == circusd_record.kills_of(os.getpid()) and self._is_recorded():
            circusd_record.note_seen(self._supervisor.instance)
        else:
            self._write()

    def _is_recorded(self) -> bool:
        """Return whether the record is ours: the folder may be cleared, or be that of another container too.

        One that ends leaves the record to the other.
        """
        found = circusd_record.read(self._supervisor.instance)
        return found is not None and (self._life.is_ordered or found[:2] == self._life[:2])

    def view(self) -> dict[str, Any] | None:
        """Return the loss of the circusd before this one, for the state."""
        if self.loss is None:
            return None
        return {"at": self.loss.at, "was_told": self.loss.kind == BACK, **self.loss.as_data()}

    def _write(self) -> None:
        self._is_written = False  # if that fails, the file has older counts, which would blame the kernel later
        self._life = self._life._replace(kills=circusd_record.kills_of(os.getpid()))
        circusd_record.write(self._supervisor.instance, self._life)
        self._is_written = True

    def leaves(self, stopped: Sequence[str]) -> None:
        """Record for the next circusd, before the end is ordered, the watchers that it must not start."""
        self._life = self._life._replace(stopped=stopped, workers=self._workers())

    def _workers(self) -> Mapping[str, Mapping[str, str]]:
        if self._life.is_ordered:
            return self._life.workers  # as they were when it left
        found = {
            name: {each.token: f"{procs.Identity(each.pid, each.started)} {each.user}" for each in armed.fleet}
            for name, armed in self._supervisor.armed.items()
        }
        return {name: {**found.get(name, {}), **self.left.get(name, {})} for name in {**found, **self.left}}

    @contained(None)
    def end_ordered(self) -> None:
        """Record a stop request to circusd: a kill after it is no loss."""
        self._life = self._life._replace(is_ordered=True)
        try:
            self._write()
        except (OSError, XboardError):  # such as on a full disk
            circusd_record.forget(self._supervisor.instance)


def _wound_up(instance: str, circusd: Any) -> None:
    with suppress(OSError, XboardError):
        runtime.remove_stale(instance)
    circusd_record.amend(instance, circusd, wound_up=True)
