"""Circus's Controller: commands of ours beside its own, and who asked for which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xboard_circus.supervisor.patches.patch import Original, Patch


class AddCommand(Patch):
    """One command of ours beside Circus's own."""

    of = "Controller"
    name = "commands"
    without = "No client could query the state of circusd, or report to it."
    fact = "The controller copies the list of commands when it is built, before any hook runs."

    def __init__(self, arbiter: Any, command: Any) -> None:
        super().__init__(arbiter.ctrl)
        self._command = command
        self._known: Any = None

    def install(self) -> None:
        # Circus collects each command class as soon as it is imported, so it may know one of this name already.
        self._known = self._target.commands.get(self._command.name)
        self._target.commands[self._command.name] = self._command

    def undo(self) -> None:
        if self._target.commands.get(self._command.name) is not self._command:
            return
        if self._known is None:
            del self._target.commands[self._command.name]
        else:
            self._target.commands[self._command.name] = self._known


class WatchCommand(Patch):
    """See one of Circus's commands that changes something before and after it runs."""

    of = "Command"
    name = "execute"
    without = "Who asked for a stop is unknown, so `why` cannot show it."
    fact = "Circus logs no command at all."

    def __init__(self, command: Any, watched: Callable[[Original], Original]) -> None:
        super().__init__(command)
        self._watched = watched

    def replacement(self, original: Original) -> Original:
        return self._watched(original)


class Dispatch(Patch):
    """Know which commands come from a signal to circusd."""

    of = "Controller"
    name = "dispatch"
    without = "A SIGTERM to circusd looks like a command of somebody's."
    fact = "Circus turns a signal into a job without a sender."

    def __init__(self, arbiter: Any, by_signal: Callable[[bool], None]) -> None:
        super().__init__(arbiter.ctrl)
        self._by_signal = by_signal

    def replacement(self, original: Original) -> Original:
        def dispatch(job: Any) -> Any:
            self._by_signal(job[0] is None)
            try:
                return original(job)
            finally:
                self._by_signal(False)

        return dispatch
