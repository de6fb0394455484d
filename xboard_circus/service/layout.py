"""Decide the paths of a service on a host, and refuse what cannot work. Nothing here touches the host."""

import re
from pathlib import Path
from typing import NamedTuple

from xboard_circus.errors import XboardError

NAME = "xboard-backend"
USER = "xboard"
INI = "circus.ini"
OVERLAY = "service.ini"
# Folders of the system, which no service may share with its user.
SYSTEMS = r"/|/(home|media|mnt|opt|root|srv|usr/local/share|Applications|Library|Users)|(/private)?/(tmp"
SYSTEMS += r"|var(/(backups|cache|lib|log|spool|tmp|www))?)|(/private)?/(bin|boot|dev|etc|lib(\d+|exec)?|proc|run"
SYSTEMS += r"|sbin|sys|usr(?!/local/)|usr/local/(s?bin|etc|lib))(/.*)?"
LONGEST_RUNTIME = 50  # a unix socket's path has 103 bytes on macOS, 107 elsewhere; a worker's is the longest
MANAGERS = {"Linux": "systemd", "Darwin": "launchd"}
NO_MANAGER = "nohup ./scripts/monitor_backend.sh keeps the backend up"


class ServiceOptions(NamedTuple):
    """The options of the command line; *folder* is absolute and has no links in it.

    Attributes:
        ini: None where it is not named: as it is installed, otherwise `INI`. So is *run_as*, with `USER`.
    """

    folder: Path
    name: str = NAME
    ini: str | None = None
    run_as: str | None = None
    of_user: bool = False
    dry_run: bool = False


class ServiceHost(NamedTuple):
    """Facts about the machine and the user of the command.

    Attributes:
        system: Output of ``uname -s``.
    """

    system: str
    uid: int
    user: str
    home: Path
    config_home: Path
    runtime_home: Path


class Layout(NamedTuple):
    """The places and names of one service.

    Attributes:
        manager: "systemd" or "launchd".
        system: A service of the system, not of one user.
        unit: The file that the manager reads.
        command: `xboard-circus` for this service.
        state: Folder of what outlives the service, because systemd deletes `runtime` at each of its ends.
        lock: File that is locked while the service is changed, where no other user can make one.
        overlay: The ini file that includes the user's and what that includes, with private endpoints.
        unit_name: Its name for systemctl or launchctl.
        domain: launchctl's word for system or user; "" for systemd.
    """

    name: str
    manager: str
    system: bool
    user: str
    folder: Path
    ini: Path
    overlay: Path
    unit: Path
    command: Path
    runtime: Path
    state: Path
    lock: Path
    unit_name: str
    domain: str


def lay_out(wanted: ServiceOptions, host: ServiceHost, *, action: str) -> Layout:
    """Return the layout of the *wanted* service; XboardError if an option, the host or the user rules it out."""
    run_as, ini = wanted.run_as or USER, wanted.ini or INI
    _check_words(wanted.name, run_as, ini, wanted.folder)
    manager = MANAGERS.get(host.system)
    if manager is None:
        raise XboardError(f"neither systemd nor launchd here: {NO_MANAGER}")
    if not wanted.of_user:
        if action != "remove" and re.fullmatch(SYSTEMS, str(wanted.folder)):
            what = f"{wanted.folder} is a folder of the system, and the service's user could make files in it"
            raise XboardError(f"{what}: choose another --dir, such as /opt/xboard")
        if action != "unit" and not wanted.dry_run and host.uid != 0:
            raise XboardError(f"a service of the system takes root: sudo ... {action}, or --user for one of yours")
        if run_as == "root":
            what = "who reaches circusd's endpoint could then do all that root can"
            raise XboardError(f"--run-as root: {what}; name another user")
    of_user, home = wanted.of_user, host.home
    # A user who copies the unit by hand need not be root for all else: it runs as that user.
    is_copied = action == "unit" and not of_user and host.uid != 0 and run_as == USER
    if manager == "systemd":
        unit_name, domain = f"{wanted.name}.service", ""
        unit = (host.config_home / "systemd" / "user" if of_user else Path("/etc/systemd/system")) / unit_name
        runtime = (host.runtime_home if of_user else Path("/run")) / wanted.name
        state = (home / ".local" / "state" if of_user else Path("/var/lib")) / wanted.name
        lock = runtime.with_name(f"{wanted.name}.lock")
    else:
        unit_name = "com.xboard.backend" if wanted.name == NAME else f"com.xboard.{wanted.name}"
        domain = f"gui/{host.uid}" if of_user else "system"
        unit = (home / "Library" / "LaunchAgents" if of_user else Path("/Library/LaunchDaemons")) / f"{unit_name}.plist"
        runtime = state = wanted.folder / "run"
        lock = home / f".{wanted.name}.lock"
    if len(str(runtime)) > LONGEST_RUNTIME:
        raise XboardError(f"{runtime}: too long for the sockets in it; choose a shorter --dir")
    user, bin_folder = (
        (host.user, home / ".local" / "bin") if of_user or is_copied else (run_as, Path("/usr/local/bin"))
    )
    folder, command = wanted.folder, bin_folder / wanted.name
    files = (folder, folder / ini, folder / OVERLAY, unit, command, runtime, state, lock)
    return Layout(wanted.name, manager, not of_user, user, *files, unit_name, domain)


def as_installed(wanted: ServiceOptions, unit: str, overlay: str, *, action: str) -> ServiceOptions:
    """Return the *wanted* options, with the user and the ini file of the installed service where none is named.

    Args:
        unit: Text of the installed unit or job, "" without one; so is *overlay*.

    Raises XboardError where an installed service would be given to another user: its files would be another's at once,
    and the unit's user would serve without them.
    """
    found = re.search(r"^User=(.+)$", unit, re.MULTILINE) or re.search(r"<key>UserName</key>\s*<string>(.+?)<", unit)
    user = found[1] if found and not wanted.of_user else None
    if user is not None and wanted.run_as not in (None, user) and action in ("install", "upgrade"):
        cure = f"say --run-as {user}, or remove it first, then install it for {wanted.run_as}"
        raise XboardError(f"{wanted.name} runs as {user}: {cure}; nothing was changed")
    included = re.search(r"^include = (\S+)", overlay, re.MULTILINE)
    return wanted._replace(run_as=wanted.run_as or user, ini=wanted.ini or (included[1] if included else None))


def _check_words(name: str, run_as: str, ini: str, folder: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise XboardError(f"--name {name}: write letters, digits, - and _ only")
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", run_as) or run_as.isdigit():  # systemd takes 0 for root
        raise XboardError(f"--run-as {run_as}: write a user's name, letters, digits and ._- only, not its number")
    if ini.startswith("/"):
        raise XboardError(f"--ini {ini}: write its name in the folder that --dir names")
    path, cure = f"{folder}/{ini}", "choose one of letters, digits and ._+-"
    if not re.fullmatch(r"[A-Za-z0-9/._+-]*", path):
        raise XboardError(f"{path}: the service managers do not take such a path; {cure}")


def refuse_folder_of_another(layout: Layout, overlay: str) -> None:
    """Raise XboardError if the *overlay* in the folder is that of another service, which would run without it.

    Both would answer at the endpoints of whichever was installed last.
    """
    name = re.search(r"for the service (\S+), and again", overlay)
    runtime = re.search(r"^endpoint = ipc://(.+)/circusd\.sock$", overlay, re.MULTILINE)
    if name and runtime and (name[1], Path(runtime[1])) != (layout.name, layout.runtime):
        cure = f"remove that one first, or say another --dir; without such a service, delete {layout.overlay}"
        raise XboardError(f"{layout.folder} has the service {name[1]} already, in {runtime[1]}: {cure}")


def is_ours(text: str) -> bool:
    """Return whether *text* is that of a unit, job or command of ours; an empty one may be replaced, too."""
    return not text or "circus.circusd" in text or "-m xboard_circus -c " in text


def overlay_of(command: str) -> Path | None:
    """Return the overlay in the *command* of a service; None if it is none of ours.

    >>> overlay_of('cd /opt/x || exit 1\\nexec /opt/x/.venv/bin/python -m xboard_circus -c /opt/x/service.ini "$@"\\n')
    PosixPath('/opt/x/service.ini')
    """
    found = re.search(r'^exec .* -c (.*) "\$@"$', command, re.MULTILINE)
    return Path(found[1]) if found else None
