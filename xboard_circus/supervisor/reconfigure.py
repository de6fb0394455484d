"""`circusctl reloadconfig` made safe: our options are read anew without a restart, what Circus gets wrong is refused.

Circus 0.19 restarts a watcher when an option of ours changes and ignores a new one; on a changed [socket:...] it
listens where nobody accepts; on a changed [circus] it stops and starts every worker, keeps the old value, and does so
again at each later call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from circus.config import get_config
from circus.exc import MessageError

from xboard_circus.core.sentences import Say
from xboard_circus.options.reading import is_ours

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor


def install(arbiter: Any, supervisor: Supervisor) -> None:
    """Stand in front of the arbiter's own way of reading its configuration again."""
    original = arbiter.reload_from_config

    def reload_from_config(config_file: str | None = None, inside_circusd: bool = False) -> Any:
        prepare(arbiter, supervisor, config_file or supervisor.config_file)
        return original(config_file, inside_circusd)

    arbiter.reload_from_config = reload_from_config


def prepare(arbiter: Any, supervisor: Supervisor, config_file: str) -> None:
    """Take over what can be taken over in place.

    Raises MessageError, the answer to the operator, where Circus would do harm.
    """
    try:
        config = get_config(config_file)
    except Exception as error:
        raise MessageError(Say.INI_UNREADABLE(file=config_file, error=error)) from error
    if arbiter.get_arbiter_config(config) != arbiter._cfg:
        old = arbiter._cfg
        changed = sorted(key for key, value in arbiter.get_arbiter_config(config).items() if old.get(key) != value)
        raise MessageError(Say.INI_CIRCUS_CHANGED(names=", ".join(changed)))
    sockets = {each["name"]: each for each in config.get("sockets", [])}
    for name in supervisor.shared_sockets():
        if sockets.get(name) != getattr(arbiter.sockets.get(name), "_cfg", None):
            raise MessageError(Say.INI_SOCKET_CHANGED(name=name))
    for watcher in config.get("watchers", []):
        armed = supervisor.armed.get(watcher["name"])
        if armed is not None:
            take_over(armed.watcher, watcher)
            armed.options_changed()


def take_over(watcher: Any, config: dict[str, Any]) -> None:
    """Make a running watcher's options of ours those of *config*, so that Circus finds no difference in them."""
    fresh = {key: value for key, value in config.items() if is_ours(key)}
    for holder in (watcher._options, watcher._cfg):
        for key in [key for key in holder if is_ours(key)]:
            del holder[key]
        holder.update(fresh)
    others = tuple(name for name in watcher.optnames if not is_ours(name))
    watcher.optnames = others + tuple(fresh)
