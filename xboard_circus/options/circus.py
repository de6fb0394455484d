"""List the options that Circus 0.19 itself knows, and how it parses them.

Circus silently takes an unknown option for a variable of the user's, and for a wrong value it names neither section nor
option. With names and types in one place, `check` reports both.
"""

import math
import os
import re
import signal
from collections.abc import Callable, Mapping

from xboard_circus.core.state_schema import MOST_SLOTS
from xboard_circus.options import kinds
from xboard_circus.options.kinds import WrongValueError

_WATCHER = """
    __name__ name env cmd args numprocesses warmup_delay executable working_dir on_demand shell shell_args uid gid
    send_hup stop_signal stop_children max_retry graceful_timeout priority use_sockets singleton copy_env copy_path
    respawn autostart check_flapping close_child_stdin close_child_stdout close_child_stderr max_age max_age_variance
    virtualenv virtualenv_py_ver stdin_socket prereload_fn rlimits hooks stdout_stream stderr_stream loop
"""
_CIRCUS = """
    check_delay endpoint endpoint_owner pubsub_endpoint multicast_endpoint stats_endpoint statsd umask warmup_delay
    httpd httpd_host httpd_port debug debug_gc pidfile loglevel logoutput loggerconfig fqdn_prefix include include_dir
"""
_SOCKET = "name host port family type proto backlog path umask replace interface so_reuseport blocking"
_HOOKS = """
    before_start after_start before_spawn after_spawn before_stop after_stop before_signal after_signal
    before_reap after_reap extended_stats
"""

WATCHER_OPTIONS = frozenset(_WATCHER.split())
PLUGIN_OPTIONS = WATCHER_OPTIONS | {"use", "active"}
CIRCUS_OPTIONS = frozenset(_CIRCUS.split())
SOCKET_OPTIONS = frozenset(_SOCKET.split())
HOOKS = frozenset(_HOOKS.split())

HARM_ARMED = {
    "shell": (
        "a signal reaches only the shell in front of the worker, which lives on and keeps the port",
        "take it out; where the command needs a shell, cmd = sh -c 'exec ...'",
    ),
    "send_hup": (
        "`circusctl reload` would send SIGHUP, which ends uvicorn with every request in flight",
        "take it out; `xboard-circus reload` replaces worker by worker",
    ),
}
"""Options that an armed watcher may not have: why, and what to do."""

# The name after these belongs to the hook, the stream or the user.
WATCHER_PREFIXES = ("stdout_stream.", "stderr_stream.", "hooks.", "rlimit_", "flapping.")

_UNREAD = "Circus cannot read this"
_SECONDS = "write a number of seconds"
_DAY = 86_400
_MOST = 1_000_000_000


def misread(section: str, option: str, value: str) -> WrongValueError | None:
    """Return what is wrong with *value* where Circus, or the system, cannot take it; None for a good one.

    >>> misread("watcher:xboard", "numprocesses", "two")
    WrongValueError('Circus cannot read this; write a whole number')
    """
    kind = section.partition(":")[0]
    read = _READERS.get(kind, {}).get(option, str)
    if kind == "watcher":
        read = _rlimit if option.startswith("rlimit_") else _hook if option.startswith("hooks.") else read
    try:
        read(value)
    except WrongValueError as wrong:
        return wrong
    return None


def misset(option: str, value: object) -> WrongValueError | None:
    """Return what is wrong with the *value* of a watcher's option that no file has given, but a command; or None."""
    words = value if option == "args" and isinstance(value, list) else [value]
    is_text = option in ("cmd", "args", "working_dir") or option.startswith("hooks.")
    if is_text and not all(isinstance(word, str) for word in words):
        return WrongValueError("wrong type", "send a text")  # Circus looks at the types of the others
    if isinstance(value, bool) and _READERS["watcher"].get(option) != kinds.YES_NO.read:
        return WrongValueError("wrong type", "send a number")
    if option == "signum" and value not in signal.valid_signals():
        return WrongValueError("no signal of this system", "write one such as TERM or INT")
    if option == "numprocesses" and isinstance(value, int) and value < 0:
        return WrongValueError("too small", "write 0 or more")  # in a file 0 starts nothing, here it ends all
    if isinstance(value, int | float):
        is_finite = value - value == 0  # Circus takes 0.5 from a command where it takes whole numbers from a file
        return misread("watcher", option, str(math.floor(value) if is_finite else value))
    return misread("watcher", option, value) if isinstance(value, str) else None


def _bounded(
    parse: Callable[[str], float], low: float, high: float, hint: str = "write a whole number"
) -> Callable[[str], object]:
    """Return the reader of a number from *low* to *high*, which Circus reads by *parse*."""

    def read(text: str) -> float:
        try:
            number = parse(text)
        except ValueError:
            raise WrongValueError(_UNREAD, hint) from None
        return kinds.in_range(number, low, high)

    return read


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def _whole(low: int = 0, high: int = _MOST) -> Callable[[str], object]:
    return _bounded(int, low, high)


def _hook(text: str) -> object:
    try:
        return kinds.YES_NO.read(text.partition(",")[2].strip() or "no")
    except WrongValueError:
        raise WrongValueError(_UNREAD, "write module.function or module.function, True") from None


def _not_alone(hint: str) -> Callable[[str], object]:
    """Return the reader of an option that is a mapping in Circus; a text in its place ends circusd."""

    def read(_: str) -> object:
        raise WrongValueError(_UNREAD, hint)

    return read


def _signal(text: str) -> object:
    """Return the number of the signal of that name or number, as Circus does."""
    found = re.fullmatch(r"(?:SIG)?([A-Z]\w*)(?:\+(\d{1,2}))?", text.upper(), re.ASCII)
    named = getattr(signal, f"SIG{found[1]}", None) if found else None
    number = int(text[:9]) if text.isdecimal() else named and found and named + int(found[2] or 0)
    if number not in signal.valid_signals():
        raise WrongValueError("no signal of this system", "write one such as TERM or INT")
    if number in (signal.SIGKILL, signal.SIGSTOP):
        effect = "kills a worker with its requests" if number == signal.SIGKILL else "halts a worker and ends none"
        raise WrongValueError(f"it {effect}: no process can catch it", "write TERM, or take it out")
    return number


# With -1 Circus does not look at its workers by itself.
_check_delay = _bounded(lambda text: 1.0 if text == "-1" else _finite(text), 0.05, _DAY, _SECONDS)
_port = _bounded(int, 0, 65_535, "write a port from 1 to 65535")  # of a larger one the kernel keeps the lower 16 bits
_octal = _bounded(lambda text: int(text, 8), 0, 0o777, "write an octal number, such as 022")
_rlimit = _bounded(lambda text: int(text or "-1"), -1, 2**63 - 1, "write a whole number, or nothing for no limit")
_user = _bounded(lambda text: int(text) if text.isdecimal() else 0, 0, 2**32 - 2, "write a name or its number")

# The options of each reader, by the kind of their section. Other rules refuse no worker at all, and max_retry = -1.
_OPTIONS_OF: Mapping[str, Mapping[Callable[[str], object], str]] = {
    "circus": {
        kinds.YES_NO.read: "statsd httpd debug debug_gc",
        _whole(high=_DAY): "warmup_delay",
        _port: "httpd_port",
        _check_delay: "check_delay",
        _octal: "umask",
        kinds.read_host_name: "httpd_host",
        _user: "endpoint_owner",
        kinds.read_path: "pidfile logoutput loggerconfig",
    },
    "watcher": {
        _whole(-_MOST, MOST_SLOTS): "numprocesses",
        _whole(high=_DAY): "warmup_delay",
        _whole(-1): "max_retry",
        _whole(-_MOST): "priority",
        _whole(): "max_age max_age_variance",
        kinds.YES_NO.read: "on_demand shell send_hup stop_children use_sockets singleton copy_env copy_path respawn"
        " autostart check_flapping close_child_stdin close_child_stdout close_child_stderr",
        _bounded(_finite, 0, _DAY, _SECONDS): "graceful_timeout",
        _signal: "stop_signal",
        _user: "uid gid",
        kinds.read_path: "working_dir virtualenv executable stdout_stream.filename stderr_stream.filename",
        _not_alone("write stdout_stream.class = FileStream and stdout_stream.filename = FILE"): "stdout_stream",
        _not_alone("write stderr_stream.class = FileStream and stderr_stream.filename = FILE"): "stderr_stream",
        _not_alone("write hooks.before_start = module.function"): "hooks",
        _not_alone("write rlimit_nofile = NUMBER"): "rlimits",
        _not_alone("write the variables into [env:NAME]"): "env",
        _not_alone("delete it"): "loop",
    },
    "socket": {
        _whole(high=2**31 - 1): "backlog",
        _whole(high=777): "umask",
        _port: "port",
        kinds.YES_NO.read: "so_reuseport replace blocking",
        kinds.choice("AF_INET", "AF_INET6", "AF_UNIX").read: "family",
        kinds.choice("SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET").read: "type",
        kinds.read_host_name: "host",
        kinds.read_path: "path",
        _not_alone("write the address of that interface into host"): "interface",
    },
    "plugin": {_whole(-_MOST): "priority", kinds.read_path: "working_dir"},
    "env": {lambda text: [*map(kinds.read_path, text.split(os.pathsep))]: "PYTHONPATH"},
}
_READERS = {
    kind: {option: reader for reader, options in readers.items() for option in options.split()}
    for kind, readers in _OPTIONS_OF.items()
}
