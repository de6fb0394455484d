"""Output that was there when circusd looked, and is gone when it reads: nothing waits for it."""

import os
import select
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from circus.stream.redirector import Redirector
from tornado.ioloop import IOLoop

from xboard_circus.host import programs
from xboard_circus.supervisor.life import output
from xboard_circus.supervisor.patches import boot


@contextmanager
def redirected() -> Iterator[tuple[Any, Any, list[Any]]]:
    """Return a redirector of Circus's that reads an empty pipe, its process, and what it has read."""
    boot.install()
    end, held_open = os.pipe()
    taken: list[Any] = []
    with open(end, "rb") as pipe:
        redirector = Redirector(taken.append, taken.append, loop=SimpleNamespace())
        process = SimpleNamespace(pid=7, pipe_stdout=True, pipe_stderr=False, stdout=pipe)
        redirector.add_redirections(process)
        yield redirector, process, taken
    os.close(held_open)


@pytest.mark.timeout(20)
def test_what_a_worker_takes_back_before_circus_reads_it_is_not_waited_for() -> None:
    with redirected() as (redirector, process, taken):
        Redirector.Handler(redirector, "stdout", process, process.stdout)(process.stdout.fileno(), IOLoop.READ)

    assert taken == []


@pytest.mark.timeout(20)
def test_what_is_taken_back_from_the_pipe_of_a_dead_worker_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SimpleNamespace(register=lambda *_: None, poll=lambda _: [(0, 1)])
    monkeypatch.setattr(select, "poll", lambda: seen)
    with redirected() as (redirector, process, taken):
        output.drain(redirector, process, streams=[])

    assert taken == []


@pytest.mark.timeout(20)
def test_what_a_program_takes_back_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a program whose output is gone when it is read, then its end is not waited for longer than the limit."""

    class Seen(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> list[Any]:
            super().select(0.01)
            return [(key, 1) for key in self.get_map().values()]

    monkeypatch.setattr(selectors, "DefaultSelector", Seen)

    assert programs.run_captured(["sleep", "60"], timeout=0.5, env={}) is None
