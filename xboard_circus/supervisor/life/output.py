"""Write the output of workers into the log in whole lines, and keep the last ones as evidence."""

import codecs
import os
import re
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from circus import logger

from xboard_circus.core.durations import lasted
from xboard_circus.core.masked_path import masked_path
from xboard_circus.core.sentences import Say
from xboard_circus.host.mounts import has_room, why_unwritten
from xboard_circus.masking import safe_text
from xboard_circus.supervisor.patches import circus_stream

TAIL_BYTES = 4096
STACK_BYTES = 64 * 1024
LONGEST_LINE = 16 * 1024
OVERLAP = 4096  # no secret that is longer is masked where it lies across a cut
TRY_AGAIN_AFTER = 1.0
LEAST_ROOM = 64 * 1024
PIPE_BYTES = 1 << 20
# First words of Python's faulthandler when a fatal signal ends the process.
STACK = b"Fatal Python error: "
_PATH = re.compile(r"""(?<=["'])([A-Z]{3,10}|WebSocket) (/[^\s?"']*)""")


def incomplete_suffix(data: bytes) -> int:
    """Return how many bytes at the end of *data* begin an incomplete UTF-8 character.

    >>> incomplete_suffix("日志".encode()), incomplete_suffix("日志".encode()[:-1])
    (0, 2)
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-8:])
    return len(decoder.getstate()[0])


def recorded(text: str) -> str:
    """Return output as it may be recorded: without secrets, nor ids and tokens in the paths of an access log.

    >>> recorded('10.0.0.7:0 - "GET /reset/Zx9dQ-1?next=home HTTP/1.1" 200 OK')
    '10.0.0.7:0 - "GET /reset/{id}?next=*** HTTP/1.1" 200 OK'
    """
    return safe_text(_PATH.sub(lambda found: f"{found[1]} {masked_path(found[2])}", text))


class LastWords:
    """The last bytes of one process's output, and, whole, the stacks that faulthandler wrote when it was killed.

    *hide*, and secrets under a telling name, are removed from them, because they become reasons, which go to logs,
    alerts and pages.
    """

    def __init__(self, hide: Callable[[bytes], bytes] = bytes) -> None:
        self._hide = hide
        self._tail = self._stack = self._before = b""  # the last: what came before the stack

    def add(self, piece: bytes) -> None:
        """Note a further piece."""
        # The mark may lie across the edge of two pieces.
        seen = self._tail[1 - len(STACK) :] + piece
        if (at := seen.rfind(STACK)) >= 0:
            self._before = (self._tail + piece)[: len(self._tail + piece) - len(seen) + at][-TAIL_BYTES - OVERLAP :]
            self._stack = seen[at:][:STACK_BYTES]
        elif self._stack and len(self._stack) < STACK_BYTES:
            self._stack = (self._stack + piece)[:STACK_BYTES]
        kept = TAIL_BYTES + OVERLAP
        self._tail = (self._tail + piece[-kept:])[-kept:]

    @property
    def tail(self) -> str:
        """Return the last bytes as text; the first line may be cut."""
        return self._text(self._tail)

    @property
    def log(self) -> str:
        """Return the last whole lines before the stacks; those of a deep app are longer than the tail."""
        return self._text(self._before if 0 < len(self._stack) < STACK_BYTES else self._tail, whole=True)

    def _text(self, kept: bytes, *, whole: bool = False) -> str:
        if len(kept) == TAIL_BYTES + OVERLAP:  # a secret may lie across the edge: its rest ends with the line
            kept = kept[kept.find(b"\n", 0, OVERLAP) + 1 :]
        shown = self._hide(kept)
        cut = shown[-TAIL_BYTES:]
        if whole and len(cut) < len(shown):
            cut = cut[cut.find(b"\n", 0, -1) + 1 :]
        return recorded(cut.decode("utf-8", errors="replace"))

    @property
    def stack(self) -> str:
        """Return the stacks of all its threads, empty if none were written."""
        return safe_text(self._hide(self._stack).decode("utf-8", errors="replace"))


@dataclass(slots=True)
class OutputLoss:
    """A log that cannot be written, since *since* of the monotonic clock.

    Attributes:
        lost: How many bytes could not be written so far.
    """

    file: str
    reason: str
    since: float
    lost: int = 0


@dataclass(eq=False, repr=False)
class Tail:
    """A Circus stream that passes whole lines on to *inner* and keeps the last words of every pid.

    Circus reads 1,024 bytes at a time and writes each piece alone. A character that lies across the edge comes out as
    two question marks, a line of one worker in the middle of another's, and with a `time_format` it gets a stamp in its
    middle. Pieces are therefore cut at line ends here, and a line longer than `LONGEST_LINE` between characters.

    If *inner* cannot write (a full disk, a missing folder), the output is lost, which is logged, and circusd goes on;
    Circus would log a traceback for every piece, and after a failed rotation never write again. Output that cannot be
    written at its close is lost, too: a watcher that fails to stop there would be "stopping" for ever, and circusd
    would not end.

    A file that was deleted or moved away is opened again: Circus's FileStream would write on into one without a name,
    and after ``find -name "*.log" -delete`` every line would be lost.
    """

    inner: Callable[[dict[str, Any]], object]
    tails: dict[int, LastWords]
    hide: Callable[[bytes], bytes] = bytes
    report: Callable[..., object] = lambda event, *, reason: None
    clock: Callable[[], float] = time.monotonic
    loss: OutputLoss | None = None
    _lost_before: int = 0
    _held: dict[tuple[int, str], bytes] = field(default_factory=dict)
    _failed_at: float = float("-inf")

    def __call__(self, piece: dict[str, Any]) -> None:
        pid, raw = piece["pid"], piece["data"]
        if isinstance(raw, bytes):
            self.tails.setdefault(pid, LastWords(self.hide)).add(raw)
            raw = self._held.pop((pid, piece["name"]), b"") + raw
            whole = raw.rfind(b"\n") + 1
            if not whole and len(raw) > LONGEST_LINE:
                raw = self.hide(raw)  # before the cut, and what follows stays: a secret may lie across it
                whole = max(len(raw) - OVERLAP, 0)
                whole -= incomplete_suffix(raw[:whole])
            if whole < len(raw):
                self._held[pid, piece["name"]] = raw[whole:]
            raw = self.hide(raw[:whole])
        if raw:
            self._write({**piece, "data": raw})

    def __getattr__(self, name: str) -> Any:
        # `open` and `close` are only called if the stream has them, so they must come from the stream itself.
        found = getattr(self.inner, name)
        return partial(self._contained, found, name) if name in ("open", "close") else found

    def _contained(self, method: Callable[[], object], name: str) -> None:
        try:
            method()
        except (OSError, ValueError) as error:
            logger.error("xboard: output may be lost, %s: %s: %s", circus_stream.name_of(self.inner), name, error)

    def write_into(self, stream: Any) -> None:
        """Write into another *stream* from now on, and close the one before."""
        if hasattr(self.inner, "close"):
            self.close()
        self.inner = stream

    def forget(self, pid: int) -> None:
        """Write the held rest of *pid* and forget it."""
        for key in [key for key in self._held if key[0] == pid]:
            self._write({"pid": pid, "name": key[1], "data": self.hide(self._held.pop(key))})

    @property
    def lost(self) -> int:
        """Return the bytes that could not be written."""
        return self._lost_before + (0 if self.loss is None else self.loss.lost)

    def _write(self, piece: dict[str, Any]) -> None:
        loss = self.loss
        if loss is not None and self.clock() - self._failed_at < TRY_AGAIN_AFTER:
            loss.lost += len(piece["data"])
            return
        try:
            if loss is not None or circus_stream.is_nameless(self.inner):
                circus_stream.open_again(self.inner)
            self.inner(piece)
        except Exception as error:
            self._failed_at = self.clock()
            if loss is None:
                loss = self.loss = self._begin_loss(error)
            loss.lost += len(piece["data"])
            return
        if loss is not None:
            self.loss, self._lost_before = None, self.lost
            reason = Say.OUTPUT_BACK(file=loss.file, lost=loss.lost, held=lasted(self.clock() - loss.since))
            logger.warning("xboard: %s", reason)
            self.report("output_back", reason=reason)

    def try_again(self) -> None:
        """Write what is missing into a log that could not be written, so that a loss ends though no worker writes."""
        if (loss := self.loss) is None or self.clock() - self._failed_at < TRY_AGAIN_AFTER:
            return
        if not has_room(loss.file, LEAST_ROOM):  # the rest of a block takes the note, and no line of the app's
            return
        lost = loss.lost
        note = f"xboard: {lost} bytes of output were lost here\n".encode()
        self._write({"pid": os.getpid(), "name": "stderr", "data": note})
        loss.lost = lost  # the note is no output

    def _begin_loss(self, error: Exception) -> OutputLoss:
        file = circus_stream.name_of(self.inner)
        reason = Say.OUTPUT_LOST(file=file, error=why_unwritten(error, file))
        logger.error("xboard: %s", reason)
        self.report("output_lost", reason=reason)
        return OutputLoss(file, reason, since=self._failed_at)


def drain(redirector: Any, process: Any, *, streams: Iterable[Any]) -> None:
    """Move the rest in the pipes of a dead *process* into the log, before Circus closes them unread.

    Circus closes a pipe as soon as it reaps the process. With prompt reaping that would lose the very lines that show
    why the process died. Never waits, because a grandchild may hold the other end open.
    """
    for name, pipe in redirector.get_process_pipes(process):
        if pipe is None or pipe.closed:
            continue
        left = PIPE_BYTES
        waiting = select.poll()  # not select(), which refuses descriptors from 1024 on
        waiting.register(pipe, select.POLLIN)
        while left > 0 and waiting.poll(0):
            try:
                data = os.read(pipe.fileno(), 65536)
            except BlockingIOError:  # another process has read it meanwhile
                break
            if not data:
                break
            left -= len(data)
            redirector.redirect[name]({"data": data, "pid": process.pid, "name": name})
    for stream in streams:
        if isinstance(stream, Tail):
            stream.forget(process.pid)
