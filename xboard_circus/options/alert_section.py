"""Parse an ``[alert:NAME]`` section: its options, and whether together they make a sink."""

import re
from collections.abc import Iterator, Mapping

from xboard_circus.options.alert_fields import AlertOptions
from xboard_circus.options.reading import Problem, flat, named_fields, parse_fields, shown, suggestion

_SIGNED = ("json", "feishu", "dingtalk")

# Options into which a user might write a secret. Never quoted, and never read.
_SECRETS = {
    "url": "url",
    "webhook": "url",
    "token": "url",
    "urls": "url",
    "address": "url",
    "password": "password",
    "secret": "secret",
}


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
    for key, _, item in named_fields(options):
        types = item.metadata["of"]
        if key in mapping and types and options.type not in types:
            yield Problem(key, _shown(key, mapping[key]), f"means nothing for type = {options.type}", "delete it")
    needed = {"webhook": _webhook, "email": _email, "command": _command, "otlp": _address, "apprise": _address}[
        options.type
    ]
    yield from (problem for problem in needed(options) if problem.option not in wrong)


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


def _one_source(name: str, env: str | None, file: str | None, *, is_needed: bool = False) -> Iterator[Problem]:
    if env and file:
        yield Problem(f"{name}_env", env, f"contradicts {name}_file", "delete one of the two")
    elif is_needed and not env and not file:
        yield Problem(f"{name}_file", "", "missing", f"write {name}_file = FILE or {name}_env = VARIABLE")
