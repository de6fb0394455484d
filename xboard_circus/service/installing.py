"""Install, upgrade and remove a service, step by step."""

import math
import os
import stat
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from pathlib import Path

import xboard_circus
from xboard_circus import config
from xboard_circus.config import Config
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, servers, writers, written_files
from xboard_circus.host.lock_file import locked
from xboard_circus.host.programs import run_captured
from xboard_circus.host.runtime import LIFE
from xboard_circus.host.written_files import Owner, resolved
from xboard_circus.service import layout as layouts
from xboard_circus.service.layout import Layout, ServiceHost, ServiceOptions, lay_out
from xboard_circus.service.managers import MANAGERS, Report, Shell, succeeds
from xboard_circus.service.rendering import rendered

CHECKED_WITHIN = 300.0
LOGROTATE = Path("/etc/logrotate.d")
# Files that an earlier start by another user, such as root, leaves in the folder, and the service writes to.
DATA = ("dashboard.*", "*.db", "*.db-wal", "*.db-shm", "logs", "uploads")
# What runs by that name in a folder, and how it is ended.
BACKENDS = dict.fromkeys(("circusd", "circus.circusd"), "xboard-circus stop")
BACKENDS |= {"xboard_circus.monitor": "kill {}", "a worker": "xboard-circus clean"}
OF_ROOT, _FACTS = "/opt", (("uname", "-s"), ("id", "-u"), ("id", "-un"))
# Files of the checkout that root runs, or pip when it installs them.
SOURCES = ("setup.py", "setup.cfg", "pyproject.toml", "xboard_circus", "plugins", "scripts")
# Folders that pip writes into: through a link that the service's user put there, root would write elsewhere.
BUILDS = ("build", "xboard_circus.egg-info")
_CURE = "end their processes, look at it, `chown -R root {}` and `chmod -R go-w` it, and give root the folders above it"
_CURE += f", or put the service into a folder such as {OF_ROOT}"
_INHERITED = "{} opens what root makes there to others, by a default access list: `setfacl -R -b {}` removes it"


def host() -> ServiceHost:
    """Return the facts about this machine and its user from its programs."""
    ran = (subprocess.run(each, capture_output=True, text=True, check=True) for each in _FACTS)
    system, uid, user = (each.stdout.strip() for each in ran)
    home = Path.home()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    runtime_home = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    return ServiceHost(system, int(uid), user, home, config_home, runtime_home)


class Service:
    """One service of this host, installed or not."""

    def __init__(self, wanted: ServiceOptions, this: ServiceHost, report: Report, *, action: str) -> None:
        self._shell = Shell(report, dry_run=wanted.dry_run)
        self._action = action
        layout = lay_out(wanted, this, action=action)
        self._is_roots = this.uid == 0
        if action != "unit":
            texts = [written_files.read(layout.unit) or "", self._overlay_text(layout.overlay)]
            layout = lay_out(layouts.as_installed(wanted, *texts, action=action), this, action=action)
        # Their folders are not the service's, and may be links, such as ~/.config.
        unit, command = (path.parent.resolve() / path.name for path in (layout.unit, layout.command))
        layout = layout._replace(unit=unit, command=command)
        self._manager = MANAGERS[layout.manager](layout, self._shell)
        # A unit that runs as the caller, who needs root only to copy it.
        self._is_callers = action == "unit" and layout.system and not self._is_roots
        self._layout = self._installed(layout)
        if self._is_roots and action != "remove":
            if layout.system:
                self._refuse_unfit_user()
                self._refuse_folders_of_others()
                self._refuse_backends_of_others()
                cure = f"when you have looked at it, `chown root {layout.command.parent}` and `chmod go-w` it"
                self._refuse_of_others(layout.command.parent, cure, whole=False)
            self._refuse_sources_of_others()
            for path in (layout.folder, layout.ini):
                self._refuse_of_others(path, _CURE.format(layout.folder), whole=False, user=layout.user)
        if action != "remove":
            self._ini = self._read()

    def install(self, *, restart: bool = False) -> None:
        """Write the files of the service, enable it and start it; files that have not changed stay."""
        with self._alone():
            if self._is_roots:
                os.umask(os.umask(0o077) | 0o022)  # what pip makes, root runs
            if self._action == "upgrade":
                self._upgrade_packages(self._venv())
            changed, unit = self._prepare()
            changed |= self._put(self._layout.unit, unit, 0o644)
            self._manager.start(changed=changed, restart=restart, timeouts=self._timeouts())
            self._shell.note(f"done; `{self._layout.command} status` shows how it is")

    def unit(self) -> str:
        """Return the unit or job, and write all other files of `install`: it works when it is copied by hand."""
        return self._prepare()[1]

    def _prepare(self) -> tuple[bool, str]:
        """Write what the unit names; return whether that has changed, and the text of the unit."""
        layout, venv, timeouts = self._layout, self._venv(), self._timeouts()
        self._give_folder(self._owner(), venv)
        owner = Owner.of(layout.user)
        texts = rendered(layout, venv, owner.group if owner else layout.user, self._ini, *timeouts)
        changed = self._put(layout.overlay, texts.overlay, 0o644)
        changed |= self._put(layout.command, texts.command, 0o755)
        self._check_ini()
        return changed, texts.unit

    def remove(self) -> None:
        """Stop the service, disable it, and delete the files that `install` wrote."""
        with self._alone():
            layout = self._layout
            if os.path.exists(layout.unit):
                self._manager.stop()
            else:
                self._shell.note(f"not installed: {layout.unit}")
            for path in (layout.unit, layout.command, layout.overlay):
                if os.path.lexists(path):
                    self._shell.report(f"delete: {path}")
                    if not self._shell.dry_run:
                        written_files.delete(path)
            self._manager.forget()
            self._shell.note(f"{layout.folder}, its logs and data, and the user {layout.user} stay as they are")
            if os.path.isdir(layout.folder) and os.stat(layout.folder).st_mode & stat.S_IWGRP:
                cure = f"then `chown -R root {layout.folder} && chmod -R go-w {layout.folder}`, and `setfacl -R -b` it"
                what = f"{layout.user} may have made files in {layout.folder}: before root runs anything there"
                self._shell.note(f"{what}, end its processes, look at what lies there, {cure}")

    def _alone(self) -> AbstractContextManager[None]:
        """Hold the lock of the service; XboardError where another process changes it, such as two calls of pip."""
        busy = f"{self._layout.name} is being changed already"
        return nullcontext() if self._shell.dry_run else locked(self._layout.lock, busy)

    def _installed(self, layout: Layout) -> Layout:
        """Return *layout*, with the folder of the service to remove; XboardError if the name is not ours."""
        if self._action != "unit":
            self._manager.refuse_if_absent()
        for path in (layout.unit, layout.command):
            text = written_files.read(path)
            if os.path.lexists(path) and (text is None or not layouts.is_ours(text)):
                raise XboardError(f"{path} is there, and not of this script's making: choose another --name")
        overlay = layouts.overlay_of(written_files.read(layout.command) or "")
        if overlay in (None, layout.overlay):
            layouts.refuse_folder_of_another(layout, self._overlay_text(layout.overlay))
            return layout
        there = overlay.parent
        if self._action != "remove":
            cure = f"say --dir {there} for that one, or choose another --name"
            raise XboardError(f"{layout.name} is the service of {there}: {cure}")
        return layout._replace(overlay=overlay, folder=there)

    def _overlay_text(self, path: Path) -> str:
        """Return the text of the overlay; "" for one of the service's user, who would choose what ini root reads."""
        return "" if self._is_anothers(path) else written_files.read(path) or ""

    def _is_anothers(self, path: Path) -> bool:
        return self._is_roots and not written_files.belongs_to(path, 0)

    def _refuse_folders_of_others(self) -> None:
        """Refuse a name whose folders another program has: systemd would give /run/NAME and /var/lib/NAME away."""
        layout, owner = self._layout, Owner.of(self._layout.user)
        if layout.manager != "systemd" or os.path.exists(layout.unit):
            return
        for folder in (layout.runtime, layout.state):
            is_users = owner is not None and written_files.belongs_to(folder, owner.uid)
            # An earlier service may have run as another user.
            if os.path.lexists(folder) and not is_users and not any(folder.glob(f"*/{LIFE}")):
                raise XboardError(f"{folder} is there, and another program's: choose another --name, or delete it")

    def _refuse_backends_of_others(self) -> None:
        """Refuse a folder where another user than the service's runs a circusd, its monitor, or workers that it left.

        Each imports modules from there, and the service's user may make one from now on.
        """
        layout, owner = self._layout, Owner.of(self._layout.user)
        # By start, since pids begin anew: circusd is named before its workers, which end with it.
        for pid in sorted({*procs.pids()} - procs.spared(), key=lambda pid: procs.start_time(pid) or 0):
            user, mark = procs.user_of(pid), (procs.marks(pid) or {}).get("XBOARD_CONFIG")
            if user is None or (owner and user == owner.uid) or not procs.is_of_our_pid_space(pid):
                continue
            what = next(filter(BACKENDS.get, map(os.path.basename, procs.command_line(pid)[1:6])), "a worker")
            own = [f"{procs.folder_of(pid)}/", procs.config_file_of(pid)] if what != "a worker" else []
            places = {resolved(os.path.dirname(file)) for file in [*own, mark] if file}
            if places & {layout.folder, layout.ini.parent}:
                who, end = servers.name_of(user), BACKENDS[what].format(pid)
                what += f" of {who}'s, pid {pid}, runs in {layout.folder}"
                raise XboardError(f"{what}, and would run what {layout.user} puts there: `{end}` as {who} first")

    def _refuse_unfit_user(self) -> None:
        owner = Owner.of(self._layout.user)
        if owner and owner.uid == 0:
            raise XboardError(f"--run-as {owner.name}: it is root by another name; name another user")
        if owner and not owner.has_own_group:
            what = f"its group {owner.group} may have others in it, who could then make files in {self._layout.folder}"
            cure = f"Give it a group of its own (groupadd {owner.name}; usermod -g {owner.name} {owner.name})"
            raise XboardError(f"--run-as {owner.name}: {what}, as the service must. {cure}, or name another user")

    def _venv(self) -> Path:
        """Return the folder's own .venv, otherwise the one that runs this."""
        own = self._layout.folder / ".venv"
        venv = own if os.access(own / "bin" / "python", os.X_OK) else Path(sys.prefix)
        if self._is_roots:
            user, cure = self._layout.user if self._action == "unit" else "root", _CURE.format(venv)
            self._refuse_of_others(venv / "bin" / "python", cure, user=user)
            for library in writers.libraries(venv / "bin" / "python"):
                self._refuse_of_others(library, f"make {venv} anew by a Python of root's, such as /usr's", user=user)
            if os.path.exists(venv / "pyvenv.cfg"):  # else the system's own folder, such as /usr
                self._refuse_of_others(venv, cure, user=user)
            self._refuse_shared_imports(venv, user)
        return venv

    def _refuse_shared_imports(self, venv: Path, user: str) -> None:
        """Refuse packages whose .pth files name a folder in which another user may make modules, such as the service's.

        Root's next command would run a sitecustomize.py there, before anything of ours could look.
        """
        trusted, shared = self._trusted(user), self._layout.folder
        for site in venv.glob("lib/python*/site-packages"):
            for folder in writers.named_by_pth(site):
                found = [who for who, _ in writers.named(folder, trusted)]
                place = resolved(folder)
                is_shared = place == shared or (not os.path.exists(folder) and shared in place.parents)
                if is_shared and user != self._layout.user:
                    found.append(self._layout.user)  # that user may make files there from now on
                for who in found:
                    what = f"a .pth file in {site} has {user}'s Python import from {folder}, where {who} may make files"
                    raise XboardError(f"{what}: install a wheel of it, from `pip wheel` in a clone of your own")

    def _upgrade_packages(self, venv: Path) -> None:
        source = Path(xboard_circus.__file__).parents[1]
        what = ["xboard-circus"]
        if os.path.exists(source / "setup.cfg"):
            if self._is_roots and not self._shell.dry_run:
                self._make_builds(source)
            # The checkout's own .venv runs the code of the checkout; any other gets a copy of it.
            what = ["--editable", str(source)] if venv == source / ".venv" else [str(source)]
        python = str(venv / "bin" / "python")
        name = "xboard_circus-*.dist-info"
        before = next(chain(venv.glob(f"lib/python*/site-packages/{name}"), source.glob(name)), None)
        if what == ["xboard-circus"] and (before is None or os.path.exists(before / "direct_url.json")):
            cause = f"{venv} has an xboard-circus that no index gave, where anybody may take that name"
            run = f"{python} -I -m"
            cure = f"`{run} pip install FILE.whl`, then `{run} xboard_circus service install --restart`"
            raise XboardError(f"{cause}: {cure} with the options of this command; nothing was changed")
        pip = ("-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        self._shell.run(python, *pip, "--upgrade", *what, half=f"{venv} lacks packages, and nothing starts from it")
        if self._shell.dry_run:
            return
        if what != ["xboard-circus"]:
            back = f"has the code of {source} now; to go back: `git -C {source} checkout` of the commit before, "
            self._shell.note(f"{venv} {back}and upgrade again")
        elif before is not None:
            old = before.stem.split("-")[1]
            back = f"had xboard-circus {old}; to go back: `{python} {' '.join(pip)} xboard-circus=={old}`, "
            self._shell.note(f"{venv} {back}and restart the service")
        if what == ["xboard-circus"] and venv == Path(sys.prefix):
            # The code in memory is the old one's, and the templates on the disk are the new one's.
            words = sys.argv[1:]
            words[words.index("upgrade")] = "install"
            os.execv(sys.executable, [sys.executable, "-I", "-m", "xboard_circus", *words, "--restart"])

    def _trusted(self, user: str = "root") -> set[int]:
        """Return the users with files that *user*, root or the service's, may run: both, and the user of sudo; but root
        runs none of the service's user."""
        caller, owner = os.environ.get("SUDO_UID", ""), Owner.of(self._layout.user)
        trusted, own = {0, int(caller)} if caller.isdecimal() else {0}, {owner.uid} if owner else set[int]()
        return trusted | own if user == self._layout.user else trusted - own

    def _refuse_sources_of_others(self) -> None:
        """Refuse a checkout, or a package elsewhere, that another user may write, because root runs it."""
        package = Path(xboard_circus.__file__).parent
        source = package.parent
        if not os.path.exists(source / "setup.cfg"):
            self._refuse_of_others(package, f"install the package as root into a folder such as {OF_ROOT}")
            return
        cure = f"end their processes, look at it, `chown -R root {source}` and `chmod -R go-w` it, or clone it as root "
        for path in (source / name for name in SOURCES):
            self._refuse_of_others(path, f"{cure}into a folder such as {OF_ROOT}")

    def _refuse_of_others(self, path: Path, cure: str, *, whole: bool = True, user: str = "root") -> None:
        """Raise XboardError if a user who is not trusted may write *path*, which *user* runs, a folder above it, or, of
        the *whole*, anything below it."""
        trusted = self._trusted(user)
        if whole and not os.path.exists(path):
            raise XboardError(f"{path} is missing, and pip would run one that is put there as root: restore it")
        for who, place in chain(writers.below(path.resolve(), trusted) if whole else (), writers.named(path, trusted)):
            if who == writers.INHERITED:
                raise XboardError(_INHERITED.format(place, path))
            raise XboardError(f"{who} may write {place}, and {user} would run what is there: {cure}")

    def _make_builds(self, source: Path) -> None:
        """Make the folders that pip writes into; refuse one that the service's user made first, or may write in."""
        for path in (source / name for name in BUILDS):
            with suppress(FileExistsError):
                path.mkdir()
            if os.path.islink(path) or not any(written_files.belongs_to(path, uid) for uid in self._trusted()):
                raise XboardError(f"{path} is a link, or another user's, and pip would write there as root: delete it")
            self._refuse_of_others(path, "delete that folder")

    def _read(self) -> Config:
        """Return the ini file; XboardError where a third user may write it, or what it includes."""
        ini = self._layout.ini
        if not os.path.isfile(ini):
            cure = f"`xboard-circus init --app module:app {self._layout.folder}` writes one"
            raise XboardError(f"{ini}: no such file; {cure}")
        found = config.load(ini)
        for place in found.places if self._is_roots else ():
            self._refuse_of_others(place, _CURE.format(place), whole=False, user=self._layout.user)
        return found

    def _timeouts(self) -> tuple[int, int]:
        """Return the longest graceful_timeout, and the longest start: one worker of each watcher after the other."""
        watchers = self._ini.watchers
        stop = max((each.graceful_timeout for each in watchers), default=30)
        return math.ceil(stop), math.ceil(sum(each.options.health.startup_timeout for each in watchers) or 60)

    def _owner(self) -> Owner | None:
        """Return the user of a service of the system, made if missing; None if the caller owns all."""
        layout = self._layout
        if not layout.system or self._is_callers:
            return None
        if found := Owner.of(layout.user):
            return found
        if layout.manager != "systemd":
            raise XboardError(f"there is no user {layout.user}: make one, or name one with --run-as")
        account = ("--system", "--user-group", "--home-dir", f"/var/lib/{layout.name}", "--no-create-home")
        self._shell.run("useradd", *account, "--shell", "/usr/sbin/nologin", layout.user)
        return Owner.of(layout.user)

    def _give_folder(self, owner: Owner | None, venv: Path) -> None:
        """Let the service write in the folder and in logs/, and give it the existing data."""
        layout, shell, trusted = self._layout, self._shell, self._trusted()
        if owner is not None and not shell.dry_run:
            self._give_data(owner)
        folders = [(layout.folder / "logs", 0o755), (layout.runtime, 0o700)][: 1 if self._is_callers else 2]
        for path, mode in folders:
            if not os.path.isdir(path):
                shell.report(f"make: {path}")
            if not shell.dry_run:
                written_files.make_folder(path, mode, owner, trusted)
        is_systems = layout.system and not self._is_callers
        if is_systems and (shell.dry_run or (owner and written_files.share(layout.folder, owner, trusted))):
            shell.report(f"share: {layout.folder} with {layout.user}, who may make files in it")
            rotates = [each for each in LOGROTATE.glob("*") if str(layout.folder) in (written_files.read(each) or "")]
            if rotates:
                shell.note(f"write {rotates[0]} anew, by who owns the logs now: {layout.user} may lead root by a link")
            if os.path.exists(layout.folder / "docker-compose.yml"):
                shell.note(f"run no Compose as root in {layout.folder}: {layout.user} may add a compose.yaml or .env")
        if owner is not None and not shell.dry_run and layout.manager == "systemd":
            self._refuse_closed_folder(venv)

    def _give_data(self, owner: Owner) -> None:
        """Give what an earlier start by root left, before the user may put a file of root's in its place."""
        tokens = self._layout.folder / "dashboard.token"
        if os.path.exists(tokens) and not written_files.belongs_to(tokens, owner.uid):
            self._shell.report(f"delete: {tokens}, which the page makes anew")  # another user has known them
            written_files.delete(tokens)
        for top in chain(*map(self._layout.folder.glob, DATA)):
            for path in writers.foreign(top, owner.uid):
                if written_files.give(path, owner):
                    self._shell.report(f"give: {path} to {owner.name}")

    def _refuse_closed_folder(self, venv: Path) -> None:
        folder, user = self._layout.folder, self._layout.user
        for place in (folder, *(each.file for each in self._ini.scans[1:])):
            if str(place).startswith(("/tmp/", "/var/tmp/")):
                self._shell.note(f"{place}: the service has a /tmp of its own, and does not find it; put it elsewhere")
        elsewhere = "where that user can enter, such as /opt/xboard, not below /root"
        if not succeeds("test", "-x", str(folder), user=user):
            raise XboardError(f"{user} cannot enter {folder}: put it {elsewhere}")
        python = str(venv / "bin" / "python")
        if not succeeds(python, "-I", "-c", "import xboard_circus", user=user):
            raise XboardError(f"{user} cannot run {python}: put folder and packages {elsewhere}")

    def _put(self, path: Path, text: str, mode: int) -> bool:
        """Write a file unless it holds *text* already; return whether it had to be written."""
        if written_files.read(path) == text and not self._is_anothers(path):
            self._shell.note(f"unchanged: {path}")
            return False
        self._shell.report(f"write: {path}")
        if not self._shell.dry_run:
            written_files.write(path, text, mode)
        return True

    def _check_ini(self) -> None:
        """Raise XboardError if the ini file has an error: nothing is started then, and a running service runs on."""
        if self._shell.dry_run or self._is_callers:  # systemd makes the folder of its endpoints, at each start
            return
        # Without our terminal, which sudo, in launchd's command, would pass to the service's user.
        done = run_captured([str(self._layout.command), "check"], timeout=CHECKED_WITHIN, env=os.environ, cwd="/")
        if done is None:
            why = f"a process of {self._layout.user}'s may hold it up; nothing was started"
            raise XboardError(f"`{self._layout.command} check` has not ended within {CHECKED_WITHIN:g} s: {why}")
        for line in (done.stdout + done.stderr).splitlines():
            if not line.startswith("ok"):
                self._shell.note(line)
        if done.returncode:
            raise XboardError(f"{self._layout.ini} has errors, see above; nothing was started")
