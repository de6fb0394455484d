"""Probe the workers of a watcher: each on its private socket, or all by ``health.url`` in a thread."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from xboard_circus.core.durations import exactly
from xboard_circus.core.health import Silence, Worker
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.options.fields import HealthOptions
from xboard_circus.plugins._sightings import Sighting, key, probed, url_key, url_sighting, worker_sighting
from xboard_circus.probe import Target, UrlAnswer, WorkerAnswer, worker_request

THREADS = 32
LOOKS = 0.25
"""Seconds between two looks of a worker at its own event loop, which has to see that it moves again."""

AskWorkers = Callable[[Iterable[Target]], Awaitable[dict[int, WorkerAnswer]]]
OnSilence = Callable[[Worker, Silence | None], object]


def spared(options: HealthOptions) -> float:
    """Return for how many seconds an event loop may stand still: as many as the fewest failed probes take.

    >>> spared(HealthOptions()), spared(HealthOptions(period=4.0, timeout=1.0, failure_threshold=2))
    (6.25, 5.25)
    """
    return (options.failure_threshold - 1) * max(options.period, options.timeout) + options.timeout + LOOKS


@dataclass(slots=True)
class WorkerQuestions:
    """Probe workers, each with a deadline; judge nothing."""

    clock: Callable[[], float]
    ask_workers: AskWorkers
    ask_url: Callable[..., UrlAnswer]
    _threads: ThreadPoolExecutor | None = None
    _url_calls: dict[str, asyncio.Future[UrlAnswer]] = field(default_factory=dict)

    async def ask(
        self, view: WatcherEntry, options: HealthOptions, on_silence: OnSilence = lambda *_: None
    ) -> Mapping[Worker, Sighting]:
        """Probe the workers of a watcher; return an observation of each. *on_silence*: see `Target`."""
        workers = probed(view)
        if view["probe"] != "private":
            if not workers:
                return {}
            asked_at = self.clock()
            answer = await self._url(view["name"], options.url or "", options.timeout)
            return {url_key(view): url_sighting(answer, asked_at)}
        request = worker_request(live_path=options.live_path, ready_path=options.ready_path, timeout=options.timeout)
        how = request, options.timeout, spared(options)
        asked = [(each["pid"], each["socket"], key(each)) for each in workers if each["socket"]]
        targets = [Target(pid, path, *how, partial(on_silence, worker)) for pid, path, worker in asked]
        answers = await self.ask_workers(targets)
        return {worker: worker_sighting(answers[pid]) for pid, _, worker in asked}

    def forget(self, watcher: str) -> None:
        """Forget a call for *watcher* that may still hang."""
        self._url_calls.pop(watcher, None)

    async def _url(self, watcher: str, url: str, timeout: float) -> UrlAnswer:
        if (pending := self._url_calls.get(watcher)) is not None and not pending.done():
            # Only a name look-up can block for so long; a second call would block there too.
            return UrlAnswer(False, Say.PROBE_STILL_RUNS(), None, timeout)
        self._threads = self._threads or ThreadPoolExecutor(THREADS, thread_name_prefix="url")
        call = asyncio.get_running_loop().run_in_executor(self._threads, partial(self.ask_url, url, timeout=timeout))
        self._url_calls[watcher] = call
        done, _ = await asyncio.wait({call}, timeout=timeout + 0.5)
        if done:
            return call.result()
        return UrlAnswer(False, Say.NO_ANSWER_WITHIN(timeout=exactly(timeout)), None, timeout)
