"""Choose which slow requests, of those that workers report, are published: each once, and few of them. No effects."""

from collections import defaultdict, deque
from collections.abc import Iterator

from xboard_circus.core.health import Worker
from xboard_circus.core.in_flight import named
from xboard_circus.core.sentences import Say
from xboard_circus.plugins._sightings import ProbeRound

MOST_IN, MOST = 60.0, 20
"""So many events of a watcher in so many seconds: a worker may report whatever it likes."""


class SlowEvents:
    """Remember what was published; *now* is when this begins: what is older was published before."""

    def __init__(self, now: float) -> None:
        self._began_at = now
        self._until: dict[str, dict[Worker, float]] = {}
        self._published: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST))

    def of(self, finding: ProbeRound, now: float) -> Iterator[tuple[Worker, str]]:
        """Yield the worker and the sentence of each slow request that is new in a round."""
        name = finding.view["name"]
        before, published = self._until.get(name, {}), self._published[name]
        self._until[name] = {worker: before.get(worker, self._began_at) for worker in finding.seen}
        for worker, seen in finding.seen.items():
            for each in seen.report.get("slow") or ():
                if each["at"] > self._until[name][worker] and (len(published) < MOST or now - published[0] > MOST_IN):
                    self._until[name][worker] = each["at"]
                    published.append(now)
                    say = Say.LATE_REQUEST if each["timed_out"] else Say.SLOW_REQUEST
                    yield worker, say(request=named({**each}), where=each["where"])
