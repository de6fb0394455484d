"""For all tests: whatever stands in tests/real carries the mark ``real``."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

REAL = Path(__file__).parent / "real"


def pytest_configure(config: pytest.Config) -> None:
    # What ignores these (nohup, a background job) hands that on to every process that the tests start.
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    config.addinivalue_line("markers", "real: starts real circusd, uvicorn or pip; seconds, not milliseconds")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL in item.path.parents:
            item.add_marker(pytest.mark.real)
