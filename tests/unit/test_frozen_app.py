"""What the app has loaded is exempted from garbage collection, once, and nothing else of the app's is changed."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
import uvicorn

from xboard_circus.worker.server import BUSY_TICKS, Surroundings, WorkerServer


class Cyclic:
    """An object that only a search for garbage frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.unfreeze()  # the tests themselves
    yield
    gc.unfreeze()
    gc.enable()
    gc.set_threshold(*thresholds)


def started_and_ticked(tick: int, *, is_busy: bool = False) -> None:
    """Start a worker's server; have it tick while it starts, and once more when it has started."""
    config = uvicorn.Config("xboard_circus.app:app", lifespan="off", log_config=None)
    config.load()

    async def main() -> None:
        server = WorkerServer(config, Surroundings({}), None)
        server.lifespan = config.lifespan_class(config)
        await server.on_tick(tick)
        await server.startup(sockets=[])
        await server.on_tick(tick)
        assert not gc.get_freeze_count()
        await asyncio.sleep(0)
        if is_busy:
            server.server_state.tasks.add(asyncio.ensure_future(asyncio.sleep(0)))
        await server.on_tick(tick)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("tick", "is_busy", "is_frozen"), [(0, False, True), (1, True, False), (BUSY_TICKS, True, True)]
)
def test_the_app_is_frozen_in_an_idle_moment_after_the_start(tick: int, is_busy: bool, is_frozen: bool) -> None:
    """Given a worker that has started, then its objects are frozen once no request is in flight, or after a while."""
    garbage = weakref.ref(Cyclic())
    started_and_ticked(tick, is_busy=is_busy)

    assert bool(gc.get_freeze_count()) == is_frozen
    if is_frozen:
        assert garbage() is None  # not kept for ever
        left = weakref.ref(Cyclic())
        gc.collect()
        assert left() is None


def test_no_request_waits_for_a_search_through_all_of_the_app() -> None:
    """Given requests in flight for as long as it takes, then what is frozen was searched only where it is young."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        found.append(info["generation"])

    gc.collect()
    gc.callbacks.append(note)
    try:
        started_and_ticked(BUSY_TICKS, is_busy=True)
    finally:
        gc.callbacks.remove(note)
    assert gc.get_freeze_count()
    assert 2 not in found


def test_an_app_with_its_own_way_with_garbage_keeps_it() -> None:
    """Given an app that has turned the collection off, then nothing is frozen; its thresholds are never touched."""
    gc.set_threshold(5000, 20, 20)
    started_and_ticked(0)
    assert gc.get_threshold() == (5000, 20, 20)
    gc.unfreeze()

    gc.disable()
    started_and_ticked(0)
    assert not gc.isenabled()
    assert not gc.get_freeze_count()
