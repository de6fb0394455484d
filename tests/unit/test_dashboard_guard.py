"""What the page's guard refuses before the app sees it."""

import asyncio
from typing import Any

from xboard_circus.dashboard.security import Guarded


def first_seen(method: str, path: str, *headers: tuple[bytes, bytes]) -> Any:
    """Return the status of the refusal, or "app" where the app sees the request."""
    seen: list[Any] = []

    async def app(*_: Any) -> None:
        seen.append("app")

    async def send(message: Any) -> None:
        seen.append(message.get("status"))

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", b"localhost"), *headers]}
    asyncio.run(Guarded(app, behind_proxy=True)(scope, None, send))  # type: ignore[arg-type]
    return seen[0]


def test_a_path_with_a_nul_is_no_page() -> None:
    assert first_seen("GET", "/static/a\0b") == 404


def test_a_length_beside_chunks_which_h11_passes_over_is_none() -> None:
    length = (b"content-length", b"5")

    assert first_seen("POST", "/login", length) == "app"
    assert first_seen("POST", "/login", length, (b"transfer-encoding", b"chunked")) == 411
