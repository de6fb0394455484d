"""Check the [alert:...] sections: options, programs, and secrets that are missing or open to others."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

from xboard_circus.alerts.extras import installed_by
from xboard_circus.alerts.sinks import secrets_of
from xboard_circus.checks.findings import ERROR, WARNING, Finding, within
from xboard_circus.config import AlertConfig, Config

READERS = ("xboard_circus.plugins.bundle.Bundle", "xboard_circus.plugins.alerts.Alerts")

EXTRAS = {"apprise": ("apprise", "Apprise", "apprise"), "otlp": ("opentelemetry", "OpenTelemetry", "otel")}
"""By type: the module that it needs, its name, and the extra that installs it."""


def findings(config: Config) -> Iterator[Finding]:
    """Yield findings. No finding quotes a value that may be a secret."""
    if config.alerts and not any(plugin.use in READERS for plugin in config.plugins):
        hint = f"add [plugin:xboard] use = {READERS[0]}"
        yield Finding(ERROR, "", "no plugin reads it", hint, config.alerts[0].section)
    for alert in config.alerts:
        yield from within(alert.section, _alert(config, alert))


def _alert(config: Config, alert: AlertConfig) -> Iterator[Finding]:
    yield from (Finding(ERROR, problem.option, problem.what, problem.hint) for problem in alert.problems)
    wrong = {problem.option for problem in alert.problems}
    for option, secret in secrets_of(alert, config.folder).items():
        if option not in wrong and (fault := secret.fault()):
            if secret.env:  # circusd's environment may be another one than this command's
                yield Finding(WARNING, option, fault.what, f"export {secret.env}=... where circusd is started")
            else:
                yield Finding(ERROR, option, fault.what, fault.cure)
    options = alert.options
    module, what, extra = EXTRAS.get(options.type or "", ("sys", "", ""))
    if find_spec(module) is None:
        yield Finding(ERROR, "type", f"{what} is not installed", installed_by(extra))
    if options.ca_file and not os.path.isfile(file := config.folder / options.ca_file):
        yield Finding(ERROR, "ca_file", f"{file} is not there", "name a file of certificates")
    if options.command and shutil.which(options.command[0], path=None) is None:
        found = config.folder / options.command[0]
        if not ("/" in options.command[0] and shutil.which(str(found))):
            yield Finding(ERROR, "command", f"there is no program {options.command[0]}", "write its whole path")
