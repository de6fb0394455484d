"""Replace Circus's own `reload` and `restart` by rolling reloads."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from circus.exc import MessageError

from xboard_circus.supervisor.bus.requests import who
from xboard_circus.supervisor.patches import circus_arbiter
from xboard_circus.supervisor.patches.circus_controller import watch_command
from xboard_circus.supervisor.patches.patch import Patch
from xboard_circus.supervisor.replace import rolling

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

Execute = Callable[[Any, dict[str, Any]], Any]


def patches(supervisor: "Supervisor") -> list[Patch]:
    """Return the patches that replace Circus's own reload by the rolling one."""
    known = circus_arbiter.commands(supervisor.arbiter)
    ours = {"reload": run, "restart": restart}
    return [watch_command(known[name], partial(ours[name], supervisor)) for name in ours if name in known]


def restart(supervisor: "Supervisor", execute: Execute) -> Execute:
    """Return the command `restart`: workers are reloaded if they can be, the rest stops and starts.

    Workers without a socket of Circus's are not reloaded: their server may bind its port itself, whatever its command,
    and then no new one starts beside the old one.

    By name a watcher is reloaded only while something serves: a start forgets the failures of its slots. Without a
    name, watchers in `but`, or stopped by an operator, are left alone; Circus would stop everything, and make a new
    arbiter in this process.
    """

    def restart(arbiter: Any, props: dict[str, Any]) -> Any:
        named, left_out = supervisor.requests.names_of(props), {str(name) for name in props.get("but") or ()}

        def is_wanted(watcher: Any) -> bool:
            if named is None:
                return watcher.name not in left_out and not supervisor.stays_stopped(watcher)
            return watcher.name.lower() in named

        wanted = list(filter(is_wanted, arbiter.watchers))
        armed = [supervisor.armed[watcher.name] for watcher in wanted if watcher.name in supervisor.armed]
        able = [each for each in armed if each.reloads_rolling() and not each.why_alone() and each.port.socket()]
        before = {each: each.reload for each in able if named is None or each.fleet.up() or each.port.predecessors()}
        if named is not None and not before:
            return execute(arbiter, props)
        reloaded = [each.watcher for each in before]
        rest = [watcher for watcher in wanted if watcher not in reloaded]
        # First what Circus may refuse because another command runs: then nothing has begun.
        begun = circus_arbiter.restart_watchers(arbiter, rest) if rest else None
        for each in before:
            try:
                rolling.begin(each, by=who(props))
            except MessageError as error:
                if named is not None and not rest and len(before) == 1:
                    raise
                each.note_reason(str(error))
        return asyncio.ensure_future(rolling.outcome(before, begun)) if props.get("waiting") else begun or {}

    return restart


def run(supervisor: "Supervisor", execute: Execute) -> Execute:
    """Return the command: a refusal is its answer; with `waiting` the answer comes after all reloads."""

    def reload(arbiter: Any, props: dict[str, Any]) -> Any:
        name = str(props.get("name") or "")
        named = circus_arbiter.registered(arbiter, name)
        concerned = [
            armed
            for armed in supervisor.armed.values()
            if armed.reloads_rolling() and (not name or armed.watcher is named)
        ]
        if not props.get("graceful", True) or not concerned:
            return execute(arbiter, props)
        before = {armed: armed.reload for armed in concerned}
        begun: Awaitable[Any] | None = None
        if name:
            rolling.begin(concerned[0], by=who(props))
        else:
            begun = execute(arbiter, props)
        return asyncio.ensure_future(rolling.outcome(before, begun)) if props.get("waiting") else begun or {}

    return reload
