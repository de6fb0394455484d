"""Mask the secrets on a command line before people see it.

Command lines go into logs, events and the dashboard, and are quoted in refusals. Options are judged by their name, so a
secret without a name (``mysql -phunter2``, a third argument) is not recognised.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from unicodedata import category
from urllib.parse import quote, quote_plus, unquote

from xboard_circus.core.reason import BLANK, Reason, one_line

_NUMBERS = frozenset({bool, int, float, type(None)})
_PLAIN = frozenset({"name", "state", "status", "probe", "host", "phase", "role", "health", "held_by", "word", "worst"})
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

LONGEST, LONGEST_CACHED, SHORTEST = 200, 300, 6
MASK = "***"

# After this length whole arguments are dropped and none is cut: the rest of a cut one might not look like a secret.
_READ = 4096

# Each run in these patterns has a bound, because the text of a stranger must not take us long to read.
# They are compiled at their first use, and kept by `re`: many a process starts and masks nothing.
_TELLING = (
    r"passw(?:or)?[dt]|passphrase|passcode|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|(?:master|signing|encryption|auth|ssh|deploy)[-_]?key|webhook[-_]?url|密码|口令|密钥|令牌"
)
_TELLING_ALONE = r"(?:db|pg|my|mysql|sql|redis|mongo|smtp|mail)?pass|pwd?|key|salt|pat|auth|authorization|cookie|dsn"
_NAME = rf"(?:[\w.-]{{0,60}}(?:{_TELLING})[\w.-]{{0,60}}|(?:[\w.-]{{0,60}}[-_.])?(?:{_TELLING_ALONE}))"
_OPTION = rf"(?i)--?{_NAME}|-H|--header"
_ASSIGNMENT = rf"(?is)(-{{0,2}}{_NAME}[=:]).+"
_VALUE = (
    r"""b?"(?:[^"\\]|\\.){0,4000}"|b?'(?:[^'\\]|\\.){0,4000}'|\\{1,3}"[^"\\]{0,4000}\\{1,3}\""""
    r"""|(?:digest|aws4-hmac-sha256) [^\r\n]{0,1000}|(?:(?:bearer|basic|token|apikey|negotiate|ntlm) )?[^\s&;,]+"""
)
_QUOTE = r"""\\{0,3}["']"""
_WITHIN = (
    rf"(?i)(?<![\w.-])({_NAME}(?:{_QUOTE})?\s{{0,3}}(?:[=:\uff1a]|(?<=[\"']),)\s{{0,2}}[ \t]{{0,40}}"
    rf"|--?{_NAME}\s{{1,3}})(?:{_VALUE})"
)
_PASSWORD_OF_URL = r"[^\s/]*|(?!\d{1,5}/)[^\s\"'<>]{1,200}?"
_URL_PASSWORD = rf"(://[^\s/:]*:)(?:{_PASSWORD_OF_URL})(?=@)"
_URL_SECRET = rf"://[^\s/:]*:({_PASSWORD_OF_URL})@"
_URL_TOKEN = r"(?i)((?:https?|rediss?|amqps?)://)[^\s/:@]+(?=@)"
_URL_USER = r"(?i)(?:https?|rediss?|amqps?)://([^\s/:@]+)@"
_SECRET_PART = rf"(?i).{{0,60}}(?:{_TELLING})(?:s|key|id|hash|value|\d+)?"
_SETTING = (
    r"(?i)(?:expir\w*|ttl|lifetime|age|per|(?:milli)?seconds?|minutes?|hours?|days?|timeout|parallelism|algorithm"
    r"|length|size|min|max|limit|count|enabled?|disabled?|required?|type|header|issuer|audience)"
)
_COMMON = (
    r"(?i)[-+]?[\d.,]{1,7}|true|false|none|null|default|disabled|enabled|required|optional|password|secret|bearer"
    r"|localhost"
)
_URL_PART = (
    r"(?i)([?&][\w.%+\[\]-]{1,60}=|hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/"
    r"|api\.telegram\.org/bot)[^\s&#\"'<>]+"
)
_COOKIE = r"[\w!#$%&'*+.^`|~-]{1,100}=[^\s;,]{0,4000}"
_COOKIES = rf"(?i)(cookies?\s{{0,3}}[:=]\s{{0,3}}){_COOKIE}(?:;\s{{0,3}}{_COOKIE}){{0,100}}"
# Of GitHub, AWS, and a JSON Web Token: what begins so is a secret, whatever stands before it.
_SHAPES = r"()\b(?:gh[pousr]_\w{16,250}|(?:AKIA|ASIA)[A-Z\d]{16}\b|eyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,1000})"


def safe_command(argv: Iterable[str]) -> str:
    """Return a command line as one line of at most 200 printable characters, its secrets masked.

    >>> safe_command(["worker", "--db", "postgres://app:hunter2@db/x", "--api-key", "k1", "--port=80", "TOKEN=t"])
    'worker --db postgres://app:***@db/x --api-key *** --port=80 TOKEN=***'
    """
    words = (word if word and not re.search(r"\s", word) else shlex.quote(word) for word in _masked(_bounded(argv)))
    return one_line(" ".join(words), LONGEST)


def safe_text(text: str) -> str:
    """Return *text*, a line of a log or a reason, with secrets under a telling name and all values of queries masked.

    >>> safe_text("POST /?q=hunter2 to redis://:hunter2@cache/0")
    'POST /?q=*** to redis://:***@cache/0'
    """
    for pattern in (_URL_PASSWORD, _URL_TOKEN, _URL_PART, _COOKIES, _WITHIN, _SHAPES):
        text = re.sub(pattern, rf"\g<1>{MASK}", text)
    return text


def printable(text: str) -> str:
    """Return *text* with a ? for each character that is invisible, moves the cursor or reverses the direction of text.

    >>> printable("evil\\x1b[2J name"), printable("photo_\\u202egpj.exe")
    ('evil?[2J name', 'photo_?gpj.exe')
    """
    if text.isprintable() and (text.isascii() or not BLANK.search(text)):
        return text
    # A U+200D that is left by then joins two symbols.
    return "".join("?" if category(c) in _UNSEEN and c not in "\n\t\u200d" else c for c in BLANK.sub("?", text))


def masked(value: Any, key: str = "") -> Any:
    """Return *value*, of a record or of the state, with the secrets in its strings masked, however deep they are."""
    if type(value) in _NUMBERS:  # most of a report: looking for an abstract class takes longer
        return value
    if isinstance(value, Reason):
        return Reason.from_data(masked(value.as_data())) or safe_line(str(value))
    if isinstance(value, str):
        return value if key in _PLAIN else safe_line(value)
    if isinstance(value, (dict, Mapping)):
        return {name: masked(each, str(name)) for name, each in value.items()}
    return [masked(each) for each in value] if isinstance(value, (list, tuple)) else value


def safe_line(text: str) -> str:
    """Return *text* for a page or a terminal: without secrets, and all of it visible."""
    return _cached(text) if len(text) <= LONGEST_CACHED else printable(safe_text(text))


@lru_cache(maxsize=4096)
def _cached(text: str) -> str:
    return printable(safe_text(text))


def secrets_in(name: str, value: str) -> Iterator[str]:
    """Yield what is secret of a variable: its value where the name is telling, else passwords and tokens in URLs.

    What is short, a number or a common word is left out: a log without any "false" would be of no use.

    >>> [*secrets_in("API_KEY", "k-1234"), *secrets_in("DSN_URL", "redis://:hunter2@cache/0")]
    ['k-1234', 'hunter2']
    >>> [*secrets_in("DSN_URL", "redis://:p%40ss%21word@cache/0")]
    ['p%40ss%21word', 'p@ss!word']
    >>> [*secrets_in("ACCESS_TOKEN_EXPIRE_MINUTES", "a-value"), *secrets_in("REPO", "https://ghp_abc@github.com/x")]
    ['ghp_abc']
    """
    is_folder = name == "PWD" and value.startswith("/")  # of the shell, which copy_env takes over
    is_telling = _names_secret(name) and not is_folder
    found = [value] if is_telling else [*re.findall(_URL_SECRET, value), *re.findall(_URL_USER, value)]
    found += [unquote(each) for each in found if "%" in each]  # as a driver has it after reading the URL
    yield from (secret for secret in found if len(secret) >= SHORTEST and not re.fullmatch(_COMMON, secret))


def _names_secret(name: str) -> bool:
    """Return whether a word of a variable's *name* is that of a secret, and none behind it that of a setting."""
    parts = re.split(r"[-_.]", name)
    if re.fullmatch(_TELLING_ALONE, parts[-1], re.IGNORECASE):
        return True
    words = [(part, "_".join(parts[at - 1 : at + 1])) for at, part in enumerate(parts)]
    telling = (at for at, either in enumerate(words) if any(re.fullmatch(_SECRET_PART, each) for each in either))
    last = max(telling, default=None)
    return last is not None and not any(re.fullmatch(_SETTING, part) for part in parts[last + 1 :])


def spellings(secret: str) -> Iterator[str]:
    """Yield *secret* as a program may print it: as it is, its lines, as a literal of Python and of JSON, in a URL.

    >>> sorted({*spellings("pa/ss word")})
    ['pa%2Fss%20word', 'pa%2Fss+word', 'pa/ss word', 'pa/ss%20word', 'pa/ss+word']
    """
    yield secret
    yield from (line for line in map(str.strip, secret.splitlines()) if len(line) >= SHORTEST)
    yield from (repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from (encode(secret, safe=safe) for encode in (quote, quote_plus) for safe in ("", "/"))


def secrets_of(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the values that are never shown: those under a telling name, and passwords in URLs, in all spellings."""
    known = (secret for name, value in environ.items() for secret in secrets_in(name, value))
    return frozenset(text for secret in known for text in spellings(secret))


def without(text: str, secrets: Iterable[str]) -> str:
    """Return *text* with each of *secrets* masked, the longest first, because one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _bounded(argv: Iterable[str]) -> Iterator[str]:
    length = 0
    for word in argv:
        length += len(word) + 1
        if length > _READ:
            yield "..."
            return
        yield word


def _masked(argv: Iterable[str]) -> Iterator[str]:
    is_value = False
    for word in argv:
        is_option = re.fullmatch(_OPTION, word) is not None
        # `--no-auth --password x`: in place of a value there may be the next option, and its value is a secret.
        assignment = re.fullmatch(_ASSIGNMENT, word)
        shown = word if is_option else assignment[1] + MASK if assignment else safe_text(word)
        yield MASK if is_value else shown
        is_value = is_option
