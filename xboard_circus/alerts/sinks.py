"""Make the sinks of an ini file."""

from pathlib import Path

from xboard_circus.alerts.message import Sink
from xboard_circus.alerts.secrets import Secret
from xboard_circus.config import AlertConfig, Config
from xboard_circus.core.alert_gate import GateRules
from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options.alert_fields import AlertOptions

SECRETS = ("url", "secret", "password")
"""Each has two options, such as `url_env` and `url_file`."""


def sink_of(config: Config, alert: AlertConfig) -> Sink:
    """Return the sink of a section without a problem.

    The imports of a sink wait for its first section, because most plugins have none, and live for months.
    """
    options, folder = alert.options, config.folder
    secrets = {option.rpartition("_")[0]: secret for option, secret in secrets_of(alert, folder).items()}
    ca_file = folder / options.ca_file if options.ca_file else None
    if options.type == "webhook":
        from xboard_circus.alerts.webhook import WebhookSink

        return WebhookSink(
            url=secrets["url"],
            shape=options.shape,
            secret=secrets.get("secret"),
            timeout=options.timeout,
            ca_file=ca_file,
            is_proxied=options.proxies == "environment",
        )
    if options.type == "otlp":
        from xboard_circus.alerts.otlp import OtlpSink

        return OtlpSink(secrets["url"], options.timeout, ca_file)
    if options.type == "apprise":
        from xboard_circus.alerts.services import ServiceSink

        return ServiceSink(
            secrets["url"], options.timeout, ca_file, options.proxies == "environment", secret_variables(config)
        )
    if options.type == "email":
        from xboard_circus.alerts.smtp import SmtpSink

        assert options.host is not None, "a section without a problem has a host"
        return SmtpSink(
            host=options.host,
            port=options.port,
            sender=options.sender[0],
            to=options.to,
            security=options.security,
            user=options.user,
            password=secrets.get("password"),
            timeout=options.timeout,
            ca_file=ca_file,
        )
    from xboard_circus.alerts.command import CommandSink

    return CommandSink(options.command, folder, options.timeout, secret_variables(config))


def rules_of(options: AlertOptions) -> GateRules:
    """Return the filters of a sink."""
    return GateRules(
        on=frozenset(map(Trouble, options.on)),
        min_severity=Severity(options.min_severity),
        remind_every=options.remind_every,
        max_per_hour=options.max_per_hour,
    )


def secret_variables(config: Config) -> frozenset[str]:
    """Return the variables that hold a secret of any sink."""
    found = (secret for alert in config.alerts for secret in secrets_of(alert, config.folder).values())
    return frozenset(secret.env for secret in found if secret.env)


def secrets_of(alert: AlertConfig, folder: Path) -> dict[str, Secret]:
    """Return every secret in a section, by the option that names it."""
    found = {}
    for name in SECRETS:
        env, file = getattr(alert.options, f"{name}_env"), getattr(alert.options, f"{name}_file")
        if env:
            found[f"{name}_env"] = Secret(env=env)
        elif file:
            found[f"{name}_file"] = Secret(file=folder / file)
    return found
