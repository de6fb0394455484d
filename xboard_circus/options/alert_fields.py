"""Define the options of an ``[alert:NAME]`` section, as `fields` does for the others, and their own kinds.

In a module of its own, because circusd reads no alert and need not import this.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, NamedTuple, get_args

from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options import kinds
from xboard_circus.options.fields import Option
from xboard_circus.options.kinds import HOST, OptionKind, Value, WrongValueError, choice, count, matching, seconds
from xboard_circus.options.reading import Problem, flat, named_fields, parse_fields, shown, suggestion

Type = Literal["webhook", "email", "command", "otlp", "apprise"]
Shape = Literal["json", "feishu", "dingtalk", "wecom"]
Least = Literal["info", "warning", "critical"]
Proxies = Literal["none", "environment"]
Security = Literal["starttls", "tls", "none"]


def word_list(*words: str) -> OptionKind:
    """Return the kind of one or more of these words, with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(_parts(text.lower())))
        wrong = next((word for word in found if word not in words), None if found else "nothing")
        if wrong:
            hint = suggestion(wrong, words, alike=0.6, otherwise=f"write some of {', '.join(words)}")
            raise WrongValueError(f"{wrong} is none of the words that may stand here", hint)
        return found

    return OptionKind(f"any of {', '.join(words)}", read)


def addresses(most: int = 100) -> OptionKind:
    """Return the kind of one to *most* addresses of e-mail, with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        from email.utils import parseaddr  # not above: the plugin pays its 0.35 MiB only where mail is sent

        found = tuple(_parts(text))
        for word in found:
            if not re.fullmatch(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+", parseaddr(word)[1]) or not word.isprintable():
                raise WrongValueError(f"{word[:60]} is no address", "write one such as ops@example.org")
        if not 1 <= len(found) <= most:
            raise WrongValueError(f"{len(found)} addresses", f"write from 1 to {most}")
        return found

    return OptionKind("addresses", read)


def shapes() -> OptionKind:
    """Return the kind of a `Shape`, which names Apprise to those who still have Slack's."""
    usual = choice(*get_args(Shape))

    def read(text: str) -> Value:
        if text.lower() == "slack":
            raise WrongValueError("Apprise sends to Slack", "write type = apprise, and delete shape; the address stays")
        return usual.read(text)

    return OptionKind(usual.unit, read)


def _parts(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _printable(unit: str, is_allowed: Callable[[str], bool], what: str, hint: str) -> OptionKind:
    def read(text: str) -> str:
        if not text.isprintable() or not is_allowed(text):
            raise WrongValueError(what, hint)
        return text

    return OptionKind(unit, read)


# A file with a name that never stands on a command line.
ANY_PATH = _printable(
    "path", lambda text: "://" not in text, "not the name of a file", "write the path of a file that holds it"
)
TEXT = _printable("text", lambda _: True, "there are letters in it that cannot be printed", "leave them out")
# Never the value of a variable. A user who wrote the secret itself here must not read it in every message.
_ONE = "write one such as XBOARD_WEBHOOK, without a $"
VARIABLE_NAME = matching("name of a variable", "[A-Za-z_][A-Za-z0-9_]*", "not the name of a variable", _ONE)
# Split as a shell would, and run without one.
COMMAND_LINE = OptionKind("command", kinds.read_words)


class AlertOptions(NamedTuple):
    """An ``[alert:NAME]`` section: where alerts are sent, and which."""

    type: Annotated[Type | None, Option(choice(*get_args(Type)), "webhook")] = None
    """How alerts are sent: POST JSON to a webhook, send an e-mail, run a command with the JSON on its stdin, export
    spans or logs by OpenTelemetry (otlp), which needs `xboard-circus[otel]`, or send to one of the services of Apprise,
    which needs `xboard-circus[apprise]`. otlp gets each death and reload as well."""
    on: Annotated[tuple[str, ...], Option(word_list(*(each.value for each in Trouble)), "down, port_refused")] = ()
    """Kinds of trouble to send; without it min_severity decides. restart (one worker failed and was replaced) is info;
    unhealthy, crash_loop, port_shared (a process that is no worker has the listening socket too), output_lost (a log
    cannot be written) and poison (requests of one route end worker after worker) are warnings. port_refused (port
    taken), down, silent (circusd does not answer) and lost (circusd was killed or crashed) are critical."""
    min_severity: Annotated[Least, Option(choice(*(each.value for each in Severity)))] = "warning"
    """Least severity to send, where `on` is not set. Set info to get each failure of a worker, too."""
    remind_every: Annotated[float, Option(seconds(low=0.0))] = 3600.0
    """Time between two reminders while the trouble lasts; 0 is no reminder."""
    max_per_hour: Annotated[int, Option(count(high=100_000))] = 20
    """Most alerts in an hour; recoveries do not count. Excess alerts are merged into one summary; critical ones are
    always sent."""
    timeout: Annotated[float, Option(seconds(high=600.0))] = 10.0
    """Time for one delivery. A failed one is tried again after 1 s, doubling to 60 s; it delays nothing else."""
    lang: Annotated[Literal["en", "zh"], Option(choice("en", "zh"))] = "en"
    """Language of the alerts, with their reasons; lines of logs stay as they are."""
    url_env: Annotated[str | None, Option(VARIABLE_NAME, "XBOARD_WEBHOOK", of="webhook otlp apprise")] = None
    """webhook, otlp, apprise: name of the variable in circusd's environment with the address. An address with a token
    in it is a secret: keep it out of this file."""
    url_file: Annotated[str | None, Option(ANY_PATH, "secrets/webhook", of="webhook otlp apprise")] = None
    """webhook, otlp, apprise: file with the address, relative to the folder of this file. Its mode must be 0600; a file
    that others may read is refused. That of a collector is like http://localhost:4318/v1/traces for spans, and like
    http://localhost:4318/v1/logs for log records; that of a service of Apprise is like tgram://BOT_TOKEN/CHAT_ID; write
    a section for each."""
    shape: Annotated[Shape, Option(shapes(), of="webhook")] = "json"
    """webhook: format of the JSON. Use feishu for Lark, too; for Slack and others write type = apprise."""
    secret_env: Annotated[str | None, Option(VARIABLE_NAME, "XBOARD_SIGNING_SECRET", of="webhook")] = None
    """webhook: variable with the signing secret of a feishu or dingtalk robot. With json, the header X-Xboard-Signature
    gets sha256= and the HMAC of the body."""
    secret_file: Annotated[str | None, Option(ANY_PATH, "secrets/signing", of="webhook")] = None
    """webhook: file of mode 0600 with the signing secret."""
    proxies: Annotated[Proxies, Option(choice(*get_args(Proxies)), of="webhook apprise")] = "none"
    """webhook, apprise: `environment` uses https_proxy and the like of circusd's environment, `none` ignores them."""
    ca_file: Annotated[str | None, Option(ANY_PATH, "secrets/ca.pem", of="webhook email otlp apprise")] = None
    """webhook, email, otlp, apprise: file of CA certificates to trust in place of the system's, for a server of your
    own."""
    host: Annotated[str | None, Option(HOST, "smtp.example.org", of="email")] = None
    """email: host name of the SMTP server."""
    port: Annotated[int | None, Option(count(high=65_535, unit="port"), "587", of="email")] = None
    """email: port of the SMTP server. By default 587 with starttls, 465 with tls, 25 with none."""
    security: Annotated[Security, Option(choice(*get_args(Security)), of="email")] = "starttls"
    """email: encryption of the connection. If the server does not offer it, neither mail nor password is sent."""
    user: Annotated[str | None, Option(TEXT, "alerts@example.org", of="email")] = None
    """email: user name for the login. Leave it out to send without a login."""
    password_env: Annotated[str | None, Option(VARIABLE_NAME, "XBOARD_SMTP_PASSWORD", of="email")] = None
    """email: variable with the password."""
    password_file: Annotated[str | None, Option(ANY_PATH, "secrets/smtp", of="email")] = None
    """email: file of mode 0600 with the password."""
    sender: Annotated[tuple[str, ...], Option(addresses(most=1), "alerts@example.org", of="email")] = ()
    """email: address of the sender."""
    to: Annotated[tuple[str, ...], Option(addresses(), "ops@example.org, boss@example.org", of="email")] = ()
    """email: addresses of the recipients."""
    command: Annotated[tuple[str, ...], Option(COMMAND_LINE, "/usr/local/bin/notify --channel ops", of="command")] = ()
    """command: program and arguments, run without a shell in the folder of this file. It is killed at the timeout; exit
    code 0 means delivered. One that waits for a restart of circusd is run once more, because that ends the plugin; have
    it restart in the background (`setsid -f`)."""


_SIGNED = ("json", "feishu", "dingtalk")

# Options into which a user might write a secret. Never quoted, and never read.
_SECRETS = {"password": "password", "secret": "secret"}
_SECRETS |= dict.fromkeys(("url", "webhook", "token", "urls", "address"), "url")


def parse_alert(mapping: Mapping[str, object]) -> tuple[AlertOptions, list[Problem]]:
    """Parse the options of an alert section; every other key is a Problem, because nothing else reads the section.

    >>> options, problems = parse_alert({"type": "webhook", "url": "https://hooks.example.org/T0K3N"})
    >>> print(problems[0])
    url = ***: a secret in this file is on show; write url_file = FILE, of mode 0600, or url_env = VARIABLE
    """
    options, problems = parse_fields(AlertOptions, mapping)
    problems = [each._replace(value=_shown(each.option, each.value)) for each in problems]
    return options, [*problems, *_unknown(mapping), *_incomplete(options, mapping, {each.option for each in problems})]


def _shown(key: str, value: object) -> str:
    """Return a value for a message, masked: a user who mistook url_env for url has written the secret there."""
    return "***" if re.search("url|address|secret|password|token|hook|key", key) else shown(value)


def _unknown(mapping: Mapping[str, object]) -> Iterator[Problem]:
    known = list(flat(AlertOptions()))
    for key, value in mapping.items():
        if key in known or key == "__name__":
            continue
        if name := _SECRETS.get(key):
            hint = f"write {name}_file = FILE, of mode 0600, or {name}_env = VARIABLE"
            yield Problem(key, "***", "a secret in this file is on show", hint)
            continue
        yield Problem(key, _shown(key, value), "unknown option", suggestion(key, known, alike=0.6))


def _incomplete(options: AlertOptions, mapping: Mapping[str, object], wrong: set[str]) -> Iterator[Problem]:
    if options.type is None:
        if "type" not in wrong:
            yield Problem("type", "", "missing", "write type = webhook, email, command, otlp or apprise")
        return
    for key, _, _, option in named_fields(options):
        types = option.of.split()
        if key in mapping and types and options.type not in types:
            yield Problem(key, _shown(key, mapping[key]), f"means nothing for type = {options.type}", "delete it")
    yield from (problem for problem in _NEEDED[options.type](options) if problem.option not in wrong)


def _webhook(options: AlertOptions) -> Iterator[Problem]:
    yield from _one_source("url", options.url_env, options.url_file, is_needed=True)
    yield from _one_source("secret", options.secret_env, options.secret_file)
    if (options.secret_env or options.secret_file) and options.shape not in _SIGNED:
        option = "secret_env" if options.secret_env else "secret_file"
        yield Problem(option, "", f"nothing is signed with shape = {options.shape}", "delete it")


def _address(options: AlertOptions) -> Iterator[Problem]:
    yield from _one_source("url", options.url_env, options.url_file, is_needed=True)


def _email(options: AlertOptions) -> Iterator[Problem]:
    for name, example in (("host", "smtp.example.org"), ("sender", "alerts@example.org"), ("to", "ops@example.org")):
        if not getattr(options, name):
            yield Problem(name, "", "missing", f"write {name} = {example}")
    yield from _one_source("password", options.password_env, options.password_file, is_needed=bool(options.user))
    if not options.user and (options.password_env or options.password_file):
        yield Problem("user", "", "a password without a user", "write user = NAME")
    if options.user and options.security == "none":
        yield Problem("security", "none", "the password would go over the network as it is", "write starttls or tls")


def _command(options: AlertOptions) -> Iterator[Problem]:
    if not options.command:
        yield Problem("command", "", "missing", "write command = /path/to/program")


_NEEDED = {"webhook": _webhook, "email": _email, "command": _command, "otlp": _address, "apprise": _address}


def _one_source(name: str, env: str | None, file: str | None, *, is_needed: bool = False) -> Iterator[Problem]:
    if env and file:
        yield Problem(f"{name}_env", env, f"contradicts {name}_file", "delete one of the two")
    elif is_needed and not env and not file:
        yield Problem(f"{name}_file", "", "missing", f"write {name}_file = FILE or {name}_env = VARIABLE")
