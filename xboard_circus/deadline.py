"""One deadline for everything that goes over the connections of a call, however slowly the other side drips."""

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests


class Cut:
    """A deadline for everything that goes over the connections of one session.

    Attributes:
        done: The deadline has passed, and the connections were cut.
    """

    def __init__(self, timeout: float) -> None:
        self.done = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(timeout, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> "Cut":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for opened in self._sockets:
                opened.close()
            self._sockets.clear()

    def adapter(self) -> "requests.adapters.HTTPAdapter":
        """Return an adapter whose connections this cuts."""
        from requests.adapters import HTTPAdapter

        watched = self._watched

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *args: Any, **options: Any) -> None:
                super().init_poolmanager(*args, **options)
                watched(self.poolmanager)

            def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
                # A proxy has pools of its own.
                return watched(super().proxy_manager_for(proxy, **options))

        return Adapter(max_retries=0)

    def watch(self, opened: socket.socket) -> None:
        """Cut the connection of *opened*, too."""
        # A copy of the descriptor: TLS takes the socket object over, and shutdown reaches the connection all the same.
        with self._lock:
            self._sockets.append(opened.dup())
        if self.done:
            self._cut()

    def _watched(self, manager: Any) -> Any:
        """Have the connections of all pools of *manager* cut, and return it."""
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: self._watched_pool(pool) for scheme, pool in pools.items()}
        return manager

    def _watched_pool(self, pool: Any) -> Any:
        watch = self.watch

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def _new_conn(self) -> socket.socket:
                opened: socket.socket = super()._new_conn()
                watch(opened)
                return opened

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    def _cut(self) -> None:
        with self._lock:
            self.done = True
            for opened in self._sockets:
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)


def innermost(error: BaseException) -> BaseException:
    """Return the cause below all causes: requests wraps three errors around 'Connection refused'."""
    seen = error
    while (deeper := seen.__cause__ or seen.__context__) is not None and deeper is not seen:
        seen = deeper
    return seen
