"""Where the ledger of an ini file lies, and how the names of its watchers are spelled in it."""

from __future__ import annotations

from pathlib import Path

from xboard_circus.config import Config
from xboard_circus.errors import XboardError

RECORDERS = ("xboard_circus.plugins.bundle.Bundle", "xboard_circus.plugins.ledger.Ledger")


def ledger_of(config: Config) -> Path:
    """Return the file to which the plugin of *config* records; XboardError where no plugin does."""
    for plugin in config.plugins:
        if plugin.use in RECORDERS:
            return config.folder / plugin.options.ledger.file
    raise XboardError(
        f"{config.shown}: no plugin keeps a ledger; add [plugin:xboard] with use = {RECORDERS[0]}, "
        "then `xboard-circus restart`"
    )
