"""Make the sinks of an ini file."""

from __future__ import annotations

from pathlib import Path

from xboard_circus.alerts.message import Sink
from xboard_circus.alerts.secrets import Secret
from xboard_circus.config import AlertConfig, Config
from xboard_circus.core.alert_gate import GateRules
from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options.alert_fields import AlertOptions


def sink_of(config: Config, alert: AlertConfig) -> Sink:
    """Return the sink of a section without a problem.

    What a sink needs is imported with its first section: most plugins have none, and live for months.
    """
    options, folder = alert.options, config.folder
    if options.type == "webhook":
        from xboard_circus.alerts.webhook import WebhookSink

        url = secret(options.url_env, options.url_file, folder)
        assert url is not None, "a section without a problem has an address"
        return WebhookSink(
            url=url,
            shape=options.shape,
            secret=secret(options.secret_env, options.secret_file, folder),
            timeout=options.timeout,
            ca_file=_file(options.ca_file, folder),
            is_proxied=options.proxies == "environment",
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
            password=secret(options.password_env, options.password_file, folder),
            timeout=options.timeout,
            ca_file=_file(options.ca_file, folder),
        )
    from xboard_circus.alerts.command import CommandSink

    return CommandSink(options.command, folder, options.timeout, hidden_variables(config))


def rules_of(options: AlertOptions) -> GateRules:
    """Return the filters of a sink."""
    return GateRules(
        on=frozenset(map(Trouble, options.on)),
        min_severity=Severity(options.min_severity),
        remind_every=options.remind_every,
        max_per_hour=options.max_per_hour,
    )


def secrets_of(alert: AlertConfig, folder: Path) -> dict[str, Secret]:
    """Return every secret that a section names, by the option that names it."""
    options = alert.options
    pairs = {
        "url": (options.url_env, options.url_file),
        "secret": (options.secret_env, options.secret_file),
        "password": (options.password_env, options.password_file),
    }
    found = {}
    for name, (env, file) in pairs.items():
        if each := secret(env, file, folder):
            found[f"{name}_env" if env else f"{name}_file"] = each
    return found


def hidden_variables(config: Config) -> frozenset[str]:
    """Return the names of all variables that hold a secret."""
    names = (
        name
        for alert in config.alerts
        for name in (alert.options.url_env, alert.options.secret_env, alert.options.password_env)
    )
    return frozenset(name for name in names if name)


def secret(env: str | None, file: str | None, folder: Path) -> Secret | None:
    """Return where a secret is; None where neither is named."""
    if env:
        return Secret(env=env)
    return Secret(file=folder / file) if file else None


def _file(name: str | None, folder: Path) -> Path | None:
    return folder / name if name else None
