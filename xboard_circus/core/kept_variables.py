"""Decide which environment variables of a circusd its successor keeps."""

import re
from collections.abc import Mapping

OF_UNIT = re.compile(
    r"(SYSTEMD|LISTEN|WATCHDOG|MEMORY_PRESSURE)_.*|INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|MAINPID|MANAGERPID"
)
"""Variables of one process of a unit of systemd, see systemd.exec(5): of the caller's neither."""
OF_SESSION = re.compile(
    r"_|(OLD)?PWD|SHLVL|(COLOR)?TERM.*|LINES|COLUMNS|PS\d|LS_COLORS|LESS.*|HIST.*|MAIL|STY|TMUX.*|DISPLAY|WINDOWID"
    rf"|(SSH|SUDO|XDG|DBUS|WAYLAND|BASH)_.*|VIRTUAL_ENV.*|{OF_UNIT.pattern}"
)
"""Variables of one login, terminal, service or process, not of the backend."""


def kept(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the environment *before* that a restart keeps: those of the backend that are not set
    *now*.

    An operator often restarts in another terminal than the start was typed in. See `of_circusd` for a process of the
    backend.

    >>> kept({"DATABASE_URL": "sqlite://", "SSH_TTY": "/dev/pts/1", "MODE": "old"}, {"MODE": "new"})
    {'DATABASE_URL': 'sqlite://'}
    """
    return {name: value for name, value in before.items() if name not in now and OF_SESSION.fullmatch(name) is None}


def of_circusd(before: Mapping[str, str]) -> dict[str, str]:
    """Return all of the environment *before* that belongs to no process of a unit: what the backend has had.

    >>> of_circusd({"DISPLAY": ":99", "HISTORY_DB": "a.db", "NOTIFY_SOCKET": "/run/n"})
    {'DISPLAY': ':99', 'HISTORY_DB': 'a.db'}
    """
    return {name: value for name, value in before.items() if OF_UNIT.fullmatch(name) is None}
