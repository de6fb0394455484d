"""The service of the host: where its parts lie, what is in them, and that no planted link is followed."""

from __future__ import annotations

import grp
import os
import plistlib
import pwd
import re
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

import xboard_circus
from xboard_circus.checks import authorship
from xboard_circus.config import Config, load
from xboard_circus.dashboard.code_version import versions
from xboard_circus.errors import XboardError
from xboard_circus.host import writers, written_files
from xboard_circus.service import installing, managers
from xboard_circus.service.installing import Service
from xboard_circus.service.layout import (
    Layout,
    ServiceHost,
    ServiceOptions,
    as_installed,
    is_ours,
    lay_out,
    overlay_of,
    refuse_folder_of_another,
)
from xboard_circus.service.rendering import rendered

LINUX = ServiceHost("Linux", 1000, "ann", Path("/home/ann"), Path("/home/ann/.config"), Path("/run/user/1000"))
ROOT = LINUX._replace(uid=0, user="root")
MAC = ROOT._replace(system="Darwin")
WANTED = ServiceOptions(Path("/opt/xboard"))
TIMEOUTS = {"graceful_timeout": 8, "startup_timeout": 60}
NOBODY = written_files.Owner("nobody", "nobody", 65534, 65534)

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def read(text: str = "") -> Config:
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
        file.write(text)
        file.flush()
        return load(file.name)


def unit_of(layout: Layout, *, python: str = "/opt/xboard/.venv/bin/python", ini: str = "") -> str:
    return rendered(layout, venv=Path(python).parents[1], group="www", ini=read(ini), **TIMEOUTS).unit


@pytest.mark.parametrize(("invocation", "kills"), [("this", 1), ("a later start", 0)])
def test_root_ends_a_stop_that_is_held_up_and_no_later_start(tmp_path: Path, invocation: str, kills: int) -> None:
    """Given the line of the unit that waits, when a start has replaced the stop meanwhile, then it kills nothing."""
    (line,) = [each for each in unit_of(lay_out(WANTED, ROOT, action="install")).splitlines() if "(sleep" in each]
    for name in ("sleep", "systemctl"):
        (tmp_path / name).write_text(FAKES[name].format(invocation=invocation, log=tmp_path / "log"))
        (tmp_path / name).chmod(0o755)
    command = re.fullmatch(r"ExecStopPost=\+/bin/sh -c '(.*)'", line)
    assert command is not None
    script = command[1].replace("$$", "$").replace("%n", "x.service").replace("/run/%N", str(tmp_path / "x"))
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "INVOCATION_ID": "this"}

    subprocess.run(["sh", "-c", f"{script} wait"], env=environ, check=True, timeout=60)

    log = (tmp_path / "log").read_text().splitlines()
    assert len([call for call in log if call == "kill --kill-who=control --signal=KILL x.service"]) == kills


FAKES = {
    "sleep": "#!/bin/sh\n",
    "systemctl": """#!/bin/sh
echo $* >>{log}
[ $1 != list-jobs ] || echo 1 x stop running
[ $1 != show ] || echo {invocation}
""",
}


def test_a_start_that_never_ends_is_left_with_what_serves_and_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\ncase $2 in restart) exec sleep 60 ;; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(managers, "START_SLACK", 0)
    notes: list[str] = []
    layout = lay_out(WANTED._replace(of_user=True), LINUX, action="upgrade")
    manager = managers.Systemd(layout, managers.Shell(notes.append, dry_run=False))

    with pytest.raises(XboardError, match=r"within 0 s: .* earlier ones serve on, .* See `/home/ann/.*-backend why`"):
        manager.start(changed=False, restart=True, timeouts=(0, 0))
    assert notes[-1] == "run: systemctl --user restart xboard-backend.service"


def test_an_upgrade_from_the_index_says_how_to_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a .venv beside the one that runs this, when it gets another release, then the line names the one before."""
    site, python = tmp_path / "lib" / "python3.13" / "site-packages", tmp_path / "bin" / "python"
    (site / "xboard_circus-0.0.9.dist-info").mkdir(parents=True)
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    monkeypatch.setattr(xboard_circus, "__file__", str(site / "xboard_circus" / "__init__.py"))
    service, said = Service.__new__(Service), list[str]()
    service._shell = managers.Shell(said.append, dry_run=False)

    service._upgrade_packages(tmp_path)

    pip = f"{python} -I -m pip install --quiet --disable-pip-version-check"
    assert said == [
        f"run: {pip} --upgrade xboard-circus",
        f"{tmp_path} had xboard-circus 0.0.9; to go back: `{pip} xboard-circus==0.0.9`, and restart the service",
    ]


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_came_from_a_file_is_not_upgraded_from_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    """Given a package from a wheel, whose name anybody may take on an index, then no pip runs, and the cure is told."""
    site = tmp_path / "lib" / "python3.13" / "site-packages"
    info = site / "xboard_circus-0.0.9.dist-info"
    info.mkdir(parents=True)
    (info / "direct_url.json").write_text('{"url": "file:///root/xboard_circus-0.0.9-py3-none-any.whl"}')
    monkeypatch.setattr(xboard_circus, "__file__", str(site / "xboard_circus" / "__init__.py"))
    service, said = Service.__new__(Service), list[str]()
    service._shell = managers.Shell(said.append, dry_run=dry_run)

    python = tmp_path / "bin" / "python"
    cure = f"`{python} -I -m pip install FILE.whl`, then `{python} -I -m xboard_circus service install --restart`"
    with pytest.raises(XboardError, match=re.escape(cure)):
        service._upgrade_packages(tmp_path)

    assert said == []


@pytest.mark.parametrize("host", [ROOT, MAC, LINUX], ids=["systemd", "launchd", "dry run of a user"])
def test_a_folder_of_the_system_is_not_shared(host: ServiceHost) -> None:
    """Given the ini in a folder that holds more than a project, then no service is installed there; what an earlier
    release has installed can be removed."""
    for folder in (
        "/",
        "/etc",
        "/etc/app",
        "/usr/share/app",
        "/usr/local/bin",
        "/opt",
        "/srv",
        "/mnt",
        "/media",
        "/var/backups",
        "/var/cache",
        "/var/spool",
        "/var/www",
        "/home",
        "/root",
        "/tmp",
        "/var",
    ):
        wanted = WANTED._replace(folder=Path(folder), dry_run=True)
        for action in ("install", "upgrade", "unit"):
            with pytest.raises(XboardError, match=f"^{folder} is a folder of the system"):
                lay_out(wanted, host, action=action)
        lay_out(wanted, host, action="remove")
        lay_out(wanted._replace(of_user=True), host, action="install")
    for folder in (
        "/opt/app",
        "/home/ann/app",
        "/srv/app",
        "/mnt/disk/app",
        "/usr/local/app",
        "/var/www/app",
        "/library",
        "/tmp/app",
    ):
        lay_out(WANTED._replace(folder=Path(folder), dry_run=True), host, action="install")


def test_a_service_of_a_user_lies_in_that_users_folders() -> None:
    layout = lay_out(WANTED._replace(of_user=True, name="shop"), LINUX, action="install")

    assert (layout.unit, layout.command, layout.runtime) == (
        Path("/home/ann/.config/systemd/user/shop.service"),
        Path("/home/ann/.local/bin/shop"),
        Path("/run/user/1000/shop"),
    )
    assert layout.user == "ann"


@pytest.mark.parametrize(
    ("wanted", "host", "why"),
    [
        pytest.param(WANTED, LINUX, "a service of the system takes root", id="no root"),
        pytest.param(WANTED._replace(run_as="root"), ROOT, "name another user", id="as root"),
        pytest.param(WANTED._replace(run_as="0"), ROOT, "not its number", id="as root's number"),
        pytest.param(WANTED._replace(name="-x"), ROOT, "--name -x", id="a name that is an option"),
        pytest.param(WANTED._replace(folder=Path("/opt/a b")), ROOT, "do not take such a path", id="a blank"),
        pytest.param(WANTED._replace(folder=Path(f"/opt/{'x' * 50}")), MAC, "choose a shorter --dir", id="too long"),
        pytest.param(WANTED, ROOT._replace(system="FreeBSD"), "neither systemd nor launchd", id="another system"),
    ],
)
def test_what_cannot_work_is_refused(wanted: ServiceOptions, host: ServiceHost, why: str) -> None:
    with pytest.raises(XboardError, match=why):
        lay_out(wanted, host, action="install")


@pytest.mark.parametrize("host", [ROOT, MAC], ids=["systemd", "launchd"])
@pytest.mark.parametrize("action", ["install", "upgrade"])
def test_what_is_not_named_stays_as_it_is_installed(host: ServiceHost, action: str) -> None:
    """An upgrade as documented, without --run-as and --ini, is that of the service as it was installed."""
    installed = lay_out(WANTED._replace(run_as="shop", ini="prod.ini"), host, action="install")
    texts = rendered(installed, venv=Path("/opt/xboard/.venv"), group="shop", ini=read(), **TIMEOUTS)

    kept = as_installed(WANTED, texts.unit, texts.overlay, action=action)

    assert (kept.run_as, kept.ini) == ("shop", "prod.ini")
    layout = lay_out(kept, host, action=action)
    assert (layout.user, layout.ini) == ("shop", Path("/opt/xboard/prod.ini"))


def test_a_service_is_not_given_to_another_user_in_between() -> None:
    """Its data would be another's, and the unit's user would serve without them."""
    unit = unit_of(lay_out(WANTED._replace(run_as="shop"), ROOT, action="install"))

    assert as_installed(WANTED._replace(run_as="shop"), unit, "", action="upgrade").run_as == "shop"
    with pytest.raises(XboardError, match="runs as shop: say --run-as shop, or remove it first"):
        as_installed(WANTED._replace(run_as="other"), unit, "", action="install")


@pytest.mark.parametrize("other", [WANTED._replace(name="second"), WANTED._replace(of_user=True)], ids=["name", "user"])
def test_a_folder_has_one_service(other: ServiceOptions) -> None:
    """Two would share one overlay: each at the endpoints of the other, and neither starts when one is removed."""
    first, second = (lay_out(wanted, ROOT, action="install") for wanted in (WANTED, other))
    overlay = rendered(first, venv=Path("/v"), group="www", ini=read(), **TIMEOUTS).overlay

    refuse_folder_of_another(first, overlay)
    refuse_folder_of_another(second, "")
    with pytest.raises(XboardError, match="/opt/xboard has the service xboard-backend already, in /run/xboard-backend"):
        refuse_folder_of_another(second, overlay)


def test_what_is_not_installed_has_the_usual_user_and_file() -> None:
    kept = as_installed(WANTED, "", "", action="install")

    assert lay_out(kept, ROOT, action="install").user == "xboard"
    assert lay_out(kept, ROOT, action="install").ini == Path("/opt/xboard/circus.ini")


def test_a_unit_is_printed_to_anybody() -> None:
    assert lay_out(WANTED, LINUX, action="unit").unit == Path("/etc/systemd/system/xboard-backend.service")


def test_a_unit_that_is_copied_by_hand_runs_as_the_caller() -> None:
    layouts = [lay_out(WANTED, host, action="unit") for host in (LINUX, ROOT)]

    assert [(each.user, each.command) for each in layouts] == [
        ("ann", Path("/home/ann/.local/bin/xboard-backend")),
        ("xboard", Path("/usr/local/bin/xboard-backend")),
    ]


def test_the_manager_allows_more_time_than_the_ini_file() -> None:
    unit = unit_of(lay_out(WANTED, ROOT, action="install"))

    assert {"TimeoutStopSec=23", "TimeoutStartSec=90", "WatchdogSec=38"} <= set(unit.splitlines())


def test_no_processes_of_the_services_user_leave_root_without_one_to_end_them() -> None:
    """What root runs at a stop is in the control group too: /bin/sh that cannot fork ends, and nothing is killed."""
    unit = dict(
        line.split("=", 1) for line in unit_of(lay_out(WANTED, ROOT, action="install")).splitlines() if "=" in line
    )

    assert int(unit["TasksMax"]) >= int(unit["LimitNPROC"]) + 64


def test_a_unit_of_a_user_asks_for_no_right_of_the_system() -> None:
    of_user = unit_of(lay_out(WANTED._replace(of_user=True), LINUX, action="install"))
    of_system = unit_of(lay_out(WANTED, ROOT, action="install"))

    assert "ProtectSystem=" not in of_user
    assert "User=" not in of_user
    assert "WantedBy=default.target" in of_user
    assert {"User=xboard", "Group=www", "ProtectSystem=strict", "WantedBy=multi-user.target"} <= set(
        of_system.splitlines()
    )


def test_a_job_of_launchd_is_a_plist() -> None:
    job = plistlib.loads(unit_of(lay_out(WANTED, MAC, action="install")).encode())

    assert (job["Label"], job["UserName"], job["ExitTimeOut"]) == ("com.xboard.backend", "xboard", 23)


@pytest.mark.parametrize(
    ("folder", "python", "protected"),
    [
        pytest.param("/opt/x", "/opt/x/.venv/bin/python", "yes", id="elsewhere"),
        pytest.param("/home/x", "/opt/x/.venv/bin/python", "read-only", id="a folder in a home"),
        pytest.param("/opt/x", "/root/.venv/bin/python", "read-only", id="a Python in a home"),
    ],
)
def test_the_homes_are_hidden_unless_the_service_lies_in_one(folder: str, python: str, protected: str) -> None:
    layout = lay_out(ServiceOptions(Path(folder)), ROOT, action="install")

    assert f"ProtectHome={protected}" in unit_of(layout, python=python).splitlines()


def test_the_command_of_a_service_says_whose_it_is() -> None:
    layout = lay_out(WANTED, ROOT, action="install")

    texts = rendered(layout, venv=Path("/v"), group="www", ini=read(), **TIMEOUTS)

    assert overlay_of(texts.command) == layout.overlay
    assert is_ours(texts.command)
    assert is_ours(texts.unit)
    assert not is_ours("#!/bin/sh\necho a shop\n")


@pytest.mark.parametrize(
    ("ini", "included", "words"),
    [
        ("circus.ini", "include_dir = conf.d\ninclude = one.ini\n\ttwo.ini", "circus.ini one.ini two.ini conf.d/*.ini"),
        ("shop/circus.ini", "include = ../one.ini /etc/two.ini", "shop/circus.ini shop/../one.ini /etc/two.ini"),
    ],
)
def test_a_service_includes_what_its_ini_includes(ini: str, included: str, words: str) -> None:
    """Given files that the ini includes, of which Circus would pass over each that an included file names, then the
    service's ini names them, in Circus's order and seen from its own folder; at an upgrade the ini is still known."""
    layout = lay_out(WANTED._replace(ini=ini), ROOT, action="install")

    texts = rendered(layout, venv=Path("/v"), group="www", ini=read(f"[circus]\n{included}\n"), **TIMEOUTS)

    assert f"\ninclude = {words}\n" in texts.overlay
    assert as_installed(WANTED, texts.unit, texts.overlay, action="upgrade").ini == ini


@pytest.mark.parametrize("line", ["statsd = True", "stats_endpoint = tcp://127.0.0.1:5557"])
def test_the_figures_of_circus_are_private_too(line: str) -> None:
    layout = lay_out(WANTED, ROOT, action="install")

    overlay = rendered(layout, venv=Path("/v"), group="www", ini=read(f"[circus]\n{line}\n"), **TIMEOUTS).overlay

    assert "stats_endpoint = ipc:///run/xboard-backend/stats.sock\n" in overlay


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "of-root"
    target.write_text("secret")
    target.chmod(0o600)
    (tmp_path / "service.ini").symlink_to(target)

    written_files.write(tmp_path / "service.ini", "new\n", 0o644)

    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("secret", 0o600)
    assert not (tmp_path / "service.ini").is_symlink()
    assert (tmp_path / "service.ini").read_text() == "new\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["of-root", "service.ini"]


def test_a_folder_in_the_place_of_a_file_holds_up_no_install(tmp_path: Path) -> None:
    (tmp_path / "service.ini" / "full").mkdir(parents=True)

    written_files.write(tmp_path / "service.ini", "new\n", 0o644)

    assert (tmp_path / "service.ini").read_text() == "new\n"


def test_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("text")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")

    found = {name: written_files.read(tmp_path / name) for name in ("target", "link", "pipe", "none")}

    assert found == {"target": "text", "link": None, "pipe": None, "none": None}


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "app").symlink_to("elsewhere")

    with pytest.raises(XboardError, match=r"app: not a folder that root writes in: it is a link"):
        written_files.write(tmp_path / "app" / "service.ini", "", 0o644)

    assert list((tmp_path / "elsewhere").iterdir()) == []


@only_root
def test_root_appends_to_no_link_and_no_pipe_where_another_user_may_write(tmp_path: Path) -> None:
    """Given a link and a pipe in the place of a log, then root opens them in a folder of its own alone."""
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")

    def appended(name: str) -> bool:
        try:
            with open(tmp_path / name, "a", opener=written_files.opener) as file:
                file.write("x")
        except PermissionError:
            return False
        return True

    assert [appended(name) for name in ("new", "link")] == [True, True]
    tmp_path.chmod(0o777)
    assert [appended(name) for name in ("new", "link")] == [True, False]
    tmp_path.chmod(0o755)
    os.chown(tmp_path, NOBODY.uid, -1)
    assert [appended(name) for name in ("new", "link", "pipe")] == [True, False, False]
    assert ((tmp_path / "target").read_text(), (tmp_path / "new").read_text()) == ("x", "xxx")


@only_root
def test_root_opens_no_log_through_another_users_link_to_a_folder_of_roots(tmp_path: Path) -> None:
    (tmp_path / "logrotate.d").mkdir()
    (tmp_path / "top").symlink_to(tmp_path)
    (tmp_path / "logs").symlink_to("top/./logrotate.d")
    (tmp_path / "loop").symlink_to("loop")
    log = tmp_path / "logs" / "web.log"
    before = len(os.listdir("/proc/self/fd"))

    open(log, "a", opener=written_files.opener).close()  # root's own links lead on
    log.unlink()
    os.chown(tmp_path / "logs", NOBODY.uid, -1, follow_symlinks=False)
    wrong = {
        log: "another user's link is in the place of a folder",
        tmp_path / "loop" / "web.log": "Too many levels",
        tmp_path / "none" / "web.log": f"No such file or directory: '{tmp_path}/none'",
    }
    for path, why in wrong.items():
        with pytest.raises(OSError, match=why):
            open(path, "a", opener=written_files.opener).close()

    assert list((tmp_path / "logrotate.d").iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


@only_root
def test_a_link_in_the_place_of_the_logs_gives_nothing_away(tmp_path: Path) -> None:
    """Given logs/ as a link to a folder of root's, when root installs again, then that folder stays root's."""
    of_root = tmp_path / "of-root"
    of_root.mkdir()
    (tmp_path / "logs").symlink_to(of_root)

    with pytest.raises(XboardError, match="it is a link"):
        written_files.make_folder(tmp_path / "logs", 0o755, NOBODY, {0})

    assert of_root.stat().st_uid == 0


@only_root
def test_a_folder_of_roots_that_was_moved_to_the_logs_stays_roots(tmp_path: Path) -> None:
    """Given a folder of the user's, who has renamed one of root's to logs/, then that is not given to the user; an
    empty one is, and so is the user's own."""
    os.chown(tmp_path, NOBODY.uid, NOBODY.gid)
    moved = tmp_path / "logs"
    moved.mkdir(0o700)
    (moved / "keys").touch()

    with pytest.raises(XboardError, match="not nobody's, who may have put it there, and is not empty"):
        written_files.make_folder(moved, 0o755, NOBODY, {0})
    assert moved.stat().st_uid == 0

    (moved / "keys").unlink()
    written_files.make_folder(moved, 0o755, NOBODY, {0})
    (moved / "own").touch()
    written_files.make_folder(moved, 0o755, NOBODY, {0})
    assert moved.stat().st_uid == NOBODY.uid

    for place in (tmp_path, moved):  # as that of another service's user, where root alone can have put it
        os.chown(place, 0, 0)
    written_files.make_folder(moved, 0o755, NOBODY, {0})
    assert moved.stat().st_uid == NOBODY.uid


@only_root
@pytest.mark.parametrize("above", ["folder", "app"])
def test_a_folder_of_roots_that_was_moved_into_the_place_of_the_service_stays_roots(tmp_path: Path, above: str) -> None:
    """Given a folder that is the user's, who has put one of root's where root is told to install: nothing in it is
    given away, nor a folder in that one. What is the user's own is, and so is what another trusted one has put there.
    """
    os.chown(tmp_path, NOBODY.uid, NOBODY.gid)
    place = tmp_path / above / "app" if above == "folder" else tmp_path / "app"
    (place / "logs" / "old").mkdir(parents=True)
    place.chmod(0o700)

    with pytest.raises(XboardError, match="app is not nobody's, who may have put it there: put the service into"):
        written_files.share(place, NOBODY, {0})
    with pytest.raises(XboardError, match="logs is not nobody's, who may have put it there, and is not empty"):
        written_files.make_folder(place / "logs", 0o755, NOBODY, {0})
    kept = [(each.stat().st_uid, stat.S_IMODE(each.stat().st_mode)) for each in (place, place / "logs")]
    assert kept == [(0, 0o700), (0, 0o755)]

    assert written_files.share(place, NOBODY, {0, NOBODY.uid})
    os.chown(place, NOBODY.uid, NOBODY.gid)
    assert written_files.share(place, NOBODY, {0})


@only_root
def test_data_is_given_away_and_what_could_be_anybodys_is_not(tmp_path: Path) -> None:
    """Given a token that root made, and a link and a second name of other files, then only the token is given."""
    (tmp_path / "of-root").touch()
    token, linked, second = (tmp_path / name for name in ("dashboard.token", "dashboard.link", "dashboard.second"))
    token.touch()
    linked.symlink_to("of-root")
    os.link(tmp_path / "of-root", second)

    given = {path.name: written_files.give(path, NOBODY) for path in (token, linked, second)}

    assert given == {"dashboard.token": True, "dashboard.link": False, "dashboard.second": False}
    assert token.stat().st_uid == NOBODY.uid
    assert (tmp_path / "of-root").stat().st_uid == 0


def let_33_write(path: Path, kind: str) -> None:
    """Give it an access list of mode 0775, with a user of its own."""
    entries = [(1, 7, 0), (2, 7, 33), (4, 5, 0), (16, 7, 0), (32, 5, 0)]
    rights = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    os.setxattr(path, f"system.posix_acl_{kind}", rights)


@pytest.fixture
def reached() -> Iterator[Path]:
    """A folder that every user gets to."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        os.chmod(made, 0o755)
        yield Path(made)


@only_root
def test_files_of_others_are_found_below_a_folder_of_roots_alone(reached: Path) -> None:
    logs = reached / "logs"
    (logs / "theirs").mkdir(parents=True)
    for name in ("old.log", "own.log", "theirs/moved"):
        (logs / name).touch(0o600)
    for name in ("own.log", "theirs"):
        os.chown(logs / name, NOBODY.uid, NOBODY.gid)

    assert writers.foreign(logs, NOBODY.uid) == [logs / "old.log", logs]
    assert writers.foreign(reached / "none", NOBODY.uid) == []
    logs.chmod(0o777)
    assert writers.foreign(logs, NOBODY.uid) == [logs]
    reached.chmod(0o777)
    assert writers.foreign(logs, NOBODY.uid) == []


@only_root
def test_what_the_services_user_moves_among_its_data_is_not_given_to_it(
    reached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given what root's own start left, when root installs, then the service's user gets it, but for the tokens, which
    are made anew, and lines for logrotate as root are named; a file of root's that the user moves there is not given
    by the next install."""
    folder, said = reached / "app", list[str]()
    for made in (folder / "logs" / "old", folder / "uploads"):
        made.mkdir(parents=True)
    names = ("dashboard.token", "dashboard.json", "ledger.db", "logs/web.log", "logs/old/web.log")
    for name in names:
        (folder / name).touch(0o600)
    os.chown(folder / "uploads", NOBODY.uid, NOBODY.gid)
    service = Service.__new__(Service)
    service._shell, service._is_callers = managers.Shell(said.append, dry_run=False), False
    wanted = ServiceOptions(folder, run_as="nobody")
    service._layout = lay_out(wanted, MAC, action="install")._replace(runtime=reached / "run")
    (reached / "xboard").write_text(f"{folder}/logs/*.log {{\n    su root root\n}}\n")
    monkeypatch.setattr("xboard_circus.service.installing.LOGROTATE", reached)

    service._give_folder(NOBODY, Path(sys.prefix))

    assert any(line.startswith(f"write {reached}/xboard anew, by who owns the logs now") for line in said)
    assert f"delete: {folder}/dashboard.token, which the page makes anew" in said
    assert not (folder / "dashboard.token").exists()
    given = [folder / name for name in (*names[1:], "logs", "logs/old")]
    assert {path.stat().st_uid for path in given} == {NOBODY.uid}
    (folder / "uploads" / "secret").touch(0o600)
    moved = [folder / name for name in ("logs/secret", "secret.db")]
    for source, target in zip((folder / "uploads" / "secret", moved[0]), moved, strict=True):
        subprocess.run(["mv", source, target], user=NOBODY.uid, group=NOBODY.gid, extra_groups=[], check=True)
    (folder / "uploads" / "secret").touch(0o600)
    os.rename(folder / "uploads" / "secret", moved[0])

    service._give_folder(NOBODY, Path(sys.prefix))

    assert [path.stat().st_uid for path in moved] == [0, 0]


@only_root
def test_who_may_write_by_a_group_or_an_access_list_is_found_below_a_folder(tmp_path: Path) -> None:
    """Given files of root's, of which others may write two by more than an owner's right, then each is found."""
    venv = tmp_path / "venv"
    venv.mkdir()
    for name in ("closed", "listed", "masked", "open"):
        (venv / name).touch(0o644)
        (venv / name).chmod(0o666 if name == "open" else 0o644)
    for name, mask in (("listed", 6), ("masked", 5)):  # of mode 0644, with reading and writing for a user of its own
        entries = [(1, 6, 0), (2, 6, NOBODY.uid), (4, 4, 0), (16, mask, 0), (32, 4, 0)]
        rights = b"".join(struct.pack("<HHI", *each) for each in entries)
        os.setxattr(venv / name, "system.posix_acl_access", struct.pack("<I", 2) + rights)

    found = sorted(writers.below(venv, [0]))

    assert found == [(writers.ANYBODY.name, venv / "open"), ("nobody", venv / "listed")]


@only_root
def test_a_way_of_very_many_steps_is_looked_at_to_its_end(reached: Path) -> None:
    """Given a link of root's that leads through 260 steps and another user's link back into the packages, then that
    user is found, who may turn it."""
    theirs, venv = reached / "theirs", reached / "venv"
    for made in (theirs, venv, venv / "good"):
        made.mkdir()
    (theirs / "link").symlink_to(venv / "good")
    for each in (theirs, theirs / "link"):
        os.chown(each, NOBODY.uid, NOBODY.gid, follow_symlinks=False)
    long = f"/{'usr/../' * 130}{theirs.relative_to('/')}"

    assert {who for who, _ in writers.named(Path(long, "x"), {0})} == {"nobody"}
    for target in (f"{theirs}/link", f"{long}/link"):
        (venv / "package").unlink(missing_ok=True)
        (venv / "package").symlink_to(target)
        assert {who for who, _ in writers.below(venv, [0])} == {"nobody"}


@only_root
def test_a_subordinate_number_is_its_users(reached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a folder of a number that /etc/subuid gives to a user, who may use it in a container of his own, then that
    user is another one."""
    monkeypatch.setattr(writers, "SUBORDINATE", reached / "subuid")
    (reached / "subuid").write_text("broken\n")
    theirs = reached / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1_700_003, 0)
    assert authorship.other_writer(theirs) is None

    (reached / "subuid").write_text("# by hand\n\ndaemon:1700000:10\n")

    assert authorship.other_writer(theirs) == ("1700003", theirs)
    assert [*writers.named(theirs / "x", {0})] == [("daemon", theirs)]


@only_root
def test_pip_builds_through_no_link(tmp_path: Path) -> None:
    service = Service.__new__(Service)
    service._action, service._layout = "upgrade", lay_out(WANTED, ROOT, action="upgrade")
    (tmp_path / installing.BUILDS[0]).symlink_to(tmp_path)

    with pytest.raises(XboardError, match="is a link, or another user's"):
        service._make_builds(tmp_path)


@only_root
@pytest.mark.parametrize("place", [".", "build", "build/lib"])
def test_pip_builds_where_nobody_else_may_write_what_is_made(reached: Path, place: str) -> None:
    """Given a default access list with another user, whose own rights `chmod -R go-w` has taken away: Linux gives it to
    what root makes there, and pip would install all that lies in build/lib."""
    service = Service.__new__(Service)
    service._layout = lay_out(WANTED, ROOT, action="upgrade")
    (reached / place).mkdir(parents=True, exist_ok=True)
    let_33_write(reached / place, "default")
    (reached / place).chmod(0o755)

    with pytest.raises(XboardError, match=rf"by a default access list: `setfacl -R -b {reached}[a-z/]*` removes it"):
        service._make_builds(reached)


@only_root
def test_pip_builds_from_nothing_that_another_user_put_into_a_folder_of_roots(tmp_path: Path) -> None:
    service = Service.__new__(Service)
    service._layout = lay_out(WANTED, ROOT, action="upgrade")
    (tmp_path / "build" / "lib").mkdir(parents=True)
    (tmp_path / "build" / "lib" / "sitecustomize.py").touch()
    os.chown(tmp_path / "build" / "lib" / "sitecustomize.py", NOBODY.uid, NOBODY.gid)

    with pytest.raises(XboardError, match=f"nobody may write {tmp_path}/build/lib/sitecustomize.py, .*: delete"):
        service._make_builds(tmp_path)


@only_root
@pytest.mark.parametrize("home", ["", "home = ", "\tHome\t=\t"])
def test_root_runs_no_python_whose_own_library_is_another_users(reached: Path, home: str) -> None:
    """Given a .venv of root's by a Python of which root has the folder of programs alone, so that each start of it runs
    that user's lines, -I and -S or not; by a link, or a copy that finds it by pyvenv.cfg."""
    base, venv = reached / "base", reached / "app" / ".venv"
    library = base / "lib" / "python3.11"
    for made in (base / "bin", library / "encodings", venv / "bin"):
        made.mkdir(parents=True)
    (library / "os.py").touch()
    (library / "encodings" / "utf_8.py").touch()
    for python in (base / "bin" / "python", *([venv / "bin" / "python"] if home else [])):
        python.touch(0o755)
    if not home:
        (venv / "bin" / "python").symlink_to(base / "bin" / "python")
    (venv / "pyvenv.cfg").write_text(f"{home}{base}/bin\n" if home else "")
    service = Service.__new__(Service)
    service._action, service._is_roots = "install", True
    service._layout = lay_out(WANTED._replace(folder=reached / "app"), ROOT, action="install")
    assert service._venv() == venv

    os.chown(library / "encodings" / "utf_8.py", NOBODY.uid, NOBODY.gid)

    with pytest.raises(XboardError, match=f"nobody may write {library}/encodings/utf_8.py, .*: make {venv} anew"):
        service._venv()


@only_root
def test_root_runs_nothing_of_a_venv_in_which_what_is_made_is_open_to_others(reached: Path) -> None:
    """Given such a list in packages of root's, to which pip and Python add."""
    packages = reached / "venv" / "lib"
    packages.mkdir(parents=True)
    let_33_write(packages, "default")
    packages.chmod(0o755)

    assert [*writers.below(reached / "venv", [0])] == [(writers.INHERITED, packages)]


def test_a_deep_folder_of_another_user_is_no_error(tmp_path: Path) -> None:
    """Given 1,200 folders in one another, then all of them are found, by what gives, checks and dates files."""
    deep = tmp_path
    for _ in range(1200):
        deep = deep / "d"
        os.mkdir(deep)
    (deep / "late.py").touch()
    os.utime(deep / "late.py", (10, 10))
    try:
        assert len(writers.foreign(tmp_path, NOBODY.uid)) == 1202
        assert [*writers.below(tmp_path, [os.geteuid()])] == []
        assert versions(tmp_path, [20])[0]["changed"] == 10
    finally:
        (deep / "late.py").unlink()
        os.removedirs(deep)  # pytest could not


@only_root
def test_where_a_link_leads_is_looked_at_like_what_lies_there(tmp_path: Path) -> None:
    """Given a link of root's to another user's package, and links that lead round, then that user is found."""
    venv, theirs = tmp_path / "venv", tmp_path / "theirs"
    for made in (venv, theirs):
        made.mkdir()
    (theirs / "round").symlink_to(venv)
    (venv / "round").symlink_to(".")
    (venv / "shop").symlink_to("../theirs")
    assert [*writers.below(venv, [0])] == []

    os.chown(theirs, NOBODY.uid, NOBODY.gid)

    assert [*writers.below(venv, [0])] == [("nobody", theirs)]


@only_root
def test_what_goes_while_it_is_looked_at_is_nobodys(reached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a file that goes after its name was read, then the look goes on, and finds what stays."""
    (reached / "stays").touch()
    os.chown(reached / "stays", NOBODY.uid, NOBODY.gid)
    monkeypatch.setattr(
        "xboard_circus.host.writers.walk", lambda path: iter([(path, [], ["gone", "stays", "stays/x"])])
    )

    assert [*writers.below(reached, [0])] == [("nobody", reached / "stays")]


@pytest.mark.parametrize("name", ["x.run", "x.state"])
def test_a_name_whose_folders_another_program_has_is_refused(tmp_path: Path, name: str) -> None:
    """Given /run/NAME or /var/lib/NAME of another program's, which systemd would give to the service's user, then root
    installs nothing; what an earlier service of ours has left is no reason."""
    layout = lay_out(WANTED._replace(run_as="no-such-user"), ROOT, action="install")
    service = Service.__new__(Service)
    service._layout = layout._replace(
        unit=tmp_path / "x.service", runtime=tmp_path / "x.run", state=tmp_path / "x.state"
    )
    service._refuse_folders_of_others()
    (tmp_path / name / "4f0c").mkdir(parents=True)

    with pytest.raises(XboardError, match=f"{name} is there, and another program's: choose another --name"):
        service._refuse_folders_of_others()

    (tmp_path / name / "4f0c" / "life.json").touch()
    service._refuse_folders_of_others()


@only_root
def test_root_by_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_files.Owner, "of", lambda name: written_files.Owner(name, name, 0, 0))
    service = Service.__new__(Service)
    service._layout = lay_out(WANTED._replace(run_as="toor"), ROOT, action="install")

    with pytest.raises(XboardError, match="--run-as toor: it is root by another name"):
        service._refuse_unfit_user()


@pytest.mark.parametrize(("listed", "others"), [(["bob"], []), (["bob", "carol"], []), ([], ["carol"])])
def test_a_group_of_a_users_name_is_its_own_if_no_other_is_in_it(
    monkeypatch: pytest.MonkeyPatch, listed: list[str], others: list[str]
) -> None:
    """Given the group bob of the user bob, then it is his own unless it lists carol, or is hers too."""
    uids = {"bob": 61_001, "carol": 61_002}

    def entry(name: str) -> pwd.struct_passwd:
        gid = 61_001 if name == "bob" or name in others else 61_002
        return pwd.struct_passwd((name, "x", uids[name], gid, "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwnam", entry)
    monkeypatch.setattr(pwd, "getpwall", lambda: [*map(entry, uids)])
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("bob", "x", gid, listed)))

    owner = written_files.Owner.of("bob")

    assert owner is not None
    assert owner.has_own_group == ("carol" not in [*listed, *others])


@only_root
@pytest.mark.parametrize("action", ["install", "upgrade", "unit"])
def test_root_runs_no_python_of_a_folder_of_others_as_a_service_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Given a folder of another user with a .venv, when root says --user there, then nothing of it runs as root."""
    monkeypatch.setattr(managers.Systemd, "refuse_if_absent", lambda self: None)
    called = "unit" if action == "unit" else "install"
    with tempfile.TemporaryDirectory(prefix="xb-", dir="/tmp") as short:  # where another user gets to
        this = ROOT._replace(home=tmp_path, config_home=tmp_path, runtime_home=Path(short))
        folder = Path(short) / "app"
        python = folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho >{tmp_path}/ran\n")
        (folder / "circus.ini").write_text("[watcher:web]\ncmd = true\n")
        for path in (Path(short), python):
            path.chmod(0o755)
        wanted = WANTED._replace(folder=folder, of_user=True, name="xb-none")
        for theirs in (python, folder):
            os.chown(theirs, NOBODY.uid, NOBODY.gid)
            with pytest.raises(XboardError, match=rf"nobody may write {theirs}, and root would run"):
                getattr(Service(wanted, this, print, action=action), called)()
            assert not (tmp_path / "ran").exists()
            os.chown(theirs, 0, 0)


@only_root
def test_the_services_user_holds_up_no_install_by_stopping_what_runs_as_that_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a check, or a look at what that user can run, that never ends, then an install gives up and says so."""
    monkeypatch.setattr(managers, "ANSWERS_WITHIN", 0.5)
    monkeypatch.setattr(installing, "CHECKED_WITHIN", 0.5)
    command = tmp_path / "xboard-backend"
    command.write_text("#!/bin/sh\nkill -STOP $$; sleep 20\n")
    command.chmod(0o755)
    service = Service.__new__(Service)
    service._is_callers, service._shell = False, managers.Shell(print, dry_run=False)
    service._layout = lay_out(WANTED, ROOT, action="install")._replace(command=command)

    with pytest.raises(XboardError, match=f"`{command} check` has not ended within "):
        service._check_ini()
    with pytest.raises(XboardError, match=r"`sleep 20` has not ended within .* a process of nobody's may hold it up"):
        managers.succeeds("sleep", "20", user="nobody")


@only_root
def test_what_an_install_makes_is_for_root_alone_to_write_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service.__new__(Service)
    service._is_roots, service._action = True, "upgrade"
    service._layout, service._shell = lay_out(WANTED, ROOT, action="upgrade"), managers.Shell(print, dry_run=False)
    monkeypatch.setattr(Service, "_venv", lambda self: tmp_path)
    monkeypatch.setattr(Service, "_upgrade_packages", lambda self, venv: self._make_builds(venv))
    monkeypatch.setattr(Service, "_prepare", lambda self: None)
    monkeypatch.setattr(Service, "_alone", lambda self: nullcontext())
    before = os.umask(0)
    try:
        with pytest.raises(TypeError):  # it goes no further
            service.install(restart=True)
        (tmp_path / "file").touch(0o666)
    finally:
        os.umask(before)

    assert [path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o022] == []


@only_root
def test_a_file_of_another_users_is_replaced_also_where_it_holds_the_same(tmp_path: Path) -> None:
    service, file = Service.__new__(Service), tmp_path / "service.ini"
    service._is_roots, service._shell = True, managers.Shell(print, dry_run=False)
    file.write_text("same")
    assert not service._put(file, "same", 0o644)
    os.chown(file, NOBODY.uid, NOBODY.gid)

    assert service._put(file, "same", 0o644)

    assert (file.read_text(), file.stat().st_uid) == ("same", 0)


@only_root
def test_in_a_shared_folder_the_user_makes_files_and_replaces_none_of_roots(tmp_path: Path) -> None:
    """Given a folder that an earlier version gave to the user, when it is shared, then root's files stay root's."""
    folder = tmp_path / "app"
    folder.mkdir()
    os.chown(folder, NOBODY.uid, NOBODY.gid)

    assert written_files.share(folder, NOBODY, {0})

    found = folder.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, NOBODY.gid, 0o1775)
    assert not written_files.share(folder, NOBODY, {0})


@only_root
@pytest.mark.parametrize("kind", ["access", "default"])
def test_a_folder_with_an_access_list_is_not_shared(tmp_path: Path, kind: str) -> None:
    """Given a list with a third user, whose rights `chmod g-w` has masked: the bits of the group are that mask."""
    let_33_write(tmp_path, kind)
    tmp_path.chmod(0o755)

    with pytest.raises(XboardError, match="has an access list: `setfacl -R -b"):
        written_files.share(tmp_path, NOBODY, {0})

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_the_lock_that_uv_leaves_in_a_venv_opens_nothing(tmp_path: Path) -> None:
    """Given a .venv of uv's, whose lock every user may write, then root may run what is there; not so with any other
    file that is open to all, or with a folder of that name."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for lock in (venv / ".lock", venv / "bin" / ".lock"):
        lock.touch()
        lock.chmod(0o777)
    me = {0, os.geteuid()}

    assert [*writers.below(venv, me)] == [(writers.ANYBODY.name, venv / "bin" / ".lock")]
    (venv / "bin" / ".lock").unlink()
    assert [*writers.below(venv, me)] == []
    (venv / ".lock").unlink()
    (venv / ".lock").mkdir()
    (venv / ".lock").chmod(0o777)
    assert [*writers.below(venv, me)] == [(writers.ANYBODY.name, venv / ".lock")]
