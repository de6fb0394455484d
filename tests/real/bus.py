"""What circusd publishes, recorded by a thread from before it starts."""

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import zmq


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
        self._thread.join(30)
