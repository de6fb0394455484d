"""Where `xboard_circus.instance` was until the monitor needed it too; the monitor still imports it from here."""

from xboard_circus.instance import Instance, Silent

__all__ = ["Instance", "Silent"]
