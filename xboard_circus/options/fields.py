"""The options that may be written in an ini section: one frozen dataclass per family, with defaults.

This is the one list of them. The reference table in docs/options.md, the block in circus.ini and every message
come from here; a field's name is the option's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from xboard_circus.options.kinds import (
    Choice,
    Count,
    Endpoints,
    FilePath,
    Host,
    HostNames,
    Kind,
    Seconds,
    Size,
    Url,
    UrlPath,
    YesNo,
)

PortPolicy = Literal["orphans", "any", "never"]


def _option(default: object, kind: Kind, text: str, *, example: str = "") -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, "example": example})


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """When a worker counts as wedged, sick or ready."""

    live_path: str | None = _option(
        None,
        UrlPath(),
        "Path of the app that must answer 2xx while a worker is fit to live. Leave it out and only the event loop is"
        " watched; never let it touch a database, or an outage there gets workers replaced.",
        example="/health/live",
    )
    ready_path: str | None = _option(
        None,
        UrlPath(),
        "Path of the app that answers 2xx when a worker can serve. A failure is shown and holds up a rolling reload,"
        " and nobody is killed for it. Set it where a worker needs a while after its start.",
        example="/health/ready",
    )
    url: str | None = _option(
        None,
        Url(),
        "Address to probe where the command is not xboard_circus.worker and has no private socket. Then nobody can"
        " tell which of several workers is sick.",
        example="http://127.0.0.1:8000/health",
    )
    period: float = _option(
        2.0,
        Seconds(),
        "Time between two probes of a worker. Lower it to notice sooner, raise it with hundreds of workers.",
    )
    timeout: float = _option(
        2.0,
        Seconds(),
        "Time for a whole probe, connect to last byte. Raise it where the app blocks its loop for longer than this"
        " on purpose.",
    )
    failure_threshold: int = _option(
        3,
        Count(),
        "Failed probes in a row before a worker is replaced. Raise it where single probes fail under load.",
    )
    success_threshold: int = _option(
        1,
        Count(),
        "Good probes in a row before a sick worker counts as well again. Raise it for a worker that flickers.",
    )
    startup_timeout: float = _option(
        60.0,
        Seconds(),
        "Time that a worker may take to get ready before it is replaced. Raise it for an app that loads much.",
    )
    max_unavailable: int = _option(
        1,
        Count(),
        "Workers of a watcher that may be in replacement for sickness at once. Raise it with many workers.",
    )


@dataclass(frozen=True, slots=True)
class RestartOptions:
    """How often a worker that fails is started again."""

    burst: int = _option(
        5,
        Count(high=10_000),
        "Failures of one worker within the window before it cools down. Lower it where a restart costs much.",
    )
    window: float = _option(
        600.0,
        Seconds(),
        "Length of the window in which failures are counted. Must be longer than the burst takes, or the limit"
        " could never be reached.",
    )
    delay: float = _option(
        1.0,
        Seconds(),
        "Wait before the second restart in a row; the first is at once. Doubles with every further one.",
    )
    delay_max: float = _option(
        60.0,
        Seconds(),
        "Longest wait that the doubling comes to. Lower it where an app is often mended while it waits.",
    )
    cooldown: float = _option(
        300.0,
        Seconds(),
        "Time between two tries of a worker that is past its burst; it is tried for ever. Lower it to be back"
        " sooner after an outage, raise it where every try costs much.",
    )
    reset_after: float = _option(
        300.0,
        Seconds(),
        "Time that a worker has to be ready before its failures are forgotten. Raise it for an app that dies late.",
    )


@dataclass(frozen=True, slots=True)
class PortOptions:
    """What may be done to whoever holds the watcher's port."""

    policy: Literal["orphans", "any", "never"] = _option(
        "orphans",
        Choice(("orphans", "any", "never")),
        "Whom to stop: orphans of this instance, any holder of the port (for a host that runs nothing else), or"
        " never anyone.",
    )
    grace: float = _option(
        5.0,
        Seconds(low=0.0),
        "Time between SIGTERM and SIGKILL for an orphan on the port. Raise it where it has to finish long requests.",
    )
    retry: float = _option(
        10.0,
        Seconds(),
        "Time between two tries of a port that somebody else holds. Lower it to be up sooner when it gets free.",
    )
    host: str = _option(
        "127.0.0.1",
        Host(),
        "Address that a server binds by itself, without a [socket:...] of Circus. Write what its command says.",
    )
    port: int | None = _option(
        None,
        Count(high=65_535, unit="port"),
        "Port that a server binds by itself, such as uvicorn --port 8000. Leave it out with a [socket:...].",
        example="8000",
    )


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How many spares there are, and when a worker is replaced although it is well."""

    spares: int = _option(
        0,
        Count(low=0, high=64),
        "Workers started beyond numprocesses that wait with the app loaded. Set 1 where a start takes seconds.",
    )
    max_rss: int = _option(
        0,
        Size(),
        "Resident memory at which a worker is replaced, new one first; 0 is no limit. Set it for an app that leaks.",
        example="512M",
    )
    max_requests: int = _option(
        0,
        Count(low=0, high=1_000_000_000),
        "Requests after which a worker is replaced, new one first; 0 is no limit. Set it for an app that leaks.",
    )
    max_age: float = _option(
        0.0,
        Seconds(low=0.0),
        "Age at which a worker is replaced, new one first; 0 is no limit. Use it in place of Circus's max_age, which"
        " goes wrong when the clock is set.",
    )


@dataclass(frozen=True, slots=True)
class DashboardOptions:
    """What the page may do, and whose it is. Read by the dashboard's own watcher only."""

    allow_add: bool = _option(
        False,
        YesNo(),
        "Let an administrator add watchers on the page. A watcher is a command: who has the token can then run any.",
    )
    root_path: str | None = _option(
        None,
        UrlPath(),
        "Path below which a proxy in front shows the page. Leave it out where the page has a host of its own.",
        example="/ops",
    )
    hosts: tuple[str, ...] | None = _option(
        None,
        HostNames(),
        "Names under which the page is asked for, beside localhost and addresses in figures. Any other is refused:"
        " it could be a stranger's name that points here.",
        example="ops.example.org",
    )
    folder: str | None = _option(
        None,
        FilePath(),
        "Where dashboard.token and what the page remembers are kept, in place of the folder of this file. Move it where"
        " that cannot be written to, as in a container.",
        example="/var/lib/xboard",
    )
    endpoints: tuple[str, ...] | None = _option(
        None,
        Endpoints(),
        "More circusds to show on the page. They take orders from whoever can reach them: let that be a tunnel or a"
        " network of your own.",
        example="tcp://10.0.0.7:5555",
    )


@dataclass(frozen=True, slots=True)
class WatcherOptions:
    """Our options of a ``[watcher:NAME]`` section."""

    health: HealthOptions = field(default_factory=HealthOptions)
    restart: RestartOptions = field(default_factory=RestartOptions)
    port: PortOptions = field(default_factory=PortOptions)
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    dashboard: DashboardOptions = field(default_factory=DashboardOptions)


@dataclass(frozen=True, slots=True)
class LedgerOptions:
    """Where events are kept, and how many."""

    file: str = _option(
        "ledger.db",
        FilePath(),
        "SQLite file that events are written to, from circusd's folder. Move it to a disk that outlives a container.",
    )
    keep_days: float = _option(
        30.0,
        Seconds(low=0.01, high=36_500.0, unit="days"),
        "Age at which an event is deleted. Raise it to look further back.",
    )
    max_mb: int = _option(
        64,
        Count(high=1_000_000, unit="MiB"),
        "Size of the file at which the oldest events are deleted. Lower it on a small disk.",
    )


@dataclass(frozen=True, slots=True)
class IncidentOptions:
    """When the ``[alert:...]`` sections are told something."""

    down_after: float = _option(
        30.0,
        Seconds(),
        "Time without a ready worker, or without an answer of circusd's, after which an alert says so. Raise it where"
        " the app takes longer to start.",
    )
    recover_after: float = _option(
        30.0,
        Seconds(low=0.0),
        "Time for which it must be well before an alert says so; what breaks again within it is no new alert. Raise"
        " it where something flickers.",
    )


@dataclass(frozen=True, slots=True)
class LogsOptions:
    """How long rotated logs are kept."""

    keep_days: float = _option(
        7.0,
        Seconds(low=0.01, high=36_500.0, unit="days"),
        "Age at which a rotated log file, such as xboard.log.1, is removed. Raise it to look further back.",
    )


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """What is different where a container runs circusd."""

    give_up_after: float = _option(
        0.0,
        Seconds(low=0.0),
        "Time without a worker that serves, less the time with one, after which circusd ends and with it the container,"
        " with a code that is not 0 and the reason as its last line; 0 is never. For Docker and Kubernetes, which start"
        " it again, elsewhere; longer than a start takes.",
    )
    log: Literal["file", "stdout"] = _option(
        "file",
        Choice(("file", "stdout")),
        "Where the plugin's own log goes: into a file in log_dir, or to where circusd's output goes.",
    )


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """Our options of a ``[plugin:NAME]`` section."""

    log_dir: str = _option(
        "logs",
        FilePath(),
        "Folder for the plugin's own log, from circusd's folder. Circus throws a plugin's output away.",
    )
    ledger: LedgerOptions = field(default_factory=LedgerOptions)
    alerts: IncidentOptions = field(default_factory=IncidentOptions)
    logs: LogsOptions = field(default_factory=LogsOptions)
    container: ContainerOptions = field(default_factory=ContainerOptions)
