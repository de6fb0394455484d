"""Memory and processor use of the workers on this host, read in one pass without a question to circusd."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil

from xboard_circus.host import procs

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Measure:
    """Resident bytes, processor use in per cent of a core since the last pass, and processor seconds in all."""

    rss: int
    cpu: float | None
    cpu_seconds: float


@dataclass(slots=True)
class _Known:
    process: psutil.Process
    at: float
    used: float


class Measures:
    """Measures the same processes again and again; each is known by its pid and start time."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Key, _Known] = {}

    def take(self, processes: Iterable[Key]) -> Mapping[Key, Measure]:
        """Return what each process uses; one that is gone, or not ours to look at, is left out."""
        found: dict[Key, Measure] = {}
        kept: dict[Key, _Known] = {}
        for key in processes:
            known = self._known.get(key)
            try:
                if known is None and procs.start_time(key[0]) != key[1]:
                    continue
                process = known.process if known is not None else psutil.Process(key[0])
                with process.oneshot():
                    times, rss = process.cpu_times(), process.memory_info().rss
            except psutil.Error:
                continue
            now, used = self._clock(), times.user + times.system
            cpu = None
            if known is not None and now > known.at:
                cpu = round(max(0.0, used - known.used) / (now - known.at) * 100, 1)
            kept[key] = _Known(process, now, used)
            found[key] = Measure(rss, cpu, used)
        self._known = kept
        return found
