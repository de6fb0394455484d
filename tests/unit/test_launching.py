"""What the next circusd inherits from the command that launches it."""

import resource
import subprocess
import sys

import pytest

LIMITED = """
import resource, sys
from xboard_circus.cli.launching import keep_limits
from xboard_circus.host import procs
keep_limits(procs.Identity.of(int(sys.argv[1])))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(("circusd", "shell"), [(MOST, 64), (64, MOST)], ids=["a small shell", "a raised limit"])
def test_a_restart_keeps_the_larger_limit_of_circusd_and_shell(circusd: int, shell: int) -> None:
    with subprocess.Popen(["sh", "-c", f"ulimit -Sn {circusd}; echo; exec sleep 600"], stdout=subprocess.PIPE) as runs:
        try:
            assert runs.stdout is not None
            runs.stdout.readline()
            command = f'ulimit -Sn {shell}; exec "$0" -c "$1" {runs.pid}'
            done = subprocess.run(["sh", "-c", command, sys.executable, LIMITED], capture_output=True, check=False)
        finally:
            runs.kill()

    assert int(done.stdout) == MOST, done
