"""A reload that meets an error of our own, on fakes of what it works with."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from xboard_circus.supervisor.replace.rolling import RollingReload


class FakeBefore:
    log = ""

    def doing(self) -> str:
        return ""

    async def for_reload(self) -> str | None:
        raise TypeError("'int' object is not iterable")


def test_an_error_of_our_own_ends_a_reload_and_is_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    published: list[tuple[str, dict[str, Any]]] = []
    before: Any = [SimpleNamespace(is_up=True, life=SimpleNamespace(phase=None)) for _ in range(2)]
    armed: Any = SimpleNamespace(
        name="web",
        before=FakeBefore(),
        clock=lambda: 0.0,
        fleet=SimpleNamespace(counted=lambda: before),
        held_slots=list,
        is_running=lambda: True,
        note_reason=lambda reason: None,
        publish=lambda kind, **more: published.append((kind, more)),
    )
    reload = RollingReload(armed, by="an operator")

    with caplog.at_level(logging.ERROR, logger="circus"):
        asyncio.run(reload.run())

    assert (reload.state, reload.is_running) == ("failed", False)
    assert "TypeError: 'int' object is not iterable; the log of circusd has its traceback" in reload.reason
    assert [kind for kind, _ in published] == ["reload_end"]
    assert "Traceback" in caplog.text
    assert reload.view()["old"] == 2
    before[0].is_up = False
    assert reload.view()["old"] == 1
