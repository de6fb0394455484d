"""Commands with values of a wrong type: each is refused in one line, and nothing else happens."""

from pathlib import Path
from typing import Any

from circus.exc import CallError

from .harness import Circusd, circusd

NESTED: Any = []
for _ in range(100):
    NESTED = [NESTED]
NO_SCALAR = [None, [], ["\0"], {}, {"a": 1}, NESTED]
NO_TEXT = [*NO_SCALAR, 0.5, True, -1, 10**400, "\0", "\ud800"]
NO_SWITCH = [*NO_SCALAR, 0.5, -1, 0, "", "yes", "\0", "x" * 70_000]
NO_WHOLE = [*NO_SCALAR, 0.5, 1e308, True, "", "[", "3", "\u202e", "\0"]
NO_NUMBER = [*NO_SCALAR, True, -1, 1e308, 10**400, float("nan"), "", "[", "-3", "\u202e", "x" * 70_000]
NO_SIGNAL = [*NO_SCALAR, 0.5, True, -1, 99_999, 10**400, "", "99999", "\0", "NOSUCH"]
ON_A_NAME = ("decr", "get", "incr", "kill", "list", "options", "reload", "restart", "rm", "set", "signal", "stats")
WRONG: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "name": (NO_TEXT, (*ON_A_NAME, "add", "start", "stop", "status", "numprocesses", "xboard_reload")),
    "match": ([*NO_TEXT, "", "nosuch"], ("restart", "start", "stop")),
    "waiting": (NO_SWITCH, ("decr", "incr", "kill", "reload", "reloadconfig", "restart", "rm", "set", "stop", "quit")),
    "graceful": (NO_SWITCH, ("reload",)),
    "sequential": (NO_SWITCH, ("reload",)),
    "children": (NO_SWITCH, ("signal",)),
    "recursive": (NO_SWITCH, ("signal",)),
    "nostop": (NO_SWITCH, ("rm",)),
    "start": (NO_SWITCH, ("add",)),
    "nb": ([*NO_WHOLE, -1, 10**400], ("decr", "incr")),
    "pid": ([*NO_SCALAR, 0.5, True, "\0"], ("kill", "signal")),
    "process": (NO_WHOLE, ("stats",)),
    "signum": (NO_SIGNAL, ("kill", "signal")),
    "graceful_timeout": (NO_NUMBER, ("kill",)),
    "cmd": (NO_TEXT, ("add",)),
    "args": ([["\0"], {"a": 1}, NESTED, 0.5, True, -1, "\0"], ("add",)),
    "options": ([*NO_SCALAR[:3], 0.5, True, "x", {"cmd": "\0"}], ("add", "set")),
    "keys": ([None, {}, 0.5, True, "", ["\0"], ["nosuch"], NESTED], ("get",)),
    "option": (NO_TEXT, ("globaloptions",)),
}
OPTIONS: dict[str, list[Any]] = {
    "numprocesses": [*NO_WHOLE, -1, 10**400],
    "max_retry": NO_WHOLE,
    "warmup_delay": [*NO_NUMBER, "3"],
    "stop_signal": [*NO_SIGNAL, 9],
    "shell": NO_SWITCH,
    "uid": [*NO_SCALAR, 0.5, True, 10**400, "\0"],
    "cmd": NO_TEXT,
    "args": WRONG["args"][0],
    "working_dir": [*NO_TEXT, "x" * 70_000],
    "env": [*NO_SCALAR[:3], {"a": 1}, 0.5, True, "x", {"a": "\0"}],
    "hooks.before_start": NO_TEXT,
    "nosuch": NO_TEXT,
}


def test_no_value_of_a_wrong_type_gets_past_the_door(tmp_path: Path) -> None:
    """Given commands with each property of a wrong type, then each is answered by one line, and all serve on."""
    base = {"cmd": "sleep 600", "keys": [], "options": {}, "signum": "URG"}
    orders = [
        (command, {**base, "name": "web", name: value})
        for name, (values, commands) in WRONG.items()
        for value in values
        for command in commands
    ]
    orders += [
        (command, {**base, "name": name, "options": {option: value}})
        for option, values in OPTIONS.items()
        for value in values
        for command, name in (("set", "web"), ("add", "new"))
    ]
    with circusd(tmp_path) as c:
        pids, before = c.wait_ready(), c.state()["watchers"][0]["options"]

        answers = [(order, _answer(c, *order)) for order in orders]

        assert [(repr(order)[:200], answer) for order, answer in answers if not _refuses(answer)] == []
        assert c.workers() == pids
        assert c.state()["watchers"][0]["options"] == before
        assert c.call("list")["watchers"] == ["web"]
        assert "Traceback" not in (tmp_path / "logs" / "circusd.log").read_text()


def _answer(c: Circusd, command: str, properties: dict[str, Any]) -> Any:
    try:
        return c.call(command, timeout=60, **properties)
    except CallError as error:
        return str(error)


def _refuses(answer: Any) -> bool:
    return isinstance(answer, dict) and answer["status"] == "error" and "\n" not in answer["reason"].strip()


def test_a_pattern_that_is_none_is_refused_and_nothing_is_logged(tmp_path: Path) -> None:
    """Given a regular expression with an error, when a command names watchers by it, then the answer says so."""
    with circusd(tmp_path, numprocesses=1) as c:
        pids = c.wait_ready()

        for pattern in ("[", "*", "(" * 5000):
            answer = c.run_circusctl("stop", pattern, "--match", "regex")
            assert (answer.returncode > 0, "it cannot be read" in answer.stdout + answer.stderr) == (True, True)

        assert c.workers() == pids
        assert "Traceback" not in (tmp_path / "logs" / "circusd.log").read_text()


def test_a_decr_of_more_workers_than_there_are_takes_none_away(tmp_path: Path) -> None:
    """Given two workers, when circusctl takes five away, then it is refused with the cure, and both serve on."""
    with circusd(tmp_path) as c:
        pids = c.wait_ready()

        answer = c.run_circusctl("decr", "web", "5")

        assert (answer.returncode > 0, "`xboard-circus stop web`" in answer.stdout + answer.stderr) == (True, True)
        assert (c.workers(), c.watcher()["numprocesses"]) == (pids, 2)
        assert [each.message["outcome"] for each in c.told("command")][-1].startswith("refused: ")
