"""Make the sinks of an ini file."""

import importlib
from dataclasses import fields
from pathlib import Path

from xboard_circus.alerts.message import Sink
from xboard_circus.alerts.secrets import Secret
from xboard_circus.config import AlertConfig, Config
from xboard_circus.core.alert_gate import GateRules
from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options.alert_fields import AlertOptions

SECRETS = ("url", "secret", "password")
"""Each has two options, such as `url_env` and `url_file`."""

SINKS = {"webhook": ("webhook", "WebhookSink"), "otlp": ("otlp", "OtlpSink"), "email": ("smtp", "SmtpSink")}
SINKS |= {"apprise": ("services", "ServiceSink"), "command": ("command", "CommandSink")}
"""The module and the class of each type."""


def sink_of(config: Config, alert: AlertConfig) -> Sink:
    """Return the sink of a section without a problem: it takes those of the section's values that it has fields for.

    The import of a sink waits for its first section, because most plugins have none, and live for months.
    """
    options, folder = alert.options, config.folder
    module, name = SINKS[options.type or ""]
    kind = getattr(importlib.import_module(f"xboard_circus.alerts.{module}"), name)
    given = options._asdict()
    given |= {option.rpartition("_")[0]: secret for option, secret in secrets_of(alert, folder).items()}
    given |= {"sender": "".join(options.sender), "folder": folder, "hidden": secret_variables(config)}
    given["ca_file"] = folder / options.ca_file if options.ca_file else None
    given["is_proxied"] = options.proxies == "environment"
    sink: Sink = kind(**{each.name: given[each.name] for each in fields(kind) if each.name in given})
    return sink


def rules_of(options: AlertOptions) -> GateRules:
    """Return the filters of a sink."""
    on, least = frozenset(map(Trouble, options.on)), Severity(options.min_severity)
    return GateRules(on, least, remind_every=options.remind_every, max_per_hour=options.max_per_hour)


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
