"""Record the sender of each command that changes something: it is published, and named in the ends that follow."""

import asyncio
import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from circus.exc import ConflictError, MessageError

from xboard_circus.core.causes import signal_name
from xboard_circus.core.names import CHANGING, CIRCUSD
from xboard_circus.core.reason import one_line, reason_in, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.masking import safe_command
from xboard_circus.supervisor import reconfigure
from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.leave import EndBySignal
from xboard_circus.supervisor.patches import circus_arbiter, circus_process
from xboard_circus.supervisor.patches.circus_controller import answer_empty_messages, dispatch, watch_command
from xboard_circus.supervisor.patches.patch import Patch

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

CIRCUSCTL = "circusctl"
LONGEST = 120
TURN = 0.05
JUDGED = frozenset({"restart", "reload", "xboard_reload"})
"""Commands that replace workers: not carried out while `check` refuses the ini file."""


@dataclass
class Request:
    """One command that changes something.

    Attributes:
        names: The watchers of the command, in lower case; None for all.
        answer: The result of its work, or the future of it; None before it has begun.
    """

    command: str
    by: str
    details: str
    names: frozenset[str] | None
    answer: Any = None

    @property
    def asker(self) -> str:
        """Return the sender. circusctl gives no purpose, so the command is named beside it."""
        return Say.BY_CIRCUSCTL(command=self.command) if self.by == CIRCUSCTL else self.by

    def runs(self) -> bool:
        done = getattr(self.answer, "done", None)
        return self.answer is None or (done is not None and not done())


def who(props: Mapping[str, Any]) -> str:
    """Return the sender of a command, as it names itself."""
    return reason_in(props, "by", longest=LONGEST) or CIRCUSCTL


class Requests:
    """The current commands. It sees each of Circus's own commands first, and neither delays nor fails one."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._open: list[Request] = []
        self._is_signal = False

    def patches(self) -> list[Patch]:
        """Return the patches of Circus's own commands."""
        arbiter = self._supervisor.arbiter
        known = circus_arbiter.commands(arbiter)
        found: list[Patch] = [
            watch_command(known[name], partial(self._watched, name)) for name in sorted(CHANGING) if name in known
        ]
        end = EndBySignal(self._supervisor).end
        note_signal = partial(setattr, self, "_is_signal")
        return [*found, dispatch(arbiter, note_signal, end), answer_empty_messages(arbiter)]

    @contained(None)
    def asker_of(self, watcher: str) -> str | None:
        """Return the sender of the command that runs on *watcher*; None without one."""
        for request in reversed(self._open):
            if request.runs() and (request.names is None or watcher.lower() in request.names):
                return request.asker
        return None

    def _watched(self, name: str, execute: Callable[[Any, dict[str, Any]], Any]) -> Callable[..., Any]:
        def watched(arbiter: Any, props: dict[str, Any]) -> Any:
            request = self._begin(name, props) or Request(name, CIRCUSCTL, "", frozenset([CIRCUSD]))
            # Published before its effects, unless Circus is about to refuse it because another one runs.
            is_published = circus_arbiter.running_command(arbiter) is None
            if is_published:
                self._publish(request)
            try:
                if name in JUDGED:
                    reconfigure.refuse_unsound(self._supervisor.config_file)
                reconfigure.refuse_options(props, self._supervisor.armed)
                watcher, less = circus_arbiter.registered(arbiter, props.get("name", "")), props.get("nb", 1)
                if name == "decr" and watcher is not None and less > max(1, watcher.numprocesses):
                    raise MessageError(Say.TOO_FEW(watcher=watcher.name, n=watcher.numprocesses, less=less))
                if name == "kill":
                    _let_be_killed(arbiter, props)
                answer = execute(arbiter, props)
            except Exception as error:
                if name != "stop" or not isinstance(error, ConflictError) or circus_arbiter.is_stopping(arbiter):
                    self._refused(request, error)
                    raise
                answer = asyncio.ensure_future(_in_its_turn(arbiter, execute, props))
            if isinstance(answer, dict) and answer.get("status") == "error":
                self._refused(request, MessageError(answer["reason"]))
                return answer
            request.answer = True if answer is None else answer
            if not is_published:
                self._publish(request)
            return answer

        return watched

    @contained(None)
    def _begin(self, name: str, props: dict[str, Any]) -> Request | None:
        self._open = [request for request in self._open if request.runs()]
        by = Say.BY_SIGNAL() if self._is_signal else who(props)
        request = Request(name, by, _details(name, props), self.names_of(props))
        self._open.append(request)
        return request

    @contained(None)
    def _refused(self, request: Request, error: Exception) -> None:
        self._open = [each for each in self._open if each is not request]
        # The sender repeats one that was refused because another one ran.
        if not isinstance(error, ConflictError):
            self._publish(request, refusal=one_line(str(error)))

    def names_of(self, props: dict[str, Any]) -> frozenset[str] | None:
        """Return the watchers that a command names, in lower case; None for all."""
        if not props.get("name"):
            return None
        name, match = str(props["name"]).lower(), props.get("match", "glob")
        known = [str(each.name).lower() for each in self._supervisor.arbiter.watchers]
        if name in known or match == "simple":
            return frozenset([name])
        pattern = re.compile(name if match == "regex" else fnmatch.translate(name))
        return frozenset(each for each in known if pattern.match(each)) or frozenset([name])

    @contained(None)
    def _publish(self, request: Request, *, refusal: str = "") -> None:
        what = " ".join(filter(None, [request.command, request.details]))
        say = Say.ASKED_FOR_REFUSED if refusal else Say.ASKED_FOR
        reason = say(command=what.removeprefix("xboard_"), by=request.by, why=refusal)
        outcome = refusal and f"refused: {refusal}"
        message = {"command": what, "outcome": outcome, **with_say(reason), **with_say(request.by, "by")}
        for name in sorted(request.names or [CIRCUSD]):
            self._supervisor.publish(one_line(name, LONGEST).replace(" ", "_"), "command", **message)


async def _in_its_turn(arbiter: Any, execute: Callable[[Any, dict[str, Any]], Any], props: dict[str, Any]) -> Any:
    """Execute a stop after the command that runs, such as a `decr` that waits for a drain."""
    while circus_arbiter.running_command(arbiter) is not None:
        await asyncio.sleep(TURN)
    if circus_arbiter.is_stopping(arbiter):
        return None
    # With `waiting` Circus returns a TransformableFuture, which calls its callback, but wakes no task that awaits it.
    answer, is_done = execute(arbiter, props), asyncio.Event()
    answer.add_done_callback(lambda _: is_done.set())
    await is_done.wait()
    return answer.result()


@contained(None)
def _let_be_killed(arbiter: Any, props: dict[str, Any]) -> None:
    """Let Circus kill a worker that drains already; it would otherwise answer "ok" and do nothing."""
    if "graceful_timeout" in props:
        props["graceful_timeout"] = float(props["graceful_timeout"])  # from circusctl a text, by which Circus fails
    watcher = circus_arbiter.registered(arbiter, props.get("name", ""))
    for process in watcher.processes.values() if watcher is not None else ():
        if props.get("pid") in (None, process.pid):
            circus_process.expect_to_be_killed(process)


def _details(name: str, props: Mapping[str, Any]) -> str:
    """Return the published details of a command; the values of options may be secrets."""
    if name == "add":
        return safe_command(str(props.get("cmd") or "").split())
    details = []
    if "signum" in props:
        details.append(signal_name(props["signum"]))
    if "pid" in props:
        details.append(f"pid {props['pid']}")
    if "nb" in props:
        details.append(str(props["nb"]))
    if isinstance(props.get("options"), Mapping):
        details += sorted(str(key) for key in props["options"])
    return one_line(" ".join(details), LONGEST)
