"""Guard the port: bind it before a worker runs on it, and remove only our own leftovers for that.

The public socket is Circus's, so a dead worker never closes the port. Circus must not bind it before the port is clean;
`so_reuseport = True` in the ini makes it leave the socket unbound. The guard removes that mark (with it, Circus would
bind a socket per worker, beside strangers), cleans, and binds the shared descriptor in its own time, before a worker is
spawned.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core.ports import Holder, Policy, PortPlan, plan, shared_by
from xboard_circus.core.reason import data_of
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import PortState
from xboard_circus.core.state_schema import PortEntry
from xboard_circus.core.worker_phases import Order
from xboard_circus.host import listeners, unix_sockets
from xboard_circus.host.users import uid_of
from xboard_circus.host.worker_files import is_socket, takes_connections
from xboard_circus.supervisor import handover, listener_check
from xboard_circus.supervisor.boundary import in_daemon_thread
from xboard_circus.supervisor.patches import boot
from xboard_circus.supervisor.patches.circus_process import sockets_named

if TYPE_CHECKING:
    from xboard_circus.supervisor.watcher import ArmedWatcher

Address = tuple[str, int]
HANDOVER_TIMEOUTS = (1.0, 4.0)
HANDOVER_WITHIN = 20.0
TRY_EVERY = 0.1
TRY_SOON = 0.01
LOOKS_WITHIN = 1.0
UNHELD_TRIES = 30
"""How often a taken port without a holder is tried at once: the kernel frees it a moment after its holder has ended."""
RELEASE_AFTER = 1.0
SHUT_REPORTED_EVERY = DEAF_AGAIN_AFTER = HEIRS_EVERY = 60.0
HEIRS_AGAIN_AFTER, KNOWN_HEIRS_EVERY = 2.0, 5.0
"""A process that is seen with the listener twice is not just being forked, or ending."""
UNIX = 0
"""In place of a port: the address is the path of a unix socket."""


class PortGuard:
    """The port of one armed watcher: a Circus socket that its command names, or `port.host` and `port.port`."""

    def __init__(self, armed: "ArmedWatcher") -> None:
        self.armed = armed
        self.state = PortState.NONE
        self.reason = self._last_error = ""
        self._retry_at: float | None = None
        self._run = 0
        self._is_taken = False
        self._is_given_back = True
        self._refused_for: set[tuple[int | None, int | None]] = set()
        self._stopped_at: float | None = None
        self._shut_reported_at = self._deaf_at = self._heirs_at = float("-inf")
        self._predecessors: list[Path] = []
        self._inherited: dict[str, bytes] = {}
        self._file: tuple[int, tuple[int, int] | None] | None = None  # of which socket, and which it is

    @property
    def is_ready(self) -> bool:
        """Return whether a worker may run now."""
        return self.state in (PortState.NONE, PortState.BOUND)

    def retry_in(self) -> float:
        """Return the seconds until the port is tried again."""
        return max(0.0, (self._retry_at or 0.0) - self.armed.clock())

    def view(self) -> PortEntry | None:
        address = self.address()
        if address is None:
            return None
        return {
            "host": address[0],
            "port": address[1],
            "state": self.state.value,
            "reason": self.reason,
            "say": data_of(self.reason),
        }

    def socket(self) -> Any:
        """Return the Circus socket that the command names, or None."""
        watcher = self.armed.watcher
        names = sockets_named(watcher)
        return watcher.sockets.get(names[0]) if names and watcher.sockets else None

    def address(self) -> tuple[str, int] | None:
        if (shared := self.socket()) is not None:
            return (shared.path, UNIX) if shared.is_unix else (shared.host, shared.port)
        port = self.armed.options.port
        return (port.host, port.port) if port.port else None

    # Start

    def prepare(self) -> None:
        """Check the port before a start: nothing to do, or clean and bind it in our own time."""
        shared = self.socket()
        self._run += 1
        self._stopped_at = None
        if self.address() is None and not self.armed.watcher.singleton:
            self.state = PortState.NONE
            if self.armed.policy is not Policy.NEVER:
                self.armed.supervisor.sweep(self.armed.name, self.armed.options.port.grace)
            return
        if shared is not None:
            if shared.so_reuseport:
                # The mark has done its work: from now on this is one socket, shared by all workers. A fresh one,
                # because `reloadconfig` binds what Circus made, and every process started before us has inherited that.
                if not shared.is_unix:
                    self._release(shared)
                shared.so_reuseport = False
            elif listener_check.is_listening(shared):
                self._bound(shared)
                return
        self.state, self.reason = PortState.CLEANING, Say.PORT_LOOKED_AT()
        give_up = partial(self._give_up, self._run)
        self.armed.supervisor.run(self._guard(self._run), f"the port guard of {self.armed.name}", give_up)

    async def until_looked_at(self) -> None:
        """Wait for the first look at the port, which takes a moment if no process holds it."""
        give_up_at = self.armed.clock() + LOOKS_WITHIN
        while self.state is PortState.CLEANING and self.armed.clock() < give_up_at:
            await asyncio.sleep(TRY_SOON)

    @property
    def is_bound_by_the_server(self) -> bool:
        """Return whether the server binds the port itself, as `port.port` states."""
        return self.socket() is None and self.address() is not None

    def look_again(self) -> None:
        """Check the port after each end of a server that binds by itself, because it may have left children.

        A socket that circusd holds needs no second look.
        """
        if self.state is PortState.BOUND and self.is_bound_by_the_server:
            self.prepare()

    def _give_up(self, run: int) -> None:
        """Bind plainly if the guard itself fails: the backend runs on without this protection."""
        if not self._is_current(run):
            return
        if self.socket() is not None and (address := self.address()) is not None and not self._bind(address):
            self._note_refused(self._last_error)
            self.armed.supervisor.loop.call_later(self.armed.options.port.retry, self._give_up, run)
            return
        self._done()

    def _is_current(self, run: int) -> bool:
        return run == self._run and self.armed.is_current() and not self.armed.watcher.is_stopped()

    async def _guard(self, run: int) -> None:
        armed, shared, policy, grace = self.armed, self.socket(), self.armed.policy, self.armed.options.port.grace
        freed: list[str] = []
        if await self._take_over(run):
            return
        sweep = armed.supervisor.sweep(armed.name, grace) if policy is not Policy.NEVER else None
        was_swept = sweep is None or sweep.done()  # at an earlier start, which has reported it
        if sweep is not None and armed.watcher.singleton:
            # A draining worker frees its port at once, and ends later: a free port is no sign of its end.
            await asyncio.wait([sweep])
        stopping: asyncio.Future[Any] | None = sweep
        unheld = 0
        while self._is_current(run):
            address = self.address()
            if address is None or self._bind(address):
                break
            if stopping is not None and not stopping.done():
                await asyncio.sleep(TRY_EVERY)
                continue
            found, todo = await self._look(address, policy)
            if not self._is_current(run):
                return
            if todo.stop:
                self.state, self.reason = PortState.CLEANING, Say.ENDING(processes=named(todo.stop))
                freed += named(todo.stop)
                logger.warning("xboard: %s: port %s: %s", armed.name, address[1], self.reason)
                stopping = asyncio.ensure_future(asyncio.to_thread(listeners.stop, list(todo.stop), grace=grace))
                continue
            if found and not todo.refuse and shared is None:
                break  # its holders are ours: a live worker that binds by itself
            unheld = 0 if found else unheld + 1
            if self._is_taken and unheld in range(1, UNHELD_TRIES) and address[1] != UNIX:
                await asyncio.sleep(TRY_EVERY)
                continue
            ours = Say.PORT_HELD_BY_OURS(processes=named(found)) if found else ""
            self._note_refused(todo.reason or ours or self._last_error, found)
            while self._is_current(run) and self.retry_in() > 0:
                await asyncio.sleep(min(0.2, armed.options.port.retry))
        else:
            return
        self._done()
        # Every sweep that ended something is recorded, even if it did not free the port.
        swept = [] if sweep is None or was_swept else named(await sweep)
        self._report_freed([*dict.fromkeys([*freed, *swept])])

    async def _look(self, address: tuple[str, int], policy: Policy) -> tuple[list[Holder], PortPlan]:
        """Return the holders of the address, and the plan for them; those of a unix socket are unknown."""
        supervisor = self.armed.supervisor
        found = [] if address[1] == UNIX else await in_daemon_thread(partial(supervisor.holders, *address))
        own = await in_daemon_thread(supervisor.family)
        return found, plan(found, policy=policy, instance=supervisor.instance, own=own)

    @property
    def can_be_handed_over(self) -> bool:
        """Return whether workers of this circusd and of the next one can serve on the listener at the same time.

        Without respawn a failed new worker is not replaced, and the old ones would serve on, unwatched. The old worker
        of a singleton has to be gone before the new one starts.
        """
        watcher = self.armed.watcher
        may_overlap = watcher.respawn and not watcher.singleton
        return may_overlap and self.socket() is not None and self.armed.policy is not Policy.NEVER

    async def _take_over(self, run: int) -> bool:
        """Take the listening socket over: no moment without a listener.

        The circusd before this one has passed it on, or, where that was killed, a worker does that outlived it.

        New workers start on it, and the old ones are ended only when as many of the new are ready; until then these
        serve.
        """
        armed, shared, address = self.armed, self.socket(), self.address()
        passed = None if shared is None else boot.passed_listener(armed.supervisor.arbiter, shared.name)
        if shared is None or address is None or armed.folder is None or not self.can_be_handed_over:
            if passed is not None:
                passed.close()
            return False
        left = armed.supervisor.lifetime.left.get(armed.name, ())
        # Not in a thread that circusd's end would wait for: silent sockets take `HANDOVER_WITHIN`.
        taking = partial(take_listener, armed.folder, armed.supervisor.instance, address, left, passed)
        found, serving = await in_daemon_thread(taking)
        if found is None:
            return False
        self._predecessors = serving
        with found:
            if not self._is_current(run):
                await self._end_predecessors()
                return True
            os.dup2(found.fileno(), shared.fileno(), inheritable=True)
        shared.listen(shared.backlog)  # the file may have another one by now
        if not shared.is_unix:
            shared.host, shared.port = shared.getsockname()[:2]
        giver = "a worker of an earlier circusd" if found is not passed else "the circusd before this one"
        logger.warning("xboard: %s: took %s:%s over from %s", armed.name, *address, giver)
        self._done()
        self._heirs_at = float("inf")  # the old workers have the listener until they are ended
        # As many as served before are enough, because a slot that fails again would keep the old workers, unwatched,
        # for ever. So would a number that was lowered meanwhile.
        most, limit = max(1, len(serving)), armed.options.health.startup_timeout
        while self._is_current(run) and not armed.fleet.all_ready(min(armed.watcher.numprocesses, most), within=limit):
            await asyncio.sleep(TRY_EVERY)
        await self._end_predecessors()
        self.look_for_heirs()
        return True

    async def _end_predecessors(self) -> None:
        """End the workers of an earlier circusd, also after a stop, because the next start may not search for them.

        Not if this circusd ends without its workers, which may not be ready: the next one takes over from all.
        """
        if self.armed.stays:
            return
        grace = max(self.armed.options.port.grace, self.armed.watcher.graceful_timeout)
        self._report_freed(named(await self.armed.supervisor.sweep(self.armed.name, grace)))
        self._predecessors = []
        self.armed.supervisor.lifetime.left.pop(self.armed.name, None)

    def predecessors(self) -> int:
        """Return how many workers of an earlier circusd serve until ours are ready."""
        return sum(handover.answers(path, within=self.armed.options.health.timeout) for path in self._predecessors)

    def _bind(self, address: tuple[str, int]) -> bool:
        """Bind and listen, or, for a server that does so by itself, test that it could."""
        shared = self.socket()
        try:
            if shared is not None:
                bind_and_listen(shared)
            elif error := listeners.try_bind(*address):
                raise error
        except OSError as error:
            where = address[0] if address[1] == UNIX else f"{address[0]}:{address[1]}"
            self._is_taken = error.errno == errno.EADDRINUSE
            self._last_error = f"{where}: {error.strerror or os.strerror(error.errno or errno.EIO)}"
            return False
        return True

    def _note_refused(self, reason: str, found: Iterable[Holder] = ()) -> None:
        """Publish that the port is taken when that is new, or when its holders have changed."""
        armed, holders = self.armed, {(holder.pid, holder.started) for holder in found}
        if self.state is not PortState.REFUSED or holders != self._refused_for:
            armed.note_reason(Say.PORT_REFUSED(why=reason))
            armed.publish("port_refused", reason=reason)
        self.state, self.reason, self._refused_for = PortState.REFUSED, reason, holders
        self._retry_at = armed.clock() + armed.options.port.retry

    def _done(self) -> None:
        self._retry_at = None
        self._bound(self.socket())
        self.armed.keep_up()

    def _report_freed(self, ended: list[str]) -> None:
        if ended:
            reason = Say.ENDED(processes=ended)
            logger.warning("xboard: %s: %s", self.armed.name, Say.PORT_FREED(why=reason))
            self.armed.publish("port_freed", reason=reason)

    def _bound(self, shared: Any) -> None:
        self.state, self.reason = PortState.BOUND, ""
        self.look_for_heirs()
        if shared is None:
            return
        # Accepted connections inherit this from the listener; without it a kept-alive answer waits 40 ms for an ACK.
        if not shared.is_unix:
            shared.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inherited = listener_check.inherited(shared, ours=self.armed.has_private_socket)
        with suppress(listener_check.CannotPutBack):  # of one that was taken over; then it is replaced in a moment
            self._put_back(shared)

    # While it runs

    def check(self) -> None:
        """Free the port after a stop; the next start binds it again. Until then check that the listener listens."""
        armed = self.armed
        if not armed.watcher.is_stopped():
            self._stopped_at = None
            self._look_at_listener()
            return
        self._stopped_at = self._stopped_at or armed.clock()
        if armed.clock() - self._stopped_at > RELEASE_AFTER:
            self.give_back()

    def _look_at_listener(self) -> None:
        """Listen again where a process that inherited the listener has shut it down for all that share it.

        A unix socket cannot listen again, and another process may have the port meanwhile. Then the workers are
        replaced, because they would go on with the old listener: the new ones have another one, or wait for it. They
        are also replaced where such a process has the kernel drop connections, or where the file of a unix socket is
        gone, at most once a minute: one that does so at its start would keep all of them starting.
        """
        shared, address = self.socket(), self.address()
        if self.state is not PortState.BOUND or shared is None or address is None:
            return
        if listener_check.is_shut_down(shared):
            why: str = Say.PORT_SHUT()
            if not shared.is_unix and self._bind(address):
                self._report_shut(Say.PORT_LISTENS_AGAIN(why=why))
                return
        elif why := self._unusable_because(shared):
            self._deaf_at = self.armed.clock()
            shared.shutdown(socket.SHUT_RDWR)  # the workers hold it too, and it would keep the port
        else:
            if self.armed.clock() >= self._heirs_at:
                self._heirs_at = self.armed.clock() + (KNOWN_HEIRS_EVERY if self.reason else HEIRS_EVERY)
                self.armed.supervisor.run(self._note_heirs(shared), f"the look at who shares {shared.name}")
            return
        self._release(shared)
        self._bind(address)  # at once, before another process has the port
        for armed in self.armed.supervisor.armed.values():
            if armed.port.socket() is shared and armed.is_running():
                armed.port._replace_listener(why)

    def look_for_heirs(self) -> None:
        """Look soon for processes that have the listener though no live worker has started them."""
        self._heirs_at = self.armed.clock()

    async def _note_heirs(self, shared: Any) -> None:
        """Report processes that take connections beside the workers; none is stopped, because a job may be meant."""
        inode, found = os.fstat(shared.fileno()).st_ino, dict[tuple[int | None, int | None], Holder]()
        address, user = None if shared.is_unix else shared.getsockname()[:2], uid_of(self.armed.watcher)
        for wait in (0.0, HEIRS_AGAIN_AFTER):
            await asyncio.sleep(wait)
            seen = await in_daemon_thread(partial(self.armed.supervisor.heirs, inode, address, user))
            found = {(each.pid, each.started): each for each in seen if not wait or (each.pid, each.started) in found}
            if not found:
                break
        if self.state is not PortState.BOUND or os.fstat(shared.fileno()).st_ino != inode:
            return
        if (reason := shared_by(found.values()) if found else "") != self.reason:
            self.reason = reason
            if reason:
                self.armed.note_reason(reason)
                self.armed.publish("port_shared", reason=reason)

    def _unusable_because(self, shared: Any) -> str:
        """Restore what a worker has changed on the listener; return why another one is due, at most once a minute."""
        is_due = self.armed.clock() - self._deaf_at > DEAF_AGAIN_AFTER
        if is_due and (option := listener_check.deafened_by(shared)):
            return Say.PORT_DEAF(option=option)
        if is_due and shared.is_unix and self._has_lost_file(shared):
            return Say.PORT_FILE_GONE(path=shared.path)
        try:
            self._put_back(shared)
        except listener_check.CannotPutBack as error:
            return Say.PORT_CHANGED(options=str(error)) if is_due else ""
        return ""

    def _has_lost_file(self, shared: Any) -> bool:
        """Return whether the file of a unix socket is not the one of the first look: no client finds the listener."""
        inode = os.fstat(shared.fileno()).st_ino
        try:
            found = listener_check.file_at(shared.path)
        except OSError:
            return False
        if self._file is None or self._file[0] != inode:
            self._file = inode, found
        return found is None or found != self._file[1]

    def _put_back(self, shared: Any) -> None:
        """Restore what a worker has changed on the listener; only our own workers never need a blocking one."""
        blocking = False if self.armed.has_private_socket and not shared.blocking else None
        if changed := listener_check.put_back(shared, self._inherited, backlog=shared.backlog, blocking=blocking):
            self._report_shut(Say.PORT_PUT_BACK(options=changed, watcher=self.armed.name))

    def _replace_listener(self, why: str) -> None:
        armed, order = self.armed, Order(by=Say.BY_PORT_GUARD(), why=why)
        self._report_shut(Say.PORT_SHUT_FOR_GOOD(why=why))
        self.prepare()
        for worker in armed.fleet:
            if not worker.is_leaving:
                armed.supervisor.run(armed.end(worker, order), f"the end of worker {worker.pid}")

    def _report_shut(self, reason: str) -> None:
        self.armed.note_reason(reason)
        if self.armed.clock() - self._shut_reported_at > SHUT_REPORTED_EVERY:  # one worker could fill the ledger
            self._shut_reported_at = self.armed.clock()
            self.armed.publish("port_shut", reason=reason)

    def close(self) -> bool:
        """Close the listener of a watcher that stops or is stopped; return whether it is closed.

        The kernel would take connections for as long as workers drain, and reset them when the last one has ended.
        """
        shared = self.socket()
        if shared is None or self._serves_others(shared):
            return False
        if listener_check.is_listening(shared):
            self._release(shared)
            self.state, self.reason, self._is_given_back = PortState.WAITING, Say.WATCHER_IS_STOPPED(), False
        return True

    def give_back(self) -> None:
        """Close the listener of a watcher without workers, and end what else of ours holds its port."""
        if not self.close() or self._is_given_back:
            return
        self._is_given_back = True
        remove_path(self.socket())  # draining workers took connections there
        if (address := self.address()) is not None and self.armed.policy is not Policy.NEVER:
            self.armed.supervisor.run(self._end_holders(address), f"the look at the port of {self.armed.name}")

    async def _end_holders(self, address: tuple[str, int]) -> None:
        """End the processes of a dead worker of ours that hold the port though it was freed."""
        armed = self.armed
        _, todo = await self._look(address, Policy.ORPHANS)
        if todo.stop and (self.state is PortState.WAITING or not armed.is_current()):
            await asyncio.to_thread(listeners.stop, list(todo.stop), grace=armed.options.port.grace)
            self._report_freed(named(todo.stop))

    def _serves_others(self, shared: Any) -> bool:
        """Return whether another watcher, not stopped, has its workers on the same socket.

        Circus lists one that a changed file adds only once it has started.
        """
        supervisor = self.armed.supervisor
        watchers = [*supervisor.arbiter.watchers, *(each.watcher for each in supervisor.armed.values())]
        others = (each for each in watchers if each is not self.armed.watcher and not each.is_stopped())
        return any(shared.name.lower() in sockets_named(each) for each in others)

    def _release(self, shared: Any) -> None:
        """Put a fresh socket under the descriptor that Circus knows; this closes the old one in circusd."""
        with socket.socket(shared.family, socket.SOCK_STREAM) as fresh:
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            unix_sockets.do_not_linger(shared.fileno())  # a worker may have connected it, and left data unsent
            os.dup2(fresh.fileno(), shared.fileno(), inheritable=True)
        remove_path(shared)


def remove_path(shared: Any) -> None:
    """Remove the path of a unix socket on which no process listens by now."""
    if shared.is_unix and is_socket(shared.path) and not takes_connections(Path(shared.path)):
        with suppress(FileNotFoundError):
            os.unlink(shared.path)


def take_listener(
    folder: Path, instance: str, address: Address, known: Collection[str] = (), passed: socket.socket | None = None
) -> tuple[socket.socket | None, list[Path]]:
    """Return the listening socket at *address*, and where the workers that an earlier circusd left answer.

    Without one that this circusd has *passed* on, the socket is requested from these workers.

    Runs in a thread. Without them the port would be closed for a moment, and on a busy machine the best of them may be
    slow: if none answers at once, each gets a second request. All together get `HANDOVER_WITHIN`, because their user
    can make many silent sockets.
    """
    left, ends_at = handover.candidates(folder, known), time.monotonic() + HANDOVER_WITHIN
    serving = [path for path in left if os.path.exists(path.with_suffix(".up"))]
    if passed is not None:
        try:
            handover.check_reachable(passed, address)
            return passed, serving
        except OSError as error:
            logger.info("xboard: no handover from the circusd before this one: %s", error)
            unix_sockets.do_not_linger(passed.fileno())
            passed.close()
    answers = (
        handover.take_over(path, instance=instance, address=address, timeout=min(timeout, ends_at - time.monotonic()))
        for timeout in HANDOVER_TIMEOUTS
        for path in left
        if time.monotonic() < ends_at
    )
    return next((found for found in answers if found is not None), None), serving


def named(holders: Iterable[Holder]) -> list[str]:
    """Return the holders, each described for a person."""
    return [f"{holder.pid} ({holder.command})" for holder in holders]


def bind_and_listen(shared: Any) -> None:
    """Do what CircusSocket.bind_and_listen does; that one logs an error at each of many tries.

    Without a trial socket before, because a client that connects at that moment would be reset.

    Circus cannot read `interface` in Python 3, and ends; without it the port would be open to every network.
    """
    if shared.interface is not None:
        raise OSError(errno.EOPNOTSUPP, Say.PORT_INTERFACE(name=shared.interface))
    if shared.is_unix:
        bind_unix(shared)
    elif shared.getsockname()[1] == 0:
        shared.bind((shared.host, shared.port))
    shared.setblocking(shared.blocking)
    shared.listen(shared.backlog)
    if not shared.is_unix:
        shared.host, shared.port = shared.getsockname()[:2]


def bind_unix(shared: Any) -> None:
    """Bind the path of a unix socket, unless it is bound; remove its file where no process listens on it."""
    if shared.getsockname():
        return
    if os.path.exists(shared.path):
        if not shared.replace and (not is_socket(shared.path) or takes_connections(Path(shared.path))):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.unlink(shared.path)
    before = os.umask(shared.umask)
    try:
        shared.bind(shared.path)
    finally:
        os.umask(before)
