"""Save which watchers the limiter has stopped and must start again, for the next process of it."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from xboard_circus.host.runtime import write_whole

log = logging.getLogger("xboard_circus.plugins.restart_limiter")


class CoolingFile:
    """Keep, for as long as *circusd* runs, the watchers that cool down, and until when on the monotonic clock.

    Another circusd has started all its watchers itself, and after another boot the clock means something else. A file
    that cannot be written costs a restart of this process its memory, nothing else.
    """

    def __init__(self, path: Path, *, circusd: str) -> None:
        self._path = path
        self._circusd = circusd

    def load(self) -> dict[str, float]:
        """Return what was saved last under this circusd."""
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            until = saved["until"] if saved["circusd"] == self._circusd else {}
            return {str(name): float(at) for name, at in until.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def save(self, until: Mapping[str, float]) -> None:
        """Replace what was saved."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps({"circusd": self._circusd, "until": dict(until)}))
        except OSError as error:
            log.error("%s cannot be written: %s", self._path, error)
