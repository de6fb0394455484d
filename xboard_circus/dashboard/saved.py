"""Save what the page itself has to remember: the servers that were added to it, and the sessions that were ended."""

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xboard_circus.dashboard.answers import Answer
from xboard_circus.errors import XboardError
from xboard_circus.host.runtime import read_private, write_whole

log = logging.getLogger("uvicorn.error")

FILE = "dashboard.json"
MOST_SERVERS, MOST_ENDED = 32, 1000


@dataclass(frozen=True)
class Added:
    """A circusd that was added on the page."""

    id: str
    label: str
    endpoint: str


class Saved:
    """The file ``dashboard.json``, of mode 0600, because its writer chooses the circusds that the page operates.

    Two processes have it open during a reload of the dashboard, so it is read again after a change.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._seen: tuple[int, int] | None = None
        self._content: dict[str, Any] = {}

    def servers(self) -> list[Added]:
        """Return the servers that were added."""
        found = []
        for each in self._read().get("servers", [])[:MOST_SERVERS]:
            with contextlib.suppress(KeyError, TypeError):
                found.append(Added(str(each["id"]), str(each["label"]), str(each["endpoint"])))
        return found

    def add(self, server: Added) -> None:
        """Remember a server; XboardError if there are too many or the file cannot be written."""
        servers = self.servers()
        if len(servers) >= MOST_SERVERS:
            raise XboardError(Answer.TOO_MANY_SERVERS(n=MOST_SERVERS))
        self._write(servers=[*map(asdict, servers), asdict(server)])

    def remove(self, server_id: str) -> None:
        """Forget a server."""
        self._write(servers=[asdict(each) for each in self.servers() if each.id != server_id])

    def has_ended(self, session_id: str, expires: float) -> bool:
        """Return whether a session was ended by itself, or by so many others of its role that it is unknown."""
        return session_id in self._map("ended") or expires <= self._map("floors").get(_role(session_id), 0.0)

    def end_session(self, session_id: str, expires: float) -> None:
        """Remember that a session was ended, also when its time is over: the clock may be set back.

        Of each role `MOST_ENDED` are remembered one by one. Beyond that the oldest is forgotten, and with it all
        sessions of the role that began before it are void: no number of log-outs makes an ended cookie good again.
        """
        ended = self._map("ended") | {session_id: expires}
        floors, role = dict(self._map("floors")), _role(session_id)
        for until, key in sorted((until, key) for key, until in ended.items() if _role(key) == role)[:-MOST_ENDED]:
            floors[role] = until
            del ended[key]
        self._write(ended=ended, floors=floors)

    def _map(self, name: str) -> dict[str, float]:
        found = self._read().get(name)
        return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, Any]:
        try:
            found = self.path.stat()
            if self._seen == (found.st_mtime_ns, found.st_ino):
                return self._content
            self._seen, self._content = (found.st_mtime_ns, found.st_ino), {}
            content = json.loads(read_private(self.path, 1 << 20, flags=os.O_NOFOLLOW))
            self._content = content if isinstance(content, dict) else {}
        except FileNotFoundError:
            self._seen, self._content = None, self._content if self._seen is None else {}
        except (OSError, ValueError) as error:
            log.error("%s is not used: %s", self.path, error)
        return self._content

    def _write(self, **changes: Any) -> None:
        self._content = {**self._read(), **changes}
        try:
            write_whole(self.path, json.dumps(self._content, indent=1))
        except OSError as error:
            # The change counts in this process; only the next one will not know it.
            raise XboardError(Answer.NOT_WRITTEN(path=self.path, error=error.strerror)) from None


def _role(session_id: str) -> str:
    return session_id.partition("-")[0]
