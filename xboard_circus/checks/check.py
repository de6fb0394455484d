"""Check an ini file before Circus reads it, because Circus drops what it cannot load, and runs on.

`judgement` checks what circusd itself can check. This module adds what needs other processes and ports: imports of
plugins and of the app's module, `endpoint_rules` and `port_rules`.
"""

import importlib.util
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from xboard_circus import config as configuration
from xboard_circus.checks import endpoint_rules, host_rules, import_rules, port_rules
from xboard_circus.checks.findings import Finding, Level, Report, report, within
from xboard_circus.checks.judgement import doors, judged, read
from xboard_circus.config import Config
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.ledger.location import ledgers_of
from xboard_circus.logs.files import CIRCUSD_LOG

__all__ = ["Finding", "Level", "Report", "check"]


def check(
    config_file: str | Path,
    *,
    running: bool = False,
    others: Callable[[], Collection[str]] = endpoint_rules.people,
    starts: bool = False,
) -> Report:
    """Return everything that is wrong, or will go wrong, with *config_file*.

    With *running*, its circusd runs and has the ports, so they are not checked; a running one is recognised in any
    case. Nothing is changed, but the hooks and plugins are imported, in processes of their own; not by root from a
    folder that another user may write. With *starts*, circusd starts next, with our environment.
    """
    config, findings = read(config_file)
    if config is None:
        return report(findings)
    if starts and "logoutput" not in config.given:
        config = config._replace(circus={**config.circus, "logoutput": str(CIRCUSD_LOG)})
    refusal = host_rules.refusal(config.folder)
    try:
        found = doors(config, *config.watchers or (None,), others=others(), refusal=refusal)
        of_host = _of_host(config, running=running, others=others(), starts=starts, refusal=refusal)
        findings = judged(config, found, of_host)
    except XboardError as error:
        return report([Finding(Level.ERROR, "", str(error).removeprefix(f"{config.shown}: "), "", file=config.shown)])
    if all(finding.level is not Level.ERROR for finding in findings):
        findings.append(_counts(config, imported=refusal is None))
    return report(findings)


def _counts(config: Config, *, imported: bool) -> Finding:
    parts = {"watcher": len(config.watchers), "socket": len(config.sockets), "plugin": len(config.plugins)}
    parts |= {"alert": len(config.alerts)} if config.alerts else {}
    counts = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in parts.items())
    imports = ", all of it imports" if imported else ""
    return Finding(Level.OK, "", f"{counts}: every option is read{imports}", "", file=config.shown)


def _of_host(
    config: Config, *, running: bool, others: Collection[str], starts: bool, refusal: str | None
) -> Iterator[Finding]:
    yield from within("circus", _circus(config, others))
    if refusal is None:
        for watcher in config.watchers:
            yield from within(watcher.section, host_rules.modules(config, watcher, starts=starts))
        yield from import_rules.findings(config)
    else:
        yield Finding(Level.WARNING, "", f"hooks, plugins and apps were not looked for: {refusal}", "")
    yield from _ledgers(config)
    if not running:
        yield from port_rules.findings(config)


def _ledgers(config: Config) -> Iterator[Finding]:
    """Yield a finding for each ledger that another circusd of this user records to."""
    own, ours = runtime.instance_id(config.path), set(ledgers_of(config))
    for circusd, instance in runtime.supervisors().items():
        if instance != own and procs.is_running(circusd.pid, circusd.started):
            with suppress(XboardError):  # its file is gone, or broken
                theirs = configuration.load_readable(str((runtime.read_record(instance) or {}).get("config_file")))
                for ledger in sorted(ours & set(ledgers_of(theirs))):
                    what = f"circusd of {theirs.path} (pid {circusd.pid}) records to {ledger}, too: each shows the"
                    hint = "name another ledger.file in [plugin:xboard] of one of them"
                    yield Finding(Level.WARNING, "", f"{what} other's events as its own", hint)


def _circus(config: Config, others: Collection[str]) -> Iterator[Finding]:
    """Yield findings of the host on the [circus] section."""
    for option in ("logoutput", "pidfile"):
        if configuration.is_file(config.circus[option]):
            file = config.folder / config.circus[option]
            yield from host_rules.not_writable(option, file, "circusd does not start")
    yield from endpoint_rules.findings(config, others)
    if config.circus["httpd"] and importlib.util.find_spec("circusweb") is None:
        what = "circusd ends at once: circus-web is not installed, and does not install any more"
        yield Finding(Level.ERROR, "httpd", what, "delete the line")
