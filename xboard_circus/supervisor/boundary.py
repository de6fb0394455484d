"""The boundary towards circusd: what fails on our side is logged here and goes no further."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from circus import logger

P = ParamSpec("P")
T = TypeVar("T")


def contained(default: T) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function that circusd calls answer *default* where it would have raised.

    A hook that raises counts as a refusal in Circus, and a refusal stops the whole watcher (healthy workers too).
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except Exception:
                logger.exception("xboard: %s failed; circusd goes on without it", function.__qualname__)
                return default

        return call

    return decorate


async def contained_task(work: Coroutine[Any, Any, object], what: str) -> bool:
    """Run *work* to its end; log an exception as a failure of *what*, and return whether there was none."""
    try:
        await work
        return True
    except Exception:
        logger.exception("xboard: %s failed; circusd goes on without it", what)
        return False
