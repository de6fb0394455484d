"""For all tests: whatever stands in tests/real carries the mark ``real``."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL = Path(__file__).parent / "real"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: starts real circusd, uvicorn or pip; seconds, not milliseconds")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL in item.path.parents:
            item.add_marker(pytest.mark.real)
