"""Run the parts of a plugin process: each does one job, on one event loop, with one connection to circusd.

A *part* (prober, limiter, recorder) does not depend on Circus. A `PartLoop` runs parts side by side: an exception of
one is logged with its traceback and ends no other. `XboardPlugin` is the Circus plugin around a loop.
"""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from circus.plugins import CircusPlugin

import xboard_circus
from xboard_circus.circus_client import CircusdClient, CommandRefused, state_in
from xboard_circus.core.lost import Loss, witnessed
from xboard_circus.core.names import CIRCUSD, circusd_of, plugin_log_name
from xboard_circus.core.state_schema import State
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, own_memory, procs
from xboard_circus.options.reading import parse_plugin
from xboard_circus.plugins._log import Sparingly, open_log

log = logging.getLogger("xboard_circus.plugins")

PARENT_EVERY = 1.0
CLOSE_SECONDS, LOST_SECONDS = 3.0, 15.0
"""For the parts to close; the second where circusd is gone, so that no part waits, and no other may report it."""
LEAST_PAUSE = 0.05


def obituary() -> Loss | None:
    """Return the loss of the circusd that is gone, and record its reporter; None if it had a stop request.

    A circusd that starts meanwhile leaves the loss to this process, and reports that it is back.
    """
    instance = os.environ.get("XBOARD_INSTANCE", "")
    found = circusd_record.read(instance) if instance else None
    if found is None or str(procs.Identity(found.pid, found.started)) != os.environ.get("XBOARD_CIRCUSD"):
        return None
    now = time.time()
    loss = witnessed(found, kills=circusd_record.kills_in(found.kills), now=now)
    if loss is not None:
        circusd_record.amend(instance, _of(loss), gone_at=now, witness=str(procs.Identity.of(os.getpid()) or ""))
    return loss


def reported(loss: Loss) -> None:
    """Record that *loss* is in the ledger and in the alerts; a process that is killed before does not get here."""
    circusd_record.amend(os.environ.get("XBOARD_INSTANCE", ""), _of(loss), witness="")


def _of(loss: Loss) -> procs.Identity:
    return procs.Identity(loss.pid, loss.started)


class Alarm:
    """Wake one sleeper on *loop*. A ring without a sleeper counts for the next sleep."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rung = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*, or on `ring`."""
        self.ring(seconds)
        await self._rung.wait()
        self._rung.clear()
        self._timer = None

    def ring(self, within: float) -> None:
        """End the sleep within that many seconds."""
        due = self._loop.time() + within
        if self._timer is None or due < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._rung.set)


class BusEvent(NamedTuple):
    """An event that circusd published.

    Attributes:
        watcher: Name of the watcher as the bus spells it: in lower case, with ``_`` for a blank.
        kind: What happened, such as ``reap`` or ``cooldown``.
    """

    watcher: str
    kind: str
    data: Mapping[str, Any] = {}


class Commands(Protocol):
    """A connection to circusd."""

    async def call(self, command: str, *, deadline: float = 2.0, **properties: Any) -> Mapping[str, Any]:
        """Return circusd's reply; raise CircusdGone or CommandRefused."""


class Part:
    """Do one job in a plugin process, by *commands* to circusd.

    Attributes:
        name: Its name in the log.
        period: Seconds until the next tick after one that raised.
    """

    name = ""
    period = 1.0

    def __init__(self, commands: Commands, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._commands = commands
        self._clock = clock
        self._said = Sparingly(clock=clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.name)  # begins with its first work

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do *work* that may block, in the one thread of this part, after what it was given before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def tick(self) -> float:
        """Do the due work; return the seconds until the next tick."""
        raise NotImplementedError

    def handle_event(self, event: BusEvent) -> float | None:
        """Note an event, without waiting. Return the seconds within which it needs a tick, or None."""
        return None

    async def close(self) -> bool | None:
        """Save what must not be lost, because the process ends in a moment; return False where it is lost."""


async def ask_state(commands: Commands, *, deadline: float = 2.0) -> State:
    """Query the state of circusd and validate it; raise CircusdGone or CommandRefused."""
    return state_in(await commands.call("xboard_state", deadline=deadline))


class ThreadedCommands:
    """Send commands to the circusd at *endpoint* in one thread, so that a silent circusd never blocks the loop.

    The calls of all parts queue up there; keep deadlines short, and try again at the next tick.
    """

    def __init__(self, endpoint: str) -> None:
        self._client = CircusdClient(endpoint)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="circusd")
        self._said = Sparingly()

    async def call(self, command: str, *, deadline: float = 2.0, **properties: Any) -> Mapping[str, Any]:
        """Return circusd's reply to *command*; log an internal error of circusd with its traceback."""
        call = partial(self._client.call, command, deadline=deadline, **properties)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except CommandRefused as refusal:
            if refusal.trace and self._said.may_say((command, refusal.reason)):
                log.error("internal error in circusd: %s\n%s", refusal, refusal.trace)
            raise

    def close(self) -> None:
        """Close the connection after the current call."""
        self._thread.submit(self._client.close)
        self._thread.shutdown(wait=False)


class Parent:
    """Watch the circusd that started this process: its parent.

    Where that one has died before this process got here, the parent is init, or a subreaper above it, which is older.
    The mark in the environment may also be inherited from another circusd further up, than which our own is younger.
    """

    def __init__(self, mark: str | None = None, *, getppid: Callable[[], int] = os.getppid) -> None:
        self._getppid = getppid
        self.pid = getppid()
        self._pidfd: int | None = None
        self._came_late = _has_ended(mark, above=self.pid)

    def is_gone(self) -> bool:
        """Return whether circusd has ended, so that all work here is useless."""
        return self._came_late or self._getppid() != self.pid

    def descriptor(self) -> int | None:
        """Return a descriptor that gets readable when circusd ends; None if `is_gone` has to be polled."""
        if self._pidfd is None and self._getppid is os.getppid:
            with suppress(ProcessLookupError):
                self._pidfd = procs.open_pidfd(self.pid)
        return self._pidfd


class PartLoop:
    """Run *parts* on an asyncio loop until circusd is gone or `end` is called.

    Each part has its own chain of timers on the loop's monotonic clock. Tornado's PeriodicCallback, which Circus
    uses, sleeps an hour when the system's clock is set back by one.

    *obituary* returns the loss of a circusd that ended without a stop request. The parts get it before they close,
    because no other process may be left to report it; *reported* gets it when they have closed.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        parent: Parent,
        leave: Callable[[], None],
        obituary: Callable[[], Loss | None] = lambda: None,
        reported: Callable[[Loss], object] = lambda _: None,
    ) -> None:
        self._parts = parts
        self._parent = parent
        self._leave = leave
        self._obituary = obituary
        self._reported = reported
        self._seen: Loss | None = None
        self._epoch = ""
        self._said = Sparingly()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarms: list[tuple[Part, Alarm]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start, on a loop that runs or will run in a moment."""
        self._loop = loop
        self._alarms = [(part, Alarm(loop)) for part in self._parts]
        for part, alarm in self._alarms:
            self._spawn(self._run(part, alarm))
        if (descriptor := self._parent.descriptor()) is not None:
            loop.add_reader(descriptor, self._parent_ended, descriptor)
        self._spawn(self._watch_parent())

    def hear(self, event: BusEvent) -> None:
        """Take *event* from the bus; once circusd is gone, only its own last words, by the name that it numbers with.

        Its port is free then. ZeroMQ connects again by itself, to whichever user's process has bound that.
        """
        epoch = circusd_of(event.data.get("seq"))
        if not self._parent.is_gone():
            self._epoch = epoch or self._epoch
        elif not epoch or epoch != self._epoch:
            return
        self.dispatch(event)

    def dispatch(self, event: BusEvent) -> None:
        """Pass *event* to every part."""
        for part, alarm in self._alarms:
            try:
                within = part.handle_event(event)
            except Exception as error:
                self._log_failure(part, error)
                continue
            if within is not None:
                alarm.ring(max(LEAST_PAUSE, within))

    def end(self, why: str) -> None:
        """Close all parts, for a few seconds at most, and leave."""
        if not self._ending:
            self._ending = True
            log.info("ending: %s", why)
            self._spawn(self._close())

    async def _run(self, part: Part, alarm: Alarm) -> None:
        while not self._ending:
            try:
                pause = await part.tick()
            except Exception as error:
                self._log_failure(part, error)
                pause = part.period
            await alarm.sleep(max(LEAST_PAUSE, pause))

    def _parent_ended(self, descriptor: int) -> None:
        assert self._loop is not None
        self._loop.remove_reader(descriptor)
        self._report_gone()

    async def _watch_parent(self) -> None:
        # With a descriptor, one look is enough: circusd may have ended before it was opened.
        while not self._ending:
            if self._parent.is_gone():
                self._report_gone()
            if self._parent.descriptor() is not None:
                return
            await asyncio.sleep(PARENT_EVERY)

    def _report_gone(self) -> None:
        if not self._ending and (loss := self._loss()) is not None:
            log.warning("%s", loss.reason)
            self.dispatch(BusEvent(CIRCUSD, loss.kind, loss.as_data()))
            self._seen = loss
        self.end(f"circusd ({self._parent.pid}) is gone")

    def _loss(self) -> Loss | None:
        try:
            return self._obituary()
        except Exception:  # the process has to end all the same
            log.exception("how circusd ended is not known")
            return None

    async def _close(self) -> None:
        closing = [asyncio.ensure_future(self._closed(part)) for part in self._parts]
        await asyncio.wait(closing, timeout=CLOSE_SECONDS if self._seen is None else LOST_SECONDS)
        # What is not recorded the next circusd reports.
        if self._seen is not None and all(each.done() and each.result() for each in closing):
            self._reported(self._seen)
        self._leave()

    async def _closed(self, part: Part) -> bool:
        try:
            return await part.close() is not False
        except Exception as error:
            self._log_failure(part, error)
            return True

    def _spawn(self, work: Any) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        # The loop itself keeps only weak references.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _log_failure(self, part: Part, error: Exception) -> None:
        if self._said.may_say((part.name, type(error), str(error)[:100])):
            trace = None if isinstance(error, XboardError) else error
            log.error("%s: %s: %s", part.name, type(error).__name__, error, exc_info=trace)


class XboardPlugin(CircusPlugin):  # type: ignore[misc]
    """Host the parts of a subclass, as a Circus plugin.

    It has its own log file, ``plugin-NAME.log`` in ``log_dir``, and ends itself when circusd is gone, which
    Circus's own plugins do not. Paths in its options are relative to the folder of circus.ini.
    """

    name = "xboard"

    def __init__(
        self, endpoint: str, pubsub_endpoint: str, check_delay: float, ssh_server: str | None = None, **config: str
    ) -> None:
        super().__init__(endpoint, pubsub_endpoint, check_delay, ssh_server=ssh_server, **config)
        own_memory.keep_large_blocks_apart()
        self.options, self.problems = parse_plugin(config)
        self.home = Path(os.environ.get("XBOARD_HOME") or os.getcwd())
        self.commands = ThreadedCommands(endpoint)
        self.host: PartLoop | None = None

    def parts(self) -> list[Part]:
        """Return the parts of this plugin."""
        raise NotImplementedError

    def path(self, text: str) -> Path:
        """Return the file or folder in an option."""
        return self.home / text

    def handle_init(self) -> None:
        """Start; Circus calls this when the loop is made, just before it runs it."""
        parent = Parent(os.environ.get("XBOARD_CIRCUSD"))
        open_log(
            self.path(self.options.log_dir) / plugin_log_name(self.config.get("name") or self.name),
            parent=parent.pid if self.options.container.log == "stdout" else None,
        )
        log.info(
            "%s %s from %s, pid %d, for circusd %d at %s",
            type(self).__name__,
            xboard_circus.__version__,
            os.path.dirname(os.path.abspath(xboard_circus.__file__)),
            os.getpid(),
            parent.pid,
            self.endpoint,
        )
        for problem in self.problems:
            log.warning("option ignored, its default is used: %s", problem)
        loop: asyncio.AbstractEventLoop = self.loop.asyncio_loop
        try:
            self.host = PartLoop(self.parts(), parent=parent, leave=self._leave, obituary=obituary, reported=reported)
        except Exception:
            # Circus closes the output of its plugins, so the traceback would be lost.
            log.exception("the plugin cannot start; circusd starts it again")
            raise
        for signum in (signal.SIGTERM, signal.SIGINT):
            # Only the main thread may; elsewhere a signal just ends the process, as it does without this.
            with suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(signum, self.host.end, signal.Signals(signum).name)
        self.host.start(loop)
        loop.call_later(own_memory.SETTLED, own_memory.give_back_libraries)

    def handle_recv(self, data: Sequence[bytes]) -> None:
        """Handle one message of the bus."""
        event = decoded(data)
        if event is not None and self.host is not None:
            self.host.hear(event)

    def _leave(self) -> None:
        logging.shutdown()
        # Not sys.exit, which waits for our threads; one of them may be waiting for a circusd that is gone.
        os._exit(0)


def decoded(data: Sequence[bytes]) -> BusEvent | None:
    """Return the event in a message of circusd's bus; None for an invalid one.

    >>> decoded([b"watcher.web.reap", b'{"process_pid": 71}'])
    BusEvent(watcher='web', kind='reap', data={'process_pid': 71})
    >>> decoded([b"watcher.api.v2.reap", b"{}"]).watcher
    'api.v2'
    """
    if len(data) != 2:
        return None
    # From the right, because a watcher's name may have a dot in it, the name of an event has none.
    prefix, _, kind = data[0].decode("utf-8", errors="replace").rpartition(".")
    first, _, watcher = prefix.partition(".")
    try:
        content = json.loads(data[1])
    except (ValueError, RecursionError):
        return None
    if first != "watcher" or not watcher or not kind or not isinstance(content, dict):
        return None
    return BusEvent(watcher, kind, content)


def _has_ended(mark: str | None, *, above: int) -> bool:
    """Return whether the circusd of *mark* has ended, and the process *above* was there before it."""
    try:
        marked = procs.Identity.parse(mark or "")
    except ValueError:
        return False
    if marked.pid in (1, above) or procs.is_running(marked.pid, marked.started):
        return False
    began = procs.start_time(above)
    return above == 1 or (began is not None and began <= marked.started)
