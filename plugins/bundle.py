"""All plugins in one process: four of their own would take 25 MB each.

``[plugin:xboard] use = xboard_circus.plugins.bundle.Bundle`` is what circus.ini has.
"""

from __future__ import annotations

from xboard_circus.plugins._base import Part, XboardPlugin, own_identity
from xboard_circus.plugins.alerts import alerter_of
from xboard_circus.plugins.http_health import HealthProber
from xboard_circus.plugins.ledger import recorder_of
from xboard_circus.plugins.log_pruner import pruner_of
from xboard_circus.plugins.restart_limiter import limiter_of


class Bundle(XboardPlugin):
    """The prober, the limiter of watchers without a hook, the recorder, the alerter, and who removes old logs."""

    name = "bundle"

    def parts(self) -> list[Part]:
        """Return all of them."""
        return [
            HealthProber(self.commands, identity=own_identity()),
            limiter_of(self),
            recorder_of(self),
            alerter_of(self, is_guest=True),
            pruner_of(self),
        ]
