"""Set one deadline for everything on the connections of a call, however slowly the other side sends."""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests


class Cut:
    """Deadline for everything on the connections of one session.

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


@dataclass(slots=True)
class HttpAnswer:
    """Result of a request within its deadline.

    Attributes:
        status: None without an answer.
        body: The received part of it, up to the limit.
        error: The innermost cause of a failure.
        is_late: The deadline has passed, as noticed here or by the socket, which has the same time-out.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: BaseException | None = None
    is_late: bool = False


def send_request(
    method: str, url: str, *, timeout: float, most: int, decoded: bool, is_proxied: bool = False, **options: Any
) -> HttpAnswer:
    """Send one request and return the answer with *most* bytes of its body; no redirect is followed. Never raises.

    With *is_proxied*, proxies, netrc and certificates come from the environment in which circusd was started.
    """
    # Not at the top: it costs each plugin 9 MB, and most watchers have private sockets, and no webhook.
    import requests

    answer = HttpAnswer()
    with Cut(timeout) as cut, requests.Session() as session:
        session.trust_env = is_proxied
        for scheme in ("http://", "https://"):
            session.mount(scheme, cut.adapter())
        try:
            with session.request(
                method, url, timeout=timeout, allow_redirects=False, stream=True, **options
            ) as response:
                answer.status, answer.headers = response.status_code, response.headers
                while piece := response.raw.read(min(most - len(answer.body), 8192), decode_content=decoded):
                    answer.body += piece
        # urllib3's own errors are raised where the body is read; all of them, and OSError, mean the same here.
        except Exception as error:
            answer.error = innermost(error)
        # The time-out of requests itself may come a moment before the cut.
        answer.is_late = cut.done or isinstance(answer.error, TimeoutError)
    return answer


def innermost(error: BaseException) -> BaseException:
    """Return the cause below all causes: requests wraps three errors around 'Connection refused'."""
    seen = error
    while (deeper := seen.__cause__ or seen.__context__) is not None and deeper is not seen:
        seen = deeper
    return seen
