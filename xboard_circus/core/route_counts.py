"""Lay out what a worker counts of its requests by route: numbers that only grow, so that a lost probe loses nothing.

A row of `STRIDE` numbers for each route: requests by class of status, microseconds of all, and a histogram of the
latencies. Microseconds and not seconds: a list of ints is validated without looking at each number in Python.
"""

import functools
import re

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the buckets of the histogram; one more has what takes longer."""

STATUSES = ("2xx", "3xx", "4xx", "5xx")
MICROSECONDS = len(STATUSES)
FIRST_BUCKET = MICROSECONDS + 1
STRIDE = FIRST_BUCKET + len(BOUNDS) + 1

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MOST_ROUTES = 100
LONGEST = 100
OTHER = "OTHER other"
"""Stands for what comes after `MOST_ROUTES` routes."""

# In ASCII: as JSON the names of 100 routes are then no longer than a probe reads.
_ODD = re.compile(r"[^\w/{}.:~*@+,;=&$!()-]", re.ASCII)


def route_name(name: str) -> str:
    """Return the name of a route as it may be a label: method and template, short, of harmless characters.

    >>> route_name("GET /items/{id}"), route_name("BREW /pots\\n"), route_name("")
    ('GET /items/{id}', 'OTHER /pots?', 'OTHER other')
    """
    return _route_name(name[: LONGEST + 20])  # what a worker sends may be long, and is kept by the cache


@functools.lru_cache(1024)
def _route_name(name: str) -> str:
    method, _, route = name.partition(" ")
    return f"{method if method in METHODS else 'OTHER'} {_ODD.sub('?', route[:LONGEST]) or 'other'}"
