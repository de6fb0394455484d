"""The options of an ``[alert:NAME]`` section, as `fields` has those of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options.alert_kinds import Addresses, AnyPath, CommandLine, Text, VariableName, WordList
from xboard_circus.options.fields import _option as option
from xboard_circus.options.kinds import Choice, Count, Host, Seconds


@dataclass(frozen=True, slots=True)
class AlertOptions:
    """An ``[alert:NAME]`` section: where alerts are sent, and which."""

    type: Literal["webhook", "email", "command"] | None = option(
        None,
        Choice(("webhook", "email", "command")),
        "How alerts are sent: POST JSON to a webhook, send an e-mail, or run a command with the JSON on its stdin.",
        example="webhook",
    )
    on: tuple[str, ...] = option(
        (),
        WordList(tuple(trouble.value for trouble in Trouble)),
        "Kinds of trouble to send; without it min_severity decides. restart (one worker failed and was replaced) is"
        " info; unhealthy and crash_loop are warnings. port_refused (port taken), down, silent (circusd does not"
        " answer) and lost (circusd was killed or crashed) are critical.",
        example="down, port_refused",
    )
    min_severity: Literal["info", "warning", "critical"] = option(
        "warning",
        Choice(tuple(severity.value for severity in Severity)),
        "Least severity to send, where `on` is not set. Set info to get each failure of a worker, too.",
    )
    remind_every: float = option(
        3600.0,
        Seconds(low=0.0),
        "Time between two reminders while the trouble lasts; 0 is no reminder.",
    )
    max_per_hour: int = option(
        20,
        Count(high=100_000),
        "Most alerts in an hour; recoveries do not count. Excess alerts are merged into one summary; critical ones"
        " are always sent.",
    )
    timeout: float = option(
        10.0,
        Seconds(high=600.0),
        "Time for one delivery. A failed one is tried again after 1 s, doubling to 60 s; it delays nothing else.",
    )
    lang: Literal["en", "zh"] = option(
        "en",
        Choice(("en", "zh")),
        "Language of the alerts, with their reasons; lines of logs stay as they are.",
    )
    url_env: str | None = option(
        None,
        VariableName(),
        "webhook: name of the variable in circusd's environment with the address. An address with a token in it is"
        " a secret: keep it out of this file.",
        example="XBOARD_WEBHOOK",
    )
    url_file: str | None = option(
        None,
        AnyPath(),
        "webhook: file with the address, relative to the folder of this file. Its mode must be 0600; a file that"
        " others may read is refused.",
        example="secrets/webhook",
    )
    shape: Literal["json", "slack", "feishu", "dingtalk", "wecom"] = option(
        "json",
        Choice(("json", "slack", "feishu", "dingtalk", "wecom")),
        "webhook: format of the JSON. Use feishu for Lark, too.",
    )
    secret_env: str | None = option(
        None,
        VariableName(),
        "webhook: variable with the signing secret of a feishu or dingtalk robot. With json, the header"
        " X-Xboard-Signature gets sha256= and the HMAC of the body.",
        example="XBOARD_SIGNING_SECRET",
    )
    secret_file: str | None = option(
        None,
        AnyPath(),
        "webhook: file of mode 0600 with the signing secret.",
        example="secrets/signing",
    )
    proxies: Literal["none", "environment"] = option(
        "none",
        Choice(("none", "environment")),
        "webhook: `environment` uses https_proxy and the like of circusd's environment, `none` ignores them.",
    )
    ca_file: str | None = option(
        None,
        AnyPath(),
        "webhook, email: file of CA certificates to trust in place of the system's, for a server of your own.",
        example="secrets/ca.pem",
    )
    host: str | None = option(
        None,
        Host(),
        "email: host name of the SMTP server.",
        example="smtp.example.org",
    )
    port: int | None = option(
        None,
        Count(high=65_535, unit="port"),
        "email: port of the SMTP server. By default 587 with starttls, 465 with tls, 25 with none.",
        example="587",
    )
    security: Literal["starttls", "tls", "none"] = option(
        "starttls",
        Choice(("starttls", "tls", "none")),
        "email: encryption of the connection. If the server does not offer it, neither mail nor password is sent.",
    )
    user: str | None = option(
        None,
        Text(),
        "email: user name for the login. Leave it out to send without a login.",
        example="alerts@example.org",
    )
    password_env: str | None = option(
        None,
        VariableName(),
        "email: variable with the password.",
        example="XBOARD_SMTP_PASSWORD",
    )
    password_file: str | None = option(
        None,
        AnyPath(),
        "email: file of mode 0600 with the password.",
        example="secrets/smtp",
    )
    sender: tuple[str, ...] = option(
        (),
        Addresses(most=1),
        "email: address of the sender.",
        example="alerts@example.org",
    )
    to: tuple[str, ...] = option(
        (),
        Addresses(),
        "email: addresses of the recipients.",
        example="ops@example.org, boss@example.org",
    )
    command: tuple[str, ...] = option(
        (),
        CommandLine(),
        "command: program and arguments, run without a shell in the folder of this file. It is killed at the"
        " timeout; exit code 0 means delivered.",
        example="/usr/local/bin/notify --channel ops",
    )
