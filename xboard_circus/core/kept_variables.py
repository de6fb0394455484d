"""Decide which environment variables of a circusd its successor keeps."""

import re
from collections.abc import Mapping

# By whole names: LISTEN_PORT and HISTORY_DB are the backend's.
OF_UNIT = re.compile(
    r"SYSTEMD_.*|LISTEN_(PID|PIDFDID|FDS|FDNAMES)|WATCHDOG_(PID|USEC)|MEMORY_PRESSURE_(WATCH|WRITE)"
    r"|INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|MAINPID|MANAGERPID(FDID)?"
)
"""Variables of one process of a unit of systemd, see systemd.exec(5): of the caller's neither."""
OF_SESSION = re.compile(
    r"_|(OLD)?PWD|SHLVL|(COLOR)?TERM|TERM(CAP|INFO.*|_PROGRAM.*)|LINES|COLUMNS|PS\d|LS_COLORS|MAIL|STY|TMUX.*|WINDOWID"
    r"|LESS(OPEN|CLOSE|CHARSET)?|HIST(FILE|SIZE|FILESIZE|CONTROL|IGNORE|TIMEFORMAT)|DISPLAY"
    rf"|(SSH|SUDO|XDG|DBUS|WAYLAND|BASH)_.*|VIRTUAL_ENV.*|{OF_UNIT.pattern}"
)
"""Variables of one login, terminal, service or process, not of the backend."""


def kept(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the environment *before* that a restart keeps: the backend's that are not set *now*.

    An operator often restarts in another terminal than the start was typed in. For what the backend runs: `of_circusd`.

    >>> kept({"DATABASE_URL": "sqlite://", "HISTORY_DB": "a.db", "SSH_TTY": "/dev/pts/1", "MODE": "old"}, {"MODE": ""})
    {'DATABASE_URL': 'sqlite://', 'HISTORY_DB': 'a.db'}
    """
    return {name: value for name, value in before.items() if name not in now and OF_SESSION.fullmatch(name) is None}


def of_circusd(before: Mapping[str, str]) -> dict[str, str]:
    """Return all of the environment *before* that belongs to no process of a unit: what the backend has had.

    >>> of_circusd({"DISPLAY": ":99", "LISTEN_PORT": "80", "LISTEN_FDS": "1", "NOTIFY_SOCKET": "/run/n"})
    {'DISPLAY': ':99', 'LISTEN_PORT': '80'}
    """
    return {name: value for name, value in before.items() if OF_UNIT.fullmatch(name) is None}
