"""End circusd without the workers that its successor takes over, and find beforehand which cannot stay."""

import signal
import time
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.cli.launching import Launched
from xboard_circus.cli.screen import Progress, ignored
from xboard_circus.cli.stopping import SLACK, children_of, gone, kill_rest, send
from xboard_circus.config import WatcherConfig, is_armed, is_dashboard
from xboard_circus.core.ports import Policy
from xboard_circus.core.state_schema import PortEntry
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, procs, runtime, sockets
from xboard_circus.host.procs import Identity
from xboard_circus.instance import Instance, Silent
from xboard_circus.snapshot import Snapshot
from xboard_circus.worker import runs_worker

LAST_MOMENT = 3.0  # that a circusd may need to end after closing its endpoint


def why_alone(watcher: WatcherConfig) -> str:
    """Return why the workers of *watcher* cannot serve beside those of another circusd; "" where they can."""
    port = watcher.options.port
    for is_so, why in (
        (not is_armed(watcher), "it is not armed"),
        (watcher.singleton, "it is a singleton"),
        (not watcher.sockets_used, f"its server binds port {port.port} by itself" if port.port else "it has no socket"),
        (not watcher.respawn, "it has respawn = False"),
        (port.policy == Policy.NEVER.value, "it has port.policy = never"),
        (not runs_worker(watcher.cmd, watcher.args), "its command is not `python -m xboard_circus.worker`"),
    ):
        if is_so:
            return why
    return ""


class Costs(NamedTuple):
    """Costs of a new circusd on the ini file for the running watchers.

    Attributes:
        stopped: The watchers with workers that end before the new ones start, by name, with the reason.
        losing: Those of them that lose requests: they listen, and are not our page.
        ending: Watchers whose workers end for good, by name, with the reason.
    """

    stopped: dict[str, str]
    losing: frozenset[str]
    ending: dict[str, str]


def costs(instance: Instance, found: Snapshot) -> Costs:
    """Compare the running watchers with the ini file."""
    stopped, losing, ending = {}, set(), {}
    is_supervised = any(is_armed(watcher) and watcher.autostart for watcher in instance.config.watchers)
    for running in found.watchers:
        name, port = running["name"], running["port"]
        watcher = instance.config.find(name)
        if running["status"] != "active":
            continue
        if watcher is None:
            if not is_supervised and running["armed"]:  # else the next circusd ends its workers, beside its own
                ending[name] = "the file has it no more"
            continue
        if not watcher.autostart:
            ending[name] = "it has autostart = False"
            continue
        if why := why_alone(watcher) or _moves(instance, watcher, port):
            stopped[name] = why
            if (port or watcher.sockets_used) and not is_dashboard(watcher):
                losing.add(name)
    return Costs(stopped, frozenset(losing), ending)


def _moves(instance: Instance, watcher: WatcherConfig, now: PortEntry | None) -> str:
    """Return how the address of *watcher* changes; "" if it stays, or is unknown."""
    new = instance.config.socket(watcher.sockets_used[0])
    if new is None or now is None or new.port == 0:
        return ""
    if new.path is not None or not now["port"]:
        old = f"{now['host']}:{now['port']}" if now["port"] else now["host"]
        fresh = new.path or f"{new.host}:{new.port}"
        return "" if old == fresh else f"its address changes from {old} to {fresh}"
    try:
        hosts = {target.sockaddr[0] for target in sockets.targets(new.host, new.port or 0)}
    except XboardError:
        return ""
    if new.port == now["port"] and now["host"] in hosts:
        return ""
    return f"its address changes from {now['host']}:{now['port']} to {new.host}:{new.port}"


class Departure(NamedTuple):
    """A circusd that ends without its workers.

    Attributes:
        others: Its other processes, which end with it.
        user: That of circusd.
        patience: Seconds that the others may take.
    """

    circusd: Identity
    others: list[Identity]
    user: int | None
    patience: float

    def await_end(self, progress: Progress) -> None:
        """Wait until circusd and the others are gone; kill what has not ended in time."""
        if gone([self.circusd], self.user, progress, give_up_at=time.monotonic() + self.patience + SLACK):
            send(self.others, signal.SIGTERM, self.user)  # one still runs only if circusd was killed
            gone(self.others, self.user, progress, give_up_at=time.monotonic() + self.patience + SLACK)
        kill_rest([self.circusd, *self.others], self.user, progress)


def leave(instance: Instance, found: Snapshot | Silent, successor: Launched, progress: Progress) -> Departure | None:
    """Have the circusd that was *found* end without the workers that can stay; None, with nothing done, without such.

    One that hangs, or has no such command (an older release), is killed: its workers serve on, too. The
    *successor* waits until then.
    """
    circusd = found.identity
    stopped = {}
    if isinstance(found, Snapshot):
        expected = costs(instance, found)
        stopped = expected.stopped | expected.ending
    staying = {each.name for each in instance.config.watchers if not why_alone(each) and each.name not in stopped}
    ending = [each.graceful_timeout for each in instance.config.watchers if each.name not in staying]
    patience = max(ending, default=0.0)
    silent = found.why if isinstance(found, Silent) else ""
    stays = {each.pid for each, (watcher, _) in circusd_record.workers(instance.id).items() if watcher in staying}
    try:
        if not silent:
            with instance.client() as client:
                answer = client.leave(but=stopped, gate=successor.gate)
                staying, stays = set(answer), {pid for pids in answer.values() for pid in pids}
    except CircusdGone as error:
        # One that has nothing to wait for ends before its answer is out, or before the client believes it.
        if error.listening or not gone([circusd], instance.user, progress, give_up_at=time.monotonic() + LAST_MOMENT):
            silent = str(error)
    except CommandRefused as refused:
        if successor.process.poll() is not None:
            raise XboardError(f"{refused.reason}; nothing was stopped; its log is {successor.log}") from refused
        if "unknown command" not in refused.reason:
            progress.report("how", f"no worker can serve on meanwhile: {refused.reason}")
            return None
        silent = str(refused)
    if silent and (crowded := instance.crowded_out(circusd)):
        # Killed, it would leave its port to whoever makes these connections.
        if successor.withdraw():
            raise XboardError(f"{crowded}; nothing was stopped")
        silent = ""  # it leaves, though its answer did not come through
    departure = Departure(circusd, _others(children_of(instance, found)(), staying, stays), instance.user, patience)
    if silent:
        progress.report("how", f"circusd (pid {circusd.pid}) is killed, its workers serve on: {silent}")
        circusd_record.order_end(instance.id)
    # A Ctrl-C in between would withdraw the successor of a circusd that is dead.
    with ignored(signal.SIGINT):
        if silent:
            send([circusd], signal.SIGKILL, instance.user)
        if successor.gate is not None:
            with suppress(XboardError):  # circusd has released it already
                runtime.name_successor(instance.id, successor.gate)
    return departure


def _others(children: Collection[Identity], staying: Collection[str], stays: Collection[int]) -> list[Identity]:
    """Return the *children* of circusd that do not stay: plugins, and workers of other watchers.

    The workers that stay are known by their pids (*stays*), because their environment may be unreadable; what else
    belongs to a watcher that stays, such as its forkserver, by its mark.
    """
    left = [each for each in children if each.pid not in stays]
    return [each for each in left if (procs.marks(each.pid) or {}).get("XBOARD_WATCHER") not in staying]
