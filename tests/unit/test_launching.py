"""What the next circusd inherits from the command that launches it."""

import os
import resource
import subprocess
import sys

import pytest

LIMITED = """
import resource, sys
from xboard_circus.cli.launching import keep_limits
from xboard_circus.host import procs
smaller = keep_limits(procs.Identity.of(int(sys.argv[1])))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], *smaller)
"""
MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(("circusd", "shell"), [(MOST, 64), (64, MOST)], ids=["a small shell", "a raised limit"])
def test_a_restart_keeps_the_larger_limit_of_circusd_and_shell(circusd: int, shell: int) -> None:
    assert kept(circusd, f"ulimit -Sn {shell}") == str(MOST)


def test_a_restart_names_a_limit_that_it_cannot_keep() -> None:
    """ulimit without -S sets the hard limit too, which nobody without a right of root's raises again."""
    assert kept(MOST, "ulimit -n 64") == f"64 RLIMIT_NOFILE 64 in place of {MOST}"


def kept(circusd: int, shell: str) -> str:
    """Return what a restart from a *shell* leaves of the limit on open files of a circusd."""
    lesser = ["setpriv", "--bounding-set=-sys_resource"] if os.geteuid() == 0 else []
    with subprocess.Popen(["sh", "-c", f"ulimit -Sn {circusd}; echo; exec sleep 600"], stdout=subprocess.PIPE) as runs:
        try:
            assert runs.stdout is not None
            runs.stdout.readline()
            command = [*lesser, "sh", "-c", f'{shell}; exec "$0" -c "$1" {runs.pid}', sys.executable, LIMITED]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            runs.kill()
    return done.stdout.strip()
