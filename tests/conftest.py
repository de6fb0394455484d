"""For all tests: whatever stands in tests/real carries the mark ``real``."""

import gc
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from real.processes import end_marked, marked

with suppress(ImportError):  # where a few tests run that need no more than pytest
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)  # how long an example takes is no claim
    settings.load_profile("any machine")

REAL = Path(__file__).parent / "real"
RUN = "PYTEST_RUN_OF_XBOARD"
_NUMBERS = itertools.count()
# Last they would run for minutes with nothing left to run beside them.
LONG = (
    "test_restart.py",
    "test_service_systemd.py",
    "test_forks.py",
    "test_service_system.py",
    "test_worker.py",
    "test_readme.py",
)


def pytest_configure(config: pytest.Config) -> None:
    # What ignores these (nohup, a background job) hands that on to every process that the tests start.
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    if not hasattr(config, "workerinput"):
        # What ends a run (Ctrl-C, `kill`, `timeout`) may reach this process alone, and ends the tests in their middle.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        os.environ[RUN] = uuid.uuid4().hex
        _pass_by_a_shim()
    config.addinivalue_line("markers", "real: starts real circusd, uvicorn or pip; seconds, not milliseconds")


def _pass_by_a_shim() -> None:
    """Have PATH name the `python3` that a version manager's shim would start.

    pyenv's is a shell script: 0.2 s of a core for each of thousands of commands.
    """
    found = shutil.which("python3")
    if found is None:
        return
    asked = subprocess.run(
        [found, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, timeout=60
    )
    real = Path(asked.stdout.strip() or found)
    if (real.parent / "python3").exists() and real.parent != Path(found).parent:
        os.environ["PATH"] = f"{real.parent}{os.pathsep}{os.environ['PATH']}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the tests have left running: one that was killed with its xdist process could not do it itself."""
    if hasattr(config, "workerinput"):
        return
    mark = os.environ.pop(RUN)
    for each in marked(**{RUN: mark}):
        print(f"left running by the tests, killed: pid {each.pid}: {each.command[:200]}", file=sys.stderr)
    end_marked(timeout=30.0, **{RUN: mark})


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Search for no garbage among thousands of tests, while they are collected and afterwards: a fifth of its time."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL in item.path.parents:
            item.add_marker(pytest.mark.real)
    # In the order of their names all files with a browser would run at once, for which there are not enough cores, and
    # later on those that wait. This order is always the same, and knows nothing of the names' meaning.
    items.sort(key=lambda item: (item.path.name not in LONG, _mixed(item.nodeid.partition("::")[0])))


def _mixed(name: str) -> bytes:
    return hashlib.md5(name.encode(), usedforsecurity=False).digest()


@pytest.fixture(autouse=True)
def _runtime_folder_of_its_own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lead tests of the pure parts away from the instances that this host runs or has run; real ones take their own."""
    if "real" not in request.keywords:
        folder = tmp_path_factory.getbasetemp() / f"r{next(_NUMBERS)}"  # short: paths of sockets may have 107 bytes
        monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(folder))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """A new folder of that name with a file system of that size, such as ``1m``, for the time of the test."""
    mounted: list[Path] = []

    def make(name: str, size: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a file system cannot be mounted here: that takes root, and the right to mount")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
