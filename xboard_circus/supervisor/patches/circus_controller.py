"""Patch Circus's Controller: add our commands to its own, and record the sender of each."""

import json
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from circus.commands import errors

from xboard_circus.core.reason import one_line, raised
from xboard_circus.core.sentences import Say
from xboard_circus.supervisor.patches.patch import Original, replaces, wraps

_PROPERTIES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "option"), (str,)),
    **dict.fromkeys(("waiting", "graceful", "sequential", "start", "children", "recursive", "nostop"), (bool,)),
    **dict.fromkeys(("nb", "process"), (int,)),
    **dict.fromkeys(("pid", "signum"), (int, str)),
    "graceful_timeout": (int, float, str),
    "options": (dict,),
    **dict.fromkeys(("keys", "but"), (list,)),
}
"""The types of properties, as Circus takes them: `circusctl kill` sends numbers as texts."""


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
    original: Original, arbiter: Any, by_signal: Callable[[bool], None], end: Callable[[Callable[[], object]], object]
) -> Original:
    """Refuse what is no command or has a wrong type, mark commands by a signal to circusd, let *end* decide on a quit.

    Without it: JSON of another form logs three tracebacks a message, and gets no answer; a value of a wrong type ends
    workers, or every start after it; a SIGTERM to circusd looks like a command of an operator, and ends all workers
    although systemd restarts the service.
    Fact: Circus reads fields of whatever the JSON is, and a name's letters whatever the name is; it turns a signal into
    a job without a sender.
    """

    def dispatch(job: Any) -> Any:
        sender, message = job
        given = _parsed(message)
        if refusal := _refusal(given):
            return arbiter.ctrl.send_error(given.get("id"), sender, message, refusal, errno=errors.MESSAGE_ERROR)
        if sender is None and given["command"] == "quit":
            return end(lambda: marked(job))
        return marked(job)

    def marked(job: Any) -> Any:
        by_signal(job[0] is None)
        try:
            return original(job)
        finally:
            by_signal(False)

    return dispatch


@wraps("Controller.send_response", at=lambda arbiter: arbiter.ctrl)
def answer_empty_messages(original: Original, _: object, mid: Any, cid: Any, msg: Any, resp: Any, **cast: bool) -> None:
    """Answer an empty message with an error.

    Without it: Each empty message logs three tracebacks, and gets no answer.
    Fact: Circus passes a text to a method that raises DeprecationWarning for one.
    """
    original(mid, cid, msg, {"status": "error", "reason": resp} if isinstance(resp, str) else resp, **cast)


def _parsed(message: bytes | str) -> Mapping[str, Any]:
    try:
        given = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, Mapping) else {}


def _refusal(given: Mapping[str, Any]) -> str:
    """Return why a command of wrong form is refused, "" for one that may run."""
    properties = given.get("properties", {})
    if not isinstance(given.get("command"), str) or not isinstance(properties, Mapping):
        return Say.NO_COMMAND()
    try:
        for name, value in properties.items():
            if type(value) not in _PROPERTIES.get(name, (type(value),)):
                return one_line(f"{name} = {reprlib.repr(value)}: wrong type")
        text = "" if given["command"].startswith("xboard_") else json.dumps(properties, ensure_ascii=False)
        if re.search(r"(?<!\\)(\\\\)*\\u0000", text):
            return "it has a NUL, which no text may have: take it out"
        text.encode()
        if properties.get("match") == "regex":
            re.compile(properties.get("name", ""))
    except (re.error, OverflowError, RecursionError, UnicodeError) as error:
        return one_line(f"it cannot be read: {raised(error)}; correct it")
    return ""
