"""Define the commands alerts list and alerts test: show the sinks of alerts, and send each a test message."""

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from xboard_circus import config as configuration
from xboard_circus.alerts.memory import stuck
from xboard_circus.alerts.secrets import AlertError
from xboard_circus.alerts.sinks import secrets_of, sink_of
from xboard_circus.alerts.text import Origin, rendered
from xboard_circus.checks import endpoint_rules, host_rules
from xboard_circus.cli.context import for_ini_file, ini_option, json_option
from xboard_circus.cli.error_boundary import DONE, FAILED, SafeGroup
from xboard_circus.cli.lifecycle import refuse_others_folder
from xboard_circus.cli.screen import interrupted, say
from xboard_circus.config import AlertConfig, Config
from xboard_circus.core.alert_gate import About, Notice
from xboard_circus.core.alerting import Severity
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime
from xboard_circus.options.reading import ini_text, suggestion

THREADS = 16


@click.group(cls=SafeGroup)
@ini_option
def alerts() -> None:
    """List where alerts are sent, and send test alerts."""


@alerts.command()
@click.argument("name", required=False)
@for_ini_file
def test(config_file: Path, name: str | None) -> int:
    """Send a test alert to each [alert:...] section, or to NAME. Exits with 1 if one is not delivered."""
    config = configuration.load(config_file)
    # It names programs, and files of secrets.
    places = (*config.places, *host_rules.alert_programs(config))
    for path in (each for each in places if os.geteuid() == 0 or os.path.exists(each)):
        refuse_others_folder(path, others=endpoint_rules.people())
    chosen = _chosen(config, name)
    unsure = "which test alerts were delivered is not known"
    with interrupted(unsure), ThreadPoolExecutor(THREADS) as threads:
        outcomes = list(threads.map(lambda alert: _send_test(config, alert), chosen))
    for alert, why in zip(chosen, outcomes, strict=True):
        say(f"{alert.name}: not delivered: {why}" if why else f"{alert.name}: ok", "red" if why else "green")
    return FAILED if any(outcomes) else DONE


@alerts.command("list")
@json_option
@for_ini_file
def list_(config_file: Path, as_data: bool) -> None:
    """List the [alert:...] sections: their destinations, the trouble they report, and what prevents delivery."""
    config = configuration.load(config_file)
    waiting = stuck(runtime.state_root_path() / runtime.instance_id(config.path))
    rows = [_shown(config, alert, *waiting.get(alert.name, (0, ""))) for alert in config.alerts]
    if as_data:
        print(json.dumps(rows, indent=2))
    elif not rows:
        say(f"{config.shown}: no alerts are sent, because it has no [alert:NAME] section")
    for row in () if as_data else rows:
        fault = f"; {row['fault']}" if row["fault"] else ""
        say(f"{row['name']}: {row['place']}; reports {row['tells_of']}{fault}", "red" if fault else "")


def _chosen(config: Config, name: str | None) -> list[AlertConfig]:
    if not (known := {alert.name: alert for alert in config.alerts}):
        hint = "`xboard-circus options alert` lists what it may have"
        raise XboardError(f"{config.shown}: there is no [alert:NAME] section; {hint}")
    if name is None:
        return list(known.values())
    if name not in known:
        hint = suggestion(name, known, alike=0.6, otherwise=f"known are {', '.join(known)}")
        raise XboardError(f"{config.shown}: there is no [alert:{name}]; {hint}")
    return [known[name]]


def _send_test(config: Config, alert: AlertConfig) -> str:
    """Send a test alert; return why it could not be delivered, "" if it was."""
    if fault := _problems(alert):
        return fault
    now = time.time()
    notice = Notice(About.TEST, "", None, Severity.INFO, "test alert, sent by `xboard-circus alerts test`", now, now)
    origin = Origin(socket.gethostname(), str(config.path))
    try:
        sink_of(config, alert).deliver(rendered(notice, origin, lang=alert.options.lang))
    except AlertError as error:
        return str(error)
    return ""


def _shown(config: Config, alert: AlertConfig, waiting: int, why: str) -> dict[str, object]:
    options = alert.options
    problems = _problems(alert)
    secrets = () if problems else secrets_of(alert, config.folder).values()
    stuck_on = [f"{waiting} not delivered yet: {why}"] if waiting else []
    faults = [str(it._replace(cure=host_rules.advice(config, it.cure))) for each in secrets if (it := each.fault())]
    return {
        "name": alert.name,
        "type": options.type or "",
        "place": "" if problems else sink_of(config, alert).place,
        "tells_of": ini_text(options.on) if options.on else f"{options.min_severity} and worse",
        "waiting": waiting,
        "fault": problems or "; ".join([*faults, *stuck_on]),
    }


def _problems(alert: AlertConfig) -> str:
    return "; ".join(f"[{alert.section}] {each.option}: {each.what}; {each.hint}" for each in alert.problems)
