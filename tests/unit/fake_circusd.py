"""What stands in for circusd: it speaks Circus's protocol over real ZeroMQ, and says what the test wants."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import zmq

Answer = Callable[[dict[str, Any]], Any]

BUSY = {"status": "error", "errno": 5, "reason": "arbiter is already running manage_watchers command"}
UNKNOWN = {"status": "error", "errno": 2, "reason": "unknown command: 'xboard_state'"}


def always(reply: dict[str, Any]) -> Answer:
    return lambda asked: reply


def in_turn(*replies: dict[str, Any]) -> Answer:
    """Give each reply once, and the last one ever after."""
    left = list(replies)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


@dataclass
class FakeCircusd:
    """Answers each command by the function of its name; one without a name here is never answered.

    A function may return a dict (the reply), a list of frames to send as they are, or None (no answer).
    """

    answers: dict[str, Answer]
    endpoint: str = "tcp://127.0.0.1:*"
    asked: list[dict[str, Any]] = field(default_factory=list)
    clients: set[bytes] = field(default_factory=set)

    def __enter__(self) -> "FakeCircusd":
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind(self.endpoint)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._thread.join(60)
        self._router.close()
        self._context.term()

    def commands(self) -> list[str]:
        return [message["command"] for message in self.asked]

    def _serve(self) -> None:
        while not self._leaving.is_set():
            if not self._router.poll(10):
                continue
            client, body = self._router.recv_multipart()
            message = json.loads(body)
            self.clients.add(client)
            self.asked.append(message)
            answer = self.answers.get(message["command"], always({}))(message)
            frames = answer if isinstance(answer, list) else [] if answer is None else [answer]
            for frame in frames:
                body = frame if isinstance(frame, bytes) else json.dumps({"id": message["id"], **frame}).encode()
                self._router.send_multipart([client, body])


def late(seconds: float, reply: dict[str, Any]) -> Answer:
    """Answer the first question only after that time, the others at once and with their own number."""
    count = 0

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 1:
            time.sleep(seconds)
        return {**reply, "number": count}

    return answer
