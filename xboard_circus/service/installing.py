"""Install, upgrade and remove a service: the steps in order."""

from __future__ import annotations

import grp
import math
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import xboard_circus
from xboard_circus import config
from xboard_circus.errors import XboardError
from xboard_circus.service import written_files
from xboard_circus.service.layout import Layout, ServiceHost, ServiceOptions, is_ours, lay_out, overlay_of
from xboard_circus.service.managers import Launchd, Manager, Report, Shell, Systemd, succeeds
from xboard_circus.service.rendering import Texts, Times, rendered

# What an earlier start by another user, such as root, leaves in the folder, and the service writes to.
DATA = ("dashboard.*", "*.db", "*.db-wal", "*.db-shm", "logs", "uploads")
TOKENS = "dashboard.token"
# What pip runs, or takes as it is, when it installs the checkout.
SOURCES = ("setup.py", "setup.cfg", "pyproject.toml", "xboard_circus", "plugins")


def host() -> ServiceHost:
    """Return the facts about this machine and its user; programs are asked, as a script would."""
    uid = int(_output("id", "-u"))
    home = Path.home()
    return ServiceHost(
        system=_output("uname", "-s"),
        uid=uid,
        user=_output("id", "-un"),
        home=home,
        config_home=Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config"),
        runtime_home=Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"),
    )


class Service:
    """One service of this host, installed or not."""

    def __init__(self, wanted: ServiceOptions, this: ServiceHost, report: Report, *, action: str) -> None:
        self._shell = Shell(report, dry_run=wanted.dry_run)
        self._action = action
        self._is_root = this.uid == 0
        self._layout = self._found(_resolved(lay_out(wanted, this, action=action)))

    def install(self, *, restart: bool = False) -> None:
        """Write the files of the service, enable it and start it; files that have not changed stay."""
        shell, layout = self._shell, self._layout
        venv = self._venv()
        if self._action == "upgrade":
            self._upgrade_packages(venv)
        times = self._times()
        owner = self._owner()
        texts = self._texts(venv, owner.group if owner else layout.user, times)
        self._give_folder(owner, venv)
        changed = self._put(layout.overlay, texts.overlay, 0o644)
        changed |= self._put(layout.command, texts.command, 0o755)
        self._check_ini()
        changed |= self._put(layout.unit, texts.unit, 0o644)
        self._manager(times).start(changed=changed, restart=restart or self._action == "upgrade")
        shell.note(f"done; `{layout.command} status` shows how it is")

    def remove(self) -> None:
        """Stop the service, disable it, and delete the files that `install` wrote."""
        layout, manager = self._layout, self._manager()
        if layout.unit.exists():
            manager.stop()
        else:
            self._shell.note(f"not installed: {layout.unit}")
        for path in (layout.unit, layout.command, layout.overlay):
            if os.path.lexists(path):
                self._shell.report(f"delete: {path}")
                if not self._shell.dry_run:
                    written_files.delete(path)
        manager.forget()
        self._shell.note(f"{layout.folder}, its logs and data, and the user {layout.user} stay as they are")

    def unit(self) -> str:
        """Return the unit or job as `install` would write it."""
        return self._texts(self._venv(), self._group(), self._times()).unit

    def _found(self, layout: Layout) -> Layout:
        """Return *layout*, of the folder that has the name already; XboardError where the name is not ours to take."""
        self._refuse_foreign_files(layout)
        installed = overlay_of(written_files.read(layout.command) or "")
        if self._action == "unit" or installed in (None, layout.overlay):
            return layout
        if self._action != "remove":
            there = installed.parent
            raise XboardError(
                f"{layout.name} is the service of {there}: say --dir {there} for that one, or choose another --name"
            )
        return replace(layout, overlay=installed, folder=installed.parent)

    def _refuse_foreign_files(self, layout: Layout) -> None:
        if self._action == "unit":
            return
        _manager_of(layout, self._shell).refuse_if_absent()
        for path in (layout.unit, layout.command):
            text = written_files.read(path)
            if os.path.lexists(path) and (text is None or not is_ours(text)):
                raise XboardError(f"{path} is there, and not of this script's making: choose another --name")

    def _manager(self, times: Times | None = None) -> Manager:
        return _manager_of(self._layout, self._shell, times)

    def _venv(self) -> Path:
        """Return the folder's own .venv, else the one that runs this."""
        own = self._layout.folder / ".venv"
        venv = own if os.access(own / "bin" / "python", os.X_OK) else Path(sys.prefix)
        if self._action != "unit" and self._layout.system and self._is_root and not written_files.belongs_to(venv, 0):
            raise XboardError(
                f"{venv} does not belong to root, and root would run what is in there: chown -R root {venv}, "
                "if you trust it"
            )
        return venv

    def _upgrade_packages(self, venv: Path) -> None:
        source = Path(xboard_circus.__file__).parents[1]
        what = ["xboard-circus"]
        if (source / "setup.cfg").exists():
            self._refuse_sources_of_user(source)
            # The checkout's own .venv runs what stands in the checkout; any other gets a copy of it.
            what = ["--editable", str(source)] if venv == source / ".venv" else [str(source)]
        pip = ("-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade")
        self._shell.run(str(venv / "bin" / "python"), *pip, *what)
        if not self._shell.dry_run and what == ["xboard-circus"] and venv == Path(sys.prefix):
            # The code in memory is the old one's, and the templates on the disk are the new one's.
            words = sys.argv[1:]
            words[words.index("upgrade")] = "install"
            os.execv(sys.executable, [sys.executable, "-I", "-m", "xboard_circus", *words, "--restart"])

    def _refuse_sources_of_user(self, source: Path) -> None:
        if not self._layout.system or not self._is_root:
            return
        for path in (source / name for name in SOURCES):
            if path.exists() and not _is_trusted(path, self._layout.user):
                raise XboardError(
                    f"{path} belongs to {self._layout.user}, and pip would run it as root: chown -R root {source}, "
                    "if you trust it"
                )

    def _times(self) -> Times:
        ini = self._layout.ini
        if not ini.is_file():
            raise XboardError(
                f"{ini}: no such file; `xboard-circus init --app module:app {self._layout.folder}` writes one"
            )
        watchers = config.load(ini).watchers
        return Times.above(
            graceful_timeout=math.ceil(max((each.graceful_timeout for each in watchers), default=30)),
            # One worker of each watcher after the other.
            startup_timeout=math.ceil(sum(each.options.health.startup_timeout for each in watchers) or 60),
        )

    def _group(self) -> str:
        found = _owner_of(self._layout.user)
        return found.group if found else self._layout.user

    def _owner(self) -> written_files.Owner | None:
        """Return the user of a service of the system, made where it is missing; None for a service of one user."""
        layout = self._layout
        if not layout.system:
            return None
        found = _owner_of(layout.user)
        if found is None:
            if layout.manager != "systemd":
                raise XboardError(f"there is no user {layout.user}: make one, or name one with --run-as")
            home = f"/var/lib/{layout.name}"
            account = ("--system", "--user-group", "--home-dir", home, "--no-create-home")
            self._shell.run("useradd", *account, "--shell", "/usr/sbin/nologin", layout.user)
            found = _owner_of(layout.user)
        return found

    def _texts(self, venv: Path, group: str, times: Times) -> Texts:
        layout = self._layout
        text = layout.ini.read_text(encoding="utf-8", errors="replace")
        python = venv / "bin" / "python"
        return rendered(layout, venv=venv, python=python, group=group, ini_text=text, times=times)

    def _give_folder(self, owner: written_files.Owner | None, venv: Path) -> None:
        """Let the service write in the folder and in logs/, and give it the data that is there already."""
        layout, shell = self._layout, self._shell
        for path, mode in ((layout.folder / "logs", 0o755), (layout.runtime, 0o700)):
            if not path.is_dir():
                shell.report(f"make: {path}")
            if not shell.dry_run:
                written_files.make_folder(path, mode, owner)
        if layout.system and (shell.dry_run or (owner is not None and written_files.share(layout.folder, owner))):
            shell.report(f"share: {layout.folder} with {layout.user}, who may make files in it")
        if owner is None or shell.dry_run:
            return
        for path in self._data(owner):
            if path.name == TOKENS and path.is_file() and path.stat().st_size == 0:
                shell.report(f"delete: {path}, which is empty; the dashboard makes it anew")
                written_files.delete(path)
            elif written_files.give(path, owner):
                shell.report(f"give: {path} to {layout.user}")
        if layout.manager == "systemd":
            self._refuse_closed_folder(venv)

    def _data(self, owner: written_files.Owner) -> Iterator[Path]:
        folder = self._layout.folder
        for top in (path for pattern in DATA for path in folder.glob(pattern)):
            yield from written_files.foreign(top, owner)

    def _refuse_closed_folder(self, venv: Path) -> None:
        folder, user = self._layout.folder, self._layout.user
        if str(folder).startswith(("/tmp/", "/var/tmp/")):
            self._shell.note(
                f"{folder}: the service has a /tmp of its own, and does not find that folder; choose another --dir"
            )
        elsewhere = "where that user can enter, such as /opt/xboard, not below /root"
        as_user = ("runuser", "-u", user, "--")
        if not succeeds(*as_user, "test", "-x", str(folder)):
            raise XboardError(f"{user} cannot enter {folder}: put it {elsewhere}")
        python = str(venv / "bin" / "python")
        if not succeeds(*as_user, python, "-c", "import xboard_circus"):
            raise XboardError(f"{user} cannot run {python}: put folder and packages {elsewhere}")

    def _put(self, path: Path, text: str, mode: int) -> bool:
        """Write a file unless it holds *text* already; return whether it had to be written."""
        if written_files.read(path) == text:
            self._shell.note(f"unchanged: {path}")
            return False
        self._shell.report(f"write: {path}")
        if not self._shell.dry_run:
            written_files.write(path, text, mode)
        return True

    def _check_ini(self) -> None:
        """Raise XboardError where the ini file has an error: nothing is started then, and what runs, runs on."""
        if self._shell.dry_run:
            return
        command = [str(self._layout.command), "check"]
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in done.stdout.splitlines():
            if not line.startswith("ok"):
                self._shell.note(line)
        if done.returncode:
            raise XboardError(f"{self._layout.ini} has errors, see above; nothing was started")


def _manager_of(layout: Layout, shell: Shell, times: Times | None = None) -> Manager:
    if layout.manager == "systemd":
        return Systemd(layout, shell)
    return Launchd(layout, shell, stop_seconds=times.stop) if times else Launchd(layout, shell)


def _resolved(layout: Layout) -> Layout:
    """Return *layout* without links in the folders that are not the service's, such as a ~/.config that is one."""
    places = {name: getattr(layout, name) for name in ("unit", "command")}
    return replace(layout, **{name: path.parent.resolve() / path.name for name, path in places.items()})


def _owner_of(user: str) -> written_files.Owner | None:
    try:
        found = pwd.getpwnam(user)
        return written_files.Owner(user, grp.getgrgid(found.pw_gid).gr_name, found.pw_uid, found.pw_gid)
    except KeyError:
        return None


def _is_trusted(path: Path, user: str) -> bool:
    found = _owner_of(user)
    return found is None or not written_files.belongs_to(path, found.uid)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
