"""The options of an ``[alert:NAME]`` section, as `fields` has those of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options.alert_kinds import Addresses, AnyPath, CommandLine, Text, VariableName, Words
from xboard_circus.options.fields import _option as option
from xboard_circus.options.kinds import Choice, Count, Host, Seconds


@dataclass(frozen=True, slots=True)
class AlertOptions:
    """An ``[alert:NAME]`` section: whom to tell, and of what."""

    type: Literal["webhook", "email", "command"] | None = option(
        None,
        Choice(("webhook", "email", "command")),
        "How the alert goes out: a POST of JSON, an e-mail, or a command that gets the JSON on its stdin.",
        example="webhook",
    )
    on: tuple[str, ...] = option(
        (),
        Words(tuple(trouble.value for trouble in Trouble)),
        "What to tell of. Leave it out and min_severity decides: restart (one worker ended and was replaced) is info,"
        " unhealthy and crash_loop are warnings, port_refused, down, silent (circusd does not answer) and lost (it was"
        " killed or crashed) are critical.",
        example="down, port_refused",
    )
    min_severity: Literal["info", "warning", "critical"] = option(
        "warning",
        Choice(tuple(severity.value for severity in Severity)),
        "Least severity to tell of, where there is no on. Write info to hear of every single restart, too.",
    )
    remind_every: float = option(
        3600.0,
        Seconds(low=0.0),
        "Time between two reminders of what still is broken; 0 for none.",
    )
    max_per_hour: int = option(
        20,
        Count(high=100_000),
        "Most alerts in an hour; that something is over does not count. What is beyond is held back, and told later in"
        " one alert with their number; what is critical never is.",
    )
    timeout: float = option(
        10.0,
        Seconds(high=600.0),
        "Time for one whole try; then it is cut off, and tried again after 1 s, doubling to 60 s. Nothing else waits"
        " for it.",
    )
    lang: Literal["en", "zh"] = option(
        "en",
        Choice(("en", "zh")),
        "Language of the text; reasons are quoted as they are.",
    )
    url_env: str | None = option(
        None,
        VariableName(),
        "webhook: environment variable of circusd's that holds the address. An address with a token in it is a secret,"
        " and has no place in this file.",
        example="XBOARD_WEBHOOK",
    )
    url_file: str | None = option(
        None,
        AnyPath(),
        "webhook: file that holds the address, from the folder of this file. Its mode must be 0600: it is refused where"
        " others may read it.",
        example="secrets/webhook",
    )
    shape: Literal["json", "slack", "feishu", "dingtalk", "wecom"] = option(
        "json",
        Choice(("json", "slack", "feishu", "dingtalk", "wecom")),
        "webhook: what the other side understands. feishu is for Lark, too.",
    )
    secret_env: str | None = option(
        None,
        VariableName(),
        "webhook: variable that holds the signing secret of a feishu or dingtalk robot. With json, the header"
        " X-Xboard-Signature gets sha256= and the HMAC of the body.",
        example="XBOARD_SIGNING_SECRET",
    )
    secret_file: str | None = option(
        None,
        AnyPath(),
        "webhook: file of mode 0600 that holds it.",
        example="secrets/signing",
    )
    proxies: Literal["none", "environment"] = option(
        "none",
        Choice(("none", "environment")),
        "webhook: whether https_proxy and its like in circusd's environment count.",
    )
    ca_file: str | None = option(
        None,
        AnyPath(),
        "webhook, email: certificates to trust in place of the system's, for a server of your own.",
        example="secrets/ca.pem",
    )
    host: str | None = option(
        None,
        Host(),
        "email: the SMTP server.",
        example="smtp.example.org",
    )
    port: int | None = option(
        None,
        Count(high=65_535, unit="port"),
        "email: its port. Without it 587 with starttls, 465 with tls, 25 with none.",
        example="587",
    )
    security: Literal["starttls", "tls", "none"] = option(
        "starttls",
        Choice(("starttls", "tls", "none")),
        "email: how the connection is protected. A server that does not offer it gets no mail and no password.",
    )
    user: str | None = option(
        None,
        Text(),
        "email: name for the login; without one there is none.",
        example="alerts@example.org",
    )
    password_env: str | None = option(
        None,
        VariableName(),
        "email: variable that holds the password.",
        example="XBOARD_SMTP_PASSWORD",
    )
    password_file: str | None = option(
        None,
        AnyPath(),
        "email: file of mode 0600 that holds the password.",
        example="secrets/smtp",
    )
    sender: tuple[str, ...] = option(
        (),
        Addresses(most=1),
        "email: who it comes from.",
        example="alerts@example.org",
    )
    to: tuple[str, ...] = option(
        (),
        Addresses(),
        "email: who gets it.",
        example="ops@example.org, boss@example.org",
    )
    command: tuple[str, ...] = option(
        (),
        CommandLine(),
        "command: program and arguments, without a shell, run in the folder of this file. It is killed at the timeout;"
        " exit code 0 means that the alert was delivered.",
        example="/usr/local/bin/notify --channel ops",
    )
