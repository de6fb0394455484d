"""Build the command line and the environment of an armed watcher's processes: the launcher stands in front."""

import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import xboard_circus
from xboard_circus.host.request_slots import VARIABLE
from xboard_circus.options.fields import WatcherOptions

_IN_COMMAND = re.compile(r"circus\.env\.([\w.-]+)", re.IGNORECASE)

LATER = "XBOARD_LATER_"  # as in `launch`, which circusd does not import: 80 KiB for one word
# By its path, because circusd runs nothing of it, and its import would cost 80 KiB.
LAUNCHER = Path(xboard_circus.__file__).absolute().with_name("launch.py")

# systemd's address for notifications: those of a worker would count for the whole service.
SERVICE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
OF_STARTER = ("XBOARD_WORKER_DIR", "XBOARD_PREFLIGHT", "XBOARD_FORK_ORDERS", "XBOARD_REFUSED", VARIABLE)


def environment(
    watcher: Any, folder: Path | None, options: WatcherOptions, marks: Mapping[str, str], withheld: Collection[str]
) -> dict[str, str]:
    """Return the environment of a watcher's processes, as a copy. Without a *folder* they get no private socket.

    The *withheld* variables are left out where copy_env has put circusd's own in.

    The dict that Circus holds is the one that `reloadconfig` compares with the file: a change in it would restart the
    backend at each reload of the configuration.
    """
    given = (watcher.env or {}).items()
    env = {name: value for name, value in given if not (name in withheld and os.environ.get(name) == value)}
    # Circus leaves it to PATH which `python` runs, and the one beside circusd is the one that has our packages.
    interpreter = os.path.dirname(sys.executable)
    path = env.get("PATH", os.environ.get("PATH", os.defpath)).split(os.pathsep)
    if path[:1] != [interpreter]:
        env["PATH"] = os.pathsep.join([interpreter, *path])
    env.setdefault("PYTHONUNBUFFERED", "1")  # the last words of a worker must not die in a buffer
    # setproctitle would write the title over the environment, and with it over the marks by which we know our own.
    env.setdefault("SPT_NOENV", "1")
    for name in (*SERVICE_MANAGER, *OF_STARTER):
        env.pop(name, None)
    env |= {**marks, "XBOARD_WATCHER": watcher.name}
    if folder is not None:
        env["XBOARD_WORKER_DIR"] = str(folder)
    return with_options(env, options)


def with_options(env: Mapping[str, str], options: WatcherOptions) -> dict[str, str]:
    """Return *env* with the options that a worker reads itself: how to probe its app, how to drain."""
    health = options.health
    said = {
        "XBOARD_LIVE_PATH": health.live_path,
        "XBOARD_READY_PATH": health.ready_path,
        "XBOARD_PROBE_HOST": health.host,
        "XBOARD_PROBE_SCHEME": health.scheme,
        "XBOARD_PROBE_HEADERS": "\n".join(health.headers or ()),
        "XBOARD_WEBSOCKET_SPREAD": f"{options.worker.websocket_spread:g}",
        "XBOARD_REQUEST_RECORD": "" if options.request.record else "0",
        "XBOARD_REQUEST_ID_HEADER": options.request.id_header or "",
        "XBOARD_REQUEST_SLOW": f"{options.request.slow:g}",
        "XBOARD_REQUEST_TIMEOUT": f"{options.request.timeout:g}",
    }
    others = {name: value for name, value in env.items() if name not in said}
    return {**others, **{name: value for name, value in said.items() if value}}


def of_launcher(env: Mapping[str, str], *command: object) -> dict[str, str]:
    """Return *env* for the launcher, which is circusd's user until it becomes the watcher's.

    What circusd itself does not run with comes under a name of ours, and the launcher puts it right for the command:
    a LD_PRELOAD of an env file would else be loaded as root. What *command* names, Circus looks up by its own name.
    """
    named = {name.lower() for name in _IN_COMMAND.findall(" ".join(map(str, command)))}

    def is_safe(name: str, value: str) -> bool:
        is_ours = name.startswith("XBOARD_") and not name.startswith(LATER)
        return is_ours or name.lower() in named or os.environ.get(name) == value

    return {name if is_safe(name, value) else f"{LATER}{name}": value for name, value in env.items()}


def launch_command(watcher: Any, *, wid: int, token: str, requests: int | None = None) -> str:
    """Return the watcher's command with the launcher in front.

    *requests* is the descriptor of the memory in which it notes its requests. It also enters the directory and
    becomes the user: where Circus itself cannot, it stops the whole watcher.
    """
    words = [sys.executable, "-I", "-S", str(LAUNCHER), "--wid", str(wid), "--worker", token]
    # Circus enters the folder too if it can and we stay its user: a relative one would be looked for inside itself.
    words += ["--chdir", os.path.abspath(watcher.working_dir)]
    for option in ("uid", "gid"):
        if getattr(watcher, option) is not None:
            words += [f"--{option}", str(getattr(watcher, option))]
    for name, value in (watcher.rlimits or {}).items():
        words += ["--rlimit", f"{name}={value}"]
    if requests is not None:
        words += ["--env", f"{VARIABLE}={requests}"]
    return " ".join([*map(shlex.quote, words), "--", watcher.cmd])
