"""A deployment puts each release, with its ini, into a folder of its own, and swaps the link that leads to it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, kill
from .load import Load
from .test_forks import up, versions, write_app

Command = Callable[..., subprocess.CompletedProcess[str]]


def deploy(c: Circusd, version: int) -> None:
    release, following = c.folder / f"release-{version}", c.folder / "following"
    (release / "logs").mkdir(parents=True, exist_ok=True)
    shutil.copy(c.folder / "circus.ini", release)
    write_app(release, version=version)
    following.symlink_to(release.name)
    following.rename(c.folder / "current")


@pytest.fixture
def c(tmp_path: Path, level: str) -> Iterator[Circusd]:
    web = Watcher(app="simple:app", options={**FAST_RESTARTS, "worker.preload": level})
    with circusd(tmp_path, watchers=[web], start=False) as c:
        deploy(c, 1)
        yield c


@pytest.fixture
def command(c: Circusd, by: str) -> Command:
    """Run a command line as from a shell that has just entered the folder of the release, or from elsewhere."""
    current = c.folder / "current"
    ini, folder = (current / "circus.ini", c.folder) if by == "path" else ("circus.ini", current)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [c.python, "-m", "xboard_circus", *words, "-c", str(ini)]
        env = {**c.environ(), "PWD": str(folder)}
        return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.mark.parametrize(("level", "by"), [("server", "path"), ("app", "folder")])
def test_a_reload_and_a_restart_serve_the_release_that_the_link_leads_to(c: Circusd, command: Command) -> None:
    """Given a circusd behind a link to a release, when that leads to the next one and to an earlier one, then a reload
    and a restart serve what is there, no request is lost, and all commands are about the same circusd."""
    started = command("start")
    assert started.returncode == 0, started.stdout + started.stderr
    assert versions(c, up(c, 2)) == {1}
    with Load(c.url, rate=20, timeout=60) as load:
        for version, verb in ((2, "reload"), (3, "restart"), (1, "reload")):
            deploy(c, version)
            done = command(verb)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "records to" not in done.stdout + done.stderr
            assert versions(c, up(c, 2)) == {version}
    assert load.lost == []
    stopped = command("stop")
    assert (stopped.returncode, "stopped circusd of" in stopped.stdout) == (0, True), stopped.stdout + stopped.stderr


@pytest.mark.parametrize(("level", "by"), [("off", "folder")])
def test_the_workers_of_a_killed_circusd_are_taken_over_after_a_deployment(c: Circusd, command: Command) -> None:
    """Given a circusd behind a link that is killed, when the next one starts in the next release, then the workers that
    it left give their port to it, and end."""
    command("start")
    left = up(c, 2)
    kill(c.state()["circusd"]["pid"])
    deploy(c, 2)

    started = command("start")

    assert started.returncode == 0, started.stdout + started.stderr
    pids = up(c, 2)
    assert not {*pids} & {*left}
    assert versions(c, pids) == {2}
    assert command("stop").returncode == 0
