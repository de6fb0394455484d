"""End circusd without its workers, so that the next circusd takes their port over and no request is lost.

The workers of armed watchers serve on if their listener can be handed over; all else (plugins, unarmed watchers,
singletons, servers that bind by themselves) is stopped as in a stop. circusd ends with exit code 0 and counts as
stopped on request, so no loss is reported. The next circusd on the same ini file takes the port over, starts workers,
and ends the old ones when the new ones are ready, exactly as after a kill (`port.PortGuard`). A stopped watcher stays
so (`patches.boot.keep_stopped`).

From another process: `CircusdClient.leave()`, the command `xboard_leave`. Its answer names the workers that stay; a
refusal (`CommandRefused`) has changed nothing. From a signal handler in its loop: `leave(Supervisor.of(arbiter))`.
Wait for the end of the process before the next circusd binds its endpoints: ``launch.py --after PID:STARTED`` does,
and may be started beforehand. One that waits at a gate is passed the listeners of guarded endpoints (`host.inbox`), so
that no other user gets their ports in between, and those of the watchers, so that none has to be requested from a
worker, whose event loop may be late. For a restart of the service systemd keeps them meanwhile.
"""

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from circus import logger
from circus.exc import MessageError

from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError
from xboard_circus.host import inbox, runtime, service_manager
from xboard_circus.supervisor.boundary import DaemonThread
from xboard_circus.supervisor.listener_check import is_listening
from xboard_circus.supervisor.patches import boot, circus_arbiter

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor


def leave(supervisor: "Supervisor", *, but: Collection[str] = (), gate: int | None = None) -> dict[str, list[int]]:
    """Begin to end circusd; return the pids of the workers that stay, by watcher. Watchers in *but* are stopped too.

    The next circusd may wait at *gate* already (`launch.wait_for_turn`). It is released here, in the step in which the
    end begins: whatever becomes of the sender of this command, one circusd supervises the workers.

    Raises MessageError, with nothing changed, if circusd ends already, no worker could ever stay, or none waits at the
    gate. Workers that are not up are no reason, because this circusd may be about to take the port over itself, from
    workers that serve meanwhile.
    """
    if supervisor.is_over():
        raise MessageError(Say.CIRCUSD_ENDS_ALREADY())
    staying = [
        armed
        for armed in supervisor.armed.values()
        if armed.name not in but and armed.is_running() and armed.has_private_socket and armed.port.can_be_handed_over
    ]
    if not staying:
        raise MessageError(Say.NO_WORKER_CAN_STAY())
    # First: if this circusd is killed once it has a successor, another user must not get to bind the endpoints.
    error = _pass_listeners(supervisor, gate, [armed.port.socket() for armed in staying])
    if gate is not None:
        try:
            runtime.name_successor(supervisor.instance, gate)
        except XboardError as refused:
            raise MessageError(str(refused)) from refused
    if error is not None:
        logger.warning("xboard: the endpoints are free until the next circusd binds them: %s", error)
    stays = {armed.name: [worker.pid for worker in armed.fleet] for armed in staying}
    for armed in staying:
        armed.stays = True
    stopped = filter(supervisor.stays_stopped, supervisor.arbiter.watchers)
    names = [each.name for each in stopped if not circus_arbiter.is_yet_to_start(supervisor.arbiter, each)]
    supervisor.lifetime.leaves(names)
    # Circus would remove the path of a unix socket. The process holds these open up to its end.
    circus_arbiter.take_out(supervisor.arbiter, [armed.port.socket().name for armed in staying])
    logger.warning("xboard: circusd ends, and these workers serve on for the next one: %s", stays)
    supervisor.run(supervisor.arbiter.stop(), "the end of circusd")
    return stays


def _pass_listeners(supervisor: "Supervisor", gate: int | None, of_watchers: Iterable[Any]) -> OSError | None:
    """Pass listeners to the circusd at *gate*: of guarded endpoints, of watchers, and what was passed to this one.

    Return the error with which it does not take them.

    One without an inbox binds the endpoints anew, and requests the watchers' from the workers. Without a gate systemd
    keeps them for the circusd that it starts next.
    """
    listeners = boot.own_listeners(supervisor.arbiter)
    listeners += {id(shared): shared for shared in of_watchers if is_listening(shared)}.values()
    try:
        if gate is None:
            service_manager.store(listeners)
        elif listeners:
            inbox.send(listeners, inbox.path_of(runtime.root_path() / supervisor.instance, gate))
    except OSError as error:  # such as one started by an older release
        return error
    return None


class EndBySignal:
    """What circusd does at SIGTERM and SIGINT: in a restart of the service it leaves, and its workers serve on.

    The unit's ``ExecStop=`` orders that (`service.unit_stop`), but systemd skips it for a unit that starts or reloads,
    and sends SIGTERM at once: a restart that interrupts a reload, or that repairs code with which nothing starts.
    """

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._is_looking = False
        # From the start: workers of a leaking app may have all processes and threads of circusd's user by the end.
        self._looker = DaemonThread() if service_manager.own_unit() else None

    def end(self, stop: Callable[[], object]) -> object:
        """Leave if systemd restarts our unit, or does not say; else, at a second signal, or if none can stay, stop
        everything.

        Any other unit may have systemd kill what is left, with the requests in flight.
        """
        unit = service_manager.own_unit()
        if not unit or self._looker is None or self._is_looking or self._supervisor.is_over():
            return stop()
        self._is_looking = True
        self._supervisor.run(self._end(self._looker, unit, stop), "the look for systemd's job", on_failure=stop)
        return None

    async def _end(self, looker: DaemonThread, unit: str, stop: Callable[[], object]) -> None:
        of_user = "MANAGERPID" in os.environ  # see systemd.exec(5)
        job = await looker.run(partial(service_manager.job_of, unit, of_user=of_user))
        if self._supervisor.is_over():
            return
        if job is None:
            logger.warning("xboard: systemctl does not list the jobs of systemd; the unit ends the workers in a stop")
        # ExecStopPost= has the job listed by root: it keeps the workers in a restart, and drains them in a stop.
        if job in ("restart", None):
            with suppress(MessageError):  # no worker could stay
                leave(self._supervisor)
                return
        stop()
