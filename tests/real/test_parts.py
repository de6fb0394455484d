"""What test.sh installs before the tests: `apt-get` and `dpkg-query` are the test's own."""

import os
import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
STAND_INS = {
    "id": "echo 0",
    "dpkg-query": "exit 1",
    # It does all or nothing, as the real one: here there is no kustomize, and no browser without a window.
    "apt-get": """
case "$*" in
*update*) exit 0 ;;
*kustomize*) echo "E: Unable to locate package kustomize" >&2; exit 100 ;;
*chromium-headless-shell*) exit 100 ;;
esac
for word; do case "$word" in -* | install) ;; *) echo "$word" >>"$0.installed" ;; esac; done""",
}


def test_a_part_that_this_release_does_not_have_keeps_no_other_away(tmp_path: Path) -> None:
    """Given a release that lacks two, when they are installed, then all others are, and the usual browser."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    code = f'say() {{ echo "$*" >&2; }}; . {SCRIPTS}/parts.sh; echo $PARTS; parts'
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    done = subprocess.run(["sh", "-euc", code], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert done.returncode == 0, done.stderr
    wanted, installed = done.stdout.split(), (tmp_path / "apt-get.installed").read_text().split()
    assert "kustomize" in wanted
    assert sorted(installed) == sorted({"chromium", *wanted} - {"kustomize", "chromium-headless-shell"})
    assert done.stderr.splitlines()[1:] == [
        "E: Unable to locate package kustomize",
        "kustomize could not be installed, see above; the tests that need it will be skipped.",
    ]
