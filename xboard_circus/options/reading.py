"""Parse the options of an ini section into the records of `fields`.

Parsing never raises, because circusd has to run on with the default: a wrong option comes back as a Problem with what
to write, and `xboard-circus check` refuses to start with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from xboard_circus.core.restart_limits import RestartLimits
from xboard_circus.masking import safe_command
from xboard_circus.options import circus as circus_options
from xboard_circus.options import kinds
from xboard_circus.options.fields import Option, PluginOptions, RestartOptions, WatcherOptions
from xboard_circus.options.kinds import OptionKind, WrongValueError

if TYPE_CHECKING:
    from xboard_circus.options.alert_fields import AlertOptions  # circusd needs none of its imports


class Problem(NamedTuple):
    """A problem with one option of a section, and what to write instead."""

    option: str
    value: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.option} = {self.value}: {self.what}; {self.hint}"


# Below this a key of the user's own is no misspelling of ours: "port" is 0.62 like "port.port".
_ALIKE = 0.8

GONE = {"worker.spares": ("gone, does nothing", "delete it: worker.preload = app forks the next worker at once")}
"""Options that an older file may have: what to say of each, and what to use instead."""

_Options = TypeVar("_Options", WatcherOptions, PluginOptions, "AlertOptions")


def parse_watcher(mapping: Mapping[str, object]) -> tuple[WatcherOptions, list[Problem]]:
    """Parse our options of a watcher; a wrong one counts as its default and comes back as a Problem.

    >>> options, problems = parse_watcher({"health.period": "fast", "restart.burst": "3"})
    >>> options.restart.burst, options.health.period, str(problems[0])
    (3, 2.0, 'health.period = fast: not a number of seconds; write it in digits, such as 2')
    """
    options, problems = parse_fields(WatcherOptions, mapping)
    options, contradictions = _reconciled(options, mapping)
    return options, problems + contradictions + _unknown(WatcherOptions, mapping, circus_options.WATCHER_OPTIONS)


def parse_plugin(mapping: Mapping[str, object]) -> tuple[PluginOptions, list[Problem]]:
    """Parse our options of a plugin, as `parse_watcher` does; Circus's own keys of the section are skipped."""
    options, problems = parse_fields(PluginOptions, mapping)
    return options, problems + _unknown(PluginOptions, mapping, circus_options.PLUGIN_OPTIONS)


def parse_fields(kind: type[_Options], mapping: Mapping[str, object]) -> tuple[_Options, list[Problem]]:
    """Parse the options of *kind* in *mapping*, and leave all other keys to the caller."""
    options, problems = kind(), []
    for name, group, field, option in list(named_fields(options)):
        if mapping.get(name) is None:  # `flat` has None for an option without a default
            continue
        text = str(mapping[name]).strip()
        if not text and option.kind is kinds.URL_PATH:
            continue  # an environment variable that is set to nothing leaves this: the app has no such path
        try:
            options = _with(options, name, _read(option.kind, text))
        except WrongValueError as wrong:
            example = ini_text(option.example or getattr(group, field))
            hint = (wrong.hint or f"write it in digits, such as {example}") if text else f"write one, such as {example}"
            problems.append(Problem(name, shown(text), wrong.what if text else "no value", hint))
    return options, problems


def flat(options: "WatcherOptions | PluginOptions | AlertOptions") -> dict[str, object]:
    """Return the options under their names in the ini file, for the state command.

    >>> flat(WatcherOptions())["restart.burst"]
    5
    """
    return {name: getattr(group, field) for name, group, field, _ in named_fields(options)}


def is_ours(key: str) -> bool:
    """Return whether this is a key of one of our families, such as ``health.`` or ``restart.``, known or not."""
    return key.startswith(_families(WatcherOptions))


def ini_text(value: object) -> str:
    """Format *value* as in the ini file.

    >>> ini_text(2.0), ini_text(0.25), ini_text("orphans"), ini_text(float("nan"))
    ('2', '0.25', 'orphans', 'nan')
    """
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def did_you_mean(name: str, known: Iterable[str], *, alike: float = _ALIKE) -> str | None:
    """Return the known name that *name* most likely misspells, or None."""
    import difflib  # needed only for a misspelling

    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=alike)
    return found[0] if found else None


def suggestion(
    name: str, known: Iterable[str], *, alike: float = _ALIKE, form: str = "{}", otherwise: str = "delete it"
) -> str:
    """Return the question for the similar known name, put into *form*; *otherwise* without one."""
    meant = did_you_mean(name, known, alike=alike)
    return f"did you mean {form.format(meant)}?" if meant else otherwise


def named_fields(options: "WatcherOptions | PluginOptions | AlertOptions") -> Iterator[tuple[str, Any, str, Option]]:
    """Yield (name in the ini file, the record that holds it, its name there, what is known of it)."""
    for name, annotation in type(options).__annotations__.items():
        if isinstance(annotation, type):
            for field, each in annotation.__annotations__.items():
                yield f"{name}.{field}", getattr(options, name), field, each.__metadata__[0]
        else:
            yield name, options, name, annotation.__metadata__[0]


def _families(kind: type[WatcherOptions] | type[PluginOptions]) -> tuple[str, ...]:
    return tuple(f"{name}." for name, annotation in kind.__annotations__.items() if isinstance(annotation, type))


def _read(kind: OptionKind, text: str) -> object:
    if "\n" in text and not kind.takes_lines:
        # An indented comment does this to the line above it; Circus knows comments only at the start of a line.
        what = "Circus joins the indented line below to this value"
        raise WrongValueError(what, "begin that line in the first column")
    return kind.read(text)


def shown(value: object) -> str:
    """Format *value* for a message: on one line, without passwords.

    >>> shown("http://app:hunter2@host/")
    'http://app:***@host/'
    """
    return safe_command(str(value).split())


def _with(options: _Options, name: str, value: object) -> _Options:
    group, _, item = name.rpartition(".")
    changed: dict[str, Any] = {group: getattr(options, group)._replace(**{item: value})} if group else {item: value}
    return options._replace(**changed)


# --- options that contradict each other ---

_RHYTHM = ("restart.window", "restart.burst", "restart.delay", "restart.delay_max")


def _contradiction(restart: RestartOptions) -> tuple[tuple[str, ...], str, str] | None:
    """Return (options, what, hint) for options that contradict each other; the first in the section gets the blame."""
    burst, window, delay = restart.burst, restart.window, restart.delay
    for name in ("delay_max", "cooldown"):
        if getattr(restart, name) < delay:
            what = f"shorter than restart.delay = {ini_text(delay)}"
            return (f"restart.{name}", "restart.delay"), what, f"write restart.{name} = {ini_text(delay)} or more"
    if window <= delay * burst:
        what = f"{burst} failures {ini_text(delay)} s apart do not fit into {ini_text(window)} s: a limit out of reach"
        hint = f"write restart.window = {ini_text(delay * burst * 2)}, or lower restart.burst or restart.delay"
        return _RHYTHM, what, hint
    try:
        RestartLimits(**restart._asdict())
    except ValueError as error:
        # The budget itself decides: it refuses limits that it could not keep.
        return _RHYTHM, str(error), "raise restart.window, or lower restart.burst or restart.delay_max"
    return None


def _reconciled(options: WatcherOptions, mapping: Mapping[str, object]) -> tuple[WatcherOptions, list[Problem]]:
    """Reset every option of a contradiction to its default until none is left: the defaults agree."""
    problems = []
    defaults = flat(WatcherOptions())
    while found := _contradiction(options.restart):
        names, what, hint = found
        blamed = next((name for name in names if name in mapping), names[0])
        problems.append(Problem(blamed, ini_text(flat(options)[blamed]), what, hint))
        for name in names:
            options = _with(options, name, defaults[name])
    if options.port.port is None and options.port.host != defaults["port.host"]:
        problems.append(Problem("port.host", shown(mapping["port.host"]), "no port.port beside it", "add port.port"))
    return options, problems


# --- unknown keys ---


def _unknown(
    kind: type[WatcherOptions] | type[PluginOptions], mapping: Mapping[str, object], circus: frozenset[str]
) -> list[Problem]:
    ours = list(flat(kind()))
    problems = []
    for key, value in mapping.items():
        if key in ours or key in circus or key.startswith(circus_options.WATCHER_PREFIXES):
            continue
        relatives = [name for name in ours if name.partition(".")[0] == key.partition(".")[0]]
        if key.startswith(_families(kind)) or did_you_mean(key, ours):
            hint = suggestion(key, ours, otherwise=f"known are {', '.join(relatives)}")
            problems.append(Problem(key, shown(value), *GONE.get(key, ("unknown option", hint))))
    return problems
