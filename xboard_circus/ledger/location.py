"""Find the ledger of an ini file."""

from pathlib import Path

from xboard_circus.config import Config
from xboard_circus.errors import XboardError

RECORDERS = ("xboard_circus.plugins.bundle.Bundle", "xboard_circus.plugins.ledger.Ledger")


def ledger_of(config: Config) -> Path:
    """Return the file to which the plugin of *config* records; XboardError where no plugin does."""
    for ledger in ledgers_of(config):
        return ledger
    raise XboardError(
        f"{config.shown}: no plugin keeps a ledger; add [plugin:xboard] with use = {RECORDERS[0]}, "
        "then `xboard-circus restart`"
    )


def ledgers_of(config: Config) -> list[Path]:
    """Return each file to which a plugin of *config* records, once."""
    files = [config.folder / each.options.ledger.file for each in config.plugins if each.use in RECORDERS]
    return list(dict.fromkeys(files))
