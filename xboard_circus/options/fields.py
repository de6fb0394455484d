"""Define the options of an ini section: one NamedTuple per family, with defaults.

This is the only list of them. The reference table in docs/options.md, the block in circus.ini and every message come
from here; a field's name is the option's name.
"""

from typing import Annotated, Literal, NamedTuple

from xboard_circus.options import kinds

PreloadLevel = Literal["off", "server", "app"]
PortPolicy = Literal["orphans", "any", "never"]


class Option(NamedTuple):
    """What is known of an option beside its type and default; the text below it is its help.

    Attributes:
        example: Its value in the block that circus.ini shows.
        of: The types of alert that have it, with blanks between them; "" for all.
    """

    kind: kinds.OptionKind
    example: str = ""
    of: str = ""


class HealthOptions(NamedTuple):
    """When a worker counts as hung, sick or ready."""

    live_path: Annotated[str | None, Option(kinds.URL_PATH, "/health/live")] = None
    """Path of the app that shows that a worker works. No answer or a 5xx is a failure; a new worker is up at the first
    good answer. Without it only the event loop is watched. Keep it free of databases, otherwise an outage there gets
    workers replaced."""
    ready_path: Annotated[str | None, Option(kinds.URL_PATH, "/health/ready")] = None
    """Path of the app that answers 2xx when a worker is ready. A failure is shown and holds up a reload; it never kills
    a worker. Set it where a worker needs a while after its start."""
    host: Annotated[str, Option(kinds.HOST)] = "localhost"
    """Host header of the probe. Set it where the app refuses others (TrustedHostMiddleware, Django's ALLOWED_HOSTS). A
    change applies to workers that start later."""
    scheme: Annotated[Literal["http", "https"], Option(kinds.choice("http", "https"))] = "http"
    """Scheme of the probe's request, as the app sees it. Set https where the app redirects http."""
    headers: Annotated[tuple[str, ...] | None, Option(kinds.HEADERS, "X-Forwarded-Proto: https, X-Probe: 1")] = None
    """Headers of the probe's request, as Name: value, separated by commas. They are shown with the options: put no
    secret here."""
    url: Annotated[str | None, Option(kinds.URL, "http://127.0.0.1:8000/health")] = None
    """Address to probe where the command is not xboard_circus.worker, so that it has no private socket. With more than
    one worker, the sick one cannot be identified, so none is replaced."""
    period: Annotated[float, Option(kinds.seconds())] = 2.0
    """Time between two probes of a worker. A worker whose event loop is blocked for so long, at least 1 s, gets a
    successor beside it. Lower it, and health.timeout with it, to notice sooner; raise it with hundreds of workers."""
    timeout: Annotated[float, Option(kinds.seconds())] = 2.0
    """Time for a whole probe, from connect to the last byte. A hung worker is ended after health.failure_threshold
    times this, or health.period if that is longer, and a period more at most; one that SIGSTOP has stopped as soon as
    that is certain. Raise it where the app blocks its event loop for longer on purpose."""
    failure_threshold: Annotated[int, Option(kinds.count())] = 3
    """Failed probes in a row before a worker is replaced. Raise it where single probes fail under load."""
    success_threshold: Annotated[int, Option(kinds.count())] = 1
    """Good probes in a row before a sick worker is ok again. Raise it for a worker that flickers."""
    startup_timeout: Annotated[float, Option(kinds.seconds())] = 60.0
    """Terminate workers that are not up within this time: lifespan done, live path answered. It counts as a failed
    start. Raise it for an app that loads much."""
    max_unavailable: Annotated[int, Option(kinds.count())] = 1
    """Sick workers of a watcher that may be replaced at the same time. Raise it with many workers."""


class RestartOptions(NamedTuple):
    """When a worker that failed is started again."""

    burst: Annotated[int, Option(kinds.count(high=10_000))] = 5
    """Failures of one slot within restart.window before it cools down. Lower it where a start costs much."""
    window: Annotated[float, Option(kinds.seconds())] = 600.0
    """Length of the window in which failures are counted. It must be longer than the waits of a whole burst, otherwise
    the limit is never reached."""
    delay: Annotated[float, Option(kinds.seconds())] = 1.0
    """Wait before the second start in a row; the first is at once. It doubles with each further failure, and counts
    from the slot's last start."""
    delay_max: Annotated[float, Option(kinds.seconds())] = 60.0
    """Longest wait that the doubling reaches, and the longest of all waits while no worker of the watcher is up. Lower
    it to be back sooner after an outage."""
    cooldown: Annotated[float, Option(kinds.seconds())] = 300.0
    """Time between two tries of a slot that has used up its restart budget, counted from its last start; it is tried
    for ever. While no worker of the watcher is up, restart.delay_max applies instead; and restart.delay for a worker
    that was up for 5 s, if it was killed from outside or no other is up. For so long, too, no blocked worker gets a
    successor after one that has come back."""
    reset_after: Annotated[float, Option(kinds.seconds())] = 300.0
    """Time that a worker must be up before its failures are forgotten. Raise it for an app that dies late."""


class PortOptions(NamedTuple):
    """Which processes may be killed to free the watcher's port."""

    policy: Annotated[PortPolicy, Option(kinds.choice("orphans", "any", "never"))] = "orphans"
    """Which processes may be killed to free the port: `orphans` (left by this instance), `any` (for a host that runs
    nothing else; not a process that got the socket from another user, so no server without a parent that binds as root
    and drops its rights, such as lighttpd), `never`."""
    grace: Annotated[float, Option(kinds.seconds(low=0.0))] = 5.0
    """Time between SIGTERM and SIGKILL for an orphan on the port. Raise it where orphans have long requests to
    finish."""
    retry: Annotated[float, Option(kinds.seconds())] = 10.0
    """Time between two tries of a taken port. Lower it to be up sooner once the port is free."""
    host: Annotated[str, Option(kinds.HOST)] = "127.0.0.1"
    """Address that a server binds by itself, without a [socket:...] of Circus. Write the one in its command."""
    port: Annotated[int | None, Option(kinds.count(high=65_535, unit="port"), "8000")] = None
    """Port that a server binds by itself, such as uvicorn --port 8000. Leave it out with a [socket:...]."""


class WorkerOptions(NamedTuple):
    """How workers come to be, and when to replace a healthy one."""

    env_file: Annotated[tuple[str, ...] | None, Option(kinds.FILES, ".env")] = None
    """Files of NAME=value lines for the environment of the workers, separated by commas or lines; relative to the ini
    file. Read anew for each new worker, so a reload puts changed values into force. [env:NAME] and copied variables
    win over a file, a later file over an earlier one. Secrets in them are masked in logs and reasons."""
    preload: Annotated[PreloadLevel, Option(kinds.choice("off", "server", "app"))] = "server"
    """What is imported once, by a process from which workers are then forked: `server` (uvicorn and FastAPI), `app`
    (the app too), or `off`. Forked workers start sooner and share memory. With `app` new code needs a reload, and an
    app whose import leaves threads, processes, connections, files or an event loop open is not forked: `server`
    applies then. That import is of no worker: `XBOARD_WID`, the number of a worker, is 0 in it."""
    preload_modules: Annotated[tuple[str, ...] | None, Option(kinds.MODULES, "numpy, sqlalchemy.orm")] = None
    """Modules that the process from which workers are forked imports too, separated by commas or lines. Set it to the
    large packages of an app that is not imported before the fork (`worker.preload = server`): its workers share their
    memory, and start sooner. No worker is forked while one of them cannot be imported, or leaves open what `app` must
    not either."""
    max_rss: Annotated[int, Option(kinds.SIZE, "512M")] = 0
    """Resident memory at which a worker is replaced, new one first; 0 is no limit. Set it for an app that leaks."""
    max_requests: Annotated[int, Option(kinds.count(low=0, high=1_000_000_000))] = 0
    """Requests after which a worker is replaced, new one first; 0 is no limit. Set it for an app that leaks."""
    max_age: Annotated[float, Option(kinds.seconds(low=0.0))] = 0.0
    """Age at which a worker is replaced, new one first; 0 is no limit. Use it in place of Circus's max_age, which goes
    wrong when the clock is set."""
    websocket_spread: Annotated[float, Option(kinds.seconds(low=0.0))] = 3.0
    """Time over which a worker that drains closes its WebSockets, evenly, with code 1012 (service restart). Their
    clients then don't all reconnect at once. The drain limit bounds it; 0 closes all at once."""


class RequestOptions(NamedTuple):
    """What is recorded of requests, and how long they may last."""

    record: Annotated[bool, Option(kinds.YES_NO)] = True
    """Note which requests are in flight, so that `why` names those that a worker died or hung in, and count them by
    route. Method, route, id and age are kept; no query, header or body. Without it nothing of ours is called for a
    request, and there are no slow requests, no poison and no counts by route."""
    id_header: Annotated[str | None, Option(kinds.HEADER_NAME, "X-Request-ID")] = None
    """Header in which each answer carries the id of its request, the request's own or one that is made; `none` sends
    none. A request's own id is recorded in any case, if it is a short plain one: from this header, without it from
    X-Request-ID. Set it to find a line of a log by its id; it costs about 4 % of the requests per second of a small
    app."""
    slow: Annotated[float, Option(kinds.seconds(low=0.0))] = 10.0
    """Report a request that has no answer after this time, with its stack, in the worker's log and as an event, once
    per route and minute; 0 is never. WebSockets and answers that have begun are not meant. Raise it where requests take
    long on purpose."""
    timeout: Annotated[float, Option(kinds.seconds(low=0.0))] = 0.0
    """Answer 504 to a request that the app has not begun to answer after this time, and cancel what it does; 0 is
    never. The time counts from the call of the app, and anew from each piece of a body that it waits for. A thread (a
    plain `def` endpoint) cannot be cancelled and runs on. Set it where a client or proxy gives up anyway."""
    refuse_poison: Annotated[int | None, Option(kinds.count(low=400, high=599, unit="status"), "503")] = None
    """Status that answers the requests of a route for ten minutes after it has ended three workers, without a call of
    the app. Workers that start later do so; those that run go on as before. It refuses good requests of that route,
    too."""


class RunOptions(NamedTuple):
    """What is run once before new workers."""

    before: Annotated[str | None, Option(kinds.COMMAND, "alembic upgrade head")] = None
    """Command that is run once per start, restart and reload, before a new worker runs: with the environment, folder
    and user of a worker, and without a shell. If it fails, a reload leaves the old workers serving, and a start
    runs it again after a pause. It is not run when a worker that failed is replaced."""
    before_timeout: Annotated[float, Option(kinds.seconds())] = 300.0
    """Time after which run.before is ended, with all of its session; it has failed then. Raise it for long
    migrations."""


class DashboardOptions(NamedTuple):
    """What the page may do, and its names. Read by the dashboard's own watcher only."""

    allow_add: Annotated[bool, Option(kinds.YES_NO)] = False
    """Let an administrator add watchers on the page. A watcher is a command, so anyone with the token can then run any
    command."""
    root_path: Annotated[str | None, Option(kinds.URL_PATH, "/ops")] = None
    """Path below which a proxy serves the page. Leave it out where the page has a host name of its own."""
    hosts: Annotated[tuple[str, ...] | None, Option(kinds.HOST_NAMES, "ops.example.org")] = None
    """Host names of the page, besides localhost and IP addresses. Requests for any other name are refused, because a
    stranger's name may point here (DNS rebinding). X-Forwarded-For of a proxy on this host counts only where this
    option or dashboard.root_path is set."""
    folder: Annotated[str | None, Option(kinds.FILE_PATH, "/var/lib/xboard")] = None
    """Folder of dashboard.token and of the page's settings; by default that of this file. Move it where that is
    read-only, as in a container."""
    endpoints: Annotated[tuple[str, ...] | None, Option(kinds.ENDPOINTS, "tcp://10.0.0.7:5555")] = None
    """Endpoints of more circusds to show on the page. An endpoint has no password, so reach it through a tunnel or a
    private network only."""


class WatcherOptions(NamedTuple):
    """Our options of a ``[watcher:NAME]`` section."""

    health: HealthOptions = HealthOptions()
    restart: RestartOptions = RestartOptions()
    port: PortOptions = PortOptions()
    worker: WorkerOptions = WorkerOptions()
    request: RequestOptions = RequestOptions()
    run: RunOptions = RunOptions()
    dashboard: DashboardOptions = DashboardOptions()


class LedgerOptions(NamedTuple):
    """Where events are kept, and how many."""

    file: Annotated[str, Option(kinds.FILE_PATH)] = "ledger.db"
    """SQLite file that events are written to, relative to circusd's folder. Move it to a disk that outlives a
    container."""
    keep_days: Annotated[float, Option(kinds.seconds(low=0.01, high=36_500.0, unit="days"))] = 30.0
    """Age at which an event is deleted. Raise it to look further back."""
    max_mb: Annotated[int, Option(kinds.count(high=1_000_000, unit="MiB"))] = 64
    """Size of the file at which the oldest events are deleted. Lower it on a small disk."""


class IncidentOptions(NamedTuple):
    """When an alert is sent to the ``[alert:...]`` sections."""

    down_after: Annotated[float, Option(kinds.seconds())] = 30.0
    """Send an alert after this time without a worker that is up, or without an answer from circusd. Raise it where the
    app takes longer to start."""
    recover_after: Annotated[float, Option(kinds.seconds(low=0.0))] = 30.0
    """Send the recovery after this time without trouble; trouble that returns within it is no new alert. Raise it where
    something flickers."""


class LogsOptions(NamedTuple):
    """How long rotated logs are kept."""

    keep_days: Annotated[float, Option(kinds.seconds(low=0.01, high=36_500.0, unit="days"))] = 7.0
    """Age at which a rotated log file, such as xboard.log.1, is removed. Raise it to look further back."""


class ContainerOptions(NamedTuple):
    """What is different where a container runs circusd."""

    give_up_after: Annotated[float, Option(kinds.seconds(low=0.0))] = 0.0
    """Give up after this much net downtime: circusd exits non-zero with the reason as its last line, so Docker or
    Kubernetes replaces the container. Time with a worker up is subtracted; 0 is never. Set it longer than a start
    takes, and leave it 0 outside containers."""
    log: Annotated[Literal["file", "stdout"], Option(kinds.choice("file", "stdout"))] = "file"
    """Where the plugin's own log goes: `file` is one in log_dir, `stdout` is circusd's output."""


class PluginOptions(NamedTuple):
    """Our options of a ``[plugin:NAME]`` section."""

    log_dir: Annotated[str, Option(kinds.FILE_PATH)] = "logs"
    """Folder of the plugin's own log, relative to circusd's folder. Circus discards a plugin's output."""
    ledger: LedgerOptions = LedgerOptions()
    alerts: IncidentOptions = IncidentOptions()
    logs: LogsOptions = LogsOptions()
    container: ContainerOptions = ContainerOptions()
