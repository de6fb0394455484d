"""Import and make the bundle and its parts; see `bundle`."""

from xboard_circus.plugins._base import Part, XboardPlugin
from xboard_circus.plugins.alerts import alerter_of
from xboard_circus.plugins.giving_up import surrender_of
from xboard_circus.plugins.http_health import prober_of
from xboard_circus.plugins.ledger import recorder_of
from xboard_circus.plugins.log_pruner import pruner_of
from xboard_circus.plugins.restart_limiter import limiter_of
from xboard_circus.plugins.systemd_notify import notifiers_of


class BundledPlugin(XboardPlugin):
    """Host all parts in one process."""

    name = "bundle"

    def parts(self) -> list[Part]:
        """Return all parts; the last two only if systemd or the options need them."""
        return [
            *prober_of(self),
            *limiter_of(self),
            *recorder_of(self),
            *alerter_of(self, is_guest=True),
            *pruner_of(self),
            *notifiers_of(self),
            *surrender_of(self),
        ]
