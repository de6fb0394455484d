"""What has to be in place before Circus binds anything: installed when the hook of a watcher is imported.

Circus imports hooks while it reads its file, and binds sockets and endpoints after that; `before_start` comes later
still. Both change a class, so they are for all sockets and every arbiter of this process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from circus import logger
from circus.arbiter import Arbiter
from circus.sockets import CircusSocket

from xboard_circus.core.names import is_helper
from xboard_circus.core.sentences import Say
from xboard_circus.host import procs
from xboard_circus.host.worker_files import is_socket, takes_connections
from xboard_circus.supervisor.patches import patch
from xboard_circus.supervisor.patches.patch import Original, replaces


@replaces("CircusSocket.bind_and_listen")
def bind_unix_socket(original: Original, _: object) -> Original:
    """Remove the file of a unix socket without a listener; leave one with a listener to the port guard.

    Without it: After a kill of circusd a backend on a unix socket does not come back: its file already exists.
    Fact: Circus refuses a path that exists, and ends with exit code 0.
    """

    def bind_and_listen(shared: Any) -> None:
        if shared.is_unix and not shared.replace and is_socket(shared.path):
            if takes_connections(Path(shared.path)):
                logger.warning("xboard: %s is in use; it is bound when it is free", shared.path)
                return
            os.unlink(shared.path)
        original(shared)

    return bind_and_listen


@replaces("Arbiter.initialize")
def boot(original: Original, _: object) -> Original:
    """End circusd with an exit code other than 0 when its endpoint is taken, and mark the plugins that it starts.

    Without it: A second circusd on the same file ends with exit code 0: its service manager believes that all is well.
    Fact: Circus logs the exception of its start and calls sys.exit(0).
    """

    def initialize(arbiter: Any) -> None:
        try:
            original(arbiter)
        except Exception as error:
            logger.error("xboard: circusd cannot start: %s", error)
            raise SystemExit(1) from error
        mark_helpers(arbiter)

    return initialize


def mark_helpers(arbiter: Any) -> None:
    """Mark plugins with this circusd, so that one that starts before a watcher is armed notices when circusd has ended.

    Not in `os.environ`: `reloadconfig` compares it with that of the boot, and would restart every watcher.
    """
    started = procs.start_time(os.getpid())
    for watcher in arbiter.watchers:
        if is_helper(watcher.name) and started is not None:
            watcher.env = dict(watcher.env or {}, XBOARD_CIRCUSD=f"{os.getpid()}:{started}")


def install() -> None:
    """Install both, once in a process."""
    for kind, target in ((bind_unix_socket, CircusSocket), (boot, Arbiter)):
        if not getattr(target, f"xboard_{kind.name}", False):
            setattr(target, f"xboard_{kind.name}", True)
            try:
                patch.install([kind(target)])
            except patch.PatchFailed as error:
                # Raised into the import of a hook, it would keep circusd from starting.
                logger.error("xboard: %s", Say.CIRCUS_LACKS(what=str(error)))
