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
    kept = {"_parse_on": module.HttpToolsProtocol.data_received}
    return type("PlainHttpToolsProtocol", (_WithoutUpgrades, protocol), kept)


class _WithoutUpgrades(asyncio.Protocol):
    """Parse the headers once more without `Upgrade`, and behind them the body.

    Attributes:
        head_to_parse: These headers, while a parser ends the request at them.
    """

    head_to_parse = b""

    def _should_upgrade(self: Any) -> bool:
        """Return whether uvicorn begins no request at the end of headers that ask for another protocol.

        At others it does not ask, so they cost no more.
        """
        is_none = bool(super()._should_upgrade() or self.head_to_parse)  # type: ignore[misc]
        if is_none or not _has_body(self.headers):
            return is_none
        parser = self.parser
        if parser.get_method() == b"CONNECT":
            raise ValueError("CONNECT with a body")  # httptools makes an error of it, which uvicorn answers with 400
        lines = [b"%s %s HTTP/%s" % (parser.get_method(), self.url, parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.head_to_parse = b"\r\n".join([*lines, b"", b""])
        return True

    def handle_websocket_upgrade(self: Any) -> None:
        if self.head_to_parse:
            self._unsupported_upgrade_warning()
        else:
            super().handle_websocket_upgrade()  # type: ignore[misc]

    def _unsupported_upgrade_warning(self: Any) -> None:
        """Parse what follows the headers in place of a warning: the body, or the next request."""
        upgrade: Any = sys.exc_info()[1]
        # What uvicorn's `data_received` was given, which calls this.
        rest = upgrade.__traceback__.tb_frame.f_locals["data"][upgrade.args[0] :]
        if head := self.head_to_parse:
            self.head_to_parse, self.parser = b"", type(self.parser)(self)
            if hasattr(self.parser, "set_dangerous_leniencies"):  # as uvicorn does
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if head or rest:
            self._parse_on(head + rest)


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t")) for name, value in headers
    )
