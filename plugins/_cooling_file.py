"""Which watchers the limiter has stopped and must start again, kept over the end of its own process."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("xboard_circus.plugins.restart_limiter")


class CoolingFile:
    """Watchers that cool down, and until when in seconds of the monotonic clock, for as long as *circusd* runs.

    Another circusd has started all its watchers by itself, and after another boot the clock means something else. A
    file that cannot be written costs a restart of this process its memory, nothing else.
    """

    def __init__(self, path: Path, *, circusd: str) -> None:
        self._path = path
        self._circusd = circusd

    def load(self) -> dict[str, float]:
        """Return what was saved last under this circusd."""
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            if saved["circusd"] != self._circusd:
                return {}
            return {str(name): float(until) for name, until in saved["until"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def save(self, until: Mapping[str, float]) -> None:
        """Replace what was saved."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps({"circusd": self._circusd, "until": dict(until)}), encoding="utf-8")
            os.replace(fresh, self._path)
        except OSError as error:
            log.error("%s cannot be written: %s", self._path, error)
