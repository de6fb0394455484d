"""The launcher in front of real commands: it becomes them, or says in an exit code why not."""

import grp
import os
import pwd
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import xboard_circus
from xboard_circus import launch as launch_module

from .harness import eventually
from .processes import process

LAUNCH = Path(xboard_circus.__file__).with_name("launch.py")
LAUNCHER = [sys.executable, "-I", "-S", str(LAUNCH), "--wid", "3"]
SYSTEM_PYTHON = "/usr/bin/python3"
PATH = {"PATH": os.environ["PATH"]}
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")

Popen = subprocess.Popen[str]
Launch = Callable[..., Popen]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start the launcher with arguments; what still runs at the end is killed."""
    running: list[Popen] = []

    def start(*arguments: str, env: Mapping[str, str] = PATH, **options: object) -> Popen:
        launched: Popen = subprocess.Popen(
            [*LAUNCHER, *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]
        )
        running.append(launched)
        return launched

    yield start
    for launched in running:
        if launched.poll() is None:
            launched.kill()
        launched.communicate()


def identity(pid: int) -> str:
    return f"{pid}:{process(pid).started}"


def test_it_becomes_the_command_under_the_same_pid(launch: Launch) -> None:
    started = launch("--", "sh", "-c", 'echo "$$ $XBOARD_WID"')

    assert started.communicate(timeout=90) == (f"{started.pid} 3\n", "")
    assert started.returncode == 0


def test_the_command_gets_the_environment_that_we_were_given_and_no_more(launch: Launch) -> None:
    """Given an environment without a locale, which Python then adds to its own, the command does not see that."""
    started = launch("--", "/usr/bin/env", env={"LANG": "C", "XBOARD_LATER_ODD": "a=b c"})

    output, _ = started.communicate(timeout=90)

    assert sorted(output.splitlines()) == ["LANG=C", "ODD=a=b c", "XBOARD_WID=3"]


def test_a_token_goes_to_the_command_with_who_launched_it(launch: Launch) -> None:
    started = launch("--worker", "abc", "--", "/usr/bin/env", env={"XBOARD_WORKER": "another's"})

    output, _ = started.communicate(timeout=90)

    variables = dict(line.split("=", 1) for line in output.splitlines())
    assert variables["XBOARD_WORKER"] == "abc"
    assert variables["XBOARD_LAUNCHER"].partition(":")[0] == str(started.pid)


def test_variables_are_added_to_the_environment_of_the_command(launch: Launch) -> None:
    started = launch(
        "--env", "XBOARD_REQUESTS=1", "--env", "ODD=a=b c", "--env", "EMPTY=", "--", "/usr/bin/env", env={}
    )

    output, _ = started.communicate(timeout=90)

    assert sorted(output.splitlines()) == ["EMPTY=", "ODD=a=b c", "XBOARD_REQUESTS=1", "XBOARD_WID=3"]


def test_a_locale_that_we_were_given_stays(launch: Launch) -> None:
    started = launch("--", "/usr/bin/env", env={"LC_CTYPE": "C.UTF-8"})

    assert "LC_CTYPE=C.UTF-8" in started.communicate(timeout=90)[0]


def test_the_command_does_not_ignore_the_signals_that_python_ignores(launch: Launch) -> None:
    started = launch("--", "grep", "SigIgn", "/proc/self/status")

    assert int(started.communicate(timeout=90)[0].split()[1], 16) == 0


def test_an_inherited_descriptor_reaches_the_command(launch: Launch, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        started = launch("--", "sh", "-c", f"echo through > /proc/self/fd/{file.fileno()}", pass_fds=[file.fileno()])

        assert started.wait(timeout=90) == 0
    assert (tmp_path / "file").read_text() == "through\n"


def test_it_ends_when_circusd_is_gone(launch: Launch, tmp_path: Path) -> None:
    """Given a launcher, when what it takes for circusd was killed, then it ends and runs nothing."""
    mark = tmp_path / "ran"
    with subprocess.Popen(["sleep", "60"]) as circusd:
        env = {**PATH, "XBOARD_CIRCUSD": identity(circusd.pid)}
        killed = process(circusd.pid)
        circusd.kill()  # and not waited for yet: a zombie is gone, too
        eventually(lambda: not killed.alive)
        started = launch("--", "touch", str(mark), env=env)

        assert started.wait(timeout=90) == 123
    assert started.communicate()[1] == "xboard-circus launcher: circusd is gone\n"
    assert not mark.exists()


def test_another_process_with_the_pid_of_circusd_is_not_circusd(launch: Launch) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        started = launch("--", "echo", "ran", env={**PATH, "XBOARD_CIRCUSD": f"{stranger.pid}:1"})

        output, _ = started.communicate(timeout=90)
        stranger.kill()

    assert (started.returncode, output) == (123, "")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["--", "no-such-program"], 120, "program not found: no-such-program in PATH=", id="no program"),
        pytest.param(["--", "/no/such/program"], 120, "program not found: /no/such/program", id="no such path"),
        pytest.param(["--", "/etc/passwd"], 120, "program can't be run: /etc/passwd", id="not executable"),
        pytest.param(["--chdir", "/no/such/place", "--", "true"], 121, "/no/such/place", id="no directory"),
        pytest.param(["--chdir", "/etc/passwd", "--", "true"], 121, "/etc/passwd", id="a file is no directory"),
        pytest.param(["--uid", "no-such-user", "--", "true"], 122, "no user 'no-such-user'", id="no user"),
        pytest.param(["--gid", "no-such-group", "--", "true"], 122, "no group 'no-such-group'", id="no group"),
        pytest.param(["--rlimit", "nofile=much", "--", "true"], 124, "nofile=much", id="a limit that is no number"),
        pytest.param(["--rlimit", "odd=1", "--", "true"], 124, "no limit 'odd'", id="an unknown limit"),
        pytest.param(["--rlimit", f"nofile={2**40}", "--", "true"], 124, "hard limit", id="a limit over the kernel's"),
        pytest.param(["true"], 2, "true needs a value", id="no double dash"),
        pytest.param(["--"], 2, "no command", id="no command"),
        pytest.param(["--env", "ODD", "--", "true"], 2, "--env must be NAME=VALUE", id="a variable without a value"),
        pytest.param(["--env", "=1", "--", "true"], 2, "--env must be NAME=VALUE", id="a variable without a name"),
        pytest.param(["--odd", "1", "--", "true"], 2, "unknown option --odd", id="an unknown option"),
    ],
)
def test_what_can_not_be_started(launch: Launch, arguments: list[str], code: int, says: str) -> None:
    started = launch(*arguments)

    _, errors = started.communicate(timeout=90)

    assert started.returncode == code
    assert errors.startswith("xboard-circus launcher: ")
    assert errors.count("\n") == 1
    assert says in errors


@AS_ROOT
@pytest.mark.skipif(not os.access(SYSTEM_PYTHON, os.X_OK), reason="no Python that another user could run")
def test_the_folder_is_entered_as_the_user_that_the_command_gets(launch: Launch, tmp_path: Path) -> None:
    """Given a folder of root's that is closed to the user, when it is to be entered, then the launcher says as whom."""
    inside = tmp_path / "closed" / "inside"
    inside.mkdir(parents=True)
    inside.parent.chmod(0o700)

    started = launch("--chdir", str(inside), "--uid", "65534", "--", "true")

    name = pwd.getpwuid(65534).pw_name
    why = f"no working directory {inside} as user {name}: Permission denied"
    assert started.communicate(timeout=90)[1] == f"xboard-circus launcher: {why}\n"
    assert started.returncode == 121


def test_limits_are_set_soft_and_hard(launch: Launch) -> None:
    started = launch(
        "--rlimit", "nofile=500", "--rlimit", "core=0", "--", "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"
    )

    assert started.communicate(timeout=90)[0].split() == ["500", "500", "0"]


def test_unlimited_files_means_as_many_as_the_hard_limit_has(launch: Launch) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    started = launch("--rlimit", "nofile=-1", "--", "sh", "-c", "ulimit -n")

    assert started.communicate(timeout=90)[0].split() == [str(hard)]


@AS_ROOT
def test_it_becomes_the_user_with_home_and_groups(launch: Launch) -> None:
    nobody = pwd.getpwnam("nobody")

    started = launch(
        *("--uid", "nobody", "--chdir", "/"),
        *("--", "sh", "-c", 'echo "$(id -u) $(id -g) $HOME $USER $LOGNAME"; grep Groups: /proc/self/status'),
        env={**PATH, "HOME": "/root", "USER": "root"},
    )

    first, second = started.communicate(timeout=90)[0].splitlines()
    assert first == f"{nobody.pw_uid} {nobody.pw_gid} {nobody.pw_dir} nobody nobody"
    assert second.split()[1:] == [str(nobody.pw_gid)]


KEYS = """
import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
if sys.argv[1:]:
    if call({keyctl}, 1, None) < 0 or call({keyctl} - 2, b"user", b"a:key", b"hunter2", 7, -3) < 0:
        sys.exit(77)
    os.execv(sys.argv[1], sys.argv[1:])
print(call({keyctl}, 10, -3, b"user", b"a:key", 0))
"""


@AS_ROOT
@pytest.mark.parametrize("way", ["the command line", "the command of a service"])
def test_no_key_and_no_open_file_of_roots_goes_to_the_command_of_another_user(way: str) -> None:
    """Given a key in root's session keyring, and an open file, then what root's command starts has neither."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of the calls are those of x86-64")
    script = KEYS.format(keyctl=launch_module.KEYCTL["x86_64"])
    files = "import os; print([each for each in os.listdir('/dev/fd') if os.path.exists('/dev/fd/' + each)])"
    command = [SYSTEM_PYTHON, "-c", script + files]
    caught = f"run_captured({command}, timeout=20, env={{}}).stdout"
    run = f"from xboard_circus.host.programs import run_captured; print({caught})"
    ways = {
        "the command line": [sys.executable, "-c", run],
        "the command of a service": [*LAUNCHER, "--fresh", "yes", "--", *command],
    }
    with open("/etc/passwd") as file:
        os.dup2(file.fileno(), 200)
    try:
        begun = [SYSTEM_PYTHON, "-c", script, *ways[way]]
        ended = subprocess.run(begun, capture_output=True, text=True, timeout=30, pass_fds=(200,))
    finally:
        os.close(200)
    if ended.returncode == 77:
        pytest.skip("the system has no keyrings")
    found, descriptors = ended.stdout.split("\n")[:2]
    assert (found, "'200'" in descriptors) == ("-1", False)


@AS_ROOT
def test_no_key_of_roots_goes_to_what_an_install_runs_as_the_services_user() -> None:
    """Given a key in root's session keyring, when root's install looks what that user can run, then it has no key."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of the calls are those of x86-64")
    script = KEYS.format(keyctl=launch_module.KEYCTL["x86_64"])
    look = script.replace("print(", "sys.exit(0 < ")
    command = f"from xboard_circus.service.managers import succeeds; print(succeeds({SYSTEM_PYTHON!r}, '-c', {look!r}"
    begun = [SYSTEM_PYTHON, "-c", script, sys.executable, "-c", f"{command}, user='nobody'))"]

    ended = subprocess.run(begun, capture_output=True, text=True, timeout=30)

    if ended.returncode == 77:
        pytest.skip("the system has no keyrings")
    assert ended.stdout == "True\n", ended


@AS_ROOT
def test_users_and_groups_may_be_numbers(launch: Launch) -> None:
    started = launch("--uid", "12345", "--gid", "54321", "--", "sh", "-c", 'echo "$(id -u) $(id -g) $(id -G)"')

    assert started.communicate(timeout=90)[0] == "12345 54321 54321\n"


@AS_ROOT
def test_a_number_without_a_user_gets_no_group_of_roots(launch: Launch) -> None:
    """Given a number that is nobody's, as in a container, then the group is that number, unless it is a named one's."""
    started = launch("--uid", "54321", "--", "sh", "-c", 'echo "$(id -u) $(id -g) $(id -G)"')
    assert started.communicate(timeout=90)[0] == "54321 54321 54321\n"

    users = {user.pw_uid for user in pwd.getpwall()}
    group = next(group for group in grp.getgrall() if group.gr_gid not in users)
    refused = launch("--uid", str(group.gr_gid), "--", "true")
    why = f"there is no user {group.gr_gid}, and group {group.gr_gid} is {group.gr_name}; name the group: gid = "
    assert why in refused.communicate(timeout=90)[1]
    assert refused.returncode == 122


@AS_ROOT
@pytest.mark.skipif(not os.access(SYSTEM_PYTHON, os.X_OK), reason=f"no {SYSTEM_PYTHON}, which any user may run")
def test_who_has_no_right_to_become_a_user_is_told() -> None:
    """Given a launcher that nobody runs, when it is to become root, then it exits with 122."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # pytest's own folders are closed to others
        launcher = shutil.copy(LAUNCH, folder)
        done = subprocess.run(
            [SYSTEM_PYTHON, "-I", "-S", launcher, "--uid", "root", "--", "id"],
            user="nobody",
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    assert (done.returncode, done.stdout) == (122, "")
    assert "no right to become user root" in done.stderr
