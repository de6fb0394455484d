"""Patch the log files of Circus: those of watchers, which a failed rotation closes and others delete, and its own."""

import logging
import os
from contextlib import suppress
from functools import partial
from logging.handlers import WatchedFileHandler
from typing import IO, Any

from circus.util import LOG_FMT

from xboard_circus.host.users import user_of
from xboard_circus.host.written_files import opener, rotate_held
from xboard_circus.rotating_log import CIRCUSD_OLD_FILES, RotatingLog
from xboard_circus.supervisor.circusd_out import own_output
from xboard_circus.supervisor.patches.patch import Original, replaces, wraps


@wraps("_FileStreamBase._open")
def open_no_link(_: Original, __: object, stream: Any) -> IO[str]:
    """Open a log of a watcher, but no link of another user's where circusd is root.

    Without it: A user who may write the folder of a log has root write what he wants into any file.
    Fact: Circus opens the name with open(), again at each rotation.
    """
    return open(stream._filename, "a+", opener=opener)


@wraps("FileStream._do_rollover")
def rotate_in_place(original: Original, _: object, stream: Any) -> None:
    """Rotate a log of a watcher in its folder, which stays the same one throughout; so for `TimedRotatingFileStream`.

    Without it: A user who exchanges a folder above a log of root's for a link has root delete what lies there.
    Fact: Circus deletes and renames by the name of the file.
    """
    rotate_held(stream, "_filename", partial(original, stream))


@wraps("Redirector.add_redirections")
def read_without_waiting(original: Original, _: object, redirector: Any, process: Any) -> None:
    """Read the output of processes without waiting for it.

    Without it: A worker that takes its own output back out of the pipe has circusd wait in read() for ever.
    Fact: Circus reads when epoll has seen something, from a pipe that blocks; it belongs to the worker's user.
    """
    for _, pipe in redirector.get_process_pipes(process):
        os.set_blocking(pipe.fileno(), False)
    original(redirector, process)


STREAMS = ("stdout_stream", "stderr_stream")


@wraps("Watcher.spawn_process")
def print_through_circusd(original: Original, _: object, watcher: Any, *args: Any, **named: Any) -> Any:
    """Give each watcher of another user without a stream a pipe to circusd's own output, armed or not.

    Without it: Its processes read what root types into the terminal of circusd, and fill `circusd.out` without a bound.
    Fact: Without a stream Circus hands on its own stdout and stderr. The user may be set between two starts.
    """
    for name in STREAMS:
        if getattr(watcher, name) is None and (own := own_output(name, user_of(watcher)[0])) is not None:
            give(watcher, name, own)
    return original(watcher, *args, **named)


def give(watcher: Any, name: str, stream: Any) -> None:
    """Give *watcher*, which may have processes already, another *stream* for what its next ones print."""
    setattr(watcher, name, stream)
    if watcher.stream_redirector:  # it reads from the processes that run already
        watcher.stream_redirector.change_stream(name.removesuffix("_stream"), stream)
    else:
        watcher._create_redirectors()


def open_again(stream: Any) -> None:
    """Open the file of *stream* again, because a failed rotation leaves a closed one, or none. Raises OSError."""
    old: Any = getattr(stream, "_file", None)
    make = getattr(stream, "_open", None)
    if make is None:
        return
    with suppress(OSError, ValueError, AttributeError):
        old.close()
    stream._file = make()


def is_nameless(stream: Any) -> bool:
    """Return whether the file of *stream* was deleted, moved away, or could not be opened."""
    try:
        return not os.path.samestat(os.stat(stream._filename), os.fstat(stream._file.fileno()))
    except (FileNotFoundError, ValueError):
        return True
    except (OSError, AttributeError, TypeError):
        return False


def name_of(stream: Any) -> str:
    """Return the name of the file of *stream*, for a message."""
    return str(getattr(stream, "_filename", type(stream).__name__))


LOG_BYTES = 10 << 20


@replaces("logging.Logger.handlers")
def rotate_log(handlers: list[logging.Handler], _: object) -> list[logging.Handler]:
    """Let circusd rotate its log file. A logger that was set up by `loggerconfig` is left as it is.

    Without it: circusd's log grows without bound; and root's goes through a link of another user's.
    Fact: Circus writes to it with a WatchedFileHandler, which only follows what others rotate, by any link.
    """
    return [_rotating(each) for each in handlers]


def _rotating(handler: logging.Handler) -> logging.Handler:
    """Return a rotating handler in place of Circus's; any other is returned as it is."""
    if type(handler) is not WatchedFileHandler or getattr(handler.formatter, "_fmt", None) != LOG_FMT:
        return handler
    ours = RotatingLog(handler.baseFilename, max_bytes=LOG_BYTES, old_files=CIRCUSD_OLD_FILES)
    ours.setFormatter(handler.formatter)
    ours.setLevel(handler.level)
    with suppress(OSError):  # the first line tries again
        ours.stream = ours._open()  # at once, because `umask` is to narrow what Circus has made
    with suppress(OSError):  # a full disk: what waits to be written is lost, and that is no reason to arm nothing
        handler.close()  # a removed handler that is installed again opens its file again
    return ours
