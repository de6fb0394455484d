"""All plugins in one process: three of their own would take 25 MB each.

``[plugin:xboard] use = xboard_circus.plugins.bundle.Bundle`` is what circus.ini has.
"""

from __future__ import annotations

from xboard_circus.plugins._base import Part, XboardPlugin, own_identity
from xboard_circus.plugins.alerts import alerter_of
from xboard_circus.plugins.giving_up import surrender_of
from xboard_circus.plugins.http_health import HealthProber
from xboard_circus.plugins.ledger import recorder_of
from xboard_circus.plugins.log_pruner import pruner_of
from xboard_circus.plugins.restart_limiter import limiter_of
from xboard_circus.plugins.systemd_notify import notifiers_of


class Bundle(XboardPlugin):
    """Everything that needs no process of its own, from the prober to the word to systemd."""

    name = "bundle"

    def parts(self) -> list[Part]:
        """Return all parts; the last two only where systemd, or the options, ask for them."""
        return [
            HealthProber(self.commands, identity=own_identity()),
            limiter_of(self),
            recorder_of(self),
            alerter_of(self, is_guest=True),
            pruner_of(self),
            *notifiers_of(self),
            *surrender_of(self),
        ]
