"""List the options that Circus 0.19 itself knows, and how it parses them.

Circus silently takes an unknown option for a variable of the user's, and for a wrong value it names neither section nor
option. With names and types in one place, `check` reports both.
"""

import re
import signal
from collections.abc import Callable, Mapping

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

# The name after these belongs to the hook, the stream or the user.
WATCHER_PREFIXES = ("stdout_stream.", "stderr_stream.", "hooks.", "rlimit_", "flapping.")

# Options that are mappings in Circus; a text in their place ends circusd.
_NOT_ALONE = {
    "stdout_stream": "write stdout_stream.class = FileStream and stdout_stream.filename = FILE",
    "stderr_stream": "write stderr_stream.class = FileStream and stderr_stream.filename = FILE",
    "hooks": "write hooks.before_start = module.function",
    "rlimits": "write rlimit_nofile = NUMBER",
    "env": "write the variables into [env:NAME]",
    "loop": "delete it",
}

_YES_NO = ("yes", "true", "on", "1", "no", "false", "off", "0")


def misread(section: str, option: str, value: str) -> str:
    """Return what to write where Circus misreads *value*, or "" for a good one.

    >>> misread("watcher:xboard", "numprocesses", "two")
    'write a whole number'
    """
    kind = section.partition(":")[0]
    if kind == "watcher" and option in _NOT_ALONE:
        return _NOT_ALONE[option]
    if kind == "watcher" and option.startswith("hooks."):
        ignores_failure = value.partition(",")[2]
        return _yes_no(ignores_failure) and "write module.function or module.function, True" if ignores_failure else ""
    reader = _rlimit if kind == "watcher" and option.startswith("rlimit_") else _READERS.get(kind, {}).get(option)
    return reader(value) if reader else ""


def _tried(read: Callable[[str], object], hint: str) -> Callable[[str], str]:
    def wanted(text: str) -> str:
        try:
            read(text)
        except ValueError:
            return hint
        return ""

    return wanted


def _one_of(*words: str) -> Callable[[str], str]:
    return lambda text: "" if text.upper() in words else f"write one of {', '.join(words)}"


def _yes_no(text: str) -> str:
    return "" if text.strip().lower() in _YES_NO else "write True or False"


def _signal(text: str) -> str:
    name = re.match(r"\w*", text.upper())
    word = name.group() if name else ""
    known = text.isdigit() or hasattr(signal, word if word.startswith("SIG") else f"SIG{word}")
    return "" if known else "write a signal, such as TERM or INT"


def _port_number(text: str) -> int:
    # The kernel keeps only the lower 16 bits of a larger number.
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


_whole = _tried(int, "write a whole number")
_port = _tried(_port_number, "write a port from 1 to 65535")
_number = _tried(float, "write a number of seconds")
_octal = _tried(lambda text: int(text, 8), "write an octal number, such as 022")
_rlimit = _tried(lambda text: int(text or "0"), "write a whole number, or nothing for no limit")

# The options of each reader, by the kind of their section.
_OPTIONS_OF: Mapping[str, Mapping[Callable[[str], str], str]] = {
    "circus": {
        _yes_no: "statsd httpd debug debug_gc",
        _whole: "warmup_delay",
        _port: "httpd_port",
        _number: "check_delay",
        _octal: "umask",
    },
    "watcher": {
        _whole: "numprocesses warmup_delay max_retry priority max_age max_age_variance",
        _yes_no: "on_demand shell send_hup stop_children use_sockets singleton copy_env copy_path respawn autostart"
        " check_flapping close_child_stdin close_child_stdout close_child_stderr",
        _number: "graceful_timeout",
        _signal: "stop_signal",
    },
    "socket": {
        _whole: "backlog umask",
        _port: "port",
        _yes_no: "so_reuseport replace blocking",
        _one_of("AF_INET", "AF_INET6", "AF_UNIX"): "family",
        _one_of("SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET"): "type",
    },
    "plugin": {_whole: "priority"},
}
_READERS = {
    kind: {option: reader for reader, options in readers.items() for option in options.split()}
    for kind, readers in _OPTIONS_OF.items()
}
