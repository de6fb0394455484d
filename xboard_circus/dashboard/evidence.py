"""What the files beside the ini tell: the ledger. Everything here reads from a disk and belongs into a thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xboard_circus.config import is_our_plugin
from xboard_circus.dashboard.settings import Settings
from xboard_circus.dashboard.views import masked
from xboard_circus.ledger import LedgerStore, Record

MOST_EVENTS = 1000


class Evidence:
    """The ledger of the circusd beside us."""

    def __init__(self, settings: Settings) -> None:
        found = settings.config
        plugin = next((each for each in found.plugins if is_our_plugin(each)), None) if found is not None else None
        self.ledger: Path | None = None
        if found is not None and plugin is not None:
            self.ledger = found.folder / plugin.options.ledger.file

    @property
    def has_ledger(self) -> bool:
        return self.ledger is not None

    @property
    def has_logs(self) -> bool:
        return False

    def events(
        self, *, watcher: str | None = None, kind: str | None = None, after: int | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the newest events that fit, oldest first; LedgerError where the ledger can't be read."""
        return [_shown(record) for record in self._query(watcher=watcher, kind=kind, after=after, limit=limit)]

    def why(self, *, watcher: str | None, pid: int | None) -> str:
        """Return why something happened last, as a person would tell it."""
        found = [record for record in self._query(watcher=watcher, limit=MOST_EVENTS) if pid in (None, record.pid)]
        told = [record for record in found if record.reason]
        return str(masked(told[-1].reason)) if told else "nothing is known of it"

    def _query(self, **wanted: Any) -> list[Record]:
        if self.ledger is None:
            return []
        store = LedgerStore(self.ledger)
        try:
            return store.query(**wanted)
        finally:
            store.close()


def _shown(record: Record) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": record.id,
        "time": record.time,
        "watcher": record.watcher,
        "kind": record.kind,
        "pid": record.pid,
        "wid": record.wid,
        "cause": record.cause,
        "reason": masked(record.reason),
        "data": masked(record.data),
    }
    return shown
