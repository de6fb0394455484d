"""What the page's guard refuses before the app sees it."""

import asyncio
from typing import Any

from xboard_circus.dashboard.security import Guarded


def test_a_path_with_a_nul_is_no_page() -> None:
    seen: list[Any] = []

    async def app(*_: Any) -> None:
        seen.append("app")

    async def send(message: Any) -> None:
        seen.append(message.get("status"))

    scope = {"type": "http", "method": "GET", "path": "/static/a\0b", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guarded(app, behind_proxy=True)(scope, None, send))  # type: ignore[arg-type]

    assert seen[0] == 404
