"""Know the connections of a worker whose TLS handshake has not ended, which uvicorn does not know yet."""

import asyncio
from typing import Any
from weakref import WeakSet


def noting_handshakes(protocol: type[asyncio.Protocol], handshakes: WeakSet[Any]) -> type[asyncio.Protocol]:
    """Return *protocol* with its instances in *handshakes* from the accepted connection to the end of the handshake.

    The event loop makes the protocol when it has accepted, and drops it where the handshake fails.
    """

    class NotingProtocol(protocol):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            handshakes.add(self)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            handshakes.discard(self)
            super().connection_made(transport)

    return NotingProtocol
