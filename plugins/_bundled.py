"""Make the parts of the bundle, with all that they import; see `bundle`."""

from xboard_circus.plugins._base import Part, XboardPlugin
from xboard_circus.plugins.alerts import alerter_of
from xboard_circus.plugins.giving_up import surrender_of
from xboard_circus.plugins.http_health import prober_of
from xboard_circus.plugins.ledger import recorder_of
from xboard_circus.plugins.log_pruner import pruner_of
from xboard_circus.plugins.restart_limiter import limiter_of
from xboard_circus.plugins.systemd_notify import notifiers_of


def parts_of(plugin: XboardPlugin) -> list[Part]:
    """Return all parts for *plugin* to host; the last two only where systemd or the options want them."""
    return [
        *prober_of(plugin),
        *limiter_of(plugin),
        *recorder_of(plugin),
        *alerter_of(plugin, is_guest=True),
        *pruner_of(plugin),
        *notifiers_of(plugin),
        *surrender_of(plugin),
    ]
