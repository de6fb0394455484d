"""Probe a worker or a URL: one request, one deadline for all of it.

Workers are probed over their own unix sockets, all at once on the caller's event loop: one socket call each if the
kernel has the answer ready, and no thread that a silent worker could block. A URL is queried with `requests` in a
thread of the caller's; a late answer is cut off from outside, because no time-out of a socket ends a server that sends
a byte a second.
"""

import asyncio
import enum
import json
import math
import re
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlencode

from xboard_circus.core.durations import exactly
from xboard_circus.core.health import Silence
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import PathReport, WorkerReport, parse_report
from xboard_circus.deadline import send_request
from xboard_circus.host import procs, unix_sockets
from xboard_circus.host.worker_files import LoopBeat, beat_of, peer_of
from xboard_circus.masking import masked, safe_text

BODY_LIMIT = PIECE = 64 * 1024
HEAD_LIMIT, CONTENT_LENGTH = 8 * 1024, re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})", re.IGNORECASE)
"""A head is looked through anew with each piece, and a worker that was taken over sends single bytes."""
FIRST_BYTES = 200
FIRST_LOOK, LOOK, GIVEN_UP_AFTER = 0.2, 0.15, 0.75
"""Seconds until a silent worker is looked at, and between two looks; one that a signal has stopped for the last, and
that has not run meanwhile, is not waited for."""
RAN = 0.1
"""Seconds on a core of a worker's first thread after which its others had a turn too, be the machine crowded."""
LEAST_TIMEOUT = 0.1
WORKER_SHARE = 0.8  # of the time-out is for the worker's request to its app; the rest is for the way of its answer


class Target(NamedTuple):
    """A worker to be probed.

    Attributes:
        pid: Key of its answer: the process that circusd spawned. A wrapper's worker has another one.
        socket: Path of its private socket, with a name that no other worker ever had.
        request: Request to send, see `worker_request`.
        timeout: Seconds for the whole exchange, connect to last byte.
        spared: Seconds for which an event loop may stand still; a probe in which they end is over then.
        on_silence: Called with what is seen at each look at a silent worker, and with None at the end of the probe.
    """

    pid: int
    socket: str
    request: bytes
    timeout: float
    spared: float = math.inf
    on_silence: Callable[[Silence | None], object] = lambda _: None


class Outcome(enum.Enum):
    """Outcome of the probe of a worker.

    Only silence proves an event loop that does not run. An unclear outcome comes from no loop (no descriptor left here,
    no right, no file there) or from a loop that runs and sends nonsense; no worker may be killed for either.
    """

    REPORT = "report"
    SILENCE = "silence"
    UNCLEAR = "unclear"


class WorkerAnswer(NamedTuple):
    """Answer of a worker to a probe.

    Attributes:
        reason: What went wrong, empty with a report.
        asked_at: When the probe began, in seconds of the monotonic clock.
        latency: Seconds that it took.
        report: The worker's report, empty with any other outcome.
        beats: The number beside its socket at the begin and the end of a silent probe; see `beat_of`.
        is_stopped: A signal such as SIGSTOP has stopped it.
    """

    outcome: Outcome
    reason: str
    asked_at: float
    latency: float
    report: WorkerReport = WorkerReport()
    beats: tuple[int, int] | None = None
    is_stopped: bool = False


class UrlAnswer(NamedTuple):
    """Answer of an address; *status* is None without one, *body* is the begin of a failing answer."""

    ok: bool
    reason: str
    status: int | None
    latency: float
    body: str = ""


class _NoReport(Exception):
    """A probe without a report: its outcome and the reason."""


class _Stopped(Exception):
    """The worker is stopped by a signal."""


def worker_request(*, live_path: str | None, ready_path: str | None, timeout: float) -> bytes:
    """Return the request for a worker's report, for which the worker probes its app.

    >>> worker_request(live_path="/health/live", ready_path=None, timeout=2.0).split(b"\\r\\n")[0]
    b'GET /-/worker?live=%2Fhealth%2Flive&timeout=1.6 HTTP/1.0'
    """
    query = {"live": live_path, "ready": ready_path, "timeout": f"{timeout * WORKER_SHARE:g}"}
    words = urlencode({name: value for name, value in query.items() if value})
    return f"GET /-/worker?{words} HTTP/1.0\r\nhost: worker\r\n\r\n".encode("ascii", errors="replace")


async def probe_workers(targets: Iterable[Target]) -> dict[int, WorkerAnswer]:
    """Query all *targets* at once; return their answers by pid, each within its time-out.

    Never raises for any behaviour of a worker.
    """
    probes = {target.pid: asyncio.create_task(_probe(target)) for target in targets}
    try:
        return {pid: await probe for pid, probe in probes.items()}
    finally:
        for probe in probes.values():
            probe.cancel()


async def _probe(target: Target) -> WorkerAnswer:
    asked_at, began = time.monotonic(), beat_of(target.socket)
    outcome, reason, report, is_stopped = Outcome.REPORT, "", WorkerReport(), False
    timeout = target.timeout
    if began is not None and began.stands_since:
        left = began.stands_since + target.spared - asked_at
        timeout = max(round(left, 1), LEAST_TIMEOUT) if 0 < left < timeout else timeout
    try:
        report = _report(await _exchange(target, asked_at + timeout, _Looks(target, asked_at, began)))
    except TimeoutError:
        outcome, reason = Outcome.SILENCE, Say.NO_ANSWER_WITHIN(timeout=exactly(timeout))
    except _Stopped:
        outcome, reason, is_stopped = Outcome.SILENCE, Say.STOPPED_BY_SIGNAL(), True
    except _NoReport as failure:
        outcome, reason = failure.args
    except OSError as error:
        outcome, reason = Outcome.UNCLEAR, Say.CUT_OFF(error=error.strerror or error)
    finally:
        target.on_silence(None)
    ended = beat_of(target.socket) if outcome is Outcome.SILENCE else None
    beats = None if began is None or ended is None else (began.steps, ended.steps)
    return WorkerAnswer(outcome, reason, asked_at, time.monotonic() - asked_at, report, beats, is_stopped)


@dataclass(slots=True)
class _Looks:
    """The looks at one worker while it does not answer.

    Attributes:
        first: Its first thread at the first look, *last* at the last one.
        stopped_at: When a signal had stopped it at the first look since which it has not run.
    """

    target: Target
    asked_at: float
    began: LoopBeat | None
    first: procs.FirstThread | None = None
    last: procs.FirstThread | None = None
    stopped_at: float = 0.0

    def look(self, connection: socket.socket) -> float:
        """Look, and return when the next look is due; raise `_Stopped` where none is."""
        now, beat, peer = time.monotonic(), beat_of(self.target.socket), peer_of(connection)
        thread = None if peer is None else procs.first_thread(peer[0])
        if thread is None or not thread.is_stopped or thread != self.last:
            self.stopped_at = now
        self.last, stopped = thread, now - self.stopped_at
        stands = now - beat.stands_since if beat is not None and 0 < beat.stands_since <= now else 0.0
        moves = None if beat is None or self.began is None else beat.steps > self.began.steps
        self.first = first = self.first or thread
        computes = bool(thread and first and thread.waits == first.waits and thread.ran - first.ran >= RAN)
        lasts = now - self.asked_at
        self.target.on_silence(Silence(lasts=lasts, stands=stands, moves=moves, stopped=stopped, computes=computes))
        if round(stopped, 2) >= GIVEN_UP_AFTER:
            raise _Stopped
        return now + LOOK


async def _exchange(target: Target, ends_at: float, looks: _Looks) -> bytes:
    connection = _connected(target.socket)
    try:
        connection.sendall(target.request)  # it fits into the empty buffer
        received, look_at = bytearray(), looks.asked_at + FIRST_LOOK
        while missing := _missing(received):
            if received and time.monotonic() >= ends_at:
                raise TimeoutError
            try:
                piece = await _received(connection, min(missing, PIECE), min(look_at, ends_at))
            except TimeoutError:
                if time.monotonic() >= ends_at:
                    raise
                look_at = looks.look(connection)
                continue
            if not piece:
                break
            received += piece
        return bytes(received)
    finally:
        unix_sockets.close(connection)


async def _received(connection: socket.socket, size: int, ends_at: float) -> bytes:
    """Receive as `loop.sock_recv` does, until *ends_at*, and close attached descriptors here, not in the kernel.

    200 workers are probed at once: no task, and no try in vain for each, and the selector gets a number, because it
    writes out a socket that it does not know yet.
    """
    loop, descriptor = asyncio.get_running_loop(), connection.fileno()
    while True:
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        timer = loop.call_at(ends_at, readable.set)
        try:
            await readable.wait()
        finally:
            timer.cancel()
            loop.remove_reader(descriptor)
        with suppress(BlockingIOError):  # where the time is over, too: a late prober finds what has come
            return unix_sockets.read(connection, size)
        if time.monotonic() >= ends_at:
            raise TimeoutError


def _connected(path: str) -> socket.socket:
    connection = None
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix_sockets.refuse_descriptors(connection)
        connection.setblocking(False)
        # Not loop.sock_connect, which takes the EAGAIN of a full queue for a connect under way, and waits for nothing.
        connection.connect(path)
    except OSError as error:
        if connection is not None:
            connection.close()
        if isinstance(error, BlockingIOError):
            raise _NoReport(Outcome.SILENCE, Say.QUEUE_FULL()) from None
        raise _NoReport(Outcome.UNCLEAR, Say.UNREACHABLE(error=error.strerror or error)) from None
    return connection


def _missing(received: bytearray) -> int:
    """Return how much more to read at most: up to the announced length, or to the end, never beyond the limit."""
    left = BODY_LIMIT + 1 - len(received)
    end = received.find(b"\r\n\r\n", 0, HEAD_LIMIT)
    if end >= 0 and (length := CONTENT_LENGTH.search(received, 0, end)):
        left = min(left, end + 4 + int(length[1]) - len(received))
    return max(left, 0)


def _report(received: bytes) -> WorkerReport:
    if not received:
        raise _NoReport(Outcome.UNCLEAR, Say.CLOSED())
    if len(received) > BODY_LIMIT:
        raise _NoReport(Outcome.UNCLEAR, Say.ANSWER_TOO_LARGE(kib=BODY_LIMIT // 1024))
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or words[1] != b"200":
        line = head.split(b"\r\n")[0][:80].decode("ascii", errors="replace")
        raise _NoReport(Outcome.UNCLEAR, Say.ODD_ANSWER(line=repr(line)))
    try:
        report = json.loads(body)
        found = parse_report(report) if isinstance(report, dict) and "pid" in report else None
    # RecursionError: "[" times 60,000 fits into the limit; and what is just not too deep for json may be for others.
    except (ValueError, RecursionError):
        raise _NoReport(Outcome.UNCLEAR, Say.ANSWER_BROKEN()) from None
    if found is None:
        raise _NoReport(Outcome.UNCLEAR, Say.NO_REPORT())
    # The app's answer may contain a secret, and goes on to logs, alerts and the page where it is a failing one.
    found["live"], found["ready"] = _masked_failure(found["live"]), _masked_failure(found["ready"])
    return found


def _masked_failure(path: PathReport | None) -> PathReport | None:
    return path if path is None or path["ok"] else masked(path)


def probe_url(url: str, *, timeout: float) -> UrlAnswer:
    """Query *url* with a GET; only a 2xx in *timeout* seconds is healthy, so no redirect is.

    At most 64 KiB of the body are read: the status is known by then. Never raises; blocks for *timeout*, or for as long
    as the look-up of a name takes.
    """
    asked_at = time.monotonic()
    answer = send_request("GET", url, timeout=timeout, most=BODY_LIMIT, decoded=False, headers={"connection": "close"})
    latency, status = time.monotonic() - asked_at, answer.status
    body = safe_text(answer.body[:FIRST_BYTES].decode("utf-8", errors="replace"))
    if answer.is_late:
        return UrlAnswer(False, Say.NO_COMPLETE_ANSWER(timeout=exactly(timeout)), status, latency, body)
    if status is None or answer.error is not None:
        text = (isinstance(answer.error, OSError) and answer.error.strerror) or str(answer.error)
        return UrlAnswer(False, (text or type(answer.error).__name__)[:200], status, latency, body)
    if 200 <= status < 300:
        return UrlAnswer(True, "", status, latency)
    location = answer.headers.get("location", "")
    reason = (Say.ANSWERED_REDIRECT if location else Say.ANSWERED)(status=status, location=safe_text(location[:200]))
    return UrlAnswer(False, reason, status, latency, body)
