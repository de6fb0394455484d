"""A reason: an English sentence that carries its key in the catalogue and the values of its fields.

Logs and tables print it as text. What leaves the process (bus, journal, ledger, private socket, page, alert file)
carries the data beside the text, so that a reader can show it in another language or decide by its key.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from shlex import quote
from typing import TYPE_CHECKING, Any

LONGEST = 300
DEEPEST = 8
MOST_ITEMS = 20
LARGEST = 4000
LARGEST_NUMBER = 1 << 53
"""Bounds of a reason: characters of a text, depth of nested reasons, items of a list, characters of all fields, and
numbers. A float does not hold each number above 2**53, and none of 400 digits."""

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_FIELD = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"-?[\d.]*")
_QUOTED = re.compile(r'"\{(\w+)\}"')
# No font shows these: what Unicode 16 lists as Default_Ignorable_Code_Point (DerivedCoreProperties.txt) beyond the
# categories by which Python tells what cannot be printed, and the blanks U+2800, U+16FE4 and U+1D159. Behind a symbol
# U+FE0E and U+FE0F choose how it is drawn, and U+200D joins it with the next one.
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200d\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
_SYMBOL = "[©®‼⁉™\u2139\u2190-\u23ff\u2460-\u27bf\u2900-\u2bff〰〽㊗㊙\U0001f000-\U0001faff]"
_JOINING = f"(?<!{_SYMBOL}\u200d(?={_SYMBOL}))(?<!{_SYMBOL}\ufe0f\u200d(?={_SYMBOL}))"
_CHOOSING = f"(?<!{_SYMBOL}[\ufe0e\ufe0f])(?<!\ufe0f(?=\u20e3))"
BLANK = re.compile(f"[{_BLANKS}\U00016fe4\U0001d159\U000e0000-\U000e0fff]{_JOINING}{_CHOOSING}")
_templates: dict[str, str] = {}


class Reason(str):
    """The text of a sentence, with its *key* in the catalogue and the values of its *fields*.

    A value is a text, a number, a reason, or a list of these. Texts are cleaned; deep or large values become text.
    One that its sentence quotes has no end of quotes, nor backticks, which mark commands: it cannot pass for our words.

    >>> Reason.of("HELLO", "hello {name}", {"name": "Ann", "age": 42}).fields
    {'name': 'Ann'}
    """

    key: str
    fields: Mapping[str, Any]
    depth: int
    size: int

    @classmethod
    def of(cls, key: str, template: str, values: Mapping[str, object]) -> "Reason":
        """Return the reason for *template*; values of other fields are ignored, a missing one is a KeyError."""
        fields = {name: _kept(values[name]) for name in _FIELD.findall(template)}
        fields |= {name: re.sub('["“”`]', "'", str(_flat(fields[name]))) for name in _QUOTED.findall(template)}
        nested = (each for value in fields.values() for each in _listed(value) if isinstance(each, Reason))
        depth = 1 + max((each.depth for each in nested), default=0)
        size = sum(map(_size_of, fields.values()))
        if depth > DEEPEST or size > LARGEST:
            fields = {name: _flat(value) for name, value in fields.items()}
            depth, size = 1, sum(map(_size_of, fields.values()))
        texts = {name: ", ".join(map(str, _listed(value))) for name, value in fields.items()}
        return cls._made(filled(template, texts.__getitem__), key, fields, depth, size)

    @classmethod
    def _made(cls, text: str, key: str, fields: Mapping[str, Any], depth: int, size: int) -> "Reason":
        made = super().__new__(cls, text)
        made.key, made.fields, made.depth, made.size = key, fields, depth, size
        return made

    def __str__(self) -> str:
        """Return itself, so that `str(reason)` and `str(error)` keep the data."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Reason._made, (str.__str__(self), self.key, self.fields, self.depth, self.size)

    def with_text(self, text: str) -> "Reason":
        """Return the same data with another text, such as a shorter one."""
        return self._made(text, self.key, self.fields, self.depth, self.size)

    def informs(self) -> bool:
        """Return whether it says what is, not what to do: each text in it is of the catalogue, quoted or a number."""
        bare = _FIELD.findall(_QUOTED.sub("", _templates[self.key]))
        values = (each for name in bare for each in _listed(self.fields[name]))
        are_ours = all(each.informs() if isinstance(each, Reason) else _NUMBER.fullmatch(str(each)) for each in values)
        return are_ours and "`" not in self and not self.key.startswith(("CURE_", "HEAD_"))

    def as_data(self) -> dict[str, Any]:
        """Return the key and the fields as JSON."""
        return {"key": self.key, "fields": {name: _as_json(value) for name, value in self.fields.items()}}

    @classmethod
    def from_data(cls, data: object) -> "Reason | None":
        """Parse the reason in *data*, which may come from any sender; None for an unknown key or other fields.

        >>> Reason.from_data({"key": "NO_SUCH_KEY", "fields": {}}) is None
        True
        """
        try:
            return _read(data, DEEPEST)
        except ValueError:
            return None


class _Sentences(type):
    """Make a sentence of each text that a class names in capitals, and register it with `Reason.from_data`.

    A key that is known already is a ValueError. Enum, which this is to a type checker, takes ten times as long: 7 ms of
    the start of each process of ours.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        texts = {key: text for key, text in body.items() if key.isupper()}
        if known := texts.keys() & _templates.keys():
            raise ValueError(f"{name}.{min(known)}: another catalogue has a sentence of this name")
        _templates.update(texts)
        made: Any = super().__new__(cls, name, bases, body)
        made.__members__ = {key: made(key, text) for key, text in texts.items()}
        for key, sentence in made.__members__.items():
            setattr(made, key, sentence)
        return made

    def __iter__(cls) -> Iterator[Any]:
        return iter(vars(cls)["__members__"].values())

    def __getitem__(cls, key: str) -> Any:
        return vars(cls)["__members__"][key]


if TYPE_CHECKING:

    class Template(Enum):
        """Sentences with fields; one that is called with the values of its fields gives a `Reason`."""

        def __call__(self, **values: object) -> Reason: ...

else:

    class Template(metaclass=_Sentences):
        """Sentences with fields; one that is called with the values of its fields gives a `Reason`."""

        def __init__(self, name: str, value: str) -> None:
            self.name, self.value = name, value

        def __call__(self, **values: object) -> Reason:
            return Reason.of(self.name, self.value, values)


def filled(template: str, text_of: Callable[[str], str]) -> str:
    """Fill in the fields of *template*; the name of a watcher in a command, in backticks, as a shell reads it.

    >>> filled("{watcher} is held: `xboard-circus retry {watcher}`", {"watcher": "my app"}.__getitem__)
    "my app is held: `xboard-circus retry 'my app'`"
    """

    def in_command(field: re.Match[str]) -> str:
        return quote(text_of(field[1])) if field[1] == "watcher" else text_of(field[1])

    parts = enumerate(template.split("`"))
    return "`".join(_FIELD.sub(in_command if n % 2 else lambda field: text_of(field[1]), part) for n, part in parts)


def one_line(text: str, longest: int = LONGEST) -> str:
    r"""Return *text* as one printable line of at most *longest* characters; a `Reason` keeps its data.

    A reason quotes log lines and command lines of other programs, which may hold control characters.

    >>> one_line("\x1b[31mERROR\x1b[0m:\tno such\n table")
    'ERROR: no such table'
    >>> one_line("abcdefgh", longest=6)
    'abc...'
    """
    # Four times as much is plenty to shorten; a line of 100 MB must not be copied.
    plain = BLANK.sub(" ", _ESCAPE.sub("", text[: 4 * longest]))
    line = " ".join("".join(char if char.isprintable() or char == "\u200d" else " " for char in plain).split())
    line = line if len(line) <= longest else line[: longest - 3] + "..."
    return text.with_text(line) if isinstance(text, Reason) else line


def raised(error: BaseException) -> str:
    """Return kind and text of an exception, the kind alone where it has no text.

    >>> raised(ValueError("no number")), raised(ValueError())
    ('ValueError: no number', 'ValueError')
    """
    return ": ".join(filter(None, (type(error).__name__, str(error))))


def key_of(reason: str | None) -> str:
    """Return the key of a reason, "" for a plain text.

    >>> key_of("died by SIGSEGV")
    ''
    """
    return reason.key if isinstance(reason, Reason) else ""


def data_of(reason: str | None) -> dict[str, Any] | None:
    """Return the data of a reason, None for a plain text."""
    return reason.as_data() if isinstance(reason, Reason) else None


def with_say(reason: str | None, name: str = "reason") -> dict[str, Any]:
    """Return the part of a message that holds a reason: its text as *name*, and its data beside it if it has any.

    >>> with_say("no such table"), with_say("by hand", "by")
    ({'reason': 'no such table'}, {'by': 'by hand'})
    """
    return {name: reason} if (data := data_of(reason)) is None else {name: reason, say_key(name): data}


def reason_in(message: Mapping[str, Any], name: str = "reason", *, longest: int = LONGEST) -> str:
    """Return the reason that `with_say` put into *message*: rebuilt from valid data, otherwise the text in one line."""
    return one_line(Reason.from_data(message.get(say_key(name))) or str(message.get(name) or ""), longest)


def say_key(name: str) -> str:
    """Return the key of a message under which the data of the reason *name* stands.

    >>> say_key("reason"), say_key("last_reason")
    ('say', 'last_reason_say')
    """
    return "say" if name == "reason" else f"{name}_say"


def _kept(value: object) -> Any:
    if isinstance(value, Reason):
        return one_line(value)
    if isinstance(value, (list, tuple)):
        return [_kept(each) for each in value[:MOST_ITEMS]]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER:
        return value
    return one_line(str(value))


def _flat(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else one_line("".join(", ".join(map(str, _listed(value)))))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _size_of(value: Any) -> int:
    return sum(each.size + 20 if isinstance(each, Reason) else len(str(each)) for each in _listed(value))


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    return value.as_data() if isinstance(value, Reason) else value


def _read(data: object, depth: int) -> Reason:
    if not isinstance(data, Mapping) or depth == 0:
        raise ValueError("no reason")
    key, fields = data.get("key"), data.get("fields")
    template = _templates.get(key) if isinstance(key, str) else None
    if template is None or not isinstance(fields, Mapping) or set(fields) != set(_FIELD.findall(template)):
        raise ValueError("no sentence of the catalogue")
    return Reason.of(str(key), template, {name: _read_value(value, depth - 1) for name, value in fields.items()})


def _read_value(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        return _read(value, depth)
    if isinstance(value, list) and len(value) <= MOST_ITEMS:
        return [_read(each, depth) if isinstance(each, Mapping) else _read_plain(each) for each in value]
    return _read_plain(value)


def _read_plain(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, (int, float)) and abs(value) < LARGEST_NUMBER):
        return value
    raise ValueError("no value of a field")
