"""The service of the system: its unit as the script writes it, its sandbox, and a user of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

from .harness import BUNDLE, Watcher, circusd, eventually, kill
from .service_host import NAME, SCRIPT, UNIT, UserManager, user_manager
from .test_users import USER, library_path, open_folder, python, pytestmark  # noqa: F401 - fixtures

WANTED_SCORE = 3.0


def test_the_unit_is_sound_and_its_sandbox_leaves_it_working(open_folder: Path, python: str, request) -> None:  # noqa: F811
    folder = open_folder / "service"
    folder.mkdir(0o755)
    packages = folder / ".venv" / "bin"
    packages.mkdir(parents=True)
    home = library_path(open_folder / "python") if python != sys.executable else {}
    (packages / "python").write_text(
        f'#!/bin/sh\n{"".join(f"export {k}={v}; " for k, v in home.items())}exec {python} "$@"\n'
    )
    (packages / "python").chmod(0o755)
    watcher = Watcher(options={"graceful_timeout": 8}, env={"BACKEND_DIR": str(folder / "data")})
    (folder / "data").mkdir()
    shutil.chown(folder / "data", USER, USER)
    with circusd(folder, watchers=[watcher], plugins=BUNDLE, start=False) as c, user_manager(c, as_system=True) as host:
        # The folder lies in /tmp, of which the service would have another one.
        host.drop_in(UNIT, f"[Service]\nPrivateTmp=no\nStandardError=append:{folder}/logs/circusd.log\n")
        done = host.inside([str(SCRIPT), "install", "--name", NAME, "--dir", str(folder), "--run-as", USER])
        print(done)
        print(host.log.read_text())
        print(host.ctl("status", UNIT))
        print(host.inside(["systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}"]))
        print(host.inside(["systemd-analyze", "security", "--offline=true", "--no-pager", f"/etc/systemd/system/{UNIT}"]).stdout)
        print(host.inside(["cat", f"/usr/local/bin/{NAME}"]))
        print(host.inside([f"/usr/local/bin/{NAME}", "status"]))
        print(c.get("/facts"))
        assert 0
