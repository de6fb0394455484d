"""Load an ini file as circusd would, without binding, starting or writing anything; print what fails as JSON.

`check` runs this file in a process of its own, because imports have effects and must succeed in circusd's process. That
has the folder of the circusd script first on its path, not the current folder, and Circus adds each watcher's
PYTHONPATH to it as it goes. A plugin's process, in turn, starts in circusd's folder, with circusd's path as its
PYTHONPATH. Circus itself drops a watcher with a hook that cannot be imported, and runs on.
"""

import gc
import importlib
import json
import os
import sys
import traceback
from typing import Any


def main(arguments: list[str]) -> dict[str, Any]:
    """Answer ``circusd FILE`` or ``plugin NAME``."""
    kind, name = arguments
    if not getattr(sys.flags, "safe_path", False):  # PYTHONSAFEPATH, since Python 3.11: there is no such entry
        sys.path[0] = "" if kind == "plugin" else os.path.dirname(sys.executable)
    if kind == "plugin":
        return {"error": found(name) or missing(name), "from": origin(name)}
    return circusd(name)


def circusd(config_file: str) -> dict[str, Any]:
    from circus.config import get_config

    config = get_config(config_file)
    watchers = [watcher(each) for each in config["watchers"]]
    errors = [(each["__name__"], made("circus.sockets", "CircusSocket", each)) for each in config["sockets"]]
    sockets = [{"section": section, "error": error} for section, error in errors]
    used = [each for each in config["plugins"] if "use" in each]
    plugins = [{"section": each["name"], "error": found(each["use"])} for each in used]
    places = {"from": origin("xboard_circus"), "path": sys.path}
    return {"watchers": watchers, "sockets": sockets, "plugins": plugins, **places}


def watcher(config: dict[str, Any]) -> dict[str, Any]:
    """Return the section, the error of each hook, and that of the watcher where no hook caused it."""
    errors = import_errors(config)
    for name in ("stdout_stream", "stderr_stream"):
        # Circus opens the log at once; other rules check that, and a class of the user's may do anything.
        config[name]["filename"] = os.devnull
        if "." in config[name].get("class", "") or len(config[name]) == 1:
            config[name] = {}
    error = None if errors else made("circus.watcher", "Watcher", config)
    return {"section": config["__name__"], "options": errors, "error": error}


def import_errors(config: dict[str, Any]) -> dict[str, str]:
    """Return why the hooks and stream classes of a watcher cannot be imported, by option; {} if all can."""
    if "PYTHONPATH" in config["env"]:
        for path in config["env"]["PYTHONPATH"].split(os.pathsep):
            add_site(path)
    targets = {f"hooks.{name}": (hook[0], "function") for name, hook in config["hooks"].items()}
    for name in ("stdout_stream", "stderr_stream"):
        kind = config[name].get("class", "")
        if "." in kind:
            targets[f"{name}.class"] = (kind, "class")
    return {option: error for option, target in targets.items() if (error := found(*target))}


def add_site(path: str) -> None:
    """Put *path* on our path as Watcher does before it looks for hooks."""
    import site

    path = expanded(path)
    if path not in sys.path:
        site.addsitedir(path)


def expanded(path: str) -> str:
    """Return a folder of PYTHONPATH as Watcher reads it."""
    import re

    return re.sub(r"\$([A-Z]+[A-Z0-9_]*)", lambda name: os.getenv(name[1], ""), path).strip()


def made(module: str, name: str, config: dict[str, Any]) -> str | None:
    """Return why Circus could not make an object of that class from its section, or None."""
    try:
        getattr(__import__(module, fromlist=[name]), name).load_from_config(config)
    except Exception as error:
        return last_line(error)
    return None


def found(target: str, kind: str = "class") -> str | None:
    """Return why *target* cannot be imported, or None."""
    from circus.util import resolve_name

    try:
        value = resolve_name(target)
    except BaseException as error:
        return last_line(getattr(error, "exception", None) or error)
    if kind == "class" and not isinstance(value, type):
        return f"{target} is no class"
    return None if callable(value) else f"{target} is no function"


def missing(target: str) -> str | None:
    """Return why a plugin cannot start that imports the rest of what it *needs* later, or None."""
    from circus.util import resolve_name

    try:
        needs = getattr(resolve_name(target), "needs", None)
        if isinstance(needs, str):
            importlib.import_module(needs)
    except BaseException as error:
        return last_line(error)
    return None


def origin(target: str) -> str | None:
    """Return the file of the package with *target*, if that is imported."""
    return getattr(sys.modules.get(target.partition(".")[0]), "__file__", None)


def last_line(error: BaseException) -> str:
    """Return the last line of the traceback, and where it was raised."""
    line = traceback.format_exception_only(type(error), error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{line} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and "/circus/" not in frame.filename]
    return f"{line} ({own[-1].filename}:{own[-1].lineno})" if own and own[-1].filename != __file__ else line


if __name__ == "__main__":
    gc.disable()  # it ends soon, and a tenth of an import goes into the search for garbage
    # Output of the imported modules must not get between the lines of the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(main(sys.argv[1:]), answer)
    answer.flush()
    os._exit(0)  # a module may have left threads behind
