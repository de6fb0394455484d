"""Run circusd-stats, which circus-top reads, without the listeners of the workers.

Circus has it inherit every listener, and look for waiting connections on each. A process with a listener keeps the port
open after a stop, so it gets none here (`patches.circus_process`), and would end at the first missing one.
"""

import socket
from types import SimpleNamespace

from circus import stats
from circus.stats import streamer

from xboard_circus.supervisor.patches import circus_process, patch


def main() -> None:
    """Run Circus's own program, which counts no connection of a listener that is not its own."""
    unread = socket.socketpair()

    def fromfd(*_: int) -> socket.socket:
        return unread[0].dup()

    patch.install([circus_process.bound_command_lines(None)])
    streamer.socket = SimpleNamespace(**{**vars(socket), "fromfd": fromfd})
    stats.main()
