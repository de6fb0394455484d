"""Carry out an administrator's orders on the page: this list and nothing else. Each order names its sender."""

import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from anyio.to_thread import run_sync

from xboard_circus.circus_client import CircusdClient, CircusdGone, CommandRefused
from xboard_circus.core.names import is_helper
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.poller import Server
from xboard_circus.dashboard.settings import HTTPD, LOCAL
from xboard_circus.errors import XboardError
from xboard_circus.masking import masked
from xboard_circus.options.kinds import is_endpoint

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{0,60}")
MOST_PROCESSES = 64
Target = tuple[dict[str, Any], str]


class Refused(XboardError):
    """A refused order, with the status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ActionOrder:
    """One order for the page or for a circusd; *given* are its fields, *by* names its sender."""

    def __init__(self, hub: Hub, given: Mapping[str, Any], *, by: str) -> None:
        self.hub, self.given, self.by = hub, given, by
        self.action: str = given["action"]

    async def carry_out(self) -> str:
        """Carry out the order and return the result, or raise Refused; waits for circusd run in a thread."""
        if self.action in ON_PAGE:
            try:
                return ON_PAGE[self.action](self)
            except XboardError as error:
                raise error if isinstance(error, Refused) else Refused(507, str(error)) from None
        if self.action not in ON_CIRCUSD:
            raise Refused(400, Answer.NO_ACTION())
        done = await run_sync(self._order_circusd, abandon_on_cancel=True, limiter=self.hub.orders)
        for server in self.hub.servers.values():
            server.poll_soon()
        return done

    def _order_circusd(self) -> str:
        command, done, target, properties = ON_CIRCUSD[self.action]
        sent, watchers = target(self)
        try:
            with CircusdClient(self.server.endpoint, owner=self.server.owner, found=self.server.listener) as client:
                reply = client.call(command, deadline=self.hub.settings.order, by=self.by, **sent, **properties)
        except CommandRefused as refused:
            raise Refused(409, str(masked(refused.reason))) from None
        except CircusdGone as gone:
            raise Refused(504 if gone.listening else 503, str(gone)) from None
        if (number := reply.get("numprocesses")) is not None:
            return Answer.HAS_PROCESSES(watcher=watchers, n=number)
        return done(**sent, watcher=watchers, watchers=watchers)

    # Fields of the order

    def text(self, name: str) -> str:
        """Return a required field."""
        value = self.given.get(name)
        if not isinstance(value, str) or not value:
            raise Refused(400, Answer.NEEDS(action=self.action, name=name))
        return value

    def number(self, name: str) -> int:
        """Return a required field that is a whole number."""
        value = self.given.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise Refused(400, Answer.NEEDS_NUMBER(action=self.action, name=name))
        return value

    @functools.cached_property
    def server(self) -> Server:
        """Return the circusd of the order."""
        if (server := self.hub.servers.get(str(self.given.get("server", LOCAL)))) is None:
            raise Refused(404, Answer.NO_SERVER())
        return server

    def watcher(self) -> Mapping[str, Any]:
        """Return the watcher of the order, as circusd reported it."""
        if (found := self.server.watcher(self.text("watcher"))) is None:
            raise Refused(404, Answer.NO_WATCHER())
        return found

    # Targets: their properties for circusd, and their name for people

    def circusd(self) -> Target:
        return {}, self.server.label

    def one(self) -> Target:
        name = self.watcher()["name"]
        return {"name": name}, name

    def armed(self) -> Target:
        if not (watcher := self.watcher())["armed"]:
            raise Refused(409, Answer.NOT_ARMED(watcher=watcher["name"]))
        return self.one()

    def _all_names(self) -> list[str]:
        """Return the names of all watchers, except Circus's own and ours."""
        own = {self.hub.settings.watcher, HTTPD} if self.server.id == LOCAL else {HTTPD}
        names = [each["name"] for each in self._shown() if each["name"] not in own and not is_helper(each["name"])]
        if not names:
            raise Refused(409, Answer.NO_WATCHERS())
        return names

    def _shown(self) -> list[Mapping[str, Any]]:
        return [*(self.server.state or {"watchers": []})["watchers"]]

    def all(self) -> Target:
        names = self._all_names()
        # One command for all, because circusd refuses a second one while the first runs.
        return {"name": f"(?:{'|'.join(re.escape(name.lower()) for name in names)})$"}, ", ".join(names)

    def all_reloaded(self) -> Target:
        """Return all, without a name for a circusd of ours, which then reloads what it can."""
        if not any(each["armed"] for each in self._shown()):
            return self.all()
        names = self._all_names()
        return {"but": [each["name"] for each in self._shown() if each["name"] not in names]}, ", ".join(names)

    def worker(self) -> Target:
        """Return the worker of the order; refused if another process has the pid by now."""
        watcher, pid = self.watcher(), self.number("pid")
        started = {each["pid"]: each["started"] for each in watcher["workers"] if each["pid"]}
        if pid not in started or self.given.get("started") not in (None, started[pid]):
            raise Refused(404, Answer.WORKER_IS_GONE(watcher=watcher["name"]))
        return {"name": watcher["name"], "pid": pid, "started": started[pid]}, watcher["name"]

    def armed_worker(self) -> Target:
        self.armed()
        sent, name = self.worker()
        return {**sent, "reason": self.by}, name

    def held_slot(self) -> Target:
        slot, (sent, name) = self.number("slot"), self.one()
        if slot not in self._held():
            raise Refused(409, Answer.NOT_HELD(watcher=name, slot=slot))
        return {**sent, "slot": slot}, name

    def all_held(self) -> Target:
        if not self._held():
            raise Refused(409, Answer.NONE_HELD(watcher=self.watcher()["name"]))
        return self.one()

    def _held(self) -> list[int]:
        return [each["slot"] for each in self.watcher()["workers"] if each.get("phase") == "held"]

    def new_watcher(self) -> Target:
        if not self.hub.settings.allow_add:
            raise Refused(403, Answer.NO_ADDING())
        name, cmd, folder = self.text("name"), self.text("cmd"), self.given.get("working_dir")
        count = 1 if self.given.get("numprocesses") in (None, "") else self.number("numprocesses")
        is_folder = isinstance(folder, str) and os.path.isabs(folder) and folder.isprintable()
        for is_right, refusal in (
            (_NAME.fullmatch(name), Answer.ODD_NAME()),
            (cmd.isprintable() and len(cmd) <= 2000, Answer.ODD_COMMAND()),
            (1 <= count <= MOST_PROCESSES, Answer.ODD_NUMBER(n=MOST_PROCESSES)),
            (not folder or is_folder, Answer.ODD_FOLDER()),
        ):
            if not is_right:
                raise Refused(400, refusal)
        options = {"numprocesses": count, "copy_env": True, **({"working_dir": folder} if folder else {})}
        return {"name": name, "cmd": cmd, "options": options}, name

    # For the page itself

    def add_server(self) -> str:
        endpoint, label = self.text("endpoint"), self.given.get("label") or ""
        if not is_endpoint(endpoint):
            raise Refused(400, Answer.ODD_ENDPOINT())
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise Refused(400, Answer.ODD_LABEL())
        return Answer.SHOWS(label=self.hub.add_server(label, endpoint).label)

    def remove_server(self) -> str:
        if not self.hub.remove_server(self.text("id")):
            raise Refused(404, Answer.NO_SERVER_TO_REMOVE())
        return Answer.SHOWS_NO_LONGER()


ON_PAGE = {"add_server": ActionOrder.add_server, "remove_server": ActionOrder.remove_server}
_ONE, _ALL = {"match": "simple", "waiting": False}, {"match": "regex", "waiting": False}
_BY_HAND = {"kind": "operator", "probed_at": 0}
# action: (Circus's command, answer, its target, further properties)
ON_CIRCUSD: Mapping[str, tuple[str, Answer, Callable[[ActionOrder], Target], Mapping[str, Any]]] = {
    "start": ("start", Answer.STARTED, ActionOrder.one, _ONE),
    "stop": ("stop", Answer.STOPS, ActionOrder.one, _ONE),
    "restart": ("restart", Answer.RESTARTS, ActionOrder.one, _ONE),
    "reload": ("xboard_reload", Answer.RELOADS, ActionOrder.armed, {}),
    "incr": ("incr", Answer.ONE_MORE, ActionOrder.one, {"nb": 1}),
    "decr": ("decr", Answer.ONE_LESS, ActionOrder.one, {"nb": 1}),
    "start_all": ("start", Answer.STARTED, ActionOrder.all, _ALL),
    "stop_all": ("stop", Answer.STOPS, ActionOrder.all, _ALL),
    "restart_all": ("restart", Answer.RESTARTS, ActionOrder.all_reloaded, _ALL),
    "kill": ("kill", Answer.TOLD_TO_END, ActionOrder.worker, {"waiting": False}),
    "retry": ("xboard_retry", Answer.RETRIES, ActionOrder.held_slot, {}),
    "retry_all": ("xboard_retry", Answer.RETRIES_ALL, ActionOrder.all_held, {}),
    "replace": ("xboard_replace", Answer.REPLACES, ActionOrder.armed_worker, _BY_HAND),
    "reload_config": ("reloadconfig", Answer.READS_INI, ActionOrder.circusd, {"waiting": False}),
    "add_watcher": ("add", Answer.ADDED, ActionOrder.new_watcher, {"start": True}),
}
