"""Check that Circus finds every hook, plugin and class of an ini file, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xboard_circus.checks import dry_run
from xboard_circus.checks.findings import Finding, Level
from xboard_circus.config import Config, PluginConfig

TIMEOUT = 60.0
NO_WATCHER = "Circus runs on without this watcher"


def findings(config: Config) -> Iterator[tuple[str, Finding]]:
    """Yield (section, finding) for everything that circusd or a plugin's process could not load."""
    found = _loaded(["circusd", str(config.path)], folder=config.folder)
    if isinstance(found, str):
        yield "", Finding(Level.ERROR, "", f"circusd could not load it: {found}", "")
        return
    for watcher in found["watchers"]:
        for option, error in watcher["options"].items():
            yield watcher["section"], not_imported(option, error, NO_WATCHER)
        if watcher["error"]:
            yield watcher["section"], Finding(Level.ERROR, "", f"Circus drops this watcher: {watcher['error']}", "")
    for socket in found["sockets"]:
        if socket["error"]:
            yield socket["section"], Finding(Level.ERROR, "", f"Circus drops this socket: {socket['error']}", "")
    failed = {plugin["section"]: plugin["error"] for plugin in found["plugins"] if plugin["error"]}
    for section, error in failed.items():
        yield section, not_imported("use", error, "circusd does not start")
    for plugin in config.plugins:
        if plugin.use and plugin.name not in failed:
            for finding in _in_its_process(config, plugin, path=found["path"], hooks_from=found["from"]):
                yield plugin.name, finding


def not_imported(option: str, error: str, consequence: str) -> Finding:
    """Return the finding on a hook, plugin or class that circusd's Python does not import."""
    what = f"cannot be imported, and {consequence}: {error}"
    return Finding(Level.ERROR, option, what, f"name what circusd can import; its Python is {sys.executable}")


def _in_its_process(
    config: Config, plugin: PluginConfig, *, path: list[str], hooks_from: str | None
) -> Iterator[Finding]:
    """Check that the plugin's own process finds it too: it starts in another folder, with that folder on its path."""
    folder = config.folder / plugin.given.get("working_dir", ".")
    if not folder.is_dir():
        yield Finding(Level.ERROR, "working_dir", f"there is no folder {folder}", f"mkdir -p {folder}")
        return
    found = _loaded(["plugin", plugin.use], folder=folder, PYTHONPATH=os.pathsep.join(path))
    if isinstance(found, str):
        yield not_imported("use", found, "the plugin dies again and again, in silence")
    elif found["error"]:
        yield not_imported("use", found["error"], "the plugin dies again and again, in silence")
    elif plugin.use.startswith("xboard_circus.") and _differ(found["from"], hooks_from):
        what = f"comes from {Path(found['from']).parent}, but the hooks from {Path(str(hooks_from)).parent}"
        yield Finding(Level.WARNING, "use", what, "write working_dir = / here, or set PYTHONSAFEPATH=1 for circusd")


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and os.path.realpath(one) != os.path.realpath(other)


def _loaded(arguments: list[str], *, folder: Path, **environment: str) -> dict[str, Any] | str:
    """Return what `dry_run` answers, or why it could not."""
    try:
        run = subprocess.run(
            [sys.executable, dry_run.__file__, *arguments],
            cwd=folder,
            env={**os.environ, "PWD": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"an import has not come back after {TIMEOUT:g} s"
    try:
        answer: dict[str, Any] = json.loads(run.stdout)
    except ValueError:
        lines = run.stderr.strip().splitlines() or [
            f"the process ended with {run.returncode} in the middle of an import"
        ]
        return lines[-1]
    return answer
