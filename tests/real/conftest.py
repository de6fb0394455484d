"""A failure of a test that shares its circusd with others shows that circusd's logs."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from . import harness

sys.path.append(str(Path(__file__).parents[1] / "unit"))  # the stand-in for circusd


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when == "call":
        # Those that the test itself started have ended, and printed their logs on the way out.
        for running in harness.RUNNING:
            report.sections.append((str(running.ini), running.report()))
    return report
