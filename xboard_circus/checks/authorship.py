"""Find who besides root and us may write an ini file, and so name what circusd runs; light enough for every plugin."""

import os
import shlex
import stat
from pathlib import Path

from xboard_circus import config as configuration
from xboard_circus.config import Config
from xboard_circus.errors import XboardError
from xboard_circus.host import servers, writers
from xboard_circus.host.users import members


def load_own(config_file: str | Path) -> Config:
    """Read an ini file for a process that circusd runs; XboardError where another user may write root's by now.

    `check` and `start` refuse such a file: its alerts are commands, and its logs are files that are deleted.
    """
    found = configuration.load(config_file)
    if os.geteuid() == 0 and (author := other_author(found)) is not None:
        what = f"{author[0]} may write {author[1]}, and would have {found.shown} name what root runs"
        cure = f"look at what it says, `chown root {shlex.quote(str(author[1]))}` and `chmod go-w` it"
        raise XboardError(f"{what}; {cure}")
    return found


def other_author(config: Config) -> tuple[str, Path] | None:
    """Return a user besides root and ours who may write what *config* was read from, and which place; None without."""
    return next(filter(None, map(other_writer, config.places)), None)


def other_writer(folder: Path) -> tuple[str, Path] | None:
    """Return a user besides root and ours who may write *folder*, or one above it, and which; None without one.

    An owner that this system has no user for (a folder of the host in a container), and a group without a user, do not
    count.
    """
    found, trusted = next(filter(os.path.exists, (folder, *folder.parents))).stat(), {0, os.geteuid()}
    if writers.User.of(found.st_uid) is not None and found.st_uid not in trusted:
        return servers.name_of(found.st_uid), folder
    if found.st_mode & stat.S_IWGRP and members(found.st_gid) - trusted:
        return "its group", folder
    return next(writers.named(folder, trusted), None)
