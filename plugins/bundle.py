"""Host all plugins in one process, because three of their own would take 25 MB each.

``[plugin:xboard] use = xboard_circus.plugins.bundle.Bundle`` is the line in circus.ini. circusd imports this module
too, only to find the class. So the plugins' own imports are made in their process alone: they would delay the start of
the workers, and stay in circusd's memory.
"""

from typing import Any, ClassVar


class Bundle:
    """Run everything that needs no process of its own, from the prober to the notifier of systemd.

    Attributes:
        needs: Modules imported at its start, for `check`, which tries the import.
    """

    name = "bundle"
    needs: ClassVar[str] = "xboard_circus.plugins._bundled"

    def __new__(cls, *arguments: Any, **config: Any) -> Any:
        """Return the plugin itself, which circusd never makes: its class alone would cost circusd 0.2 MiB."""
        from xboard_circus.plugins._bundled import BundledPlugin

        return BundledPlugin(*arguments, **config)
