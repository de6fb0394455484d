"""Send commands to circusd and read its replies.

Circus's own client can send and forget, waits anew after every stray message, and leaves three traps to its caller: an
answer of status "error" is no exception, a command that meets another is refused and not queued (errno 5), and a reply
after the time-out is read as the reply to the next command.
"""

import json
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from circus.client import make_message

from xboard_circus.core.durations import exactly
from xboard_circus.core.names import CHANGING
from xboard_circus.core.reason import LARGEST, Reason, data_of, reason_in, say_key
from xboard_circus.core.sentences import CHECK, Say, as_heard, name_all, quote_all
from xboard_circus.core.state_schema import ReloadEntry, State, UnreadableState, parse_state
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, servers, unix_sockets
from xboard_circus.host.servers import EndpointServer as Listener
from xboard_circus.zmtp import LARGEST as LARGEST_REPLY
from xboard_circus.zmtp import Dealer, TooLarge

Reply = dict[str, Any]

CONNECT_TIMEOUT = 1.0
COMMAND_ERROR = 5  # of circus.commands.errors, which imports all commands of Circus: 0.35 MiB
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
UNKNOWN = Listener(frozenset(), frozenset())

# Our own message, which Circus puts before the reason of a failed command.
_ECHO = re.compile(r"^command b(['\"])\{.*?\}\1: ", re.DOTALL)
# Circus's own words; it has no other way to distinguish a conflict from a failure.
_CONFLICT = re.compile(r"arbiter is (?:already running (\w+) command|restarting)")


class CircusdGone(XboardError):
    """No answer from circusd.

    Attributes:
        listening: A process has accepted the connection, and then did not answer in time.
    """

    def __init__(self, endpoint: str, what: str, *, listening: bool) -> None:
        super().__init__(Say.NO_ANSWER(endpoint=endpoint, why=what))
        self.listening = listening


class Impostor(CircusdGone):
    """A process of another user has the endpoint; its answers are not trusted."""

    def __init__(self, endpoint: str, user: str) -> None:
        super().__init__(endpoint, Say.IMPOSTOR(user=user), listening=True)
        self.user = user


class UserRefused(CircusdGone):
    """The circusd of *user* listens there, and refuses this user."""

    def __init__(self, endpoint: str, user: str) -> None:
        me = servers.name_of(os.geteuid())
        if os.geteuid() == 0:  # who has a socket that root made would come in, too, with endpoint_owner = root
            why = Say.REFUSED_AS_ROOT(user=user)
        else:
            why = Say.ROOT_REFUSED(me=me) if user == "root" else Say.USER_REFUSED(user=user, me=me)
        super().__init__(endpoint, why, listening=True)


class CommandRefused(XboardError):
    """circusd refused a command, for *reason*; *trace* is the traceback of an error inside it."""

    def __init__(self, command: str, reason: str, *, trace: str = "") -> None:
        super().__init__(Say.REFUSED(command=command, why=reason))
        self.reason, self.trace = reason, trace


class CircusdBusy(CommandRefused):
    """circusd was busy with another command until the deadline.

    Attributes:
        running: Name of that command inside Circus, such as ``arbiter_stop``; "" while circusd restarts.
    """

    def __init__(self, command: str, *, wait: float, running: str) -> None:
        why = Say.CIRCUS_BUSY(command=running) if running else Say.CIRCUS_RESTARTING()
        super().__init__(command, Say.STILL_BUSY(wait=exactly(wait), why=why))
        self.running = running


def _harms_nobody(cure: str, watcher: str, users: Collection[int | None]) -> bool:
    """Return whether another user's cure is a sentence about *watcher* and numbers, and ends only what *users* run."""
    if not isinstance(cure, Reason) or not cure.key.startswith("CURE_") or cure.key == Say.CURE_SHARED.name:
        return False
    fields = {"command": CHECK, "watcher": watcher, **cure.fields}
    word, *pids = str(fields.pop("command")).split()
    are_theirs = pids and all(each.isdecimal() and set() < procs.users_of(int(each)) <= {*users} for each in pids)
    is_ours = are_theirs if word == "kill" else " ".join([word, *pids]) == CHECK
    return bool(is_ours) and fields.pop("watcher") == watcher and all(isinstance(each, int) for each in fields.values())


def state_in(answer: Mapping[str, Any]) -> State:
    """Return the state in circusd's answer, validated; raise CommandRefused if it is invalid."""
    try:
        return parse_state(answer)
    except UnreadableState as error:
        raise CommandRefused("xboard_state", str(error)) from None


@dataclass
class _Connection:
    """A socket of one thread, and the listener at the endpoint when it was made."""

    door: socket.socket
    dealer: Dealer
    server: Listener | None


class CircusdClient:
    """Calls to the circusd at *endpoint*, each with a deadline.

    *by* names the sender, such as ``xboard-circus stop, user ann``; circusd records it with each change. On this host
    only a process of ours, root's or *owner*'s is trusted to be circusd: see `users_of`. Where the caller has found
    one there before, *found* is its `listener`, and another one by now is none: a link in the place of a unix socket,
    or a name of a host, could lead an order to another circusd of ours.

    One object may serve many threads. One connection may not, so each thread gets its own with its first call.

    >>> with CircusdClient("tcp://127.0.0.1:5555") as circusd:  # doctest: +SKIP
    ...     circusd.pid()
    4711
    """

    def __init__(
        self, endpoint: str, *, by: str | None = None, owner: int | None = 0, found: Listener | None = None
    ) -> None:
        self.by, self.owner, self._found = by, owner, found
        # circusd may listen at "tcp://*:5555", but no client can connect to that.
        self.endpoint = endpoint.replace("://*:", "://127.0.0.1:")
        self._local = threading.local()

    def __enter__(self) -> "CircusdClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def listener(self) -> Listener:
        """Return who has answered this thread, without users where that is unknown."""
        connection: _Connection | None = self._local.__dict__.get("connection")
        return UNKNOWN if connection is None or connection.server is None else connection.server

    @property
    def others(self) -> set[int | None]:
        """Return which users besides root and ours may have answered this thread; None where that is unknown.

        The owner of the ini is one: a worker of root's circusd has a listener that root made.
        """
        return {*(self.listener.users or {self.owner}), self.owner or 0} - {0, os.geteuid()}

    @property
    def other(self) -> str:
        """Return the name of one of `others`, "" without any."""
        return "?" if None in (others := self.others) else servers.name_of(max(filter(None, others))) if others else ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meet no other listener than the one that has just answered: what one says is not another's."""
        before, self._found = self._found, self.listener
        try:
            yield
        finally:
            self._found = before

    def close(self) -> None:
        """Close this thread's socket; the next call opens another."""
        if (connection := self._local.__dict__.pop("connection", None)) is not None:
            connection.dealer.close()

    def call(self, command: str, *, deadline: float = 5.0, **properties: Any) -> Reply:
        """Return circusd's reply to *command*; a `Reason` among the properties is sent with its data beside it.

        A refusal because circusd is busy with another command is tried again, for *deadline* seconds in all. What
        another user's says, as an answer or a refusal, is in quotes.

        Raises:
            CircusdGone: It did not answer within *deadline*. Whether it has acted is then unknown.
            CommandRefused: It refused.
            CircusdBusy: It still refused at the deadline, because of another command.
        """
        if self.by is not None and command in CHANGING:
            properties.setdefault("by", self.by)
        reasons = {name: value for name, value in properties.items() if isinstance(value, Reason)}
        properties.update({say_key(name): value.as_data() for name, value in reasons.items()})
        ends_at = time.monotonic() + deadline
        pause = FIRST_PAUSE
        while True:
            reply = self._exchange(make_message(command, **properties), deadline=deadline, ends_at=ends_at)
            # "status" alone does not mark an error: the command `status NAME` puts the watcher's own into it.
            if reply.get("status") != "error" or "reason" not in reply:
                return reply
            if (running := _running(reply)) is None:
                reason = _ECHO.sub("", reason_in(reply, longest=LARGEST))
                reason = as_heard(reason, other) if (other := self.other) else reason
                raise CommandRefused(command, reason, trace=str(reply.get("tb") or ""))
            if time.monotonic() + pause >= ends_at:
                raise CircusdBusy(command, wait=deadline, running=running)
            # Jitter, because commands that were refused together would otherwise come back together.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def state(self, *, deadline: float = 5.0) -> State:
        """Return the state that our guard keeps in circusd, validated.

        Another user's has its words in quotes, and of its cures those that harm nobody: who runs one has rights of his.

        Raises:
            CircusdGone: It did not answer.
            CommandRefused: It has no armed watcher, or its answer is invalid.
        """
        state = state_in(self.call("xboard_state", deadline=deadline))
        others, other = self.others, self.other
        for watcher in state["watchers"] if others else ():
            verdict, cure = watcher["verdict"], reason_in(watcher["verdict"], "cure")
            if cure and not _harms_nobody(cure, watcher["name"], others):
                cure = Say.CURE_AS_USER(user=other)
            quote_all(watcher, other)  # also what the answer had without its data
            verdict["cure"], verdict["cure_say"] = cure, data_of(cure)
        if others:
            ports = [port for each in state["watchers"] if (port := each["port"]) is not None]
            name_all([state["circusd"], *state["probers"], *state["watchers"], *ports], other)
        return state

    def options(self, name: str, *, deadline: float = 5.0) -> dict[str, Any]:
        """Return the options of watcher *name* that are in force."""
        return dict(self.call("options", name=name, deadline=deadline)["options"])

    def pid(self, *, deadline: float = 5.0) -> int:
        """Return circusd's own pid."""
        return int(self.call("dstats", deadline=deadline)["info"]["pid"])

    def restart(self, name: str, *, deadline: float = 5.0) -> None:
        """Stop watcher *name* and start it again."""
        self.call("restart", name=name, match="simple", waiting=True, deadline=deadline)

    def reload(self, name: str, *, deadline: float = 5.0) -> ReloadEntry:
        """Begin a rolling reload of armed watcher *name*, and return its progress; refused while one runs."""
        begun: ReloadEntry = self.call("xboard_reload", name=name, deadline=deadline)["reload"]
        return begun

    def scale(self, name: str, count: int, *, deadline: float = 5.0) -> None:
        """Have watcher *name* run *count* workers; it answers before they do."""
        self.call("set", name=name, options={"numprocesses": count}, waiting=False, deadline=deadline)

    def retry(self, name: str, slot: int) -> None:
        """Start the held worker in *slot* of armed watcher *name* now; refused if none is held there."""
        self.call("xboard_retry", name=name, slot=slot)

    def quit(self, *, deadline: float = 5.0) -> None:
        """Order circusd to stop all watchers and end; it answers that it will, not when it is done."""
        self.call("quit", deadline=deadline)

    def leave(
        self, *, but: Collection[str] = (), gate: int | None = None, deadline: float = 5.0
    ) -> dict[str, list[int]]:
        """Order circusd to end without its workers; return those that stay, by watcher. Watchers in *but* are stopped.

        It answers that it will, not when it is done, and releases the next circusd that waits at *gate*. Refused, with
        nothing changed, if no worker could stay, or none waits there.
        """
        return dict(self.call("xboard_leave", but=sorted(but), gate=gate, deadline=deadline)["stays"])

    def _exchange(self, message: Reply, *, deadline: float, ends_at: float) -> Reply:
        message["id"] = uuid.uuid4().hex
        try:
            connection = self._connection(ends_at)
            connection.dealer.send(json.dumps(message).encode(), ends_at=ends_at)
            while True:
                reply = _decoded(connection.dealer.receive(ends_at=ends_at))
                if reply.get("id") == message["id"]:
                    if (other := self.other) and "reason" not in reply:
                        quote_all(reply, other)
                    return reply
        except TimeoutError:
            self.close()
            raise CircusdGone(self.endpoint, Say.SILENT(wait=exactly(deadline)), listening=True) from None
        except (TooLarge, RecursionError) as error:
            self.close()
            why = Say.TOO_LARGE(limit=LARGEST_REPLY >> 20) if isinstance(error, TooLarge) else Say.TOO_DEEP()
            raise CircusdGone(self.endpoint, why, listening=True) from None
        except OSError as error:
            self.close()
            raise CircusdGone(self.endpoint, Say.IT_HAS_ENDED(), listening=False) from error
        except BaseException:
            self.close()
            raise

    def _connection(self, ends_at: float) -> _Connection:
        connection: _Connection | None = self._local.__dict__.get("connection")
        if connection is not None and not connection.dealer.is_silent():
            self.close()  # circusd has ended since the last call: it could have sent nothing else
            connection = None
        if connection is None:
            timeout = max(0.01, min(CONNECT_TIMEOUT, ends_at - time.monotonic()))
            server = self._server(timeout)
            with _gone_for_errors(self.endpoint):
                door = _connected(self.endpoint, timeout)
            connection = self._local.connection = _Connection(door, Dealer(door), server)
            self._confirm(door, server)
        return connection

    def _server(self, timeout: float) -> Listener | None:
        """Return the listener at the endpoint; CircusdGone without one, Impostor for another user's."""
        server = _knock(self.endpoint, timeout=timeout)
        if server is not None and not server.users:  # circusd has just been killed: the next connection is refused
            time.sleep(FIRST_PAUSE)
            server = _knock(self.endpoint, timeout=timeout)
        if server is not None and (user := server.stranger(servers.users_of(self.endpoint, self.owner))) is not None:
            raise Impostor(self.endpoint, user)
        if server is not None and server.refuses:
            raise UserRefused(self.endpoint, servers.name_of(min(server.users)))
        if self._found not in (None, server or UNKNOWN):
            raise CircusdGone(self.endpoint, Say.IT_HAS_ENDED(), listening=True)
        return server

    def _confirm(self, door: socket.socket, server: Listener | None) -> None:
        """Raise CircusdGone unless *door* leads to the *server* that another connection has found, before any order.

        A link, or the name of a host, may lead elsewhere by now: to root's circusd.
        """
        found = servers.server_of(door)
        if found is not None and server is not None:
            found = found._replace(refuses=server.refuses)
        if found != server:
            raise CircusdGone(self.endpoint, Say.IT_HAS_ENDED(), listening=True)


def _running(reply: Reply) -> str | None:
    """Return the command that another one met, "" for a restart of circusd; None if it failed by itself.

    Both carry errno 5.
    """
    found = _CONFLICT.match(str(reply["reason"])) if reply.get("errno") == COMMAND_ERROR else None
    return None if found is None else found[1] or ""


def _decoded(frame: bytes) -> Reply:
    with suppress(ValueError):
        reply = json.loads(frame)
        return reply if isinstance(reply, dict) else {}
    return {}


def _knock(endpoint: str, *, timeout: float) -> Listener | None:
    """Return the listener, None if unknown; raise CircusdGone at once without one."""
    with _gone_for_errors(endpoint), _connected(endpoint, timeout) as door:
        if (server := servers.server_of(door)) is None or door.family == socket.AF_UNIX:
            return server
        return server._replace(refuses=_refuses(door, server))


def _connected(endpoint: str, timeout: float) -> socket.socket:
    address = urlsplit(endpoint)
    if address.scheme not in ("ipc", "tcp"):
        raise CircusdGone(endpoint, Say.NO_ENDPOINT(), listening=False)
    # Over IPv4, as ZeroMQ listens: on ::1 of "localhost" any user may listen beside circusd.
    is_ipc = address.scheme == "ipc"
    door = socket.socket(socket.AF_UNIX if is_ipc else socket.AF_INET)
    if is_ipc:
        unix_sockets.refuse_descriptors(door)
    try:
        door.settimeout(timeout)
        door.connect(endpoint.removeprefix("ipc://") if is_ipc else (address.hostname or "", address.port or 0))
    except BaseException:
        door.close()
        raise
    return door


@contextmanager
def _gone_for_errors(endpoint: str) -> Iterator[None]:
    """Raise errors of a connection to *endpoint* as CircusdGone."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError) and endpoint.startswith("ipc:"):
            raise UserRefused(endpoint, servers.owner_of(endpoint.removeprefix("ipc://"))) from error
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CircusdGone(endpoint, what, listening=False) from error


def _refuses(door: socket.socket, server: Listener) -> bool:
    """Return whether the guard of another user's circusd has closed this connection; ZeroMQ greets an accepted one."""
    if not server.users or os.geteuid() in server.users:
        return False
    try:
        return not door.recv(1)
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
