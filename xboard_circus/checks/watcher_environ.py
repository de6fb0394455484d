"""Build the environment that circusd gives a watcher's processes, for trials before a start."""

import os
from contextlib import suppress

from xboard_circus.alerts.withheld import withheld_from, without
from xboard_circus.config import Config, WatcherConfig
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime

# What decides which program and module is found, and how text is read.
_OF_PROGRAMS = ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "TZ")
_FAMILIES = ("PYTHON", "LC_")


def as_circusd_sees_it(config: Config, watcher: WatcherConfig, *, starts: bool = False) -> dict[str, str]:
    """Return the watcher's environment: with copy_env it holds circusd's own, and not that of this command line.

    Where circusd *starts* next, the environment of this command line becomes circusd's. Otherwise, without a circusd,
    another user's watcher gets only the variables of root's shell by which programs and modules are found.
    """
    names = withheld_from(config, watcher)
    env = without(watcher.env, names, os.environ)
    if starts or not watcher.copy_env:
        return env
    circusd = None
    with suppress(XboardError):  # another rule reports a runtime folder of another user
        circusd = runtime.supervisor_of(runtime.instance_id(config.path))
    copied = procs.environ(circusd.pid) if circusd is not None else None
    if not copied and os.geteuid() == 0 and watcher.uid is not None:
        copied = {key: value for key, value in os.environ.items() if key in _OF_PROGRAMS or key.startswith(_FAMILIES)}
    if not copied:
        return env
    entries = (entry for scan in config.scans for entry in scan.entries)
    written = {entry.option for entry in entries if entry.section.partition(":")[0] == "env"}
    own = {key: value for key, value in env.items() if key in written or os.environ.get(key) != value}
    return without({**copied, **own}, names, copied)
