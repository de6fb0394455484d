"""Find the circusd of one ini file: whether it runs, and whether the process that answers is that circusd."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from xboard_circus import __version__, config, snapshot
from xboard_circus.checks import port_rules
from xboard_circus.checks.file_rules import split_endpoint
from xboard_circus.checks.findings import Level
from xboard_circus.circus_client import CircusdClient, CircusdGone, CommandRefused, Impostor, UserRefused
from xboard_circus.core.headlines import Headline, gone
from xboard_circus.core.names import some_of
from xboard_circus.core.sentences import as_named
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, listeners, procs, runtime, servers, sockdiag, writers, written_files
from xboard_circus.local_time import since
from xboard_circus.options.reading import suggestion
from xboard_circus.snapshot import Snapshot
from xboard_circus.survivors import Served, serving_on

ANSWER_WITHIN = 3.0
GRACEFUL_TIMEOUT = 30.0  # Circus's own default
NAMED = 8
LOOK_EVERY = 0.2
SEEN_WITHIN = 12.0
"""Seconds since the last sign of life within which circusd works: it gives one every 5 s."""


class EndpointTaken(XboardError):
    """Another process than this instance's circusd answers, or listens, on its endpoint."""


class CircusdAbsent(XboardError):
    """Our circusd is gone, or does not answer: *headline* is what the page says of that."""

    def __init__(self, headline: Headline) -> None:
        super().__init__(". ".join(each["reason"] for each in headline["lines"]))
        self.headline = headline


class Silent(NamedTuple):
    """Our circusd is alive and does not answer; *why* is the error instead."""

    identity: procs.Identity
    why: str


class Instance:
    """The backend of one ini file; *by* names the sender of commands to its circusd.

    Attributes:
        owner: The owner of the file, who decides what circusd is.
        is_anothers: That is another user of this host, neither root nor who looks.
        user: That of the circusd that `find` has found, as it was then; None without one.
        unread: Why the file cannot be read, though its circusd runs; *config* is then what can be read of it. Only with
            *lenient*, for commands that look or stop.
    """

    def __init__(
        self,
        config_file: Path,
        *,
        answer_within: float = ANSWER_WITHIN,
        by: str | None = None,
        lenient: bool = False,
        looks: bool = False,
    ) -> None:
        self.config_file, self.by, self.answer_within = config_file, by, answer_within
        self._found: servers.EndpointServer | None = None
        self.user: int | None = None
        # Once: a link put in its place meanwhile would have us stop another circusd than this one.
        self._file, owner, links = written_files.settle(config_file)
        self.owner = os.geteuid() if owner is None else owner  # deleted while its circusd runs
        self.is_anothers = self.owner not in (0, os.geteuid()) and writers.User.of(self.owner) is not None
        # As the kernel does in /tmp, see protected_symlinks in proc(5).
        if (others := links - {0, os.geteuid(), owner}) and os.geteuid() in (0, self.owner):
            link = f"a link of {servers.name_of(min(others))}'s"
            raise XboardError(f"{config_file}: {link} leads to another user's {self._file}; name that file itself")
        self.id, self.unread = runtime.instance_at(self._file, str(config.path_of(config_file))), ""
        looks = looks and not runtime.was_started(self.id)  # a user who has started it trusts its owner
        try:
            self.config = config.load(config_file, looks=looks)
        except XboardError as error:
            if not (lenient and runtime.supervisor_of(self.id)):
                raise
            self.config, self.unread = config.load_readable(config_file, looks=looks), str(error)
        if owner is None and (not self.unread or os.path.lexists(self._file)):
            raise XboardError(f"{config_file}: was put there while this command looked at it; run it again")
        self.shown = self.config.shown

    @property
    def endpoint(self) -> str:
        """Return the endpoint of our circusd: while it runs, the one it was started with, whatever the ini contains by
        now."""
        record = runtime.read_record(self.id) if runtime.supervisor_of(self.id) is not None else None
        return str((record or {}).get("endpoint") or self.config.endpoint)

    def client(self, *, as_found: bool = True) -> CircusdClient:
        """Return a client for our circusd's endpoint, *as_found* for the one that `find` has found, if it has."""
        endpoint = config.absolute(self.endpoint, self.config.folder)
        return CircusdClient(endpoint, by=self.by, owner=self.owner, found=self._found if as_found else None)

    def find(self) -> Snapshot | Silent | None:
        """Look for our circusd; None if it does not run.

        Raises:
            EndpointTaken: Another circusd, or another program, has the endpoint.
        """
        try:
            with self.client(as_found=False) as client:
                found = self.query(client)
                # Where the listener is unknown, it may name processes of the user who wrote the ini, and none of ours
                # where that is another user of this host.
                listener = client.listener
                users = listener.users or ({self.owner} if self.is_anothers else {self.owner, os.geteuid()})
        except CircusdGone as error:
            return self._without_answer(error)
        pid, config_file = found.circusd["pid"], found.circusd["config_file"]
        asked_at, user = procs.now(), procs.user_of(pid)
        # A process of root's may get that pid at once.
        is_to_come = user is None and (self.is_anothers or found.identity.started >= asked_at)
        if is_to_come or (user is not None and (user not in users or not self._may_be_ours(found.identity))):
            under = ", and which this command is, or runs under" if pid in procs.spared() else ""
            whose = "no process has yet" if user is None else f"is user {servers.name_of(user)}'s{under}"
            who = f"says that it is pid {pid}, which {whose}"
            raise self._taken(f"what answers at {self.endpoint} {who}: it is not believed")
        if not self._is_ours(config_file):
            who = f"another circusd, pid {pid}, of {config_file or 'an unknown ini file'}"
            raise self._taken(f"{self.config.endpoint} is answered by {who}", "that one")
        self._found, self.user = listener, user
        return found

    def watcher(self, found: Snapshot, name: str) -> WatcherEntry:
        """Return the watcher of that name; XboardError with a similar name, or all of them, if it is missing."""
        if (watcher := found.watcher(name)) is None:
            names = [each["name"] for each in found.watchers]
            hint = suggestion(name, names, alike=0.6, otherwise=f"known are: {', '.join(names)}")
            raise XboardError(f"circusd of {self.shown} has no watcher {name}; {hint}")
        return watcher

    def watchers(self, found: Snapshot, names: Iterable[str]) -> list[WatcherEntry]:
        """Return the watchers of those names, each once; XboardError if one is missing."""
        return list({watcher["name"]: watcher for watcher in (self.watcher(found, name) for name in names)}.values())

    def query(self, client: CircusdClient) -> Snapshot:
        """Query the circusd at the other end of *client*, ours or another's."""
        try:
            return snapshot.from_state(client.state(deadline=self.answer_within))
        except CommandRefused:
            # No watcher is armed, or none has been started yet.
            try:
                with client.held():
                    pid = client.pid()
                    return snapshot.from_state(snapshot.stock(client, pid=pid, config_file=procs.config_file_of(pid)))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise self._taken(f"what answers at {client.endpoint} does not answer as circusd does") from error

    def events(self) -> list[Any]:
        """Return the last events in our circusd's memory; none if it does not run or answer."""
        try:
            if not isinstance(self.find(), Snapshot):
                return []
            with self.client() as client:
                found, other = client.call("xboard_events", deadline=self.answer_within).get("events"), client.other
        except XboardError:  # no watcher is armed, or it has just ended
            return []
        found = found if isinstance(found, list) else []
        for each in (each for each in found if other and isinstance(each, list) and each):
            each[0] = as_named(str(each[0]), other)
        return found

    def write_record(self, circusd: procs.Identity, name: str = runtime.RECORD, *, was_started: bool = False) -> None:
        """Record *circusd* as ours, as its guard does at its first armed watcher; *was_started*: by this user."""
        fields = {"endpoint": self.config.endpoint, "config_file": str(self.config.path), "version": __version__}
        runtime.write_file(self.id, name, {**circusd._asdict(), "was_started": was_started, **fields})

    def is_replaced(self, circusd: procs.Identity) -> bool:
        """Return whether another circusd than this one is recorded as ours and runs, as after another restart."""
        return runtime.supervisor_of(self.id) not in (None, circusd)

    def mark_stopped(self) -> None:
        """Record for the monitor and the next circusd that an operator stopped this one, until the next record."""
        circusd_record.order_end(self.id)
        if (record := runtime.read_record(self.id)) is not None:
            runtime.write_record(self.id, **{**record, "stopped_by_operator": True})

    def running(self) -> Snapshot:
        """Return what our circusd runs; XboardError if it does not run, does not answer, or is another's."""
        return self.answered(self.find())

    def answered(self, found: Snapshot | Silent | None) -> Snapshot:
        """Return what `find` *found* if circusd answered; XboardError if not."""
        if isinstance(found, Silent):
            raise self._without_circusd(found.identity, self.crowded_out(found.identity) or found.why)
        if found is not None:
            return found
        refused = next((each for each in port_rules.findings(self.config) if each.level is Level.ERROR), None)
        cure = "`xboard-circus start` starts it"
        if refused is not None:
            cure = f"`xboard-circus start` is refused: {refused.what}; {refused.hint}"
        elif lost := circusd_record.lost(self.id):
            raise self._without_circusd(procs.Identity(lost.pid, lost.started))
        raise XboardError(f"{self.not_running()}{self.orphans_left()}; {cure}")

    def quiet_for(self, circusd: procs.Identity) -> float:
        """Return the seconds since the last sign of life of *circusd*; infinity where none is known."""
        life = circusd_record.read(self.id)
        return math.inf if life is None or circusd != (life.pid, life.started) else abs(time.time() - life.seen)

    def crowded_out(self, circusd: procs.Identity) -> str:
        """Return why *circusd* does not answer although it works: connections fill the queue of its endpoint; "" if
        none do, or if it hangs.

        Any user of this host can make them, and must not have it killed by that.
        """
        address = split_endpoint(self.endpoint)
        if self.quiet_for(circusd) > SEEN_WITHIN or address is None or not sockdiag.is_full(address[1]):
            return ""
        full = f"connections of other processes fill the queue of {self.endpoint}"
        cure = f"end the process that `ss -tnp dport = :{address[1]}` names, as root also another user's"
        return f"circusd (pid {circusd.pid}) works, but {full}: {cure}"

    def _without_circusd(self, circusd: procs.Identity, silent: str = "") -> CircusdAbsent:
        """Return what the page says of a *circusd* that is gone, or *silent*: since when, what serves, the cure."""
        now, life, age = time.time(), circusd_record.read(self.id), None
        if life is not None and circusd == (life.pid, life.started):
            age = max(self.answer_within if silent else 0.0, now - life.ended_at)
        ports = None if self.is_anothers else serving_on(self._served())  # as in the page's `_look_after_workers`
        return CircusdAbsent(gone(age=age, why=silent, is_dead=not silent, serving_on=ports, aged=since(now)))

    def _served(self) -> Iterator[Served]:
        """Yield the backends on TCP ports, with the workers that circusd has recorded."""
        recorded = circusd_record.workers(self.id)
        for each in filter(config.is_backend, self.config.watchers):
            workers = [worker for worker, (name, _) in recorded.items() if name == each.name]
            for socket in filter(None, map(self.config.socket, each.sockets_used)):
                if socket.port:
                    yield Served(socket.host, socket.port, each.options.health.live_path, workers)

    def not_running(self) -> str:
        """Return the line that circusd does not run, and how the last one ended."""
        lost = circusd_record.lost(self.id)
        how = f": the last one (pid {lost.pid}) was killed or crashed" if lost else ""
        return f"circusd of {self.shown} does not run{how}"

    def orphans_left(self) -> str:
        """Return a clause that names orphans of an earlier circusd; "" without any."""
        named = some_of([f"pid {each.pid} ({each.command})" for each in listeners.orphans(self.id)], NAMED)
        return f", but orphans of an earlier one still run: {named}" if named else ""

    def left_alone(self, below: Iterable[procs.Identity] = ()) -> str:
        """Return a clause that names what outlives circusd and its orphans; "" without any.

        That is what ran *below* circusd and is its user's by now, or has its mark, in a session of its own.
        """
        left = listeners.left_alone(self.id, [each for each in below if procs.is_of(each.pid, {self.user})])
        if not left:
            return ""
        named = some_of([f"pid {each.pid} ({listeners.command_of(each.pid)})" for each in left], NAMED)
        what = "1 process" if len(left) == 1 else f"{len(left)} processes"
        pids = " ".join(str(each.pid) for each in left[:NAMED])
        whom = "it" if len(left) == 1 else "them" if len(left) <= NAMED else f"the first {NAMED}"
        return f"left alone: {what} that its workers started: {named}; `kill {pids}` ends {whom}"

    def graceful_timeout(self, name: str | None = None) -> float:
        """Return how long the slowest watcher, or the one of that *name*, may take to stop."""
        watchers = [each for each in self.config.watchers if name is None or each.name.lower() == name.lower()]
        return max((watcher.graceful_timeout for watcher in watchers), default=GRACEFUL_TIMEOUT)

    def _may_be_ours(self, circusd: procs.Identity) -> bool:
        """Return whether *circusd* may be ours: of the processes that this command runs under only a recorded one; as
        root, of root's too, where another user has a say in who answers.

        That a listener is root's proves nothing: a worker of another user answers on the one that root's circusd made.
        """
        if circusd == runtime.supervisor_of(self.id):
            return True
        if (is_above := circusd.pid in procs.spared()) or {0} != {os.geteuid(), procs.user_of(circusd.pid)}:
            return not is_above
        endpoint = config.absolute(self.endpoint, self.config.folder)
        sockets = [Path(endpoint.removeprefix("ipc://"))] if endpoint.startswith("ipc:///") else []
        return self.owner == 0 and not any(map(writers.is_open, (*self.config.places, *sockets)))

    def _is_ours(self, config_file: str | None) -> bool:
        return config_file is not None and os.path.realpath(config_file) == self._file

    def _taken(self, what: str, which: str = "it", more: str = "") -> EndpointTaken:
        return EndpointTaken(f"{what}; stop {which}, or write another endpoint into [circus] of {self.shown}{more}")

    def _without_answer(self, gone: CircusdGone) -> Silent | None:
        if (recorded := runtime.supervisor_of(self.id)) is not None:
            self.user = procs.user_of(recorded.pid)
            return Silent(recorded, str(gone))
        if not gone.listening:
            return None
        if isinstance(gone, UserRefused):
            raise EndpointTaken(f"{gone}; if it is another one, write another endpoint into [circus] of {self.shown}")
        if isinstance(gone, Impostor):
            raise self._taken(str(gone), more=f"; if it is your circusd, run this as {gone.user}")
        address = split_endpoint(self.config.endpoint)
        holders = listeners.holders(*address) if address else []
        known = [procs.Identity(each.pid, each.started) for each in holders if each.pid and each.started is not None]
        users = {0, os.geteuid(), self.owner}  # whoever made the listener, a file on a command line is no proof
        for each in known:
            self.user = procs.user_of(each.pid)
            file = procs.config_file_of(each.pid) if self.user in users else None
            if self._is_ours(file) and self._may_be_ours(each):
                return Silent(each, str(gone))
        it = ", ".join(f"pid {holder.pid} ({holder.command})" for holder in holders) or "a process that can't be seen"
        raise self._taken(f"{self.config.endpoint} is held by {it}, which does not answer as circusd does")
