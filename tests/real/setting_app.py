"""The app that prints, which sets at its import what some apps do."""

import os
import resource
import signal

# Workers find it in this folder, and so by this name.
from printing_app import app  # type: ignore[import-not-found]

__all__ = ["app"]

os.umask(0o027)
os.nice(1)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGWINCH, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
resource.setrlimit(resource.RLIMIT_NOFILE, (250, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
