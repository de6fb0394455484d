"""Make `circusctl reloadconfig` safe: refuse a file with errors; apply options without a stop of any worker.

Circus 0.19 stops a watcher and starts it anew when one of its options changes, and ignores a new one; on a changed
[socket:...] it listens where no worker accepts; on a changed [circus] it stops and starts every worker, keeps the old
value, and does so again at each later call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from circus.exc import MessageError

from xboard_circus.core.ports import renamed
from xboard_circus.core.reason import raised
from xboard_circus.core.sentences import Say
from xboard_circus.options.circus import HARM_ARMED, misset
from xboard_circus.options.kinds import WrongValueError
from xboard_circus.options.reading import shown
from xboard_circus.supervisor.patches import circus_arbiter, circus_process, circus_watcher
from xboard_circus.supervisor.replace import rolling

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor
    from xboard_circus.supervisor.watcher import ArmedWatcher


def reconfigure(
    supervisor: "Supervisor", config_file: str | None, original: Callable[[], Awaitable[Any]]
) -> Awaitable[Any]:
    """Check the file, apply changed options to armed watchers, and have Circus do the rest by *original*.

    Circus fails at a changed or removed socket that any watcher names, when it has closed the socket already and
    listens on the new one, where no process accepts. So another address is refused, a backlog is applied here, and a
    socket that goes together with its watcher is taken out before, and closed after it.

    Raises MessageError, the answer to the operator, if the file is refused or Circus would do harm.
    """
    arbiter, file = supervisor.arbiter, config_file or supervisor.config_file
    refuse_unsound(file)
    config = _read(file)
    if changed := circus_arbiter.changed_circus_options(arbiter, config):
        raise MessageError(Say.INI_CIRCUS_CHANGED(names=", ".join(changed)))
    named = {name for watcher in arbiter.watchers for name in circus_process.sockets_named(watcher)}
    sockets = {
        name: options
        for name in named & arbiter.sockets.keys()
        if (options := circus_arbiter.changed_socket_options(arbiter, name, config))
    }
    gone = sockets.keys() - {each["name"] for each in config.get("sockets", [])}
    for name, options in sockets.items():
        if name not in gone and options != {"backlog"}:
            raise MessageError(Say.INI_SOCKET_CHANGED(name=name))
    sections = {each["name"]: circus_watcher.parsed(each) for each in config.get("watchers", [])}
    _refuse_renamed(supervisor, sections)
    armed = [each for name, each in supervisor.armed.items() if name in sections]
    changes = [change for each in armed if (change := _change(each, sections[each.name], file)) is not None]
    for name in sockets.keys() - gone:
        circus_arbiter.take_over_backlog(arbiter, name, config)
    for each in armed:
        circus_watcher.take_over_options(each.watcher, sections[each.name])
        each.options_changed()
    for change in changes:
        change.apply()
    taken_out, reloads = circus_arbiter.take_out(arbiter, gone), [change for change in changes if change.needs_reload]
    before = {change.armed: change.armed.reload for change in reloads}
    begun = asyncio.ensure_future(original())
    for change in reloads:
        change.armed.begin_reload()
        if (reload := change.armed.reload) is not None and reload is not before[change.armed]:
            reload.put_back = partial(change.put_back_after, begun)

    async def finish() -> dict[str, Any] | None:
        try:
            await begun
            # Circus would compare the next file with that of its boot.
            for shared in taken_out:
                shared.close()
            for name, section in sections.items():
                if (found := circus_arbiter.registered(arbiter, name)) is not None:
                    circus_watcher.take_over_number(found, section)
        finally:
            answer = await rolling.outcome(before)
            for change in reloads:
                if change.armed.reload is before[change.armed]:
                    change.put_back()  # it was refused
        return answer if reloads else None

    return asyncio.ensure_future(finish())


@dataclass
class _Change:
    """Changed options of Circus's, *names*, of an armed watcher; *made* is a watcher of Circus's that has them.

    Attributes:
        needs_reload: Its running workers have to be replaced for that.
    """

    armed: "ArmedWatcher"
    section: dict[str, Any]
    names: set[str]
    made: Any
    put_back: Callable[[], None] = lambda: None

    @property
    def needs_reload(self) -> bool:
        return not self.names <= circus_watcher.IN_PLACE and self.armed.is_running()

    def apply(self) -> None:
        watcher, in_place = self.armed.watcher, self.names & circus_watcher.IN_PLACE
        circus_watcher.take_over(watcher, self.made, self.section, in_place)
        for name in in_place & circus_watcher.STREAMS:
            getattr(watcher, name).write_into(getattr(self.made, name))
        if rest := self.names - in_place:
            self.put_back = circus_watcher.take_over(watcher, self.made, self.section, rest | {"env"})
            self.armed.give_environment()

    async def put_back_after(self, begun: asyncio.Future[Any]) -> None:
        """Put the old options back when Circus, which compares them, is done: the next call tries the new again."""
        await asyncio.wait([begun])
        self.put_back()


def _change(armed: "ArmedWatcher", section: dict[str, Any], file: str) -> _Change | None:
    """Return what changes for an armed watcher. Raises MessageError if it cannot be taken over while workers serve."""
    watcher = armed.watcher
    names = circus_watcher.changed_options(watcher, section)
    if not names:
        return None
    refusal = MessageError(Say.INI_WATCHER_CHANGED(name=armed.name, names=", ".join(sorted(names))))
    if names - circus_watcher.IN_PLACE - circus_watcher.BY_RELOAD:
        raise refusal
    try:
        made = circus_watcher.made_from(watcher, section, names)
    except Exception as error:  # whatever Circus raises for a value, such as a folder that is missing
        raise MessageError(Say.INI_UNREADABLE(file=file, error=raised(error))) from error
    change = _Change(armed, section, names, made)
    if (
        circus_process.sockets_named(made) != circus_process.sockets_named(watcher)
        or any(not (getattr(watcher, name) and getattr(made, name)) for name in names & circus_watcher.STREAMS)
        or (change.needs_reload and (armed.why_alone() or not armed.reloads_rolling()))
    ):
        raise refusal
    if change.needs_reload and armed.reload is not None and armed.reload.is_running:
        raise MessageError(Say.RELOAD_RUNS(watcher=armed.name, done=armed.reload.done))
    return change


def _refuse_renamed(supervisor: "Supervisor", sections: Mapping[str, dict[str, Any]]) -> None:
    """Raise MessageError where a new watcher is to serve on the socket of one that the file has no more.

    Circus ends the old one before it starts the new one: no process would accept meanwhile, and connections that wait
    are reset where the old one's end closes the listener.
    """
    served = {name: circus_process.sockets_named(each.watcher) for name, each in supervisor.armed.items()}
    wanted = {
        name: circus_process.sockets_named(SimpleNamespace(cmd=each.get("cmd", ""), args=each.get("args")))
        for name, each in sections.items()
    }
    if (found := renamed(served, wanted)) is not None:
        raise MessageError(Say.INI_WATCHER_RENAMED(name=found.new, socket=found.socket, gone=found.gone))


def refuse_unsound(file: str) -> None:
    """Raise MessageError, in the words of `check`, if *file* has errors."""
    try:
        from xboard_circus.checks.findings import Level  # imported for this command alone
        from xboard_circus.checks.judgement import judge
    except ImportError as error:  # what it needs of the modules in memory, an older version does not have
        cure = "another xboard-circus was installed since circusd started: run `xboard-circus restart`"
        raise MessageError(f"{cure} ({error})") from error

    if errors := [finding for finding in judge(file) if finding.level is Level.ERROR]:
        raise MessageError(Say.INI_REFUSED(file=file, why=[str(error) for error in errors]))


def refuse_options(props: Mapping[str, Any], armed: Collection[str]) -> None:
    """Raise MessageError, in the words of `check`, if a command brings an option with a value that no watcher takes.

    Or none of the *armed* ones: Circus sets it at once, and replaces the workers.
    """
    options = props.get("options")
    given = {**options} if isinstance(options, Mapping) else {}
    more = {"graceful_timeout": props.get("graceful_timeout"), "numprocesses": props.get("nb")}
    more |= {name: props[name] for name in ("cmd", "args", "signum") if props.get(name) is not None}
    for name, value in {**more, **given}.items():
        wrong = misset(str(name), value)
        if value and name in HARM_ARMED and str(props.get("name")).lower() in {each.lower() for each in armed}:
            wrong = WrongValueError(*HARM_ARMED[name])
        if wrong:
            raise MessageError(f"{name} = {shown(value)}: {wrong}")


def _read(file: str) -> dict[str, Any]:
    try:
        return circus_arbiter.read_config(file)
    except Exception as error:
        raise MessageError(Say.INI_UNREADABLE(file=file, error=raised(error))) from error
