"""A failure of a test that shares its circusd with others shows that circusd's logs; and neither a browser nor
the process that runs the command line is left running."""

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from . import forked_commands, harness

sys.path.append(str(Path(__file__).parents[1] / "unit"))  # the stand-in for circusd


@pytest.fixture(scope="module", autouse=True)
def _no_browser_outlives_its_tests() -> Iterator[None]:
    yield
    if browsing := sys.modules.get(f"{__package__}.browsing"):
        browsing.end_chromium()


@pytest.fixture(scope="session", autouse=True)
def _the_prepared_process_ends() -> Iterator[None]:
    yield
    forked_commands.end()


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
