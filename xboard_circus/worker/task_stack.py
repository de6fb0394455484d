"""Find the stack of a task that waits, and show its frames."""

import asyncio
import gc
import os
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

from xboard_circus.core.frames import app_first, package_of

MOST_FRAMES = 200
MIDDLEWARE = "starlette.middleware.base"
_HAVE_FRAMES = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


class Stack(NamedTuple):
    """Where a task stands: its frames, the outermost first, and whether it waits for a thread of anyio's pool."""

    frames: list[FrameType]
    in_thread: bool


def stack_of(task: "asyncio.Task[Any]") -> Stack:
    """Return the stack of a task that waits, with those of the task or the thread that it waits for.

    `Task.get_stack` has the outermost frame only.
    """
    frames: list[FrameType] = []
    following: asyncio.Task[Any] | None = task
    while following is not None and len(frames) < MOST_FRAMES:
        own = suspended(following)
        frames += own
        following = _awaited(following, own)
    thread = frames[-1].f_locals.get("worker") if frames else None
    if not isinstance(thread, threading.Thread):
        return Stack(frames, in_thread=False)
    return Stack(frames + list(calls(sys._current_frames().get(thread.ident or 0)))[::-1], in_thread=True)


def suspended(task: "asyncio.Task[Any]") -> list[FrameType]:
    """Return the frames of the coroutines of a task that waits, the outermost first."""
    frames: list[FrameType] = []
    at: Any = task.get_coro()
    while at is not None and len(frames) < MOST_FRAMES:
        if isinstance(at, _HAVE_FRAMES):
            frames += [frame for name in _FRAMES if (frame := getattr(at, name, None)) is not None]
            at = next((each for name in _AWAITED if (each := getattr(at, name, None)) is not None), None)
        else:  # one step of an async generator: only the garbage collector knows its generator
            at = next((each for each in gc.get_referents(at) if isinstance(each, _HAVE_FRAMES)), None)
    return frames


def calls(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it.

    Another thread goes on meanwhile, and in place of a frame that it has left Python 3.11 was seen to give anything.
    """
    while isinstance(frame, FrameType):
        yield frame
        frame = frame.f_back


def behind_middleware(task: "asyncio.Task[Any]") -> "asyncio.Task[Any]":
    """Return the task in which Starlette's BaseHTTPMiddleware runs what is behind it; *task* itself without one."""
    for frame in suspended(task):
        if frame.f_globals.get("__name__") == MIDDLEWARE and frame.f_code.co_name == "__call__":
            for child in _running(frame.f_locals.get("task_group")):
                return behind_middleware(child)
    return task


def _awaited(task: "asyncio.Task[Any]", frames: Sequence[FrameType]) -> "asyncio.Task[Any] | None":
    """Return the task that another one waits for, the first of several."""
    if (behind := behind_middleware(task)) is not task:
        return behind
    for waiter in gc.get_referents(task):
        if isinstance(waiter, asyncio.Task):
            return waiter
        if isinstance(waiter, asyncio.Future):
            for its_dict in gc.get_referents(waiter):
                for child in _unfinished(its_dict.get("_children") if isinstance(its_dict, dict) else ()):  # of gather
                    return child
    return next(iter(_running(frames[-1].f_locals.get("self"))), None) if frames else None


def _running(group: Any) -> "list[asyncio.Task[Any]]":
    """Return the tasks of a task group of asyncio's or anyio's."""
    if type(group).__name__ != "TaskGroup":  # nothing else is looked into: it may be an object of the app's
        return []
    return sorted(_unfinished(vars(group).get("_tasks")), key=lambda each: each.get_name())


def _unfinished(tasks: Any) -> "list[asyncio.Task[Any]]":
    return [each for each in tasks or () if isinstance(each, asyncio.Task) and not each.done()]


def shown(frames: Sequence[FrameType], app: str) -> list[str]:
    """Return lines for *frames*: the app's, the last call first, then one for all others. No value is in them."""
    codes = [(each.f_code, each.f_lineno) for each in reversed(frames)]
    return app_first([f'  File "{code.co_filename}", line {line} in {code.co_name}' for code, line in codes], app)


def place(frames: Sequence[FrameType], app: str) -> str:
    """Return in short where the app is, else where the library is that it called: function, file and line."""
    own = [frame for frame in frames if not package_of(frame.f_code.co_filename, app)] or [*frames]
    if not own:
        return "?"
    code = own[-1].f_code
    return f"{code.co_name} ({os.path.basename(code.co_filename)}:{own[-1].f_lineno})"
