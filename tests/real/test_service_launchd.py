"""The service on macOS: its plist, and what the script does there. `launchctl` and `uname` are the test's own."""

from __future__ import annotations

import os
import plistlib
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from circus.config import get_config

import xboard_circus
from xboard_circus.errors import XboardError
from xboard_circus.host.written_files import Owner
from xboard_circus.service import installing
from xboard_circus.service.installing import Service
from xboard_circus.service.layout import ServiceOptions, lay_out

from . import forked_commands
from .attacker import run_as
from .harness import circusd, eventually
from .operations import ROOT, Checkout
from .service_host import SCRIPT, lead_to
from .test_monitor import monitor

# launchd.plist(5), the keys of a job. One that launchd does not know it ignores, in silence.
_KEYS = """
AbandonProcessGroup AssociatedBundleIdentifiers BundleProgram CarbonJob Debug Disabled EnableGlobbing
EnablePressuredExit EnableTransactions EnvironmentVariables ExitTimeOut GroupName HardResourceLimits
HopefullyExitsFirst HopefullyExitsLast inetdCompatibility InitGroups KeepAlive Label LaunchEvents
LaunchOnlyOnce LegacyTimers LimitLoadFromHardware LimitLoadFromHosts LimitLoadToHardware LimitLoadToHosts
LimitLoadToSessionType LowPriorityBackgroundIO LowPriorityIO MachServices MaterializeDatalessFiles Nice
OnDemand ProcessType Program ProgramArguments QueueDirectories RootDirectory RunAtLoad ServiceIPC
SessionCreate SoftResourceLimits Sockets StandardErrorPath StandardInPath StandardOutPath
StartCalendarInterval StartInterval StartOnMount ThrottleInterval TimeOut Umask UserName WaitForDebugger
WatchPaths WorkingDirectory
"""
DOCUMENTED = set(_KEYS.split())
LIMITS = {
    "Core",
    "CPU",
    "Data",
    "FileSize",
    "MemoryLock",
    "NumberOfFiles",
    "NumberOfProcesses",
    "ResidentSetSize",
    "Stack",
}

INI = """\
[circus]
endpoint = tcp://127.0.0.1:15555
pubsub_endpoint = tcp://127.0.0.1:15556
multicast_endpoint =
[watcher:web]
cmd = sleep 600
graceful_timeout = 40
"""

# Knows what is loaded, and writes down what it was told. Where there is a file `drains`, a job ends after the next look
# at it, not at once, as it does while it has requests to answer; and none can be loaded before that.
LAUNCHCTL = """\
#!/bin/sh
echo "launchctl $*" >>"$FAKE/calls"
case "$1" in
print)
    [ -e "$FAKE/loaded" ] || exit 113
    if [ -e "$FAKE/ending" ]; then rm "$FAKE/ending" "$FAKE/loaded"; fi
    ;;
bootstrap)
    if [ -e "$FAKE/loaded" ]; then echo "Bootstrap failed: 5: Input/output error" >&2; exit 5; fi
    touch "$FAKE/loaded"
    ;;
bootout)
    if [ -e "$FAKE/drains" ]; then touch "$FAKE/ending"; exit 36; fi
    rm "$FAKE/loaded"
    ;;
esac
"""


class Mac:
    """A folder with an ini file, and a host that says that it is a Mac."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "app"
        self.fake = folder / "fake"
        self.home = folder / "home"
        for made in (self.folder, self.fake, self.home):
            made.mkdir()
        (self.folder / "circus.ini").write_text(INI)
        lead_to(sys.executable, folder / "venv")
        (self.folder / ".venv").symlink_to(folder / "venv")
        for name, text in (("launchctl", LAUNCHCTL), ("uname", "#!/bin/sh\necho Darwin\n")):
            (self.fake / name).write_text(text)
            (self.fake / name).chmod(0o755)
        self.plist = self.home / "Library" / "LaunchAgents" / "com.xboard.backend.plist"

    def script(self, *words: str) -> None:
        """Run the script of this checkout, with the whole .venv of the tests here and there."""
        (self.folder / ".venv").unlink()
        (self.folder / ".venv").symlink_to(sys.prefix)
        done = subprocess.run(
            [str(SCRIPT), *words, "--dir", str(self.folder)], env=self.environ(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def service(self, *words: str, folder: Path | None = None, expect: int = 0) -> str:
        return self._service(*words, folder=folder, expect=expect).stderr

    def printed(self, *words: str) -> str:
        return self._service(*words).stdout

    def _service(self, *words: str, folder: Path | None = None, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run what the script runs in the end; its own part takes most of a run."""
        command = ["service", *words, "--dir", str(folder or self.folder)]
        done = forked_commands.run(command, cwd=ROOT, env=self.environ(), timeout=120)
        if done is None:
            program = [sys.executable, "-I", "-m", "xboard_circus", *command]
            done = subprocess.run(program, cwd=ROOT, env=self.environ(), capture_output=True, text=True)
        assert done.returncode == expect, done.stderr
        return done

    def environ(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name != "XBOARD_ALL_PARTS"}
        return {**env, "HOME": str(self.home), "FAKE": str(self.fake), "PATH": f"{self.fake}:{env['PATH']}"}

    def calls(self) -> list[str]:
        """What launchctl was told since the last time, but not what it was asked."""
        file = self.fake / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line.removeprefix("launchctl ") for line in lines if not line.startswith("launchctl print")]


@pytest.fixture
def mac() -> Any:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="xb-", dir="/tmp"))  # short: a unix socket's path has 103 bytes there
    yield Mac(folder.resolve())
    shutil.rmtree(folder)


def test_the_plist_holds_what_launchd_knows(mac: Mac) -> None:
    mac.script("install", "--user")
    job = plistlib.loads(mac.plist.read_bytes())

    assert set(job) - DOCUMENTED == set()
    assert set(job["HardResourceLimits"]) | set(job["SoftResourceLimits"]) <= LIMITS
    assert job["Label"] == "com.xboard.backend"
    assert job["ProgramArguments"] == [
        *(f"{mac.folder}/.venv/bin/python", "-m", "circus.circusd"),
        *("--log-output", f"{mac.folder}/logs/circusd.log", f"{mac.folder}/service.ini"),
    ]
    assert job["EnvironmentVariables"] == {"XBOARD_RUNTIME_DIR": f"{mac.folder}/run"}
    assert (job["KeepAlive"], job["RunAtLoad"], job["ExitTimeOut"], job["Umask"]) == (True, True, 55, 0o027)
    assert "UserName" not in job  # launchd takes it for jobs of the system only
    assert (mac.folder / "run").stat().st_mode & 0o777 == 0o700
    assert f"endpoint = ipc://{mac.folder}/run/circusd.sock\n" in (mac.folder / "service.ini").read_text()


def test_the_job_of_a_system_service_is_printed_and_nothing_is_written(mac: Mac) -> None:
    before = sorted(mac.folder.iterdir())

    job = plistlib.loads(mac.printed("unit", "--dry-run", "--run-as", "daemon").encode())

    assert set(job) - DOCUMENTED == set()
    assert job["UserName"] == "daemon"
    assert sorted(mac.folder.iterdir()) == before


def test_launchctl_is_told_once_and_again_when_something_changed(mac: Mac) -> None:
    domain = f"gui/{os.getuid()}"
    begun = [f"enable {domain}/com.xboard.backend", f"bootstrap {domain} {mac.plist}"]
    gone = f"bootout {domain}/com.xboard.backend"

    mac.service("install", "--user")
    assert mac.calls() == begun
    told = mac.service("install", "--user")
    assert (mac.calls(), told.count("unchanged: ")) == ([], 4)
    mac.plist.write_text("")
    mac.service("install", "--user")
    assert mac.calls() == [gone, *begun]
    mac.service("remove", "--user")
    assert mac.calls() == [gone]
    assert not mac.plist.exists()
    assert "not installed" in mac.service("remove", "--user")
    assert mac.calls() == []


def test_a_job_that_drains_is_waited_for_before_it_is_loaded_anew_or_its_files_go(mac: Mac) -> None:
    """Given a launchctl that comes back while the job still ends, then the next step is taken when it is gone."""
    domain = f"gui/{os.getuid()}"
    mac.service("install", "--user")
    (mac.fake / "drains").touch()
    mac.plist.write_text("")
    mac.calls()

    mac.service("install", "--user")

    assert mac.calls() == [
        f"bootout {domain}/com.xboard.backend",
        f"enable {domain}/com.xboard.backend",
        f"bootstrap {domain} {mac.plist}",
    ]
    mac.service("remove", "--user")
    assert not (mac.fake / "loaded").exists()
    assert not mac.plist.exists()


def test_an_upgrade_loads_the_job_anew_though_nothing_of_it_changed(mac: Mac) -> None:
    mac.service("install", "--user")

    told = mac.service("upgrade", "--user", "--dry-run")

    steps = [line.removeprefix("would run: ") for line in told.splitlines() if line.startswith("would run: ")]
    assert steps[0].startswith(f"{mac.folder}/.venv/bin/python -I -m pip install ")
    assert [step.split()[1] for step in steps if step.startswith("launchctl ")] == ["bootout", "enable", "bootstrap"]


def test_a_service_of_another_folder_is_left_alone_and_removed_from_wherever_one_stands(mac: Mac) -> None:
    """Given a service, when another folder takes its name, then that is refused; `remove` needs no folder."""
    mac.service("install", "--user")
    job, command = mac.plist.read_bytes(), mac.home / ".local" / "bin" / "xboard-backend"
    other = mac.folder.with_name("other")
    other.mkdir()
    (other / "circus.ini").write_text(INI)

    for action in ("install", "upgrade"):
        told = mac.service(action, "--user", folder=other, expect=1)
        assert f"xboard-backend is the service of {mac.folder}: say --dir {mac.folder} for that one" in told
    assert mac.plist.read_bytes() == job
    assert not (other / "service.ini").exists()
    told = mac.service("install", "--user", "--name", "second", expect=1)
    assert f"{mac.folder} has the service xboard-backend already" in told
    told = mac.service("remove", "--user", "--name", "second", expect=1)
    assert f"{mac.folder} has the service xboard-backend already" in told
    mac.service("remove", "--user", folder=other)
    assert [path for path in (mac.plist, command, mac.folder / "service.ini") if path.exists()] == []


@pytest.mark.parametrize("action", ["install", "remove"])
def test_a_program_of_somebody_elses_is_neither_replaced_nor_deleted(mac: Mac, action: str) -> None:
    theirs = mac.home / ".local" / "bin" / "shop"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\necho a shop\n")

    told = mac.service(action, "--user", "--name", "shop", expect=1)

    assert f"{theirs} is there, and not of this script's making: choose another --name" in told
    assert theirs.read_text() == "#!/bin/sh\necho a shop\n"
    assert mac.calls() == []


def test_a_service_of_the_system_is_shown_without_being_installed(mac: Mac) -> None:
    told = mac.service("install", "--run-as", "daemon", "--name", "shop", "--dry-run")

    assert "would write: /Library/LaunchDaemons/com.xboard.shop.plist" in told
    assert "would run: launchctl bootstrap system /Library/LaunchDaemons/com.xboard.shop.plist" in told
    assert mac.calls() == []
    assert not (mac.folder / "service.ini").exists()


def test_nothing_in_the_folder_of_the_services_user_is_run(mac: Mac) -> None:
    """Given a package of our name in that folder, when root installs, then it is not imported."""
    planted = mac.folder / "xboard_circus"
    planted.mkdir()
    (planted / "__init__.py").write_text(f"open({str(mac.fake / 'planted')!r}, 'w').close()")

    mac.script("install", "--run-as", "daemon", "--dry-run")

    assert not (mac.fake / "planted").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", [".venv", ".venv/bin", ".", "..", "../site"])
def test_root_runs_no_python_that_another_user_may_have_put_there(mac: Mac, what: str) -> None:
    """Given packages, of which the service's user or a third one owns a part, or a folder above them, whom a link of
    root's in its place would then lead elsewhere, when root installs, then it is refused, whatever .venv itself is."""
    mac.folder.parent.chmod(0o755)
    (mac.folder / ".venv").unlink()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", mac.folder / ".venv"], check=True)
    site = mac.folder.with_name("site")
    shutil.copytree(Path(xboard_circus.__file__).parent, site / "xboard_circus")
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from xboard_circus.__main__ import main; main()"
    words = ["service", "install", "--run-as", "daemon", "--dry-run", "--dir", str(mac.folder)]
    env = mac.environ()
    command = [sys.executable, "-I", "-c", code, *words]
    theirs = (mac.folder / what).resolve()
    assert (done := subprocess.run(command, env=env, capture_output=True, text=True, check=False)).returncode == 0, done

    os.chown(theirs, pwd.getpwnam("daemon" if what != ".." else "www-data").pw_uid, -1)

    refused = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    who = "www-data" if what == ".." else "daemon"
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"xboard-circus: {who} may write {theirs}, and root would run what is there" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(
    "text",
    [
        "[circus]\ninclude = ../theirs.ini\n",
        "# for the service shop, and again\n[circus]\nendpoint = ipc:///x/circusd.sock\n",
    ],
    ids=["another ini", "another service"],
)
def test_an_overlay_of_the_services_user_chooses_nothing_and_is_replaced(mac: Mac, text: str) -> None:
    """Given a service.ini that the user of a removed service has made, when root installs, then it is not read."""
    overlay = mac.folder / "service.ini"
    overlay.write_text(text)
    shutil.chown(overlay, "daemon")

    told = mac.service("install", "--run-as", "daemon", "--dry-run")

    assert f"would write: {overlay}" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("named", "who"), [("app", "daemon"), ("app/later", "daemon"), ("theirs", "www-data")])
def test_root_installs_no_service_whose_python_imports_from_a_folder_of_others(mac: Mac, named: str, who: str) -> None:
    """Given an editable app, whose .pth file names the folder of the service, or one of a third user's, where root's
    next command would run a sitecustomize.py, when root installs, then it is refused."""
    mac.folder.parent.chmod(0o755)
    (mac.folder / ".venv").unlink()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", mac.folder / ".venv"], check=True)
    (site,) = (mac.folder / ".venv").glob("lib/python*/site-packages")
    theirs = mac.folder.with_name("theirs")
    for made in (theirs, mac.folder / "src"):
        made.mkdir()
    (site / "shop.pth").write_text(f"# an app\nimport os\n{mac.folder / 'src'}\n{site}\n")
    mac.service("install", "--run-as", "daemon", "--dry-run")
    os.chown(theirs, pwd.getpwnam("www-data").pw_uid, -1)
    (site / "shop.pth").write_text(
        "../../../../later\n" if named == "app/later" else f"{mac.folder.with_name(named)}\n"
    )

    told = mac.service("install", "--run-as", "daemon", "--dry-run", expect=1)

    assert f"a .pth file in {site} has root's Python import from" in told
    assert f"where {who} may make files: install a wheel of it, from `pip wheel` in a clone of your own" in told
    assert "would" not in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_user_whose_group_has_others_in_it_is_refused_and_gets_no_folder_of_roots(mac: Mac) -> None:
    """Given a user without a group of its own, who would own all that root runs in the folder, then nothing is done."""
    owner = Owner.of("nobody")
    if owner is None or owner.has_own_group:
        pytest.skip("nobody has a group of its own here")
    before = mac.folder.stat()[:6], sorted(mac.folder.iterdir())  # up to owner and group: a look changes the rest

    for action in ("install", "upgrade", "unit"):
        told = mac.service(action, "--run-as", "nobody", expect=1)
        assert f"--run-as nobody: its group {owner.group} may have others in it" in told

    assert (mac.folder.stat()[:6], sorted(mac.folder.iterdir())) == before
    assert not mac.calls()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_shares_no_folder_in_which_its_own_backend_still_runs(mac: Mac) -> None:
    """Given root's circusd in the folder, its monitor, or the workers of one that was killed, which would import what
    the service's user puts there, when root installs, then that is refused, and nothing is touched."""
    words = ("--run-as", "daemon", "--dry-run")
    with circusd(mac.folder) as c:
        workers = c.wait_ready()
        before = mac.folder.stat()
        for action in ("install", "upgrade", "unit"):
            told = mac.service(action, *words, expect=1)
            what = f"circus.circusd of root's, pid {c.pid}, runs in {mac.folder}, and would run what daemon puts there"
            assert f"{what}: `xboard-circus stop` as root first" in told
            assert "would " not in told.replace(what, "")
        c.kill9()
        told = mac.service("install", *words, expect=1)
        named = f"a worker of root's, pid {{}}, runs in {mac.folder}".format
        assert any(named(pid) in told for pid in workers)
        assert "`xboard-circus clean` as root first" in told
        with monitor(c) as process:
            eventually(c.serves, what="the monitor has started another")
            assert c.run_cli("stop").returncode == 0
            told = mac.service("install", *words, expect=1)
            assert f"xboard_circus.monitor of root's, pid {process.pid}, runs in {mac.folder}" in told
            assert f"`kill {process.pid}` as root first" in told
        assert mac.folder.stat()[:6] == before[:6]

        assert f"would share: {mac.folder} with daemon" in mac.service("install", *words)


# Links to themselves, and one after the other beyond what Python follows.
LOOPS = """
import os, sys
os.symlink("loop", sys.argv[1] + "/loop")
for number in range(1500):
    os.symlink(f"{number + 1}", f"{sys.argv[1]}/{number}")
print(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("way", ["loop", "0"])
def test_no_process_of_another_user_has_root_install_nothing_by_where_it_says_it_runs(mac: Mac, way: str) -> None:
    """Given a process of another user with our mark of an ini behind a link that leads back to itself, or on and on,
    when root looks whose backends run in the folder of its service, then that is none, and no error."""
    theirs = mac.folder.with_name("theirs")
    theirs.mkdir()
    shutil.chown(theirs, "www-data")
    for path in (theirs, *list(theirs.parents)[:-2]):
        path.chmod(0o755)
    run_as("www-data", LOOPS, theirs)
    marked = {"XBOARD_CONFIG": f"{theirs}/{way}/x/circus.ini"}
    with subprocess.Popen(["cat"], user="www-data", env=marked, cwd="/", stdin=subprocess.PIPE) as running:
        try:
            words = ("--run-as", "daemon", "--dry-run")
            assert f"would share: {mac.folder} with daemon" in mac.service("install", *words)
        finally:
            running.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_writes_no_command_into_a_folder_of_another_users(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given /usr/local/bin as another user's, such as of a package manager, then root runs no command there."""
    commands = mac.folder.with_name("bin")
    commands.mkdir()
    mac.folder.parent.chmod(0o755)
    wanted = ServiceOptions(mac.folder, run_as="daemon", dry_run=True)
    monkeypatch.setattr(installing, "lay_out", lambda *a, **k: lay_out(*a, **k)._replace(command=commands / "shop"))
    monkeypatch.setenv("PATH", f"{mac.fake}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(mac.fake))
    said: list[str] = []
    Service(wanted, installing.host(), said.append, action="install")
    os.chown(commands, pwd.getpwnam("www-data").pw_uid, -1)

    with pytest.raises(XboardError, match=f"www-data may write {commands}, and root would run what is there"):
        Service(wanted, installing.host(), said.append, action="install")


@pytest.fixture
def checkout(mac: Mac) -> Checkout:
    above = mac.folder.with_name("opt")
    above.mkdir()
    for folder in (mac.folder.parent, above):
        folder.chmod(0o755)
    made = Checkout(above / "checkout")
    shutil.rmtree(made.runtime)
    return made


def installed(mac: Mac, checkout: Checkout, user: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**mac.environ(), **env}
    command = [f"{checkout.folder}/scripts/install_service.sh", "install", "--run-as", user, "--dry-run"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("how", ["owner", "group", "all", "above"])
def test_root_installs_no_service_from_a_checkout_that_another_user_may_write(
    mac: Mac, checkout: Checkout, how: str
) -> None:
    """Given a file of the checkout, or a folder above it, that the service's user or a third one may write, when root
    installs, then it is refused with the cure, before anything is written."""
    theirs = checkout.folder.parent if how == "above" else checkout.folder / "xboard_circus" / "core" / "names.py"
    daemon, www = pwd.getpwnam("daemon"), pwd.getpwnam("www-data")
    done = installed(mac, checkout, "daemon")
    assert done.returncode == 0, done.stderr
    if how in ("owner", "above"):
        os.chown(theirs, daemon.pw_uid if how == "owner" else www.pw_uid, -1)
    elif how == "group":
        os.chown(theirs, 0, www.pw_gid)
        theirs.chmod(0o664)
    else:
        theirs.chmod(0o666)

    refused = installed(mac, checkout, "daemon")

    who = {"owner": "daemon", "all": "every user of this host"}.get(how, "www-data")
    assert refused.returncode == 1, refused
    assert f"xboard-circus: {who} may write {theirs}, and root would run what is there" in refused.stderr
    assert f"`chown -R root {checkout.folder}`" in refused.stderr
    assert "would" not in refused.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_installs_a_service_from_the_checkout_of_who_called_sudo(mac: Mac, checkout: Checkout) -> None:
    """Given an operator's own clone and .venv with that user's group, as umask 002 leaves it, then sudo installs from
    it; not where the service is to run as that user, whose workers would become root."""
    www = pwd.getpwnam("www-data")
    for path in (checkout.folder, *checkout.folder.rglob("*")):
        os.chown(path, www.pw_uid, www.pw_gid, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o020)

    done = installed(mac, checkout, "daemon", SUDO_UID=str(www.pw_uid))
    assert done.returncode == 0, done.stderr
    refused = installed(mac, checkout, "www-data", SUDO_UID=str(www.pw_uid))
    assert (refused.returncode, "www-data may write" in refused.stderr) == (1, True), refused
    refused = installed(mac, checkout, "daemon")
    assert (refused.returncode, "is another user's, of uid" in refused.stderr) == (1, True), refused


def refused_where_written_by_others(mac: Mac, action: str, theirs: Path, *, by_all: bool) -> tuple[str, ...]:
    """Have *theirs* written by another user, or all, and assert that *action* does nothing then; return its words."""
    if by_all:
        theirs.chmod(0o666)
    else:
        shutil.chown(theirs, "www-data")
    words = (action, "--run-as", "daemon", "--dry-run")
    told = mac.service(*words, expect=1)
    who = "every user of this host" if by_all else "www-data"
    assert f"{who} may write {theirs}, and daemon would run what is there: end their processes, look at it, " in told
    assert "would " not in told.replace("daemon would run", "")
    return words


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("what", ["folder", "ini", "ini of all", "above"])
@pytest.mark.parametrize("action", ["install", "upgrade", "unit"])
def test_root_installs_no_service_in_a_folder_of_a_third_users(
    mac: Mac, monkeypatch: pytest.MonkeyPatch, action: str, what: str
) -> None:
    """Given the folder, its ini file or a folder above as a third user's, who would have programs of his run as the
    service's user, when root installs, then nothing is done; it is where that user has called sudo, or is the
    service's own."""
    mac.folder.parent.chmod(0o755)
    theirs = {"folder": mac.folder, "above": mac.folder.parent}.get(what, mac.folder / "circus.ini")
    words = refused_where_written_by_others(mac, action, theirs, by_all=what == "ini of all")

    if what in ("folder", "ini"):
        monkeypatch.setenv("SUDO_UID", str(pwd.getpwnam("www-data").pw_uid))
        assert f"would share: {mac.folder} with daemon" in mac.service(*words)
        monkeypatch.delenv("SUDO_UID")
        shutil.chown(theirs, "daemon")
    if what == "ini" or (what, action) == ("folder", "unit"):  # of its own folder root would run the .venv
        assert f"would share: {mac.folder} with daemon" in mac.service(*words)


@pytest.mark.parametrize("ini", ["circus.ini", "shop/circus.ini"])
def test_a_service_runs_what_its_ini_includes(mac: Mac, ini: str) -> None:
    """Given an ini that includes others, of which Circus looks for includes in the first file alone, when it becomes a
    service, then that has all watchers; and one that the ini includes later, or no longer, is told by `check` until the
    next."""
    file = mac.folder / ini
    file.parent.mkdir(exist_ok=True)
    (file.parent / "conf.d").mkdir()
    for name in ("one", "conf.d/two", "conf.d/three", "later"):
        (file.parent / f"{name}.ini").write_text(f"[watcher:{Path(name).name}]\ncmd = sleep 600\n")
    text = INI.replace("[circus]\n", "[circus]\ninclude_dir = conf.d\ninclude = one.ini\n")
    file.write_text(text)
    command = mac.home / ".local" / "bin" / "xboard-backend"

    mac.service("install", "--user", "--ini", ini)

    def watchers() -> set[str]:
        return {each["name"] for each in get_config(str(mac.folder / "service.ini"))["watchers"]}

    def checked() -> str:
        return subprocess.run([command, "check"], env=mac.environ(), capture_output=True, text=True, timeout=90).stdout

    assert watchers() == {"web", "one", "two", "three"}
    missed = f"{file} includes later.ini, and Circus follows no include of an included file"
    assert missed not in checked()
    file.write_text(text.replace("one.ini", "one.ini later.ini"))
    assert f"{missed}; say `xboard-circus service install` again, which takes it over" in checked()
    mac.service("install", "--user")
    assert missed not in checked()
    assert watchers() == {"web", "one", "two", "three", "later"}
    kept = f"{file.parent}/one.ini is no longer included by {file}, but still by {mac.folder}/service.ini"
    assert kept not in checked()
    file.write_text(text.replace("include = one.ini", "include = later.ini"))
    assert kept in checked()
    assert checked().count("no longer included") == 1
    mac.service("install", "--user")
    assert watchers() == {"web", "two", "three", "later"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["more/one.ini", "more", "of all"])
@pytest.mark.parametrize("action", ["install", "upgrade", "unit"])
def test_root_installs_no_service_that_includes_what_is_a_third_users(mac: Mac, action: str, what: str) -> None:
    """Given an ini that includes a third user's file, or by a pattern what one may make, which would run as the
    service's user, when root installs, then nothing is done; what is the service's user's is included."""
    mac.folder.parent.chmod(0o755)
    (mac.folder / "more").mkdir()
    (mac.folder / "more" / "one.ini").write_text("[watcher:one]\ncmd = sleep 600\n")
    (mac.folder / "circus.ini").write_text(INI.replace("[circus]\n", "[circus]\ninclude = more/*.ini\n"))
    theirs = mac.folder / what if what != "of all" else mac.folder / "more" / "one.ini"

    words = refused_where_written_by_others(mac, action, theirs, by_all=what == "of all")

    theirs.chmod(0o755)
    shutil.chown(theirs, "daemon")
    assert f"would share: {mac.folder} with daemon" in mac.service(*words)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("what", ["bin/python", "lib", "pth"])
def test_root_writes_no_unit_for_a_python_of_a_third_users(mac: Mac, what: str) -> None:
    """Given a .venv of which a part, or a folder that a .pth file names, is a third user's, when root asks for the
    unit, which runs it as the service's user, then it is refused; it is not where it is the service's own."""
    mac.folder.parent.chmod(0o755)
    venv, named = mac.folder / ".venv", mac.folder.with_name("src")
    venv.unlink()
    named.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "shop.pth").write_text(f"{named}\n")
    theirs = named if what == "pth" else venv / what
    shutil.chown(theirs, "www-data")
    words = ("unit", "--run-as", "daemon", "--dry-run")

    told = mac.service(*words, expect=1)

    if what == "pth":
        assert f"a .pth file in {site} has daemon's Python import from {named}, where www-data may make files" in told
    else:
        assert f"www-data may write {theirs}, and daemon would run what is there: end their processes" in told
    shutil.chown(theirs, "daemon")
    assert f"would share: {mac.folder} with daemon" in mac.service(*words)
