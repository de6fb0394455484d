"""List the options in force of a watcher and of circusd, with their places in the file, secrets masked."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from xboard_circus.circus_client import CircusdClient
from xboard_circus.config import Config, load_readable
from xboard_circus.core.names import PLUGIN
from xboard_circus.dashboard import views
from xboard_circus.dashboard.poller import Server
from xboard_circus.dashboard.settings import LOCAL, Settings
from xboard_circus.masking import MASK
from xboard_circus.options.reading import flat, ini_text

Places = Mapping[str, tuple[str, str]]
Row = tuple[str, str, str]


def options_shown(server: Server, settings: Settings, name: str) -> list[Row]:
    """Return the options in force of a watcher of *server*, or of circusd itself without *name*.

    Their places are known only of the circusd beside us. Blocks until circusd answers.
    """
    watcher = server.watcher(name) if name else None
    with CircusdClient(server.endpoint, owner=server.owner) as client:
        command, of = ("globaloptions", {}) if watcher is None else ("options", {"name": watcher["name"]})
        live = client.call(command, deadline=settings.deadline, **of)["options"]
    if server.id != LOCAL or settings.config is None:
        return sorted((key, str(views.option(key, value)), "") for key, value in live.items())
    config = load_readable(settings.config.path)  # it may have changed since the page was started
    return [*(options_of_circusd(config, live) if watcher is None else options_of(watcher, config, live))]


def options_of(watcher: Mapping[str, Any], config: Config, live: Mapping[str, Any]) -> Iterator[Row]:
    """Yield each option of a watcher: its name, the value in force, and its place in the file, "" for a default.

    One that was changed at run time, or in the file since circusd started, has the value in the file too.
    """
    name, found = watcher["name"], config.find(watcher["name"])
    read: dict[str, Any] = {} if found is None else {**found._asdict(), **flat(found.options)}
    in_force = {key: value for key, value in live.items() if isinstance(value, (int, float)) and key in read}
    in_force |= watcher["options"]
    places = dict(_places(name if name.startswith(PLUGIN) else f"watcher:{name}", config))
    return _rows({**places, **dict(_environment(name, config))}, read, in_force)


def options_of_circusd(config: Config, live: Mapping[str, Any]) -> Iterator[Row]:
    """Yield each option of circusd itself, as `options_of` does."""
    in_force = {key: value for key, value in live.items() if key in config.circus}
    return _rows(dict(_places("circus", config)), config.circus, in_force)


def _rows(places: Places, read: Mapping[str, Any], in_force: Mapping[str, Any]) -> Iterator[Row]:
    for key in sorted({*places, *in_force}):
        text, place = places.get(key, ("", ""))
        if key in read and key in in_force and _text(in_force[key]) != _text(read[key]):
            place = f"in force; {place or 'the default'} has {views.option(key, _text(read[key]))}"
        yield key, str(views.option(key, _text(in_force[key]) if key in in_force else text)), place


def _places(section: str, config: Config) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each option of a section of the file: its name, its value and its place."""
    # Circus takes the first of two lines.
    for scan, entry in reversed([(each, entry) for each in config.scans for entry in each.entries]):
        if entry.section.lower() == section.lower():
            yield entry.option, (" ".join(entry.value.split()), f"{scan.file.name}:{entry.line}")


def _environment(name: str, config: Config) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each variable that the file gives the workers of a watcher, without its value."""
    for scan, entry in reversed([(each, entry) for each in config.scans for entry in each.entries]):
        kind, _, patterns = entry.section.partition(":")
        if kind == "env" and any(fnmatch(name, each.strip()) for each in (patterns or "*").split(",")):
            yield f"environment {entry.option}", (MASK, f"{scan.file.name}:{entry.line}")


def _text(value: object) -> str:
    return ini_text(tuple(map(str, value)) if isinstance(value, (list, tuple)) else value)
