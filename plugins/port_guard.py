"""Export the port guard by its name in the bundle; it runs inside circusd."""

from xboard_circus.supervisor.port import PortGuard

__all__ = ["PortGuard"]
