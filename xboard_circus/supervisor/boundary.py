"""Contain our failures: they are logged here and never reach circusd."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from circus import logger

P = ParamSpec("P")
T = TypeVar("T")


def contained(default: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function that circusd calls return *default* where it would have raised.

    A hook that raises counts as a refusal in Circus, and a refusal stops the whole watcher (healthy workers too).
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except Exception:
                logger.exception("xboard: %s failed; circusd goes on without it", function.__qualname__)
                answer: T = default
                return answer

        return call

    return decorate


async def contained_task(work: Awaitable[T], what: str, default: T) -> T:
    """Run *work* to its end and return its result; an exception is logged as a failure of *what*."""
    try:
        return await work
    except Exception:
        logger.exception("xboard: %s failed; circusd goes on without it", what)
        return default
