"""Say which requests a worker was answering when it ended, the one that most likely did it first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xboard_circus.core.amounts import size_text
from xboard_circus.core.durations import lasted
from xboard_circus.core.reason import Reason, reason_in
from xboard_circus.core.sentences import Say

MOST_KEPT = 24
MOST_DEATHS = 10
"""Deaths for want of memory that are compared."""
MOST_SLOW = 8
"""Slow requests that a worker keeps for the prober."""
RUNNING, LAST, LARGEST, IN_FLIGHT = "running", "last", "largest", "in flight"
LARGE = 1 << 20
"""Bytes of a body that may be why memory was short."""
NO_REQUEST = 2**64 - 1
"""In place of a serial: the loop has been in one callback for long, and that is of no request."""


class SeenRequest(NamedTuple):
    """One request in flight, as its worker noted it.

    Attributes:
        serial: Its number among the requests of this worker, from 1 on.
        began_at: In seconds of the monotonic clock.
        route: The template of its route, or its path with everything masked that is no plain word.
        size: The bytes of its body, as its header announces them; 0 where it does not.
    """

    serial: int
    began_at: float
    method: str
    route: str
    id: str
    size: int = 0


class SeenRequests(NamedTuple):
    """The requests in flight in one worker.

    Attributes:
        running: The serial of the one whose task an event loop runs that does not turn; 0 where none is known, and
            `NO_REQUEST` where it runs something else, such as a background task.
        beyond: How many more are in flight than there is room for.
        answered: The routes of the last ones that were answered, each with its method.
    """

    requests: list[SeenRequest]
    running: int
    beyond: int
    answered: Sequence[str] = ()


def listed(seen: SeenRequests, now: float, *, blames_last: bool, most: int = MOST_KEPT) -> dict[str, Any]:
    """Return the requests as data: the one that ran first, else with *blames_last* the newest, then the oldest first.

    Without *blames_last* the one with the largest body stands behind the oldest. The newest is a guess, and none is
    made where the loop is known to run something else (`ran_none`).

    >>> slow, fast = SeenRequest(1, 2.0, "GET", "/slow", "a-1"), SeenRequest(2, 9.5, "GET", "/die", "a-2")
    >>> seen = SeenRequests([slow, fast], 0, 0)
    >>> [(each["route"], each["state"]) for each in listed(seen, 10.0, blames_last=True)["requests"]]
    [('/die', 'last'), ('/slow', 'in flight')]
    """
    by_age = sorted(seen.requests, key=lambda each: each.began_at)
    running = next((each for each in by_age if each.serial == seen.running), None)
    ran_none = blames_last and seen.running == NO_REQUEST
    last = largest = None
    if not blames_last:
        largest = max((each for each in by_age if each.size >= LARGE), key=lambda each: each.size, default=None)
    elif running is None and not ran_none:
        last = max(by_age, key=lambda each: each.serial, default=None)
    states = {largest: LARGEST, last: LAST, running: RUNNING}
    heads = (running, last) if blames_last else (running, *by_age[:1], largest)
    shown = []
    for each in filter(None, dict.fromkeys((*heads, *by_age))):
        age, size = round(max(0.0, now - each.began_at), 3), {"size": each.size} if each.size else {}
        named_by = {"method": each.method, "route": each.route, "id": each.id}
        shown.append({**named_by, "age": age, "state": states.get(each, IN_FLIGHT), **size})
    return {"requests": shown[:most], "others": len(shown[most:]) + seen.beyond, "ran_none": ran_none}


def requests_in(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the requests in the record of a death, without what is none: others may write the ledger."""
    found = data.get("requests")
    return [
        each
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, Mapping) and isinstance(each.get("age"), (int, float))
    ]


def by_age(workers: object, *, slow: float = 0.0, most: int | None = None) -> list[dict[str, Any]]:
    """Return the requests of *workers*, of circusd's answer, that are *slow* seconds old, the oldest first, each with
    its worker; of each watcher *most* at most.

    >>> a, b = ({"watcher": "web", "slot": n, "pid": 70 + n, "requests": [{"age": n / 2}]} for n in (1, 2))
    >>> [[each["pid"] for each in by_age([a, b], **options)] for options in ({}, {"most": 1}, {"slow": 0.8})]
    [[72, 71], [72], [72]]
    """
    found = [each for each in (workers if isinstance(workers, list) else ()) if isinstance(each, Mapping)]
    rows = [
        {**request, **{name: each.get(name) for name in ("watcher", "slot", "pid")}}
        for each in found
        for request in requests_in(each)
        if request["age"] >= slow
    ]
    seen: Counter[object] = Counter()
    kept = []
    for row in sorted(rows, key=lambda row: -float(row["age"])):
        seen[row["watcher"]] += 1
        if most is None or seen[row["watcher"]] <= most:
            kept.append(row)
    return kept


def sentence(data: Mapping[str, Any]) -> str:
    """Return what the record of a death says of the requests in flight; "" where there was none."""
    if data.get("requests_unreadable"):
        return Say.REQUESTS_UNREADABLE()
    if not (requests := requests_in(data)):
        return ""
    says = {RUNNING: Say.REQUEST_RAN, LAST: Say.REQUEST_BEGAN_LAST}
    otherwise = Say.REQUEST_NONE_RAN if data.get("requests_ran_none") else Say.REQUEST_IN_FLIGHT
    first = says.get(str(requests[0].get("state")), otherwise)(request=named(requests[0]))
    beyond = data.get("requests_others")
    others = len(requests) - 1 + (beyond if isinstance(beyond, int) else 0)
    if others and (largest := next((each for each in requests[1:] if each.get("state") == LARGEST), None)) is not None:
        first, others = Say.REQUEST_AND_LARGEST(request=first, largest=named(largest)), others - 1
    return Say.REQUEST_AND_OTHERS(request=first, n=others) if others else first


def in_common(deaths: Sequence[Mapping[str, Any]]) -> str:
    """Return which route was in flight in most of the last *deaths* for want of memory; "" where none was in two.

    A WebSocket, which is always in flight, is named only where nothing else was as often.

    >>> report = {"method": "GET", "route": "/report", "age": 9.0}
    >>> ws = {"method": "WEBSOCKET", "route": "/ws", "age": 99.0}
    >>> in_common([{"requests": [report, ws]}, {}, {"requests": [ws, report]}, {"requests": [report]}])
    'in flight in 3 of the last 4 out-of-memory deaths: GET /report'
    """
    last = deaths[-MOST_DEATHS:]
    ages: dict[tuple[str, str], list[float]] = {}
    for data in last:
        requests = requests_in(data)
        oldest = {(str(each.get("method")), str(each.get("route"))): each["age"] for each in reversed(requests)}
        for named_route, age in oldest.items():
            ages.setdefault(named_route, []).append(age)
    if not ages:
        return ""
    method, route = found = max(ages, key=lambda each: (len(ages[each]), each[0] != "WEBSOCKET", sum(ages[each])))
    if (count := len(ages[found])) < max(2, len(last) // 2 + 1):
        return ""
    return Say.REQUEST_IN_COMMON(request=f"{method} {route}", n=count, total=len(last))


def with_requests(reason: str, data: Mapping[str, Any]) -> str:
    """Return a *reason* with what the event that it is of says of requests in flight."""
    requests = sentence(data)
    if common := reason_in(data, "common"):
        reason = Say.WHILE_ANSWERING(why=reason, requests=common)
    return Say.WHILE_ANSWERING(why=reason, requests=requests) if requests else reason


def named(request: Mapping[str, Any]) -> Reason:
    """Return one request as it is shown: method, route, size, age and id."""
    method, route, id_ = (str(request.get(name) or "?") for name in ("method", "route", "id"))
    age, size = lasted(float(request["age"])), request.get("size")
    if isinstance(size, int) and size > 0:
        return Say.REQUEST_OF_SIZE(method=method, route=route, id=id_, age=age, size=size_text(size))
    return Say.REQUEST(method=method, route=route, id=id_, age=age)
