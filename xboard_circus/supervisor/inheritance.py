"""Each process inherits the sockets that are its own, and no listener of another watcher.

With `use_sockets`, Circus passes every socket of circusd's to every process. A worker that holds the listener of
another watcher keeps that port open when circusd gives it back after a stop: connections would wait there for nobody,
and the next start could not bind the port.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from circus.process import Process

_NAMED = re.compile(r"circus\.sockets\.([\w.-]+)", re.IGNORECASE)


def sockets_named(watcher: Any) -> list[str]:
    """Return the names of the Circus sockets in a watcher's command, in lower case and in their order.

    Circus hands the arguments over as a string or as a list.
    """
    args = watcher.args or ""
    words = [watcher.cmd, *([args] if isinstance(args, str) else args)]
    return [name.lower() for name in _NAMED.findall(" ".join(map(str, words)))]


def install() -> None:
    """Stand in front of Circus's own way to start a process, once, for watchers that are not armed too.

    On the class: a watcher that `circusctl add` brings, or the file anew, is nothing that we hear of before it starts.
    """
    original = Process.spawn
    if getattr(original, "keeps_sockets_apart", False):
        return  # by an earlier arbiter of this circusd

    def spawn(self: Process) -> Any:
        with only_own_sockets(self.watcher):
            return original(self)

    spawn.keeps_sockets_apart = True  # type: ignore[attr-defined]
    Process.spawn = spawn


@contextlib.contextmanager
def only_own_sockets(watcher: Any) -> Iterator[None]:
    """Let the process that is started meanwhile inherit no socket that is not for *watcher*.

    The kernel closes them in the child, before its program runs. `Popen` returns only then, so nobody else is born
    meanwhile.
    """
    withheld = [shared for shared in foreign(watcher) if shared.fileno() >= 0 and shared.get_inheritable()]
    for shared in withheld:
        shared.set_inheritable(False)
    try:
        yield
    finally:
        for shared in withheld:
            shared.set_inheritable(True)


def foreign(watcher: Any) -> list[Any]:
    """Return the Circus sockets that are not for *watcher*.

    An armed one gets what its command names. From another we keep only what an armed one serves on: it may know its way
    to the rest without naming it.
    """
    supervisor = getattr(getattr(watcher, "arbiter", None), "xboard", None)
    if supervisor is None or not watcher.sockets:
        return []
    own = set(sockets_named(watcher))
    others = [shared for name, shared in watcher.sockets.items() if name.lower() not in own]
    if watcher.name in supervisor.armed:
        return others
    guarded = supervisor.shared_sockets()
    return [shared for shared in others if shared.name in guarded]
