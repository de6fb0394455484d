"""Find the ledger of an ini file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from xboard_circus.config import Config
from xboard_circus.errors import XboardError
from xboard_circus.ledger.history_store import history_of
from xboard_circus.ledger.query import unstored_of
from xboard_circus.ledger.record import Record
from xboard_circus.options.fields import LedgerOptions

DAY = 86_400.0
PROBERS = ("xboard_circus.plugins.bundle.Bundle", "xboard_circus.plugins.http_health.HttpHealth")
RECORDERS = ("xboard_circus.plugins.bundle.Bundle", "xboard_circus.plugins.ledger.Ledger")


def ledger_of(config: Config) -> Path:
    """Return the file to which the plugin of *config* records; XboardError without such a plugin."""
    for ledger in ledgers_of(config):
        return ledger
    cure = f"add [plugin:xboard] with use = {RECORDERS[0]}, then `xboard-circus restart`"
    raise XboardError(f"{config.shown}: no plugin keeps a ledger; {cure}")


def ledgers_of(config: Config) -> list[Path]:
    """Return each file to which a plugin of *config* records, once."""
    return list(dict.fromkeys(config.folder / each.file for each in _options(config)))


def history_in(config: Config) -> Path | None:
    """Return the file in which the prober of *config* keeps the history of traffic; None where no plugin probes."""
    return next((history_of(config.folder / each.file) for each in _options(config, PROBERS)), None)


def unstored_in(config: Config, events: Sequence[object], *, now: float) -> list[Record]:
    """Return those *events* of circusd as records that the ledger of *config* lacks, see `unstored_of`."""
    path = ledger_of(config)
    keep_days = min(each.keep_days for each in _options(config))
    return unstored_of(path, events, since=now - keep_days * DAY, now=now)


def _options(config: Config, uses: Sequence[str] = RECORDERS) -> Iterator[LedgerOptions]:
    yield from (each.options.ledger for each in config.plugins if each.use in uses)
    if not config.scans:  # the file is gone while its circusd runs, and does not say which plugins that has
        yield LedgerOptions()
