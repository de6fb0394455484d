"""Answer 504 for an app that has not begun to answer within `request.timeout`, and cancel what it does.

The time counts from the call of the app, and anew from each piece of the request's body that the app has waited for: a
slow client is no slow app. Without the option nothing of this is in the way of a request.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from xboard_circus.worker.request_record import App, Message, Receive, Send
from xboard_circus.worker.task_stack import Stack, behind_middleware, stack_of

log = logging.getLogger("uvicorn.error")

BODY = b"Gateway Timeout"
HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(BODY))]
LOOK_AGAIN = 1.0

Task = asyncio.Task[Any]


class TimeLimit:
    """Serve *app*, and answer for it after *seconds*; *on_late* gets the task of such a request, and its stack."""

    def __init__(self, app: App, *, seconds: float, on_late: Callable[["Task", Stack], object]) -> None:
        self._app = app
        self._seconds = seconds
        self._on_late = on_late

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = _Call(receive, send, seconds=self._seconds, on_late=self._on_late)
        try:
            await self._app(scope, call.receive, call.send)
        except asyncio.CancelledError:
            if not call.was_cancelled:
                raise
        except Exception as error:
            if call.answer is None:
                raise
            # Not to uvicorn, which would close the connection: the next request may be on it already.
            if not call.was_cancelled:
                log.exception("Exception in ASGI application, for which 504 was answered before", exc_info=error)
        finally:
            await call.end()


class _Call:
    """One call of the app.

    Attributes:
        answer: The task that answers in place of the app; None until its time is over.
        was_cancelled: What the app does was cancelled because of that.
    """

    def __init__(
        self, receive: Receive, send: Send, *, seconds: float, on_late: Callable[["Task", Stack], object]
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._loop = task, asyncio.get_running_loop()
        self._receive, self._send = receive, send
        self._seconds, self._on_late = seconds, on_late
        self._sends_body, self._is_settled = True, False
        self.answer: asyncio.Task[None] | None = None
        self.was_cancelled = False
        self._timer = self._loop.call_later(seconds, self._expire)

    @property
    def transport(self) -> object:
        """Return the connection, as what calls `receive` of uvicorn's own finds it there."""
        return getattr(getattr(self._receive, "__self__", None), "transport", None)

    async def receive(self) -> Message:
        if not self._sends_body or self._is_settled:
            return await self._receive()
        self._timer.cancel()
        try:
            message = await self._receive()
        finally:
            if not self._is_settled:
                self._timer.cancel()
                self._timer = self._loop.call_later(self._seconds, self._expire)
        self._sends_body = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._settle()
        if self.answer is None:
            await self._send(message)

    async def end(self) -> None:
        self._settle()
        if self.answer is not None:
            await self.answer

    def _settle(self) -> None:
        """Cancel nothing from now on: the app has begun to answer, be it too late, or has ended."""
        self._is_settled = True
        self._timer.cancel()

    def _expire(self) -> None:
        self._is_settled = True
        self.answer = self._loop.create_task(self._respond())
        stack = stack_of(self._task)
        self._cancel()
        self._on_late(self._task, stack)

    async def _respond(self) -> None:
        await self._send({"type": "http.response.start", "status": 504, "headers": HEADERS})
        await self._send({"type": "http.response.body", "body": BODY})

    def _cancel(self) -> None:
        """Cancel what the app does, unless it waits for a thread: that would only give its place in the pool away.

        The pool would then start another thread for each request that it cannot end. Behind Starlette's middleware,
        its task group would cancel each await of a `finally` too, so what is behind it is cancelled alone.
        """
        if stack_of(self._task).in_thread:
            self._timer = self._loop.call_later(LOOK_AGAIN, self._cancel)
            return
        self.was_cancelled = True
        behind_middleware(self._task).cancel()
