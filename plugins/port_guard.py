"""The port guard, under the name by which the bundle is known; it runs inside circusd."""

from __future__ import annotations

from xboard_circus.supervisor.port import PortGuard

__all__ = ["PortGuard"]
