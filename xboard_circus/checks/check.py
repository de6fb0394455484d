"""Check an ini file before Circus reads it: Circus itself drops what it cannot load, and runs on.

What the file alone can tell is in `file_rules` and `watcher_rules`, what the host has to say in `host_rules`,
`endpoint_rules`, `port_rules` and `import_rules`; this module asks them all and gives each remark its place.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from xboard_circus import config as configuration
from xboard_circus import preflight
from xboard_circus.checks import (
    alert_rules,
    endpoint_rules,
    file_rules,
    host_rules,
    import_rules,
    port_rules,
    watcher_rules,
)
from xboard_circus.checks.findings import Finding, Level, Remark, Report, report
from xboard_circus.config import Config
from xboard_circus.config_files import misreadings, read_scans, unreadable
from xboard_circus.errors import XboardError

__all__ = ["Finding", "Level", "Report", "check"]


def check(
    config_file: str | Path,
    *,
    running: bool = False,
    deep: bool = False,
    others: Callable[[], Collection[str]] = endpoint_rules.people,
) -> Report:
    """Return everything that is wrong, or will go wrong, with *config_file*.

    With *running*, its circusd runs and has the ports, so they are not looked at; one that is found to run is
    recognised in any case. Nothing is changed, but the hooks and plugins are imported, in processes of their own.
    With *deep*, where nothing else is wrong, each armed watcher's app is started once as well, see `preflight`.
    """
    shown = str(config_file)
    try:
        findings = list(_unreadable(Path(config_file).absolute(), shown))
        if not findings:
            config = configuration.load(config_file)
            findings = list(_findings(config, running=running, others=others()))
            if deep and report(findings).passed:
                findings += _tried(config)
    except XboardError as error:
        findings = [Finding(Level.ERROR, shown, "", "", None, str(error).removeprefix(f"{shown}: "), "")]
    return report(findings)


def _unreadable(path: Path, shown: str) -> Iterator[Finding]:
    scans = read_scans(path, shown)
    for line in unreadable(scans):
        yield Finding(Level.ERROR, shown, "", "", None, line, "")
    for section, problem in misreadings(scans):
        yield Finding(Level.ERROR, shown, section, problem.option, problem.value, problem.what, problem.hint)


def _findings(config: Config, *, running: bool, others: Collection[str]) -> Iterator[Finding]:
    given = _given(config)
    worst = Level.OK
    for section, remark in _remarks(config, running=running, others=others):
        worst = Level.ERROR if Level.ERROR in (worst, remark.level) else remark.level
        value = given.get(section, {}).get(remark.option)
        yield Finding(remark.level, config.shown, section, remark.option, value, remark.what, remark.hint)
    if worst is not Level.ERROR:
        parts = {"watcher": config.watchers, "socket": config.sockets, "plugin": config.plugins}
        parts |= {"alert": config.alerts} if config.alerts else {}
        counts = ", ".join(f"{len(found)} {name}{'s' * (len(found) != 1)}" for name, found in parts.items())
        yield Finding(Level.OK, config.shown, "", "", None, f"{counts}: every option is read, all of it imports", "")


def _remarks(config: Config, *, running: bool, others: Collection[str]) -> Iterator[tuple[str, Remark]]:
    yield from file_rules.remarks(config)
    for watcher in config.watchers:
        for remark in watcher_rules.remarks(config, watcher):
            yield watcher.section, remark
        for remark in host_rules.remarks(config, watcher):
            yield watcher.section, remark
    yield from alert_rules.remarks(config)
    yield from _circus(config, others)
    yield from import_rules.remarks(config)
    if not running:
        yield from port_rules.remarks(config)


def _circus(config: Config, others: Collection[str]) -> Iterator[tuple[str, Remark]]:
    """Yield what the host has to say about the [circus] section."""
    for option in ("logoutput", "pidfile"):
        remark = None
        if configuration.is_file(config.circus[option]):
            remark = host_rules.not_writable(option, config.folder / config.circus[option], "circusd does not start")
        if remark:
            yield "circus", remark
    for remark in endpoint_rules.remarks(config, others):
        yield "circus", remark
    if config.circus["httpd"] and importlib.util.find_spec("circusweb") is None:
        what = "circusd ends at once: circus-web is not installed, and does not install any more"
        yield "circus", Remark(Level.ERROR, "httpd", what, "delete the line")


def _tried(config: Config) -> Iterator[Finding]:
    """Yield how a throw-away worker of each armed watcher fares."""
    for watcher in filter(configuration.is_armed, config.watchers):
        outcome = preflight.preflight(config, watcher)
        level = Level.ERROR if outcome.verdict is preflight.Verdict.FAILED else Level.OK
        yield Finding(level, config.shown, watcher.section, "", None, outcome.told(), "")


def _given(config: Config) -> dict[str, Mapping[str, str]]:
    return {
        "circus": config.given,
        **{watcher.section: watcher.given for watcher in config.watchers},
        **{socket.section: socket.given for socket in config.sockets},
        **{plugin.name: plugin.given for plugin in config.plugins},
    }
