"""An upgrade of a service that is interrupted while pip replaces the packages."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import eventually

UPGRADE = """
import sys
from pathlib import Path
from xboard_circus.service.installing import Service
from xboard_circus.service.managers import Shell

service = Service.__new__(Service)
service._is_roots, service._shell = False, Shell(lambda line: print(line, flush=True), dry_run=False)
service._upgrade_packages(Path(sys.argv[1]))
"""
PIP = """#!/bin/sh
rm package
touch removed
until [ -e may-go-on ]; do sleep 0.05; done
touch package
"""


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGHUP])
def test_packages_that_are_being_replaced_are_whole_in_the_end(tmp_path: Path, interruption: signal.Signals) -> None:
    """Given a pip that has removed a package, when Ctrl-C or the loss of the terminal comes, then it goes on to its
    end; the command says what it waits for, and ends interrupted."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PIP.replace("#!/bin/sh", f"#!/bin/sh\ncd {tmp_path}"))
    python.chmod(0o755)
    (tmp_path / "package").touch()
    command = [sys.executable, "-c", UPGRADE, str(tmp_path)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as upgrade:
        assert upgrade.stdout is not None
        eventually((tmp_path / "removed").exists)
        os.killpg(upgrade.pid, interruption)
        if interruption == signal.SIGINT:
            assert upgrade.stdout.readline().startswith("run: ")
            told = upgrade.stdout.readline()
            assert told.startswith(f"waiting for its end: in its middle {tmp_path} lacks packages")
            assert upgrade.poll() is None
        (tmp_path / "may-go-on").touch()

        assert upgrade.wait(60) == -interruption
        eventually((tmp_path / "package").exists, what="pip has put back what it had removed")
