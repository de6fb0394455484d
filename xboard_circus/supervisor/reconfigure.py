"""Make `circusctl reloadconfig` safe: refuse a file with errors; apply our options and a backlog without a restart.

Circus 0.19 restarts a watcher when an option of ours changes and ignores a new one; on a changed [socket:...] it
listens where no worker accepts; on a changed [circus] it stops and starts every worker, keeps the old value, and does
so again at each later call.
"""

from typing import TYPE_CHECKING, Any

from circus.exc import MessageError

from xboard_circus.core.sentences import Say
from xboard_circus.supervisor.patches import circus_arbiter, circus_watcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor


def before(supervisor: "Supervisor", config_file: str | None) -> list[Any]:
    """Check the file, and apply our options in place; return the sockets that `after` has to close.

    Circus refuses to remove a watcher together with its socket, when it has closed the socket already.

    Raises MessageError, the answer to the operator, if the file is refused or Circus would do harm.
    """
    arbiter, file = supervisor.arbiter, config_file or supervisor.config_file
    refuse_unsound(file)
    config = _read(file)
    if changed := circus_arbiter.changed_circus_options(arbiter, config):
        raise MessageError(Say.INI_CIRCUS_CHANGED(names=", ".join(changed)))
    sockets = {
        name: options
        for name in supervisor.shared_sockets()
        if (options := circus_arbiter.changed_socket_options(arbiter, name, config))
    }
    gone = sockets.keys() - {each["name"] for each in config.get("sockets", [])}
    for name, options in sockets.items():
        if name not in gone and options != {"backlog"}:
            raise MessageError(Say.INI_SOCKET_CHANGED(name=name))
    for name in sockets.keys() - gone:
        circus_arbiter.take_over_backlog(arbiter, name, config)
    for watcher in config.get("watchers", []):
        armed = supervisor.armed.get(watcher["name"])
        if armed is not None:
            circus_watcher.take_over_options(armed.watcher, watcher)
            armed.options_changed()
    return circus_arbiter.take_out(arbiter, gone)


def after(supervisor: "Supervisor", config_file: str | None, gone: list[Any]) -> None:
    """Remember the file as it is, because Circus would compare the next one with the file of its boot."""
    for shared in gone:
        shared.close()
    for watcher in _read(config_file or supervisor.config_file).get("watchers", []):
        found = circus_arbiter.registered(supervisor.arbiter, watcher["name"])
        if found is not None:
            circus_watcher.take_over_number(found, watcher)


def refuse_unsound(file: str) -> None:
    """Raise MessageError, in the words of `check`, if *file* has errors."""
    from xboard_circus.checks.findings import Level  # imported for this command alone
    from xboard_circus.checks.judgement import judge

    errors = [finding for finding in judge(file) if finding.level is Level.ERROR]
    if errors:
        raise MessageError(Say.INI_REFUSED(file=file, why=[str(error) for error in errors]))


def _read(file: str) -> dict[str, Any]:
    try:
        return circus_arbiter.read_config(file)
    except Exception as error:
        raise MessageError(Say.INI_UNREADABLE(file=file, error=error)) from error
