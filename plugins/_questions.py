"""How the workers of a watcher are asked: each on its private socket, or all by ``health.url``, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from xboard_circus.core.durations import exactly
from xboard_circus.core.health import Worker
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.options.fields import HealthOptions
from xboard_circus.plugins._sightings import Sighting, asked, key, url_key, url_sighting, worker_sighting
from xboard_circus.probe import Target, UrlAnswer, WorkerAnswer, worker_request

THREADS = 32

AskWorkers = Callable[[Iterable[Target]], Awaitable[dict[int, WorkerAnswer]]]


class WorkerQuestions:
    """Asks; judges nothing. Each question has its deadline."""

    def __init__(
        self, *, clock: Callable[[], float], ask_workers: AskWorkers, ask_url: Callable[..., UrlAnswer]
    ) -> None:
        self._clock = clock
        self._ask_workers = ask_workers
        self._ask_url = ask_url
        self._threads: ThreadPoolExecutor | None = None
        self._url_calls: dict[str, asyncio.Future[UrlAnswer]] = {}

    async def ask(self, view: WatcherEntry, options: HealthOptions) -> Mapping[Worker, Sighting]:
        """Return what was seen of each worker of a watcher that is to be asked."""
        return await (self._of_workers if view["probe"] == "private" else self._of_url)(view, options)

    def forget(self, watcher: str) -> None:
        """Forget a call for *watcher* that may still hang."""
        self._url_calls.pop(watcher, None)

    async def _of_workers(self, view: WatcherEntry, options: HealthOptions) -> Mapping[Worker, Sighting]:
        request = worker_request(live_path=options.live_path, ready_path=options.ready_path, timeout=options.timeout)
        workers = [worker for worker in asked(view) if worker["socket"]]
        answers = await self._ask_workers(
            [Target(worker["pid"], str(worker["socket"]), request, options.timeout) for worker in workers]
        )
        return {key(worker): worker_sighting(answers[worker["pid"]]) for worker in workers}

    async def _of_url(self, view: WatcherEntry, options: HealthOptions) -> Mapping[Worker, Sighting]:
        if not asked(view):
            return {}
        asked_at = self._clock()
        answer = await self._url_answer(view["name"], options.url or "", options.timeout)
        return {url_key(view): url_sighting(answer, asked_at)}

    async def _url_answer(self, watcher: str, url: str, timeout: float) -> UrlAnswer:
        pending = self._url_calls.get(watcher)
        if pending is not None and not pending.done():
            # Only the look-up of its name can hold a call up for so long; a second one would hang there too.
            return UrlAnswer(False, Say.PROBE_STILL_RUNS(), None, timeout)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="url")
        call = asyncio.get_running_loop().run_in_executor(self._threads, partial(self._ask_url, url, timeout=timeout))
        self._url_calls[watcher] = call
        done, _ = await asyncio.wait({call}, timeout=timeout + 0.5)
        if done:
            return call.result()
        return UrlAnswer(False, Say.NO_ANSWER_WITHIN(timeout=exactly(timeout)), None, timeout)
