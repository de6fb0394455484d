"""Carry out what an administrator may do on the page: this list and nothing else. Each order says who gave it."""

from __future__ import annotations

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
from xboard_circus.dashboard.views import masked
from xboard_circus.errors import XboardError
from xboard_circus.options.kinds import is_endpoint

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{0,60}")
MOST_PROCESSES = 64


class Refused(XboardError):
    """An order that is not carried out, with the status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ActionOrder:
    """One order for the page or for a circusd; *given* are its fields, *by* says whose it is."""

    def __init__(self, hub: Hub, given: Mapping[str, Any], *, by: str) -> None:
        self.hub = hub
        self.given = given
        self.by = by
        self.action: str = given["action"]

    async def carry_out(self) -> str:
        """Do it and return what was done, or raise Refused. Circusd is waited for in a thread."""
        if self.action in ON_PAGE:
            try:
                return ON_PAGE[self.action](self)
            except Refused:
                raise
            except XboardError as error:
                raise Refused(507, str(error)) from None
        if self.action not in ON_CIRCUSD:
            raise Refused(400, Answer.NO_ACTION())
        done = await run_sync(self._order_circusd, abandon_on_cancel=True)
        for server in self.hub.servers.values():
            server.ask_soon()
        return done

    def _order_circusd(self) -> str:
        try:
            return ON_CIRCUSD[self.action](self)
        except CommandRefused as refused:
            raise Refused(409, str(masked(str(refused)))) from None
        except CircusdGone as gone:
            raise Refused(504 if gone.listening else 503, str(gone)) from None

    # What is meant

    def text(self, name: str) -> str:
        """Return a field that has to be there."""
        value = self.given.get(name)
        if not isinstance(value, str) or not value:
            raise Refused(400, Answer.NEEDS(action=self.action, name=name))
        return value

    def number(self, name: str) -> int:
        """Return a field that has to be a whole number."""
        value = self.given.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise Refused(400, Answer.NEEDS_NUMBER(action=self.action, name=name))
        return value

    @functools.cached_property
    def server(self) -> Server:
        """The circusd that is meant."""
        server = self.hub.servers.get(str(self.given.get("server", LOCAL)))
        if server is None:
            raise Refused(404, Answer.NO_SERVER())
        return server

    def watcher(self, *, armed: bool = False) -> Mapping[str, Any]:
        """Return the watcher that is meant, as circusd reported it."""
        found = self.server.watcher(self.text("watcher"))
        if found is None:
            raise Refused(404, Answer.NO_WATCHER())
        if armed and not found["armed"]:
            raise Refused(409, Answer.NOT_ARMED(watcher=found["name"]))
        return found

    def worker(self, watcher: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the worker that is meant; refused where another process has the pid by now."""
        pid = self.number("pid")
        for worker in watcher["workers"]:
            if worker["pid"] == pid and self.given.get("started") in (None, worker["started"]):
                return dict(worker)
        raise Refused(404, Answer.WORKER_IS_GONE(watcher=watcher["name"]))

    def call(self, command: str, **properties: Any) -> Any:
        with CircusdClient(self.server.endpoint) as client:
            return client.call(command, deadline=self.hub.settings.order, by=self.by, **properties)

    # What is done

    def command(self, verb: str, done: Answer) -> str:
        name = self.watcher()["name"]
        self.call(verb, name=name, match="simple", waiting=False)
        return done(watchers=name)

    def count(self, verb: str, done: Answer) -> str:
        name = self.watcher()["name"]
        number = self.call(verb, name=name, nb=1).get("numprocesses")
        return done(watcher=name) if number is None else Answer.HAS_PROCESSES(watcher=name, n=number)

    def reload(self) -> str:
        name = self.watcher(armed=True)["name"]
        self.call("xboard_reload", name=name)
        return Answer.RELOADS(watcher=name)

    def all(self, verb: str, done: Answer) -> str:
        """Give one order for all watchers, but those that Circus or we ourselves are."""
        own = {self.hub.settings.watcher, HTTPD} if self.server.id == LOCAL else {HTTPD}
        shown = self.server.told or {"watchers": []}
        names = [each["name"] for each in shown["watchers"] if each["name"] not in own and not is_helper(each["name"])]
        if not names:
            raise Refused(409, Answer.NO_WATCHERS())
        # One command and not one for each: circusd refuses a second one while the first is at work.
        pattern = "|".join(re.escape(name.lower()) for name in names)
        self.call(verb, name=f"(?:{pattern})$", match="regex", waiting=False)
        return done(watchers=", ".join(names))

    def kill(self) -> str:
        watcher = self.watcher()
        pid = self.worker(watcher)["pid"]
        self.call("kill", name=watcher["name"], pid=pid, waiting=False)
        return Answer.TOLD_TO_END(pid=pid, watcher=watcher["name"])

    def retry(self) -> str:
        """Start a held slot now, without waiting for the end of its pause."""
        watcher, slot = self.watcher(), self.number("slot")
        if not any(each.get("slot") == slot and each.get("phase") == "held" for each in watcher["workers"]):
            raise Refused(409, Answer.NOT_HELD(watcher=watcher["name"], slot=slot))
        self.call("xboard_retry", name=watcher["name"], slot=slot)
        return Answer.RETRIES(slot=slot, watcher=watcher["name"])

    def replace(self) -> str:
        watcher = self.watcher(armed=True)
        worker = self.worker(watcher)
        which = {"name": watcher["name"], "pid": worker["pid"], "started": worker["started"]}
        self.call("xboard_replace", **which, kind="operator", probed_at=0, reason=self.by)
        return Answer.REPLACES(pid=worker["pid"], watcher=watcher["name"])

    def add_watcher(self) -> str:
        if not self.hub.settings.allow_add:
            raise Refused(403, Answer.NO_ADDING())
        name, cmd, folder = self.text("name"), self.text("cmd"), self.given.get("working_dir")
        count = 1 if self.given.get("numprocesses") in (None, "") else self.number("numprocesses")
        for is_right, refusal in (
            (_NAME.fullmatch(name), Answer.ODD_NAME()),
            (cmd.isprintable() and len(cmd) <= 2000, Answer.ODD_COMMAND()),
            (1 <= count <= MOST_PROCESSES, Answer.ODD_NUMBER(n=MOST_PROCESSES)),
            (not folder or _is_folder(folder), Answer.ODD_FOLDER()),
        ):
            if not is_right:
                raise Refused(400, refusal)
        options = {"numprocesses": count, "copy_env": True, **({"working_dir": folder} if folder else {})}
        self.call("add", name=name, cmd=cmd, start=True, options=options)
        return Answer.ADDED(watcher=name)

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


def _is_folder(folder: object) -> bool:
    return isinstance(folder, str) and os.path.isabs(folder) and folder.isprintable()


Act = Callable[[ActionOrder], str]
ON_PAGE: Mapping[str, Act] = {"add_server": ActionOrder.add_server, "remove_server": ActionOrder.remove_server}
ON_CIRCUSD: Mapping[str, Act] = {
    "start": lambda order: order.command("start", Answer.STARTED),
    "stop": lambda order: order.command("stop", Answer.STOPS),
    "restart": lambda order: order.command("restart", Answer.RESTARTS),
    "reload": ActionOrder.reload,
    "incr": lambda order: order.count("incr", Answer.ONE_MORE),
    "decr": lambda order: order.count("decr", Answer.ONE_LESS),
    "start_all": lambda order: order.all("start", Answer.STARTED),
    "stop_all": lambda order: order.all("stop", Answer.STOPS),
    "restart_all": lambda order: order.all("restart", Answer.RESTARTS),
    "kill": ActionOrder.kill,
    "retry": ActionOrder.retry,
    "replace": ActionOrder.replace,
    "add_watcher": ActionOrder.add_watcher,
}
