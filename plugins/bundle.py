"""Host all plugins in one process: three of their own would take 25 MB each.

``[plugin:xboard] use = xboard_circus.plugins.bundle.Bundle`` is what circus.ini has. circusd imports this module too,
only to find the class. So the parts are imported in the plugin's process alone: their imports would delay the start
of the workers, and stay in circusd's memory.
"""

from typing import ClassVar

from xboard_circus.plugins._base import Part, XboardPlugin


class Bundle(XboardPlugin):
    """Run everything that needs no process of its own, from the prober to the notifier of systemd.

    Attributes:
        needs: What is imported at its start, for `check`, which tries the import.
    """

    name = "bundle"
    needs: ClassVar[str] = "xboard_circus.plugins._bundled"

    def parts(self) -> list[Part]:
        """Return all parts."""
        from xboard_circus.plugins._bundled import parts_of

        return parts_of(self)
