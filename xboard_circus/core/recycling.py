"""Decide when a healthy worker is recycled, by its memory, its requests or its age.

Nothing in this module asks the system: the caller brings what is known of the worker, and replaces it.
"""

from typing import NamedTuple

from xboard_circus.core.durations import seconds
from xboard_circus.core.sentences import Say

SPREAD = 0.2
MIB = 1024 * 1024


class RecycleLimits(NamedTuple):
    """Limits at which a worker is recycled; 0 is no limit. *rss* is in bytes, *age* in seconds of being ready."""

    rss: int = 0
    requests: int = 0
    age: float = 0.0


def due(
    limits: RecycleLimits, *, rss: int | None, requests: int | None, age: float | None, spread: float = 0.0
) -> str | None:
    """Return why to recycle a worker now, or None.

    *spread*, from 0 to 1 and the worker's own, raises its limits of requests and age by up to 20 %, so that workers
    that started together do not end together. An unknown value (None) is below every limit.

    >>> due(RecycleLimits(requests=1000), rss=None, requests=1000, age=5)
    'served 1000 requests, worker.max_requests = 1000'
    >>> due(RecycleLimits(requests=1000), rss=None, requests=1000, age=5, spread=0.5) is None
    True
    """
    factor = 1 + SPREAD * spread
    if limits.rss and rss is not None and rss >= limits.rss:
        return Say.GROWN(mib=f"{rss / MIB:.0f}", limit=f"{limits.rss / MIB:g}")
    if limits.requests and requests is not None and requests >= limits.requests * factor:
        return Say.SERVED_ENOUGH(n=requests, limit=limits.requests)
    if limits.age and age is not None and age >= limits.age * factor:
        return Say.LIVED_ENOUGH(age=seconds(age), max_age=seconds(limits.age))
    return None
