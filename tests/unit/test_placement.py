"""Where the next circusd is to live: which unit of systemd a process is in, and what may not be left is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xboard_circus.cli import restarting
from xboard_circus.errors import XboardError
from xboard_circus.host import placement, procs
from xboard_circus.host.procs import Identity

CIRCUSD = Identity(4711, 1)
THERE = "self/fd/4711"
TIMER = "/user.slice/user-7.slice/user@7.service/app.slice/deploy.service"
SHOWN = "Id={0}\nControlGroup={1}\nMainPID={2}\nKillMode={3}"
UNITS = {
    ("--system", "cron.service"): SHOWN.format("cron.service", "/system.slice/cron.service", 7, "process"),
    ("--system", "web.service"): SHOWN.format("web.service", "/system.slice/web.service", 8, "mixed"),
    ("--system", "deploy.service"): SHOWN.format("deploy.service", "", 0, "control-group"),
    ("--user", "deploy.service"): SHOWN.format("deploy.service", TIMER, 9, "control-group"),
}


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with these units, and with no control group that may be joined."""
    if sys.platform != "linux":
        pytest.skip("control groups are Linux's")
    monkeypatch.setattr(placement, "output_of", lambda *words, **_: UNITS.get((words[1], words[-1])))
    monkeypatch.setattr(placement, "CGROUPS", tmp_path)


def live_in(monkeypatch: pytest.MonkeyPatch, groups: dict[int | str, dict[str, str]]) -> None:
    monkeypatch.setattr(procs, "groups_of", lambda pid="self": groups[pid])


@pytest.mark.parametrize(
    ("groups", "main"),
    [
        pytest.param({"": "/system.slice/web.service"}, "8", id="a service"),
        pytest.param({"": "/system.slice/web.service/below"}, "8", id="a group below a service"),
        pytest.param({"": "/", "name=systemd": "/system.slice/web.service"}, "8", id="version 1"),
        pytest.param({"": TIMER}, "9", id="a user's service with the name of one of the system's"),
        pytest.param({"": "/system.slice/cron.service/session.scope"}, None, id="a scope"),
        pytest.param({"": "/user.slice/user-7.slice/session-3.scope"}, None, id="a login"),
        pytest.param({"": "/", "memory": "/system.slice/web.service"}, None, id="a tree that is not systemd's"),
        pytest.param({}, None, id="unreadable"),
    ],
)
def test_the_unit_around_a_process_is_the_innermost_service(
    monkeypatch: pytest.MonkeyPatch, groups: dict[str, str], main: str | None
) -> None:
    live_in(monkeypatch, {"self": groups})

    assert placement.unit_around().get("MainPID") == main


def test_of_a_unit_whose_manager_does_not_answer_the_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    live_in(monkeypatch, {"self": {"": "/system.slice/other.service"}})

    assert placement.unit_around() == {"Id": "other.service"}


@pytest.mark.parametrize(
    ("own", "refused"),
    [
        pytest.param({"": TIMER}, "deploy.service", id="a timer's unit"),
        pytest.param({"": "/system.slice/other.service"}, "other.service", id="a unit of which nothing is known"),
        pytest.param({"": "/system.slice/cron.service"}, None, id="a unit that ends its main process alone"),
        pytest.param({"": "/user.slice/user-7.slice/session-4.scope"}, None, id="another login"),
        pytest.param({"": "/login.scope"}, None, id="the same group"),
        pytest.param({"": "/login.scope", "memory": "/system.slice/web.service"}, None, id="another group of memory"),
    ],
)
def test_where_systemd_would_end_the_next_circusd_a_restart_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: dict[str, str], refused: str | None
) -> None:
    """Given a user who may write no group, where circusd was started in a login."""
    live_in(monkeypatch, {"self": own, THERE: dict.fromkeys(own, "/login.scope")})

    if refused is None:
        placement.enter(THERE)
    else:
        with pytest.raises(XboardError, match=f"nothing was stopped: .* KillMode=process into .Service. of {refused}"):
            placement.enter(THERE)
    assert list(tmp_path.iterdir()) == []  # of a tree that is not mounted there no file is made


@pytest.mark.parametrize("place", ["web.service", "unified/web.service"])
def test_the_group_of_circusd_is_joined_wherever_its_tree_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    processes = tmp_path / place / "cgroup.procs"
    processes.parent.mkdir(parents=True)
    processes.touch()
    live_in(monkeypatch, {"self": {"": TIMER}, THERE: {"": "/web.service"}})

    placement.enter(THERE)

    assert processes.read_text() == "0"


@pytest.mark.parametrize("kind", ["user", "net"])
def test_a_namespace_that_may_not_be_entered_refuses_a_restart(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    seen = {f"/proc/self/ns/{each}": "own" for each in placement.NAMESPACES}
    monkeypatch.setattr(os, "readlink", lambda path: seen.get(path, "another" if path.endswith(kind) else "own"))
    monkeypatch.setattr(placement, "NAMESPACES", dict.fromkeys(placement.NAMESPACES, -1))  # no such flags

    with pytest.raises(XboardError, match=f"another {kind} namespace, .*; nothing was stopped: run it in that one"):
        placement.enter(str(os.getpid()))


def test_what_this_user_may_not_take_over_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a nice shell of a user who may not be less nice again."""
    monkeypatch.setattr(os, "getpriority", lambda _, pid: 0 if pid else 10)
    monkeypatch.setattr(os, "setpriority", refuse)
    with subprocess.Popen(["sleep", "60"]) as other:
        lost = placement.live_as(other.pid)
        other.kill()

    assert lost == ["niceness 10 in place of 0"]


def refuse(*_: object) -> None:
    raise PermissionError


def test_nobody_enters_where_the_circusd_of_another_user_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root would start there what that user has put in the place of Python."""
    entered: list[str] = []
    monkeypatch.setattr(placement, "enter", entered.append)
    monkeypatch.setattr(procs, "is_running", lambda *_: True)
    monkeypatch.setattr(procs, "users_of", lambda _: {os.geteuid() + 1})

    with pytest.raises(XboardError, match="is run by"):
        restarting._move_to(CIRCUSD)

    assert entered == []
