"""Guard a TCP endpoint of circusd: only its own user may connect, though ZeroMQ accepts every local user.

ZeroMQ listens on a unix socket that accepts only this process. In front of it, on the endpoint itself, each
connection's user is looked up while both of its ends are open, before a byte is read; an accepted connection is copied
to and fro in circusd's loop. So `circusctl` works without an option, and another user gets nothing. A look-up takes
0.05 ms, and one connection is accepted in a turn of the loop, so that a flood of them does not delay the workers. Nor
does a client of the right user that leaks connections take circusd down: ZeroMQ aborts the process that has no
descriptor left for one, and each takes three, so the one that was quiet for longest makes room.

The kernel tells who made a socket, not who connected it. Root makes sockets and hands them on: its circusd to workers
of another user, nginx and systemd to theirs, and each of these can shut such a listener down and connect it to here; so
can whom any user gives one. So what comes from a port that the kernel gives to no client is refused, since a listener
that is connected keeps its port; and when the first bytes have come, root's circusd looks in /proc, in a thread, for
who has the socket: one process, of a user who may, and not circusd, which has those of its workers. Another user's
circusd cannot see that, and accepts no socket of root's.

Who has it need not have connected it. Some of root's processes take descriptors from others: systemd keeps them for its
services, its journal looks at each and closes it, another circusd may be taking a listener over. A user who puts the
own copy aside meanwhile, into the queue of a unix socket, would be taken for one of them. But none of these waits for
what such a socket receives, and a client does, by epoll, from before it sends its first byte: ZeroMQ, and `zmtp` too.

The right user is not enough: a web page can have the browser of circusd's own user send an HTTP request here. ZeroMQ
reads what does not begin with a greeting as its protocol of 2010, ZMTP 1.0: the request line became the name of a
client, and the body, which the page chooses, a command. So only what begins as ZeroMQ since 3.0 begins is passed on.
"""

import asyncio
import errno
import os
import re
import resource
import select
import socket
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from circus import logger

from xboard_circus.host import servers, sockdiag
from xboard_circus.host.sockets import awaits_input, is_loopback, ports_of_clients, users_of_socket
from xboard_circus.supervisor.boundary import DaemonThread

Loop = asyncio.AbstractEventLoop
CHUNK = 65536
BACKLOG = 4096  # with 100, a flood by another user cost circusd's own user one call in six: its SYN was dropped
PAUSE = 1.0  # where no descriptor is left for a connection
LOG_AGAIN_AFTER = 60.0
PATIENCE = 5.0
SIGNATURE = 10  # bytes that ZeroMQ since 3.0 sends first, without an answer: 0xff, 8 of a length, and an odd one
GREETING_WITHIN = 30.0  # as ZeroMQ itself waits for it
KNOCK_AGAIN_AFTER = 0.005
QUIET = 0.05  # ZeroMQ passes on a last answer in a thread of its own
LAST_ANSWERS = 0.5


def is_guarded(endpoint: str) -> bool:
    """Return whether *endpoint* can be guarded here: a TCP endpoint of this host alone, with known users.

    Not one of IPv6: no client of Circus connects to it, so circusd would run without an answer to any. ZeroMQ refuses
    it.
    """
    host = urlsplit(endpoint).hostname or ""
    return endpoint.startswith("tcp://") and ":" not in host and is_loopback(host) and sockdiag.knows_users()


def may_command(holders: Mapping[int, Collection[int]], users: Collection[int], circusd: int) -> bool:
    """Return whether whoever has a socket open may command circusd: one process that runs under *users* alone.

    Where more have it, one of another user may have put its own aside for a moment, into the queue of a unix socket.
    *circusd* itself has what it shares with its workers.

    >>> may_command({7: {0}}, {0}, 1), may_command({7: {0}, 8: {33}}, {0}, 1), may_command({7: {33, 0}}, {0}, 1)
    (True, False, False)
    """
    if len(holders) != 1 or circusd in holders:
        return False
    (its,) = holders.values()
    return bool(its) and set(its) <= set(users)


def protocol_of(first: bytes) -> str:
    """Return the protocol of a connection that begins with *first*, in one of few words, because each is logged.

    >>> protocol_of(b"POST /x HT"), protocol_of(b"\x16\x03\x01")
    ('an HTTP request', 'a TLS handshake')
    """
    if re.match(rb"[A-Z]{3,10}( |$)", first):
        return "an HTTP request"
    return "a TLS handshake" if first.startswith(b"\x16\x03") else "something else"


def address_of(endpoint: str) -> tuple[str, int]:
    """Return the numeric address of a TCP *endpoint*; OSError for a name without an address."""
    address = urlsplit(endpoint)
    return socket.gethostbyname(address.hostname or ""), address.port or 0


class GuardedEndpoint:
    """The listener on *endpoint*, and the connections behind it to *inner*, where ZeroMQ has to listen.

    Attributes:
        inner: A unix endpoint of an unpredictable name, without a file.
        listener: Listens on the endpoint; it may be passed to the next circusd.
    """

    def __init__(
        self, endpoint: str, users: Collection[int], loop: Loop, *, listener: socket.socket | None = None
    ) -> None:
        """Accept on *endpoint* for *users*. Bind it if there is no *listener* yet; OSError if it cannot.

        Clients that connected to a passed listener since the last circusd left wait in its queue, and are answered now.
        """
        self.endpoint = endpoint
        self.inner = f"ipc://@xboard-{os.urandom(16).hex()}"
        self._users = set(users)
        self._pid = os.getpid()
        self._loop = loop
        self._noted: dict[str, tuple[float, int]] = {}
        self._open: set[_Connection] = set()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(4, files // 8) if files != resource.RLIM_INFINITY else 1 << 16
        self._ungreeted: dict[socket.socket, asyncio.TimerHandle] = {}
        self.listener = listener or socket.create_server(address_of(endpoint), backlog=BACKLOG)
        self._looks: dict[socket.socket, asyncio.Task[None]] = {}
        self._looker = DaemonThread(starts_now=os.geteuid() == 0)  # another user's circusd has no look
        self.listener.setblocking(False)
        loop.add_reader(self.listener, self._accept)

    def close(self) -> None:
        """Pass on the last answers, and close everything."""
        for outer in list(self._ungreeted):
            self._refuse(outer)
        self._loop.remove_reader(self.listener)
        self.listener.close()
        self._looker.end()
        give_up_at = time.monotonic() + LAST_ANSWERS
        while self._open and time.monotonic() < give_up_at:
            inner = {connection.inner.fileno(): connection for connection in self._open}
            poll = select.poll()
            for number in inner:
                poll.register(number, select.POLLIN)
            ready = poll.poll(QUIET * 1000)
            if not ready:
                break
            for number, _ in ready:  # what ZeroMQ has sent, as far as it can be passed on at once
                inner[number].copy(inner[number].inner, inner[number].outer)
        for connection in list(self._open):
            connection.close()

    def _accept(self) -> None:
        try:
            outer, _ = self.listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                self._loop.remove_reader(self.listener)
                self._loop.call_later(PAUSE, self._accept_again)
            return
        try:
            peer, port = sockdiag.peer_of(outer), outer.getpeername()[1]
        except OSError as error:
            self._failed(outer, error)
            return
        outer.setblocking(False)
        if peer is None or peer.maker not in self._users:
            outer.close()
            if peer is not None:  # else it has closed the connection already, as a probe for a listener does
                who = f"refused a connection of user {servers.name_of(peer.maker)} to {self.endpoint}"
                self._note("user", f"{who}: {self._only()}")
        elif port not in ports_of_clients():
            outer.close()
            self._note("port", f"refused a connection to {self.endpoint} from port {port}: no client has such a port")
        else:
            if len(self._ungreeted) >= self._most:
                self._refuse(next(iter(self._ungreeted)))
            self._ungreeted[outer] = self._loop.call_later(GREETING_WITHIN, self._refuse, outer)
            self._loop.add_reader(outer, self._read_signature, outer, peer, bytearray())

    async def _look_for_holders(self, outer: socket.socket, peer: sockdiag.Peer, signature: bytes) -> None:
        try:
            holders = await self._looker.run(partial(users_of_socket, peer.inode, self._users))
            may = may_command(holders, self._users, self._pid)
            may = may and await self._looker.run(partial(awaits_input, next(iter(holders)), peer.inode))
        finally:
            del self._looks[outer]
            if not self._looks:
                self._accept_again()
        if may:
            self._hand_on(outer, signature, time.monotonic() + PATIENCE)
        else:
            if holders or _is_open(outer):  # else it has closed the connection meanwhile
                self._note_holders(peer.maker, holders)
            outer.close()

    def _read_signature(self, outer: socket.socket, peer: sockdiag.Peer, got: bytearray) -> None:
        """Read the first bytes, which may come in pieces, and pass the connection on if ZeroMQ sent them."""
        try:
            more = outer.recv(SIGNATURE - len(got))
        except BlockingIOError:
            return
        except OSError:
            more = b""
        got += more
        is_whole, is_zeromq = len(got) == SIGNATURE, got[:1] == b"\xff" and (len(got) < SIGNATURE or got[-1] & 1 == 1)
        if is_whole and is_zeromq:
            self._forget(outer)
            if os.geteuid() != 0:
                self._hand_on(outer, bytes(got), time.monotonic() + PATIENCE)
            else:  # the next connections wait, so that a flood has one thread, and few descriptors
                self._loop.remove_reader(self.listener)
                self._looks[outer] = self._loop.create_task(self._look_for_holders(outer, peer, bytes(got)))
        elif not more or not is_zeromq:
            self._refuse(outer)
            if got and not is_zeromq:
                what = protocol_of(bytes(got))
                text = f"closed a connection of user {servers.name_of(peer.maker)} to {self.endpoint}: it sent {what}"
                self._note(what, f"{text}, not ZeroMQ's protocol. Look for the program or web page that sends it")

    def _refuse(self, outer: socket.socket) -> None:
        self._forget(outer)
        outer.close()

    def _forget(self, outer: socket.socket) -> None:
        self._ungreeted.pop(outer).cancel()
        self._loop.remove_reader(outer)

    def _hand_on(self, outer: socket.socket, signature: bytes, give_up_at: float) -> None:
        try:
            inner = self._connected()
        except BlockingIOError as error:
            # ZeroMQ's queue is full: any user can find its name and connect, although it accepts no other user.
            if time.monotonic() < give_up_at:
                self._loop.call_later(KNOCK_AGAIN_AFTER, self._hand_on, outer, signature, give_up_at)
            else:
                self._failed(outer, error)
        except OSError as error:
            self._failed(outer, error)
        else:
            if len(self._open) >= self._most:
                min(self._open, key=lambda each: each.heard_at).close()
                what = f"{self._most} connections to {self.endpoint} are open"
                cure = "that which was quiet for longest is closed. Look for the program that leaves them open"
                self._note("full", f"{what}: {cure}")
            connection = _Connection(outer, inner, self._loop, self._open.discard)
            self._open.add(connection)
            connection.send(outer, inner, signature)

    def _failed(self, outer: socket.socket, error: OSError) -> None:
        outer.close()
        if error.errno != errno.ENOTCONN:  # otherwise its client has reset it already
            self._note(str(error), f"a connection to {self.endpoint} failed: {error}")

    def _connected(self) -> socket.socket:
        inner = socket.socket(socket.AF_UNIX)
        try:
            inner.setblocking(False)
            inner.connect(self.inner.replace("ipc://@", "\0"))
        except OSError:
            inner.close()
            raise
        return inner

    def _accept_again(self) -> None:
        if self.listener.fileno() != -1:
            self._loop.add_reader(self.listener, self._accept)

    def _note_holders(self, maker: int, holders: Mapping[int, Collection[int]]) -> None:
        shown = ", ".join(f"pid {pid} ({_named(users)})" for pid, users in sorted(holders.items()))
        shown = f"{shown} has it" if holders else "no process that circusd may look into has it (see CAP_SYS_PTRACE)"
        what = f"refused a connection to {self.endpoint}: {servers.name_of(maker)} made its socket, and {shown}"
        how = "by a process that shares it with no other, and waits for answers by epoll; ipc:// needs no look"
        self._note("holders", f"{what}; {self._only()}, {how}")

    def _only(self) -> str:
        return f"only {_named(self._users)} may command this circusd"

    def _note(self, why: str, text: str) -> None:
        """Log *text*, once in a while for each *why*, because any user can connect again and again, as thousands of
        subordinate users too, and would fill the disk."""
        now = time.monotonic()
        last, unlogged = self._noted.get(why, (float("-inf"), 0))
        if now - last < LOG_AGAIN_AFTER:
            self._noted[why] = last, unlogged + 1
            return
        self._noted[why] = now, 0
        logger.warning("xboard: %s%s", text, f" ({unlogged} more since the last such line)" if unlogged else "")


def _named(users: Collection[int]) -> str:
    return " and ".join(map(servers.name_of, sorted(users)))


def _is_open(outer: socket.socket) -> bool:
    with suppress(OSError):
        return sockdiag.peer_of(outer) is not None
    return False


@dataclass(eq=False)
class _Connection:
    """One accepted connection; *ended* is called with it at its end.

    Attributes:
        heard_at: When something was sent last.
    """

    outer: socket.socket
    inner: socket.socket
    loop: Loop
    ended: "Callable[[_Connection], None]"
    heard_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.loop.add_reader(self.outer, self.copy, self.outer, self.inner)
        self.loop.add_reader(self.inner, self.copy, self.inner, self.outer)

    def close(self) -> None:
        """Close both ends."""
        for end in (self.outer, self.inner):
            self.loop.remove_reader(end)
            self.loop.remove_writer(end)
            end.close()
        self.ended(self)

    def copy(self, source: socket.socket, to: socket.socket) -> None:
        """Pass on what *source* has."""
        try:
            data = source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.heard_at = time.monotonic()
            self.send(source, to, data)
        else:
            self.close()

    def send(self, source: socket.socket, to: socket.socket, data: bytes) -> None:
        """Send *data*; if *to* accepts no more, read no more from *source* until it does."""
        sent = 0
        try:
            with suppress(BlockingIOError):
                sent = to.send(data)
        except OSError:
            self.close()
            return
        self.loop.remove_writer(to)
        if sent < len(data):
            self.loop.remove_reader(source)
            self.loop.add_writer(to, self.send, source, to, data[sent:])
        else:
            self.loop.add_reader(source, self.copy, source, to)
