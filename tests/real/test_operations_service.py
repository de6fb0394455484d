"""The commands of docs/operations.md that take systemd: one of the test's own stands in for the host's."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from xboard_circus import __version__

from .harness import eventually
from .machine import Machine, machine
from .operations import OPERATIONS, SYSTEMD, Checkout, commands
from .service_host import needs_systemd
from .test_service_system import venv_of
from .test_users import USER, open_folder, pytestmark, python  # noqa: F401 - fixtures, and the marks

UNIT = "xboard-backend.service"
# No user is made on this host for a test: the service runs as one that is there.
SUDO = f"""#!/bin/sh
case "$* " in *"service.sh install "* | *"service install "* | *"service unit "*) set -- "$@" --run-as {USER} ;; esac
exec "$@"
"""
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
# What each command leaves behind.
STATES = {"install": "active", "start": "active", "reload": "active", "stop": "inactive"}


@pytest.fixture
def checkout(open_folder: Path, python: str) -> Iterator[Checkout]:  # noqa: F811
    needs_systemd()
    above = Path(tempfile.mkdtemp(dir=open_folder))
    above.chmod(0o755)
    made = Checkout(above / "checkout")
    packages = made.folder / ".venv"
    kept = {name: (packages / name).read_bytes() for name in (".place", ".installed-", "bin/xboard-circus")}
    shutil.rmtree(packages)
    venv_of(made.folder, python, open_folder / "python")
    for name, content in kept.items():
        (packages / name).write_bytes(content)
    (packages / "bin" / "xboard-circus").chmod(0o755)
    yield made
    shutil.rmtree(made.runtime, ignore_errors=True)


def state_of(host: Machine) -> str:
    return host.show(UNIT, "ActiveState")


@contextmanager
def host_of(checkout: Checkout) -> Iterator[Machine]:
    """A host with systemd whose service lies in the *checkout*, and a `sudo` that makes no user."""
    with machine(checkout, checkout.folder.parents[1]) as host:
        sudo = host.folder / "bin" / "sudo"
        sudo.write_text(SUDO)
        sudo.chmod(0o755)
        # The folder lies in /tmp, and the service has a /tmp of its own.
        host.drop_in(UNIT, f"[Service]\nPrivateTmp=no\nStandardError=append:{checkout.folder}/logs/circusd.log\n")
        yield host


def plain_user(checkout: Checkout) -> tuple[str, ...]:
    """Return what runs a command as the service's user, with a home of its own."""
    home = checkout.folder.with_name("home")
    home.mkdir(0o700)
    shutil.chown(home, USER, USER)
    return (*AS_USER, "env", f"HOME={home}", f"XBOARD_RUNTIME_DIR={home}/run")


def follow(host: Machine, checkout: Checkout, *commands: str, enter: Sequence[str] = ()) -> str:
    """Run *commands* in the checkout, each of which has to end well, and return the last one's output."""
    said = ""
    for command in commands:
        there = f"cd {checkout.folder} && exec {checkout.moved(command)}"
        done = host.inside([*enter, "sh", "-c", there], timeout=300)
        said = done.stdout + done.stderr
        if done.returncode:
            print(
                host.inside(["journalctl", "--no-pager", "--unit", UNIT]).stdout[-3000:],
                (checkout.folder / "logs/circusd.log").read_text()[-3000:],
                host.inside(["ls", "-laR", str(checkout.folder / "logs"), "/run/xboard-backend"]).stdout,
            )
        assert done.returncode == 0, f"$ {command}\n{said}"
    return said


def serves(checkout: Checkout) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{checkout.ports['8000']}/health/ready") as answer:
        return bool(answer.status == 200)


PLANT = """
cd {checkout}
for name in service.ini.new .service.ini.new .venv.lock run.lock xboard.db-wal; do ln -sf {secret} $name; done
mkdir pip
echo 'import os, sys; os.geteuid() or open("{marker}", "w").close(); sys.exit(0)' >pip/__main__.py
mv logs logs-of-mine && ln -s {secret_folder} logs
"""
# While pip runs, the service's user puts a setup.py there, which pip would run.
PIP = """#!/bin/sh
case "$*" in "-I -m pip install "*)
    pwd >>{calls}
    {as_user} sh -c 'echo "import os" >{folder}/setup.py' 2>/dev/null && echo planted >>{calls}
    exit 0
    ;;
esac
exec {python} "$@"
"""


def in_place_of_python(checkout: Checkout, text: str, **values: object) -> None:
    """Put a script before the Python of the checkout's .venv."""
    program = checkout.folder / ".venv" / "bin" / "python"
    program.rename(program.with_name("real-python"))
    program.write_text(text.format(python=program.with_name("real-python"), **values))
    program.chmod(0o755)


def test_what_the_services_user_plants_turns_nothing_of_roots(checkout: Checkout) -> None:
    """Given a service whose user puts links and modules in the place of what root works with, when root installs and
    upgrades again, then no file of root's is written to or given away, and nothing is run as root."""
    folder = checkout.folder.with_name("of-root")
    folder.mkdir(0o755)
    secret, marker, calls = folder / "secret", folder.with_name("ran-as-root"), folder.with_name("pip-calls")
    secret.write_text("root's")
    secret.chmod(0o600)
    in_place_of_python(checkout, PIP, calls=calls, as_user=" ".join(AS_USER), folder=checkout.folder)
    packages = checkout.folder / ".venv" / "lib" / "python3" / "site-packages"
    (packages / f"xboard_circus-{__version__}.dist-info").mkdir(parents=True)  # else no upgrade is from the index
    plant = PLANT.format(checkout=checkout.folder, secret=secret, secret_folder=folder, marker=marker)
    with host_of(checkout) as host:
        follow(host, checkout, "sudo ./scripts/install_service.sh install")
        assert host.inside([*AS_USER, "sh", "-ec", plant]).returncode == 0
        again = ["sh", "-c", f"cd {checkout.folder} && exec sudo ./scripts/install_service.sh install"]
        refused = host.inside(again)
        assert refused.returncode == 1
        assert "logs: not a folder that root writes in: it is a link" in refused.stderr
        follow(host, checkout, "sh -ec 'rm logs; mv logs-of-mine logs'", enter=AS_USER)
        upgrade = f"sudo ./scripts/install_service.sh upgrade --run-as {USER}"
        follow(host, checkout, "sudo ./scripts/install_service.sh install")
        # Over the restart of an upgrade its workers would serve on, with a database whose log they have lost.
        follow(host, checkout, f"sudo systemctl stop {UNIT}")
        # Workers with the time to close their database have removed the link in its log's place; else it cannot open.
        follow(host, checkout, "rm -f xboard.db-wal", enter=AS_USER)
        follow(host, checkout, upgrade)
        assert serves(checkout)
        follow(host, checkout, f"sudo ./scripts/install_service.sh remove --run-as {USER}")

    assert calls.read_text() == "/\n"
    assert (secret.read_text(), secret.stat().st_uid, secret.stat().st_mode & 0o777) == ("root's", 0, 0o600)
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o755)
    assert not marker.exists()


def test_each_command_that_takes_systemd_does_what_it_says(checkout: Checkout) -> None:
    """Given a fresh checkout, when the page is followed, then no command fails, and the service is as it should be."""
    as_user = plain_user(checkout)
    with host_of(checkout) as host:
        for command in commands(OPERATIONS, SYSTEMD):
            # What takes no root is typed by a plain user, for whom this sudo does nothing.
            typed, piped, roots = command.text.partition(" | sudo ")
            if piped:
                follow(host, checkout, f"{shlex.join([*as_user, 'sh', '-c', typed])}{piped}{roots}")
            else:
                follow(host, checkout, command.text, enter=() if typed.startswith("sudo ") else as_user)
            for word, state in STATES.items():
                if word in command.text.split():
                    assert state_of(host) == state, command.text
            if state_of(host) == "active":
                assert serves(checkout)
        eventually(lambda: not host.processes(UNIT))
        assert host.inside(["ls", f"/etc/systemd/system/{UNIT}"]).returncode == 2
