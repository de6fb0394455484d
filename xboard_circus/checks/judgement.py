"""Judge an ini file by its text, its imports and this host, in the same words for `check` and within circusd.

circusd judges it before it carries out `reloadconfig`, `restart` or `reload`, whoever sent it: a file with an error
would cost the backend at the next start, if not now.

It runs in the command line and within circusd: it prints nothing, binds no port and starts no process.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path

from xboard_circus import config as configuration
from xboard_circus.checks import (
    alert_rules,
    dry_run,
    endpoint_rules,
    env_file_rules,
    file_rules,
    host_rules,
    import_rules,
    watcher_rules,
)
from xboard_circus.checks.findings import ERROR, Finding, within
from xboard_circus.config import Config, WatcherConfig, get_config
from xboard_circus.config_files import misreadings, read_scans, unreadable
from xboard_circus.errors import XboardError
from xboard_circus.host import writers


def judge(config_file: str | Path) -> list[Finding]:
    """Return what is wrong with *config_file*, errors and warnings; [] if nothing is.

    The hooks and stream classes are imported into this process, as circusd does it with a changed watcher; `check`
    imports them in a process of their own.
    """
    config, findings = read(config_file)
    if config is None:
        return findings
    # Under another user than root they are warnings, which take time.
    found = doors(config, *config.watchers or (None,), others=endpoint_rules.people()) if os.geteuid() == 0 else []
    return judged(config, found, _imports(config))


def judged(config: Config, found: list[Finding], imports: Iterator[Finding]) -> list[Finding]:
    """Return the findings on a file with `doors` as *found*; where one is open, *imports* would run what lies there."""
    is_open = any(each.level is ERROR for each in found)
    return [*of_file(config), *found, *placed(config, () if is_open else imports)]


def read(config_file: str | Path) -> tuple[Config | None, list[Finding]]:
    """Return the file, or None and why it cannot be read."""
    shown = str(config_file)
    try:
        unread = list(_unreadable(configuration.path_of(config_file), shown))
        return (None, unread) if unread else (configuration.load(config_file), [])
    except XboardError as error:
        return None, [Finding(ERROR, "", str(error).removeprefix(f"{shown}: "), "", file=shown)]


def of_file(config: Config) -> list[Finding]:
    """Return the findings that need no other process and no port."""
    return list(placed(config, _findings(config)))


def open_doors(config_file: str | Path, name: str | None = None) -> list[Finding]:
    """Return the errors of root's files through which a user could become root, or a watcher's user, of all watchers
    or of the one called *name*."""
    if (config := read(config_file)[0] if os.geteuid() == 0 else None) is None:
        return []
    chosen = (each for each in config.watchers if name is None or each.name.lower() == name.lower())
    return [door for door in doors(config, *chosen) if door.level is ERROR]


def doors(
    config: Config, *watchers: WatcherConfig | None, others: Collection[str] | None = None, refusal: str | None = None
) -> list[Finding]:
    """Return what another user may write of what is run for *watchers*, None for a file without one: errors for root.

    Unless *others* is None, also what all may write: an error with such people on this host; without, root is warned.
    After a *refusal*, which names the folder, not what some may.
    """
    is_asked = others or (others is not None and os.geteuid() == 0)
    rules = [host_rules.writable, *[lambda *at: host_rules.open_to_all(*at, others=others or ())] * bool(is_asked)]
    rules += [host_rules.open_to_others] if refusal is None else []
    found = (within(each.section if each else "circus", rule(config, each)) for each in watchers for rule in rules)
    with writers.looking_once():  # circusd answers nobody meanwhile
        return list(placed(config, chain.from_iterable(found)))


def placed(config: Config, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield each finding with its file and the value there, and no advice that another author could misuse."""
    given = {"circus": config.given, **{plugin.name: plugin.given for plugin in config.plugins}}
    given |= {each.section: each.given for each in config.watchers}
    given |= {each.section: each.given for each in config.sockets}
    for finding in found:
        value, hint = given.get(finding.section, {}).get(finding.option), host_rules.advice(config, finding.hint)
        yield finding._replace(file=config.shown, value=value, hint=hint)


def _unreadable(path: Path, shown: str) -> Iterator[Finding]:
    scans = read_scans(path, shown)
    for line in unreadable(scans):
        yield Finding(ERROR, "", line, "", file=shown)
    for section, problem in misreadings(scans):
        yield Finding(ERROR, problem.option, problem.what, problem.hint, section, shown, problem.value)


def _findings(config: Config) -> Iterator[Finding]:
    yield from file_rules.findings(config)
    for watcher in config.watchers:
        yield from within(watcher.section, watcher_rules.findings(config, watcher))
        yield from within(watcher.section, env_file_rules.findings(config, watcher))
        yield from within(watcher.section, host_rules.findings(config, watcher))
    yield from alert_rules.findings(config)


def _imports(config: Config) -> Iterator[Finding]:
    for watcher in get_config(str(config.path))["watchers"]:
        for option, error in dry_run.import_errors(watcher).items():
            yield import_rules.not_imported(option, error, import_rules.NO_WATCHER, watcher["__name__"])
