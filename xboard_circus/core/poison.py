"""Find poison: a route whose requests end worker after worker. No effects; times are seconds of one clock.

A death speaks against one route, or against none:

- Only the end of a worker that was up counts, but see below, and only one that the app brought about: a fault
  (SIGSEGV, abort), an exit without a stop request, a hang, the kernel's OOM kill. No order, and no
  signal of others.
- The request that a hung event loop ran is known to have done it.
- Else there is a guess: the request that began last; for want of memory, the only one in flight. But a busy route is in
  flight at a death of any cause. So the guess is believed only where the same worker had answered no other request of
  that route among its last ones, of which it keeps 24 to 48. By chance that happens to a route with the share s of the
  traffic at s * (1 - s) ** 24 of all deaths, which is 1.5 % at most; and poison takes three.
- Nor is it believed of a WebSocket or of a request that has lasted long, which are always in flight; nor of a worker
  that has just come up and answered next to nothing: there is nothing to compare with, and its start may be at fault.
  But it is where another death spoke against the same route already: deadly requests that come one a second end workers
  that young, some before circusd knows that they are up, and each such death would count against the slot.

Three deaths within ten minutes are poison, until ten minutes pass without another one.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.core.causes import Cause, signal_name
from xboard_circus.core.durations import lasted
from xboard_circus.core.in_flight import LAST, RUNNING, requests_in
from xboard_circus.core.reason import key_of
from xboard_circus.core.sentences import Say

DEATHS = 3
WINDOW = 600.0
MOST_ROUTES = 64
LONGEST_GUESS = 30.0
SETTLED, LEAST_ANSWERED = 0.5, 3
"""A worker is past its start when it was up for so many seconds, or has answered so many requests."""

_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP"})

Slots = tuple[tuple[int, float], ...]
"""Deaths: in which slot, and when."""


def suspect(
    found: Mapping[str, Any],
    cause: Cause,
    reason: str,
    exit_code: int | None,
    *,
    up_for: float,
    answered: Sequence[str],
    suspected: Collection[str] = (),
) -> str:
    """Return the route that a death speaks against, as method and template; "" where it speaks against none.

    Args:
        found: The requests in flight, as in the record of the death.
        answered: The routes of the requests that the worker answered last.
        suspected: Routes that other deaths spoke against lately.
    """
    requests = requests_in(found)
    if not requests or found.get("requests_ran_none"):
        return ""
    first = requests[0]
    route = f"{first['method']} {first['route']}"
    if cause is Cause.FAILED_START and route in suspected:
        cause = Cause.CRASH
    if not _is_of_the_app(cause, reason, exit_code):
        return ""
    if first["state"] == RUNNING:
        return route
    is_alone = len(requests) == 1 and not found["requests_others"]
    is_guess = is_alone or (first["state"] == LAST and not found["requests_others"])
    is_usual = route in answered or first["method"] == "WEBSOCKET" or first["age"] > LONGEST_GUESS
    is_settled = up_for >= SETTLED or len(answered) >= LEAST_ANSWERED or route in suspected
    return route if is_guess and is_settled and not is_usual else ""


def _is_of_the_app(cause: Cause, reason: str, exit_code: int | None) -> bool:
    if cause is Cause.CRASH:
        return exit_code is not None and (exit_code >= 0 or signal_name(-exit_code) in _FAULTS)
    is_hung = cause is Cause.UNHEALTHY and key_of(reason) == Say.HUNG.name
    return is_hung or cause in (Cause.EXITED, Cause.OUT_OF_MEMORY)


@dataclass(slots=True)
class _Route:
    """What is known of one route: *count* deaths since *since* once it is poison, else 0."""

    deaths: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=DEATHS))
    count: int = 0
    since: float = 0.0
    last_id: str = ""


class Poisons:
    """The poisonous routes of one watcher.

    >>> poisons = Poisons()
    >>> [poisons.died("GET /die/{id}", f"a-{now}", slot=1, now=now) for now in (0, 20, 41, 42)]
    [None, None, ((1, 0), (1, 20)), ()]
    >>> poisons.reason(now=43)
    'poison: GET /die/{id} ended 4 workers within 42 s; last request a-42'
    >>> poisons.reason(now=642)
    ''
    """

    def __init__(self) -> None:
        self._routes: dict[str, _Route] = {}  # the one that killed last stands last

    def died(self, route: str, id_: str, *, slot: int, now: float) -> Slots | None:
        """Note a death by a request; return None while its route is no poison.

        Once it is, return the deaths that were counted against their slots before that was known, and later none.
        """
        self._forget_old(now)
        known = self._routes[route] = self._routes.pop(route, _Route())
        if len(self._routes) > MOST_ROUTES:
            del self._routes[next(iter(self._routes))]
        known.last_id = id_
        known.deaths.append((slot, now))
        if known.count:
            known.count += 1
            return ()
        if len(known.deaths) < DEATHS or known.deaths[0][1] + WINDOW <= now:
            return None
        known.count, known.since = DEATHS, known.deaths[0][1]
        return tuple(known.deaths)[:-1]

    def suspected(self, now: float) -> Collection[str]:
        """Return the routes that deaths spoke against within the window, poisonous or not yet."""
        self._forget_old(now)
        return self._routes.keys()

    def routes(self, now: float) -> dict[str, float]:
        """Return the poisonous routes, the one that killed last standing last, each with when it is none any more."""
        self._forget_old(now)
        return {name: _last(known) + WINDOW for name, known in self._routes.items() if known.count}

    def reason(self, now: float) -> str:
        """Return what is known of the route that killed last; "" where there is no poison."""
        if not (names := list(self.routes(now))):
            return ""
        known = self._routes[names[-1]]
        return Say.POISON(request=names[-1], n=known.count, held=lasted(_last(known) - known.since), id=known.last_id)

    def clear(self) -> None:
        """Forget everything: an operator has started or reloaded the watcher, perhaps with a cure."""
        self._routes.clear()

    def _forget_old(self, now: float) -> None:
        self._routes = {name: known for name, known in self._routes.items() if _last(known) + WINDOW > now}


def _last(known: _Route) -> float:
    return known.deaths[-1][1]
