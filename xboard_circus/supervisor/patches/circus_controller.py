"""Circus's Controller: our commands beside its own, and the sender of each."""

from collections.abc import Callable
from typing import Any

from xboard_circus.supervisor.patches.patch import Original, replaces


@replaces("Controller.commands", at=lambda arbiter: arbiter.ctrl)
def add_commands(original: dict[str, Any], _: object, ours: list[Any]) -> dict[str, Any]:
    """Add our commands to Circus's own.

    Without it: No client could query the state of circusd, or report to it.
    Fact: The controller copies the list of commands when it is built, before any hook runs.
    """
    return original | {command.name: command for command in ours}


@replaces("Command.execute")
def watch_command(original: Original, _: object, watched: Callable[[Original], Original]) -> Original:
    """See one of Circus's commands that changes something before and after it runs.

    Without it: The sender of a stop request is unknown, so `why` cannot show it.
    Fact: Circus logs no command at all.
    """
    return watched(original)


@replaces("Controller.dispatch", at=lambda arbiter: arbiter.ctrl)
def dispatch(original: Original, _: object, by_signal: Callable[[bool], None]) -> Original:
    """Mark the commands that come from a signal to circusd.

    Without it: A SIGTERM to circusd looks like a command of an operator.
    Fact: Circus turns a signal into a job without a sender.
    """

    def dispatch(job: Any) -> Any:
        by_signal(job[0] is None)
        try:
            return original(job)
        finally:
            by_signal(False)

    return dispatch
