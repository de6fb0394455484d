"""Run a command as a child, as `uv run` does: forward SIGTERM and SIGINT, end with its code."""

import signal
import subprocess
import sys

with subprocess.Popen(sys.argv[1:], close_fds=False) as child:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda signum, _: child.send_signal(signum))
    code = child.wait()
sys.exit(code if code >= 0 else 128 - code)
