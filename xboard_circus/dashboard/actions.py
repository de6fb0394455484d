"""What an administrator may have done on the page: this list and nothing else. Each order says who gave it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOrder:
    """What was asked for, and by whom."""

    action: str
    given: Mapping[str, Any]
    by: str

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


async def carry_out(hub: Hub, order: ActionOrder) -> str:
    """Do it and return what was done, or raise Refused. Circusd is waited for in a thread."""
    on_page = ON_PAGE.get(order.action)
    if on_page is not None:
        try:
            return on_page(hub, order)
        except Refused:
            raise
        except XboardError as error:
            raise Refused(507, str(error)) from None
    done = str(await hub.in_thread(_order_circusd, hub, order))
    for server in hub.servers.values():
        server.ask_soon()
    return done


def _order_circusd(hub: Hub, order: ActionOrder) -> str:
    of_circusd = ON_CIRCUSD.get(order.action)
    if of_circusd is None:
        raise Refused(400, Answer.NO_ACTION())
    server = hub.servers.get(str(order.given.get("server", LOCAL)))
    if server is None:
        raise Refused(404, Answer.NO_SERVER())
    try:
        with CircusdClient(server.endpoint) as client:
            return of_circusd(Orders(hub, server, client, order))
    except CommandRefused as refused:
        raise Refused(409, str(masked(str(refused)))) from None
    except CircusdGone as gone:
        raise Refused(504 if gone.listening else 503, str(gone)) from None


class Orders:
    """One order to one circusd."""

    def __init__(self, hub: Hub, server: Server, client: CircusdClient, order: ActionOrder) -> None:
        self.hub = hub
        self.server = server
        self.client = client
        self.order = order

    def call(self, command: str, **properties: Any) -> Any:
        deadline = self.hub.settings.order
        return self.client.call(command, deadline=deadline, by=self.order.by, **properties)

    def watcher(self) -> Mapping[str, Any]:
        """Return the watcher that is meant, as circusd told of it."""
        found = self.server.watcher(self.order.text("watcher"))
        if found is None:
            raise Refused(404, Answer.NO_WATCHER())
        return found

    def worker(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the watcher and its worker; refused where another process has the pid by now."""
        watcher, pid = self.watcher(), self.order.number("pid")
        for worker in watcher["workers"]:
            if worker["pid"] == pid and self.order.given.get("started") in (None, worker["started"]):
                return watcher, worker
        raise Refused(404, Answer.WORKER_IS_GONE(watcher=watcher["name"]))

    def slot(self) -> tuple[Mapping[str, Any], int]:
        """Return the watcher and the slot of a worker that is held; refused where no worker is held there."""
        watcher, slot = self.watcher(), self.order.number("slot")
        for worker in watcher["workers"]:
            if worker.get("slot") == slot and worker.get("phase") == "held":
                return watcher, slot
        raise Refused(409, Answer.NOT_HELD(watcher=watcher["name"], slot=slot))

    def command(self, verb: str, done: Answer) -> str:
        name = self.watcher()["name"]
        self.call(verb, name=name, match="simple", waiting=False)
        return done(watchers=name)

    def count(self, verb: str) -> str:
        name = self.watcher()["name"]
        number = self.call(verb, name=name, nb=1).get("numprocesses")
        if number is not None:
            return Answer.HAS_PROCESSES(watcher=name, n=number)
        return (Answer.ONE_MORE if verb == "incr" else Answer.ONE_LESS)(watcher=name)

    def reload(self) -> str:
        watcher = self.watcher()
        if not watcher["armed"]:
            raise Refused(409, Answer.NOT_ARMED(watcher=watcher["name"]))
        self.call("xboard_reload", name=watcher["name"])
        return Answer.RELOADS(watcher=watcher["name"])

    def all(self, verb: str, done: Answer) -> str:
        """Give one order for all watchers, but those that Circus or we ourselves are."""
        own = {self.hub.settings.watcher, HTTPD} if self.server.id == LOCAL else {HTTPD}
        told = self.server.told or {"watchers": []}
        names = [each["name"] for each in told["watchers"] if each["name"] not in own and not is_helper(each["name"])]
        if not names:
            raise Refused(409, Answer.NO_WATCHERS())
        # One command and not one for each: circusd refuses a second one while the first is at work.
        pattern = "|".join(re.escape(name.lower()) for name in names)
        self.call(verb, name=f"(?:{pattern})$", match="regex", waiting=False)
        return done(watchers=", ".join(names))

    def kill(self) -> str:
        watcher, worker = self.worker()
        self.call("kill", name=watcher["name"], pid=worker["pid"], waiting=False)
        return Answer.TOLD_TO_END(pid=worker["pid"], watcher=watcher["name"])

    def retry(self) -> str:
        """Start a held slot now, without waiting for the end of its pause."""
        watcher, slot = self.slot()
        self.call("xboard_retry", name=watcher["name"], slot=slot)
        return Answer.RETRIES(slot=slot, watcher=watcher["name"])

    def replace(self) -> str:
        watcher, worker = self.worker()
        if not watcher["armed"]:
            raise Refused(409, Answer.NOT_ARMED(watcher=watcher["name"]))
        self.call(
            "xboard_replace",
            name=watcher["name"],
            pid=worker["pid"],
            started=worker["started"],
            kind="operator",
            probed_at=0,
            reason=self.order.by,
        )
        return Answer.REPLACES(pid=worker["pid"], watcher=watcher["name"])

    def add_watcher(self) -> str:
        if not self.hub.settings.allow_add:
            raise Refused(403, Answer.NO_ADDING())
        name, cmd = self.order.text("name"), self.order.text("cmd")
        if not _NAME.fullmatch(name):
            raise Refused(400, Answer.ODD_NAME())
        if not cmd.isprintable() or len(cmd) > 2000:
            raise Refused(400, Answer.ODD_COMMAND())
        options: dict[str, Any] = {"numprocesses": 1, "copy_env": True}
        if self.order.given.get("numprocesses") not in (None, ""):
            options["numprocesses"] = self.order.number("numprocesses")
        if not 1 <= options["numprocesses"] <= MOST_PROCESSES:
            raise Refused(400, Answer.ODD_NUMBER(n=MOST_PROCESSES))
        folder = self.order.given.get("working_dir")
        if folder:
            if not isinstance(folder, str) or not os.path.isabs(folder) or not folder.isprintable():
                raise Refused(400, Answer.ODD_FOLDER())
            options["working_dir"] = folder
        self.call("add", name=name, cmd=cmd, start=True, options=options)
        return Answer.ADDED(watcher=name)


def _add_server(hub: Hub, order: ActionOrder) -> str:
    endpoint, label = order.text("endpoint"), order.given.get("label") or ""
    if not is_endpoint(endpoint):
        raise Refused(400, Answer.ODD_ENDPOINT())
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise Refused(400, Answer.ODD_LABEL())
    return Answer.SHOWS(label=hub.add_server(label, endpoint).label)


def _remove_server(hub: Hub, order: ActionOrder) -> str:
    if not hub.remove_server(order.text("id")):
        raise Refused(404, Answer.NO_SERVER_TO_REMOVE())
    return Answer.SHOWS_NO_LONGER()


ON_PAGE: Mapping[str, Callable[[Hub, ActionOrder], str]] = {"add_server": _add_server, "remove_server": _remove_server}
ON_CIRCUSD: Mapping[str, Callable[[Orders], str]] = {
    "start": lambda orders: orders.command("start", Answer.STARTED),
    "stop": lambda orders: orders.command("stop", Answer.STOPS),
    "restart": lambda orders: orders.command("restart", Answer.RESTARTS),
    "reload": Orders.reload,
    "incr": lambda orders: orders.count("incr"),
    "decr": lambda orders: orders.count("decr"),
    "start_all": lambda orders: orders.all("start", Answer.STARTED),
    "stop_all": lambda orders: orders.all("stop", Answer.STOPS),
    "restart_all": lambda orders: orders.all("restart", Answer.RESTARTS),
    "kill": Orders.kill,
    "retry": Orders.retry,
    "replace": Orders.replace,
    "add_watcher": Orders.add_watcher,
}
