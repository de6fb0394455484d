"""Calls to circusd, and what it publishes, recorded by a thread from before it starts."""

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import zmq
from circus.client import make_message
from circus.exc import CallError

from xboard_circus.zmtp import Dealer, TooLarge

KNOCK_AGAIN_AFTER = 0.02


class Caller:
    """Sends commands to a circusd, over the connections that it has open already.

    Circus's own client, for each call another, costs a circusd of root's a look through all descriptors of the machine.
    """

    def __init__(self) -> None:
        self._idle: list[tuple[str, Dealer]] = []

    def call(
        self, endpoint: str, command: str, properties: Mapping[str, object], *, timeout: float, waits: bool = True
    ) -> dict[str, Any]:
        """Return the reply, whatever it says; CallError when none comes, or, unless it *waits*, when nobody listens."""
        message = {**make_message(command, **properties), "id": uuid.uuid4().hex}
        ends_at = time.monotonic() + timeout
        while True:
            is_sent = False
            with contextlib.ExitStack() as fails:
                try:
                    dealer = self._open(endpoint) or Dealer(_connected(endpoint, timeout))
                    fails.callback(dealer.close)
                    dealer.send(json.dumps(message).encode(), ends_at=ends_at)
                    is_sent = True
                    reply: dict[str, Any] = {}
                    while reply.get("id") != message["id"]:
                        reply = json.loads(dealer.receive(ends_at=ends_at))
                    fails.pop_all()
                    self._idle.append((endpoint, dealer))
                    return reply
                except (OSError, TooLarge) as error:
                    if is_sent or not waits or time.monotonic() + KNOCK_AGAIN_AFTER >= ends_at:
                        raise CallError(f"no answer to {command}: {error!r}") from error
            time.sleep(KNOCK_AGAIN_AFTER)

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _open(self, endpoint: str) -> Dealer | None:
        """Take a connection to *endpoint* that has not ended."""
        with contextlib.suppress(IndexError):  # other threads call, too
            while True:
                to, dealer = self._idle.pop()
                if to == endpoint and dealer.is_silent():
                    return dealer
                dealer.close()
        return None


def _connected(endpoint: str, timeout: float) -> socket.socket:
    address = urlsplit(endpoint)
    if address.scheme == "tcp":
        return socket.create_connection((str(address.hostname), address.port or 0), timeout)
    with contextlib.ExitStack() as fails:
        made = fails.enter_context(socket.socket(socket.AF_UNIX))
        made.connect(endpoint.removeprefix("ipc://"))
        fails.pop_all()
    return made


@dataclass(frozen=True)
class Event:
    """One message of Circus's bus, ``watcher.WATCHER.NAME``; *at* is when it came, on the monotonic clock."""

    watcher: str
    name: str
    message: dict[str, Any]
    at: float

    @property
    def pid(self) -> int | None:
        """Of whom it speaks: Circus says process_pid, we say pid."""
        return self.message.get("process_pid", self.message.get("pid"))

    @property
    def reason(self) -> str:
        return str(self.message.get("reason", ""))


class Events:
    """A listener on *endpoint* that outlives circusd, so nothing is missed when it is killed and started again."""

    def __init__(self, endpoint: str) -> None:
        self._events: list[Event] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(endpoint,), daemon=True, name="events")
        self._thread.start()

    def _listen(self, endpoint: str) -> None:
        context = zmq.Context()
        listener = context.socket(zmq.SUB)
        listener.setsockopt(zmq.SUBSCRIBE, b"watcher.")
        listener.setsockopt(zmq.RECONNECT_IVL, 10)  # ms, not the usual 100: the first events come soon
        listener.setsockopt(zmq.LINGER, 0)
        listener.connect(endpoint)
        while not self._stop.is_set():
            if listener.poll(50):
                topic, body = listener.recv_multipart()
                _, watcher, name = topic.decode().split(".", 2)
                self._events.append(Event(watcher, name, json.loads(body), time.monotonic()))
        listener.close()
        context.term()

    def all(self, watcher: str | None = None) -> list[Event]:
        return [event for event in list(self._events) if watcher in (None, event.watcher)]

    def named(self, name: str, watcher: str | None = "web", *, since: float = 0.0) -> list[Event]:
        """Those called *name*, in the order in which they came."""
        return [event for event in self.all(watcher) if event.name == name and event.at >= since]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(90)
