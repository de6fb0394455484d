"""Save the memory of the alerter: open incidents, alerts sent, and messages that wait."""

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xboard_circus.alerts.message import Message
from xboard_circus.core.alert_gate import GateMemory, restored, saved
from xboard_circus.core.alerting import Incident, Trouble
from xboard_circus.core.reason import reason_in, with_say
from xboard_circus.host.runtime import write_whole

log = logging.getLogger("xboard_circus.alerts")


@dataclass(slots=True)
class Remembered:
    """The content of the file; times are seconds of the reader's clock.

    Attributes:
        lost: The last circusd that was lost and reported, as pid:started.
        troubles: Why a sink does not accept its waiting messages, by its name; saved for `stuck`, and not loaded.
    """

    incidents: list[Incident] = field(default_factory=list)
    gates: dict[str, GateMemory] = field(default_factory=dict)
    waiting: dict[str, list[Message]] = field(default_factory=dict)
    lost: str = ""
    troubles: dict[str, str] = field(default_factory=dict)


def memory_file(folder: Path, plugin: str) -> Path:
    """Return the file of *plugin* in the state folder of its instance."""
    return folder / f"alerts-{re.sub(r'[^A-Za-z0-9_-]+', '-', plugin.removeprefix('plugin:'))}.json"


def stuck(folder: Path) -> dict[str, tuple[int, str]]:
    """Return by sink how many alerts wait and why, for the sinks that did not accept one; empty if unknown."""
    found = {}
    for file in sorted(folder.glob("alerts-*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            data = json.loads(file.read_text(encoding="utf-8"))
            for name, why in data["troubles"].items():
                if why and data["waiting"].get(name):
                    found[str(name)] = len(data["waiting"][name]), str(why)
    return found


class AlertMemory:
    """Keep a file at *path*, of mode 0600. If it cannot be written, a restart loses this memory, nothing else."""

    def __init__(self, path: Path) -> None:
        self.path, self._is_failing = path, False

    def load(self, *, shift: float, now: float) -> Remembered:
        """Return the saved memory; *shift* is how far the wall clock is ahead of the caller's, which shows *now*."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            return Remembered(
                incidents=[_incident(each, shift) for each in data["incidents"]],
                gates={name: restored(each, shift=-shift, now=now) for name, each in data["gates"].items()},
                waiting={name: [Message.of(each) for each in found] for name, found in data["waiting"].items()},
                lost=str(data.get("lost") or ""),
            )
        except FileNotFoundError:
            return Remembered()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: cannot be read, so alerts may be sent twice: %s", self.path, error)
            return Remembered()

    def save(self, now: Remembered, *, shift: float) -> None:
        """Save *now* in place of the saved memory."""
        data: dict[str, Any] = {"troubles": now.troubles, "lost": now.lost}
        data["incidents"] = [_saved(each, shift) for each in now.incidents]
        data["gates"] = {name: saved(each, shift=shift) for name, each in now.gates.items()}
        data["waiting"] = {name: [each._asdict() for each in found] for name, found in now.waiting.items()}
        try:
            write_whole(self.path, json.dumps(data))
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                log.error("%s cannot be written: %s", self.path, error.strerror)
            self._is_failing = True


def _saved(incident: Incident, shift: float) -> dict[str, Any]:
    known = {"watcher": incident.watcher, "trouble": incident.trouble.value, "count": incident.count}
    return {**known, "opened_at": incident.opened_at + shift, **with_say(incident.reason)}


def _incident(data: Mapping[str, Any], shift: float) -> Incident:
    opened_at, count = float(data["opened_at"]) - shift, int(data["count"])
    return Incident(str(data["watcher"]), Trouble(data["trouble"]), opened_at, reason=reason_in(data), count=count)
