"""Define the options of an ``[alert:NAME]`` section, as `fields` does for the others, and their own kinds.

In a module of its own, because circusd reads no alert and need not import this.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options.fields import option
from xboard_circus.options.kinds import HOST, OptionKind, WrongValueError, choice, count, matching, read_words, seconds
from xboard_circus.options.reading import suggestion

Type = Literal["webhook", "email", "command", "otlp", "apprise"]
Shape = Literal["json", "slack", "feishu", "dingtalk", "wecom"]
Least = Literal["info", "warning", "critical"]


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
VARIABLE_NAME = matching(
    "name of a variable",
    "[A-Za-z_][A-Za-z0-9_]*",
    "not the name of a variable",
    "write one such as XBOARD_WEBHOOK, without a $",
)
# Split as a shell would, and run without one.
COMMAND_LINE = OptionKind("command", read_words)


@dataclass(frozen=True)
class AlertOptions:
    """An ``[alert:NAME]`` section: where alerts are sent, and which."""

    type: Type | None = option(None, choice(*get_args(Type)), example="webhook")
    """How alerts are sent: POST JSON to a webhook, send an e-mail, run a command with the JSON on its stdin, export
    spans by OpenTelemetry (otlp), which needs `xboard-circus[otel]`, or send to one of the services of Apprise, which
    needs `xboard-circus[apprise]`. otlp gets each death and reload as well."""
    on: tuple[str, ...] = option((), word_list(*(each.value for each in Trouble)), example="down, port_refused")
    """Kinds of trouble to send; without it min_severity decides. restart (one worker failed and was replaced) is info;
    unhealthy, crash_loop, port_shared (a process that is no worker has the listening socket too), output_lost (a log
    cannot be written) and poison (requests of one route end worker after worker) are warnings. port_refused (port
    taken), down, silent (circusd does not answer) and lost (circusd was killed or crashed) are critical."""
    min_severity: Least = option("warning", choice(*(each.value for each in Severity)))
    """Least severity to send, where `on` is not set. Set info to get each failure of a worker, too."""
    remind_every: float = option(3600.0, seconds(low=0.0))
    """Time between two reminders while the trouble lasts; 0 is no reminder."""
    max_per_hour: int = option(20, count(high=100_000))
    """Most alerts in an hour; recoveries do not count. Excess alerts are merged into one summary; critical ones are
    always sent."""
    timeout: float = option(10.0, seconds(high=600.0))
    """Time for one delivery. A failed one is tried again after 1 s, doubling to 60 s; it delays nothing else."""
    lang: Literal["en", "zh"] = option("en", choice("en", "zh"))
    """Language of the alerts, with their reasons; lines of logs stay as they are."""
    url_env: str | None = option(None, VARIABLE_NAME, example="XBOARD_WEBHOOK", of="webhook otlp apprise")
    """webhook, otlp, apprise: name of the variable in circusd's environment with the address. An address with a token
    in it is a secret: keep it out of this file."""
    url_file: str | None = option(None, ANY_PATH, example="secrets/webhook", of="webhook otlp apprise")
    """webhook, otlp, apprise: file with the address, relative to the folder of this file. Its mode must be 0600; a file
    that others may read is refused. That of a collector is like http://localhost:4318/v1/traces, and that of a service
    of Apprise like tgram://BOT_TOKEN/CHAT_ID; write a section for each."""
    shape: Shape = option("json", choice(*get_args(Shape)), of="webhook")
    """webhook: format of the JSON. Use feishu for Lark, too."""
    secret_env: str | None = option(None, VARIABLE_NAME, example="XBOARD_SIGNING_SECRET", of="webhook")
    """webhook: variable with the signing secret of a feishu or dingtalk robot. With json, the header X-Xboard-Signature
    gets sha256= and the HMAC of the body."""
    secret_file: str | None = option(None, ANY_PATH, example="secrets/signing", of="webhook")
    """webhook: file of mode 0600 with the signing secret."""
    proxies: Literal["none", "environment"] = option("none", choice("none", "environment"), of="webhook apprise")
    """webhook, apprise: `environment` uses https_proxy and the like of circusd's environment, `none` ignores them."""
    ca_file: str | None = option(None, ANY_PATH, example="secrets/ca.pem", of="webhook email otlp apprise")
    """webhook, email, otlp, apprise: file of CA certificates to trust in place of the system's, for a server of your
    own."""
    host: str | None = option(None, HOST, example="smtp.example.org", of="email")
    """email: host name of the SMTP server."""
    port: int | None = option(None, count(high=65_535, unit="port"), example="587", of="email")
    """email: port of the SMTP server. By default 587 with starttls, 465 with tls, 25 with none."""
    security: Literal["starttls", "tls", "none"] = option("starttls", choice("starttls", "tls", "none"), of="email")
    """email: encryption of the connection. If the server does not offer it, neither mail nor password is sent."""
    user: str | None = option(None, TEXT, example="alerts@example.org", of="email")
    """email: user name for the login. Leave it out to send without a login."""
    password_env: str | None = option(None, VARIABLE_NAME, example="XBOARD_SMTP_PASSWORD", of="email")
    """email: variable with the password."""
    password_file: str | None = option(None, ANY_PATH, example="secrets/smtp", of="email")
    """email: file of mode 0600 with the password."""
    sender: tuple[str, ...] = option((), addresses(most=1), example="alerts@example.org", of="email")
    """email: address of the sender."""
    to: tuple[str, ...] = option((), addresses(), example="ops@example.org, boss@example.org", of="email")
    """email: addresses of the recipients."""
    command: tuple[str, ...] = option((), COMMAND_LINE, example="/usr/local/bin/notify --channel ops", of="command")
    """command: program and arguments, run without a shell in the folder of this file. It is killed at the timeout; exit
    code 0 means delivered."""
