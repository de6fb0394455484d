"""Read the body of a request that asks for another protocol, where uvicorn with httptools takes it for a request.

httptools ends a request with `Upgrade` at its headers, whatever its length is. So one request was two: the second
passed by the rules of nginx, and its answer went to another client whose request nginx sent on the same connection.
Java's HttpClient and `curl --http2` ask for h2c with each first request, and their uploads were empty. A server may
ignore `Upgrade` (RFC 9110, section 7.8).
"""

import asyncio
import sys
from typing import Any


def without_upgrades(protocol: Any) -> type[asyncio.Protocol]:
    """Return *protocol* without upgrades of requests that have a body if it is uvicorn's for httptools."""
    module: Any = sys.modules.get("uvicorn.protocols.http.httptools_impl")
    if module is None or not issubclass(protocol, module.HttpToolsProtocol):
        return protocol  # type: ignore[no-any-return]
    httptools = module.httptools

    class Parser(httptools.HttpRequestParser):  # type: ignore[misc, name-defined]
        def __init__(self, connection: Any) -> None:
            super().__init__(connection)
            self.connection = connection
            if hasattr(self, "set_dangerous_leniencies"):  # as uvicorn does
                self.set_dangerous_leniencies(lenient_data_after_close=True)

        def feed_data(self, data: "bytes | bytearray") -> None:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self.connection.parse_on(data[upgrade.args[0] :]):
                    raise

    # Not by super(), which each request would pay.
    kept = {"_begin_request": protocol.on_headers_complete, "_end_request": protocol.on_message_complete}
    return type("PlainHttpToolsProtocol", (_WithoutUpgrades, protocol), {**kept, "new_parser": Parser})


class _WithoutUpgrades(asyncio.Protocol):
    """Parse the headers once more without `Upgrade`, and behind them the body.

    Attributes:
        head_to_parse: These headers, while a parser ends the request at them.
    """

    head_to_parse = b""

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.parser = self.new_parser(self)

    def on_headers_complete(self: Any) -> None:
        parser = self.parser
        if not parser.should_upgrade() or self._should_upgrade() or not _has_body(self.headers):
            self._begin_request()
            return
        if parser.get_method() == b"CONNECT":
            raise ValueError("CONNECT with a body")  # httptools makes an error of it, which uvicorn answers with 400
        lines = [b"%s %s HTTP/%s" % (parser.get_method(), self.url, parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.head_to_parse = b"\r\n".join([*lines, b"", b""])

    def on_message_complete(self: Any) -> None:
        if not self.head_to_parse:
            self._end_request()

    def parse_on(self: Any, rest: "bytes | bytearray") -> bool:
        """Parse what follows the headers, the body or the next request; False where a WebSocket does."""
        if self._should_upgrade():
            return False
        if head := self.head_to_parse:
            self.head_to_parse, self.parser = b"", self.new_parser(self)
        if head or rest:
            self.parser.feed_data(head + rest)
        return True


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t")) for name, value in headers
    )
