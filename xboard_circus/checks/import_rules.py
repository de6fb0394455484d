"""Check that Circus can import every hook, plugin and class of an ini file, in processes of their own."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xboard_circus.checks import dry_run
from xboard_circus.checks.findings import ERROR, WARNING, Finding, no_folder, within
from xboard_circus.config import Config, PluginConfig
from xboard_circus.host.programs import run_captured

TIMEOUT = 60.0
NO_WATCHER = "Circus runs on without this watcher"


def findings(config: Config) -> Iterator[Finding]:
    """Yield findings on everything that circusd or a plugin's process could not load."""
    found = _loaded(["circusd", str(config.path)], folder=config.folder)
    if isinstance(found, str):
        yield Finding(ERROR, "", f"circusd could not load it: {found}", "")
        return
    for watcher in found["watchers"]:
        for option, error in watcher["options"].items():
            yield not_imported(option, error, NO_WATCHER, watcher["section"])
    for kind in ("watcher", "socket"):
        for each in found[f"{kind}s"]:
            if each["error"]:
                yield Finding(ERROR, "", f"Circus drops this {kind}: {each['error']}", "", each["section"])
    failed = {plugin["section"]: plugin["error"] for plugin in found["plugins"] if plugin["error"]}
    yield from (not_imported("use", error, "circusd does not start", section) for section, error in failed.items())
    for plugin in config.plugins:
        if plugin.use and plugin.name not in failed:
            own = _in_its_process(config, plugin, path=found["path"], hooks_from=found["from"])
            yield from within(plugin.name, own)


def not_imported(option: str, error: str, consequence: str, section: str) -> Finding:
    """Return the finding on a hook, plugin or class that circusd's Python cannot import."""
    what = f"cannot be imported, and {consequence}: {error}"
    return Finding(ERROR, option, what, f"name what circusd can import; its Python is {sys.executable}", section)


def _in_its_process(
    config: Config, plugin: PluginConfig, *, path: list[str], hooks_from: str | None
) -> Iterator[Finding]:
    """Check that the plugin's own process can import it too, because it starts in another folder, first on its path."""
    folder = config.folder / plugin.given.get("working_dir", ".")
    if not os.path.isdir(folder):
        yield no_folder(ERROR, "working_dir", folder)
        return
    found = _loaded(["plugin", plugin.use], folder=folder, PYTHONPATH=os.pathsep.join(path))
    error = found if isinstance(found, str) else found["error"]
    if error or isinstance(found, str):
        yield not_imported("use", error, "the plugin dies again and again, in silence", plugin.name)
    elif plugin.use.startswith("xboard_circus.") and _differ(found["from"], hooks_from):
        what = f"comes from {Path(found['from']).parent}, but the hooks from {Path(str(hooks_from)).parent}"
        yield Finding(WARNING, "use", what, "write working_dir = / here, or set PYTHONSAFEPATH=1 for circusd")


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and os.path.realpath(one) != os.path.realpath(other)


def _loaded(arguments: list[str], *, folder: Path, **environment: str) -> dict[str, Any] | str:
    """Return the answer of `dry_run`, or why it could not answer."""
    command = [sys.executable, dry_run.__file__, *arguments]
    env = {**os.environ, "PWD": str(folder), **environment}
    if (run := run_captured(command, cwd=folder, env=env, timeout=TIMEOUT)) is None:
        return f"an import has not come back after {TIMEOUT:g} s"
    try:
        answer: dict[str, Any] = json.loads(run.stdout)
    except ValueError:
        ended = f"the process ended with {run.returncode} in the middle of an import"
        return (run.stderr.strip().splitlines() or [ended])[-1]
    return answer
