"""Check a [watcher:...] section, from its text alone, without effects."""

import re
import shlex
from collections.abc import Iterator

from xboard_circus.checks.findings import ERROR, WARNING, Finding
from xboard_circus.config import ARM, Config, WatcherConfig, is_armed, is_dashboard, is_our_plugin
from xboard_circus.core.names import CIRCUSD, bus_name, is_helper
from xboard_circus.options.circus import HARM_ARMED, HOOKS, WATCHER_OPTIONS, WATCHER_PREFIXES
from xboard_circus.options.reading import GONE, did_you_mean, flat, is_ours, suggestion
from xboard_circus.worker import MODULE, runs_worker

_UVICORNS_PORT = "8000"
_ROTATES_WITH = {"FileStream": ("max_bytes", "backup_count"), "TimedRotatingFileStream": ("backup_count",)}


def findings(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Yield the findings of every rule on one watcher."""
    for rule in RULES:
        yield from rule(config, watcher)


def words(watcher: WatcherConfig) -> list[str]:
    """Return the command as Circus splits it; [] where it cannot be split."""
    try:
        return shlex.split(f"{watcher.cmd} {watcher.args}")
    except ValueError:
        return []


def argument(command: list[str], name: str) -> str | None:
    """Return the last value that the command gives as ``--name VALUE`` or ``--name=VALUE``."""
    found = None
    for position, word in enumerate(command):
        if word == name and position + 1 < len(command):
            found = command[position + 1]
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def _our_options(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    for problem in watcher.problems:
        yield Finding(WARNING if problem.option in GONE else ERROR, problem.option, problem.what, problem.hint)
    # The page reads its own options, and the plugin's restart limiter limits what is not armed.
    readers = {"dashboard.": is_dashboard(watcher), "restart.": any(map(is_our_plugin, config.plugins))}
    kept = tuple(family for family, is_read in readers.items() if is_read)
    if not is_armed(watcher) and any(is_ours(name) and not name.startswith(kept) for name in watcher.given):
        hint = f"add hooks.before_start = {ARM}"
        yield Finding(WARNING, "", "has options of xboard-circus but is not armed, so nothing keeps to them", hint)


def _options_of_circus(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    ours = flat(watcher.options)
    for key in watcher.given:
        if key in WATCHER_OPTIONS or key in ours or is_ours(key):
            continue
        if key.startswith("hooks.") and key[6:] not in HOOKS:
            known = f"known are {', '.join(sorted(HOOKS))}"
            hint = suggestion(key[6:], HOOKS, alike=0.6, form="hooks.{}", otherwise=known)
            yield Finding(ERROR, key, "Circus calls no hook of that name", hint)
        elif not key.startswith(WATCHER_PREFIXES):
            family, dot, name = key.partition(".")
            near = did_you_mean(family, ("hooks", "stdout_stream", "stderr_stream"), alike=0.8) if dot else None
            if meant := did_you_mean(key, WATCHER_OPTIONS, alike=0.85) or (f"{near}.{name}" if near else None):
                what = "Circus does not know this option and leaves it out"
                yield Finding(ERROR, key, what, f"did you mean {meant}?")


def _name(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    if "." in watcher.name:
        hint = f"write [watcher:{watcher.name.replace('.', '-')}]"
        yield Finding(ERROR, "", "a dot in the name breaks every reader of Circus's events", hint)
    if watcher.name == CIRCUSD or is_helper(watcher.name):
        yield Finding(ERROR, "", "Circus, or its events, keeps this name for itself", "choose another")
    for other in config.watchers:
        if other is watcher:
            return
        if bus_name(other.name) == bus_name(watcher.name):
            what = f"Circus takes it for [{other.section}]: names ignore case, and a blank counts as _"
            yield Finding(ERROR, "", what, "choose another name")


def _command(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    if not watcher.cmd.strip():
        yield Finding(ERROR, "cmd", "missing or empty", f"write cmd = python -m {MODULE} module:app")
        return
    if not (command := words(watcher)):
        yield Finding(ERROR, "cmd", "a quote is not closed", "close it, or take it out")
        return
    if watcher.shell and is_armed(watcher) and re.match(r"\w+=", command[0]):
        hint = f"put {command[0]} into [env:{watcher.name}]"
        yield Finding(ERROR, "cmd", "a variable in front of the command does not work where a watcher is armed", hint)
    if watcher.shell and is_armed(watcher) and runs_worker(watcher.cmd, watcher.args):
        yield Finding(ERROR, "shell", *HARM_ARMED["shell"])
    if str(watcher.given.get("send_hup", "")).lower() in ("true", "yes", "on", "1") and is_armed(watcher):
        yield Finding(ERROR, "send_hup", *HARM_ARMED["send_hup"])
    workers = argument(command, "--workers")
    if is_armed(watcher) and workers not in (None, "1"):
        hint = f"take it out and write numprocesses = {workers}"
        yield Finding(ERROR, "cmd", "--workers starts processes that Circus does not see", hint)
    if is_armed(watcher) and "--reload" in command:
        yield Finding(WARNING, "cmd", "--reload puts a second supervisor between Circus and the app", "take it out")
    requests = argument(command, "--limit-max-requests")
    if requests and is_armed(watcher) and runs_worker(watcher.cmd, watcher.args):
        what = "--limit-max-requests ends a worker before another one is up, also several at once"
        yield Finding(WARNING, "cmd", what, f"take it out and write worker.max_requests = {requests}")


def _processes(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    count, port = watcher.numprocesses, watcher.options.port.port
    if count < 1:
        yield Finding(ERROR, "numprocesses", "starts nothing", "write 1 or more")
    if watcher.singleton and count > 1:
        what = f"contradicts numprocesses = {count}; Circus drops the watcher"
        yield Finding(ERROR, "singleton", what, "take it out")
    if watcher.copy_path and not watcher.copy_env:
        yield Finding(ERROR, "copy_path", "Circus drops a watcher that has it alone", "add copy_env = True")
    if count > 1 and port and is_armed(watcher):
        hint = "write numprocesses = 1, or let the workers share a [socket:...]"
        yield Finding(ERROR, "port.port", f"only one of {count} processes can bind it", hint)
    if not watcher.respawn and is_armed(watcher):
        yield Finding(WARNING, "respawn", "a worker that dies is not replaced", "take it out")
    if watcher.max_retry == -1:
        what = "a command that cannot be run would be tried without end and stop circusd from doing anything else"
        hint = "take it out; restart.burst and restart.cooldown do what it is meant to"
        yield Finding(ERROR, "max_retry", what, hint)
    if watcher.max_age:
        hint = f"write worker.max_age = {watcher.max_age} in its place"
        yield Finding(WARNING, "max_age", "Circus counts it by the wall clock: when that is set, all workers go", hint)


def _sockets(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    armed = is_armed(watcher)
    if watcher.sockets_used and not watcher.use_sockets:
        option = "use_sockets" if "use_sockets" in watcher.given else ""
        what = "the command uses a socket of Circus's but is not given it"
        yield Finding(ERROR, option, what, "write use_sockets = True")
    for used in watcher.sockets_used:
        if (socket := config.socket(used)) is None:
            names, form = [each.name for each in config.sockets], "$(circus.sockets.{})"
            hint = suggestion(used, names, alike=0.6, form=form, otherwise=f"add [socket:{used.lower()}]")
            yield Finding(ERROR, "cmd", f"there is no [socket:{used}]", hint)
        elif used != socket.name:
            what = f"Circus finds {used}, but not when it looks for the watchers of a changed socket"
            yield Finding(ERROR, "cmd", what, f"write $(circus.sockets.{socket.name})")
        elif watcher.on_demand and (armed or socket.so_reuseport):
            what = "a socket that is not bound yet counts as readable, so the start is not on demand"
            yield Finding(ERROR, "on_demand", what, "take it out")
    if armed and len(watcher.sockets_used) > 1:
        yield Finding(WARNING, "cmd", f"only {watcher.sockets_used[0]} is guarded, its first socket", "use one socket")


def _own_port(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    if not is_armed(watcher) or watcher.sockets_used or watcher.options.port.port:
        return
    command = words(watcher)
    port = argument(command, "--port")
    is_given = any(argument(command, name) for name in ("--fd", "--uds"))
    if port is None and _serves_with_uvicorn(command) and not is_given:
        port = _UVICORNS_PORT
    if port and port.isdecimal():
        what = f"port {port}, which its command binds, is not freed before a start"
        yield Finding(WARNING, "", what, f"add port.port = {port}")


def _stopping(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    command, limit = words(watcher), watcher.graceful_timeout
    if (drain := argument(command, "--timeout-graceful-shutdown")) is None:
        if is_armed(watcher) and _serves_with_uvicorn(command):
            hint = f"add --timeout-graceful-shutdown {max(1, int(limit * 2 / 3))}"
            what = f"without a limit of its own, uvicorn waits for its clients until Circus kills it after {limit:g} s"
            yield Finding(WARNING, "cmd", what, hint)
    elif drain.isdecimal() and int(drain) >= limit:
        option = "graceful_timeout" if "graceful_timeout" in watcher.given else ""
        what = f"graceful_timeout is {limit:g} s: Circus kills the worker before its drain of {drain} s is over"
        yield Finding(ERROR, option, what, f"write graceful_timeout = {int(drain) + 10}")


def _serves_with_uvicorn(command: list[str]) -> bool:
    return any(word == "uvicorn" or word.endswith("/uvicorn") or word == MODULE for word in command)


def _order(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    if is_armed(watcher) and watcher.priority <= 1 and config.plugins:
        option = "priority" if "priority" in watcher.given else ""
        yield Finding(WARNING, option, "the plugins start before it", "write priority = 10")


def _output(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    for name, stream in watcher.streams.items():
        option = f"{name}_stream.filename"
        kind = stream.get("class", "FileStream")
        # With max_bytes alone Circus opens the same file again and goes on writing to its end.
        missing = [key for key in _ROTATES_WITH.get(kind, ()) if stream.get(key, "0").strip() in ("", "0")]
        if missing and "filename" in stream:
            example = {"max_bytes": 10485760, "backup_count": 5}
            hint = "add " + " and ".join(f"{name}_stream.{key} = {example[key]}" for key in missing)
            yield Finding(WARNING, option, "the log grows until the disk is full", hint)
    for name, other in _shared_files(config, watcher):
        what = f"rotated by two writers, as {other} has the same file; lines get out of order and may be lost"
        yield Finding(WARNING, f"{name}_stream.filename", what, "give each a file of its own")


def _shared_files(config: Config, watcher: WatcherConfig) -> Iterator[tuple[str, str]]:
    """Yield (stream, owner of the same file before it) for each rotated file of the watcher's."""
    seen: dict[str, str] = {}
    for each in config.watchers:
        for name, stream in each.streams.items():
            if (file := stream.get("filename")) is None or stream.get("class", "FileStream") not in _ROTATES_WITH:
                continue
            owner = seen.setdefault(str(config.folder / file), f"{name}_stream of [{each.section}]")
            if each is watcher and owner != f"{name}_stream of [{each.section}]":
                yield name, owner


RULES = (
    *(_our_options, _options_of_circus, _name, _command, _processes, _sockets),
    *(_own_port, _stopping, _order, _output),
)
