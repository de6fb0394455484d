"""The commands of docs/operations.md that take systemd: one of the test's own stands in for the host's."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import eventually
from .operations import OPERATIONS, SYSTEMD, Checkout, commands
from .service_host import UserManager, needs_systemd, user_manager
from .test_service_system import venv_of
from .test_users import USER, open_folder, pytestmark, python  # noqa: F401 - fixtures, and the marks

UNIT = "xboard-backend.service"
# No user is made on this host for a test: the service runs as one that is there.
SUDO = f"""#!/bin/sh
case "$1 $2" in *"install_service.sh install") set -- "$@" --run-as {USER} ;; esac
exec "$@"
"""
# What each command leaves behind.
STATES = {"install": "active", "start": "active", "reload": "active", "stop": "inactive"}


@pytest.fixture
def checkout(open_folder: Path, python: str) -> Iterator[Checkout]:  # noqa: F811
    needs_systemd()
    made = Checkout(open_folder / "checkout")
    packages = made.folder / ".venv"
    kept = {name: (packages / name).read_bytes() for name in (".place", ".installed-")}
    shutil.rmtree(packages)
    venv_of(made.folder, python, open_folder / "python")
    for name, content in kept.items():
        (packages / name).write_bytes(content)
    yield made
    shutil.rmtree(made.runtime, ignore_errors=True)


def state_of(host: UserManager) -> str:
    return host.show(UNIT, "ActiveState")


def test_each_command_that_takes_systemd_does_what_it_says(checkout: Checkout) -> None:
    """Given a fresh checkout, when the page is followed, then no command fails, and the service is as it should be."""
    with user_manager(checkout, as_system=True) as host:
        sudo = host.folder / "bin" / "sudo"
        sudo.write_text(SUDO)
        sudo.chmod(0o755)
        # The folder lies in /tmp, and the service has a /tmp of its own.
        drop_in = f"[Service]\nPrivateTmp=no\nStandardError=append:{checkout.folder}/logs/circusd.log\n"
        host.drop_in(UNIT, drop_in)
        for command in commands(OPERATIONS, SYSTEMD):
            there = ["sh", "-c", f"cd {checkout.folder} && exec {checkout.moved(command.text)}"]
            done = host.inside(there, timeout=300)
            assert done.returncode == 0, f"$ {command.text}\n{done.stdout}{done.stderr}"
            for word, state in STATES.items():
                if word in command.text.split():
                    assert state_of(host) == state, command.text
            if state_of(host) == "active":
                with urllib.request.urlopen(f"http://127.0.0.1:{checkout.ports['8000']}/health/ready") as answer:
                    assert answer.status == 200
        eventually(lambda: not host.processes(UNIT))
        assert host.inside(["ls", f"/etc/systemd/system/{UNIT}"]).returncode == 2
