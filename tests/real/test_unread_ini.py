"""An ini that Circus cannot read, or that is gone, takes away what starts workers, not what looks at or stops them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import BUNDLE, Circusd, circusd, eventually

LOOKS = {
    ("status",): "All fine: 1 backend, 2 workers",
    ("status", "--json"): '"numprocesses": 2',
    ("why",): "nothing is recorded",
    ("events",): "ready",
    ("logs",): "Application startup complete",
    ("requests",): "",
}


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    with circusd(tmp_path_factory.mktemp("unread"), plugins=BUNDLE) as c:
        c.wait_ready()
        eventually(lambda: "ready" in c.run_cli("events").stdout, every=0.2)
        yield c


def misread(c: Circusd) -> str:
    c.write_ini(watcher__web={"numprocesses": "two"})
    return "[watcher:web] numprocesses = two: Circus cannot read this"


def broken(c: Circusd) -> str:
    c.ini.write_text(c.ini.read_text().replace("[circus]", "[circus"))
    return "line 1: neither a [section] nor an option: [circus"


def deleted(c: Circusd) -> str:
    c.ini.unlink()
    return "no such file"


@pytest.mark.parametrize("spoil", [misread, broken, deleted])
def test_looking_works_and_starting_is_refused(c: Circusd, spoil: object) -> None:
    """Given a circusd that runs and a file that Circus cannot read, then each look shows it, and no start is begun."""
    pids = c.workers()
    c.write_ini()
    wrong = spoil(c)  # type: ignore[operator]

    for words, shown in LOOKS.items():
        looked = c.run_cli(*words)
        assert shown in looked.stdout + looked.stderr, (words, looked)
        assert wrong in looked.stderr
    for command in ("start", "restart", "reload"):
        refused = c.run_cli(command)
        assert refused.returncode == 1, refused
        assert wrong in refused.stdout + refused.stderr
    assert c.workers() == pids


def test_stopping_works(tmp_path: Path) -> None:
    """Given a circusd that runs and a file that was deleted, when it is stopped, then all of it is gone."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        c.wait_ready()
        c.ini.unlink()

        stopped = c.run_cli("stop")

        assert stopped.returncode == 0, stopped
        assert c.processes() == []
        assert c.run_cli("status").returncode == 1
