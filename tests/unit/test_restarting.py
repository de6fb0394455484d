"""What a restart says where it is interrupted."""

from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from xboard_circus.cli import launching, restarting
from xboard_circus.host.procs import Identity


def test_ctrl_c_between_two_waits_of_a_restart_names_the_circusd_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait says so itself, but a signal may come between the old one's end and the next wait."""
    found: Any = SimpleNamespace(identity=Identity(6, 1))
    launched = SimpleNamespace(identity=Identity(7, 1))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restarting, "progress", nullcontext)
    monkeypatch.setattr(launching, "launch", lambda *_, **__: launched)
    monkeypatch.setattr(restarting, "leave", lambda *_: SimpleNamespace(await_end=lambda _: None))
    monkeypatch.setattr(restarting, "await_answer", interrupt)
    instance: Any = None

    with pytest.raises(KeyboardInterrupt, match="circusd goes on in the background, pid 7"), ExitStack() as afterwards:
        restarting._succeed(instance, found, afterwards)
