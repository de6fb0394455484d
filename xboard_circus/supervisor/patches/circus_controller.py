"""Patch Circus's Controller: add our commands to its own, and record the sender of each."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from circus.commands import errors

from xboard_circus.core.sentences import Say
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
def dispatch(
    original: Original,
    arbiter: Any,
    by_signal: Callable[[bool], None],
    end: Callable[[Callable[[], object]], object],
) -> Original:
    """Refuse what is no command, mark the commands that come from a signal to circusd, and let *end* decide on a quit.

    Without it: JSON of another form logs three tracebacks a message, and gets no answer; a SIGTERM to circusd looks
    like a command of an operator, and ends all workers although systemd restarts the service.
    Fact: Circus reads fields of whatever the JSON is, and a name's letters whatever the name is; it turns a signal into
    a job without a sender.
    """

    def dispatch(job: Any) -> Any:
        sender, message = job
        if not _is_command(message):
            return arbiter.ctrl.send_error(None, sender, message, Say.NO_COMMAND(), errno=errors.INVALID_JSON)
        if sender is None and json.loads(message)["command"] == "quit":
            return end(lambda: marked(job))
        return marked(job)

    def marked(job: Any) -> Any:
        by_signal(job[0] is None)
        try:
            return original(job)
        finally:
            by_signal(False)

    return dispatch


@replaces("Controller.send_response", at=lambda arbiter: arbiter.ctrl)
def answer_empty_messages(original: Original, _: object) -> Original:
    """Answer an empty message with an error.

    Without it: Each empty message logs three tracebacks, and gets no answer.
    Fact: Circus passes a text to a method that raises DeprecationWarning for one.
    """

    def send_response(mid: Any, cid: Any, msg: Any, resp: Any, cast: bool = False) -> None:
        original(mid, cid, msg, {"status": "error", "reason": resp} if isinstance(resp, str) else resp, cast)

    return send_response


def _is_command(message: bytes | str) -> bool:
    try:
        given = json.loads(message)
    except (ValueError, RecursionError):
        return False
    if not isinstance(given, Mapping) or not isinstance(given.get("command"), str):
        return False
    properties = given.get("properties", {})
    return isinstance(properties, Mapping) and isinstance(properties.get("name", ""), str)
