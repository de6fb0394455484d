"""Limit the headers of a request in uvicorn: with httptools their size, which h11 limits, and with both their number.

One client could make a worker keep 1.8 GiB of headers, or block its event loop by one endless header, which httptools
copies with each piece. Tiny headers take 25 times what is sent, for as long as a connection is kept alive.
"""

import asyncio
import re
import sys
from typing import Any

DEFAULT_LIMIT = 64 * 1024
LEAST_EACH = 32  # bytes of the limit for each header: 2,048 headers by default
_CONTROLS = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_LENGTHS = {b"content-length", b"transfer-encoding"}
_HTTPTOOLS, _H11 = "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl"
_TEXT = b"Request headers too large."
_HEADERS = (b"content-type: text/plain; charset=utf-8", b"content-length: %d" % len(_TEXT), b"connection: close")


def limited(protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """Return *protocol* with a limit on headers if it is uvicorn's for HTTP/1.1; any other as it is."""
    if protocol is getattr(sys.modules.get(_H11), "H11Protocol", None):
        return _counting(protocol, sys.modules[_H11].h11)
    if protocol is not getattr(sys.modules.get(_HTTPTOOLS), "HttpToolsProtocol", None):
        return protocol
    # Not by super(), which each request would pay.
    kept = {"_receive": protocol.data_received, "_begin": protocol.on_headers_complete}
    return type("LimitedHttpToolsProtocol", (_HeaderLimit, protocol), kept)


def _counting(protocol: type[asyncio.Protocol], h11: Any) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol for h11 with a limit on the number of headers, and what httptools refuses by itself.

    That is an ambiguous length of the body, and control characters in a value, such as colours for an access log.
    """

    class Connection(h11.Connection):  # type: ignore[misc]
        def next_event(self) -> Any:
            event = super().next_event()
            headers = getattr(event, "headers", ())
            if len(headers) > self.most_headers:
                raise h11.RemoteProtocolError("too many headers")
            if _CONTROLS.search(b" ".join(value for _, value in headers)):
                raise h11.RemoteProtocolError("control characters in a header")
            if {name for name, _ in headers} >= _LENGTHS:
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
            return event

    class CountingH11Protocol(protocol):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.conn.__class__ = Connection
            self.conn.most_headers = (self.config.h11_max_incomplete_event_size or DEFAULT_LIMIT) // LEAST_EACH

    return CountingH11Protocol


class _HeaderLimit(asyncio.Protocol):
    """Count bytes that neither complete the headers of a request nor bring a part of its body.

    So for headers, trailers and chunk extensions. Bytes in one piece with something complete are not counted: they were
    parsed already, and a piece is no longer than 256 KiB. ``--h11-max-incomplete-event-size`` sets another limit, as
    with h11.
    """

    _pending = _of_request = 0
    _of_cycle: Any = None

    def data_received(self: Any, data: bytes) -> None:
        pending, cycle = self._pending, self.cycle
        limit = self.config.h11_max_incomplete_event_size or DEFAULT_LIMIT
        if pending > limit:  # refused: over TLS more may come until the connection is closed
            return
        self._pending = pending + len(data)
        self._receive(data)
        if self.cycle is not cycle:
            self._pending = 0
        elif self._pending > limit:
            self._refuse()

    def on_headers_complete(self: Any) -> None:
        if len(self.headers) > (self.config.h11_max_incomplete_event_size or DEFAULT_LIMIT) // LEAST_EACH:
            raise ValueError("too many headers")  # httptools makes an error of it, which uvicorn answers with 400
        self._begin()

    def on_body(self: Any, body: bytes) -> None:
        self._pending = 0
        self._of_cycle, self._of_request = self.cycle, len(self.headers)
        super().on_body(body)  # type: ignore[misc]

    def _refuse(self: Any) -> None:
        """Answer 431 and close; only close if the client already gets an answer to an earlier request."""
        if self.transport.is_closing() or self not in self.connections:  # answered 400, or a WebSocket by now
            return
        self.logger.warning("Request headers too large.")
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            defaults = (name + b": " + value for name, value in self.server_state.default_headers)
            lines = (b"HTTP/1.1 431 Request Header Fields Too Large", *defaults, *_HEADERS, b"", _TEXT)
            self.transport.write(b"\r\n".join(lines))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # otherwise the app would write to a closed connection
            self.cycle.message_event.set()
            if self.cycle is self._of_cycle:  # uvicorn adds trailers; the app may run on for long
                del self.cycle.scope["headers"][self._of_request :]
        self.transport.close()
