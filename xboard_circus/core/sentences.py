"""List all sentences that circusd, its hooks, its plugins and its workers give as a reason.

`Say.X(...)` returns a `Reason`, whose fields may hold other reasons. The translations of all catalogues are in
`xboard_circus/translations/`. Decide by `key_of(reason)`, never by the text.
"""

from enum import unique

from xboard_circus.core.reason import Template, catalogue


@catalogue
@unique
class Say(Template):
    """Sentences of circusd, its hooks, its plugins and its workers.

    >>> Say.COUNTED(why=Say.DIED(signal="SIGSEGV"), then=Say.THEN_AT_ONCE(failures=1, burst=5, window="600 s"))
    'died by SIGSEGV; restart budget: 1 of 5 used in 600 s, next try at once'
    """

    # Durations
    UNIT_S = "{n} s"
    UNIT_MIN = "{n} min"
    UNIT_H = "{n} h"
    UNIT_D = "{n} d"
    UNITS = "{large} {small}"

    # How a process ended
    CANNOT_RUN = "cannot be run: {why}"
    NO_PROGRAM = "no such program: {command}"
    NO_FOLDER = "no such working directory: {command}"
    NO_USER = "no such user or group, or no permission to switch to it: {command}"
    NO_LIMIT = "a resource limit can't be set: {command}"
    COMMANDED = "commanded: {by}"
    COMMANDED_BY_SIGNAL = "commanded: {signal} sent by Circus"
    OOM_KILLED = "out of memory, killed by SIGKILL: {why}"
    OOM_OF_HOST = "the kernel's OOM killer, oom_kill of the host rose"
    OOM_OF_CGROUP = "the kernel's OOM killer, oom_kill of its cgroup rose"
    KILLED = "killed from outside by SIGKILL"
    KILLED_PERHAPS_OOM = "killed from outside by SIGKILL (out of memory?)"
    DIED = "died by {signal}"
    DIED_STARTING = "died by {signal} before it was up"
    UNSEEN = "ended, exit status unknown"
    CIRCUSD_GONE = "its circusd was gone before it ran"
    PORT_CONFLICT = "port taken: {line}"
    EXITED = "exited with code {code}"
    EXITED_STARTING = "exited with code {code} before it was up"
    EXITED_SAYING = "exited with code {code}: {line}"
    EXITED_UNASKED = "exited with code 0 without a stop request"
    EXITED_UNASKED_STARTING = "exited with code 0 before it was up, without a stop request"
    KILLED_AT_TIMEOUT = "{why}; killed in the middle of its shutdown at graceful_timeout = {timeout}"
    CUT_AT_DRAIN_LIMIT = "{why}; {n} requests cut off at the drain limit of {timeout} (--timeout-graceful-shutdown)"
    SHORT_OF = "circusd cannot start a process ({why}), next try in {wait}"
    LEFT_BEHIND = "ended what worker {pid} left behind: {processes}"
    DID_NOT_LEAVE = "worker {pid} was ordered to leave and did not: it is probed and replaced as before"
    SOCKET_GONE = "its private socket is gone from the runtime folder, so it cannot be probed"
    RUNS_PLAINLY = "runs without health checks and restart limits: {why}"
    SPARE_SILENT = "spare {pid} did not answer within {timeout}: killed, a new worker is started"
    SPARE_TOOK_PLACE = "spare {pid} took its place"
    CUT_IN_ALL = "{n} requests were cut off at the drain limit; raise --timeout-graceful-shutdown and graceful_timeout"
    CIRCUS_LACKS = "this Circus lacks {what}; install circus 0.19"
    RETRY_ASKED_FOR = "retry requested by {by}"
    NO_SUCH_SLOT = "{watcher} has no held worker in slot {slot}"
    TOO_MANY_REPLACED = "{n} workers of this watcher are being replaced, health.max_unavailable = {limit}"
    NOT_REPLACED = "worker {pid} was not replaced: it was ordered to leave before and still runs"
    CIRCUSD_ENDS_ALREADY = "circusd is ending already"
    NO_WORKER_CAN_STAY = "no armed watcher that runs has a listener that the next circusd could take over"
    INI_REFUSED = "{file} is refused, nothing was changed: {why}"
    NO_RUNTIME_FOLDER = "the watcher has no runtime folder"
    NO_LAUNCHER = "Circus could not start the launcher, see circusd's log"
    HOOK_REFUSED = "hook {hook} returned false"
    HOOK_RAISED = "hook {hook} raised {error}"

    # Who wanted it
    OPERATOR = "operator"
    OPERATOR_BY = "operator: {by}"
    BY_CIRCUSCTL = "circusctl {command}"
    BY_SIGNAL = "a signal to circusd"
    BY_PAGE = "dashboard: {role} from {address}"
    ROLE_ADMIN = "admin"
    ROLE_READER = "reader"
    BY_LIMITER = "the restart limiter"
    FOR_RELOAD = "reload"
    FOR_RECYCLE = "recycle"
    FOR_HANDOVER = "handover"

    # When the next one is tried
    COUNTED = "{why}; {then}"
    THEN_COUNTED = "restart budget: {failures} of {burst} used in {window}"
    THEN_AT_ONCE = "restart budget: {failures} of {burst} used in {window}, next try at once"
    THEN_WAIT = "restart budget: {failures} of {burst} used in {window}, next try in {wait}"
    THEN_COOL_DOWN = "restart budget used up ({failures} failures in {window}): cooling down, next try in {wait}"
    THEN_ALL_COOL_DOWN = (
        "restart budget of all workers used up ({failures} failures in {window}): cooling down, next try in {wait}"
    )
    THEN_AT_ONCE_OF_WORKER = "restart budget of this worker: {failures} of {burst} used in {window}, next try at once"
    THEN_WAIT_OF_WORKER = "restart budget of this worker: {failures} of {burst} used in {window}, next try in {wait}"
    THEN_COOL_DOWN_OF_WORKER = (
        "restart budget of this worker used up ({failures} failures in {window}): cooling down, next try in {wait}"
    )
    THEN_COOL_AGAIN = "failed again: cooling down, next try in {wait}"
    WAITING_PLAINLY = "waiting before the next try"
    WAITING_COOLING = "cooling down"
    WAITS_FOR_TURN = "cooling down, waiting for another worker's try"
    WAITS_FOR_PORT = "waiting for the port: {why}"
    DOOR_OPEN = "no worker is started while its user could become root: {why}"
    CURE_DOOR = "{how}; workers then start within seconds, plugins with `xboard-circus restart`"
    ENV_FILE_UNUSABLE = "no worker is started without its env files: {why}"
    ENV_FILE_READ = "the env files could be read"
    CURE_ENV_FILE = "correct the file; it is read again every few seconds"
    BEFORE_RUNS = "run.before is running: {command}"
    OUTPUT_LOST = "output is lost: {file} cannot be written: {error}"
    OUTPUT_BACK = "{file} is written again; {lost} bytes were lost in {held}"
    BEFORE_DONE = "run.before done in {took}"
    BEFORE_EXITED = "run.before exited with code {code}"
    BEFORE_EXITED_SAYING = "run.before exited with code {code}: {line}"
    BEFORE_DIED = "run.before was killed by {signal}"
    BEFORE_KILLED = "run.before was killed"
    BEFORE_TIMED_OUT = "run.before did not end within run.before_timeout = {timeout}, and was killed"
    BEFORE_STOPPED = "the watcher was stopped while run.before ran, which was ended"
    BEFORE_NOT_RUN = "run.before cannot be run: {why}"
    BEFORE_WAITED = "another run of the same command in the same folder has not ended (it holds {path})"
    BEFORE_NO_START = "no worker is started: {why}"
    CURE_BEFORE = (
        "correct what `xboard-circus logs {watcher}` shows; it is run again, and at once by "
        "`xboard-circus reload --no-preflight {watcher}`"
    )
    ENV_FILE_KEPT = "an env file cannot be used, so new workers get the values that it had before: {why}"
    NOTHING_REPLACED = "nothing was replaced: {why}"
    FORGIVEN = "up for {held}: restart budget reset"
    FORGIVEN_FROM_OUTSIDE = "ran for {held} without a failure: restart budget reset"
    NOT_KEPT_UP = "{watcher} could not be kept up for {held}"
    NOT_KEPT_UP_SAYING = "{watcher} could not be kept up for {held}: {why}"
    PORT_OF_IT = "port {port}: {why}"
    NO_WORKER = "it has no worker"
    SET_TO_NONE = "set to 0 workers, so nothing answers"
    START_ONE = "`circusctl incr {watcher}` starts one, `circusctl stop {watcher}` closes its port"
    NOBODY_WANTED = "{why}: {cure}"
    NONE_WANTED_NOW = "set to 0 workers"

    # What a probe found
    HUNG = "hung: {why}"
    SICK = "sick: {why}"
    FOUND = "{found}: {why}"
    FOUND_SILENCE = "no answer {times}"
    FOUND_POOL_FULL = "thread pool full"
    FOUND_LIVE_FAILED = "live path failed {times}"
    FOUND_HEALING = "ok {times}, {n} needed"
    FOUND_NOT_READY = "not ready"
    TIMES_ONCE = "once"
    TIMES_MANY = "{n} times in a row"
    DEPENDENCY_DOWN = "a dependency is down, so no worker is replaced: {n} of {total} workers fail their live path"
    DEPENDENCY_DOWN_SAYING = "a dependency is down, so no worker is replaced: {n} of {total} workers fail: {why}"
    ALL_WELL_AGAIN = "the live path of every worker succeeds again"
    WELL_AGAIN = "ok again"
    OF_URL = "health.url: {why}"
    OF_NOBODY_KNOWS_WHOM = "one address for all workers, so the failing one is unknown: {why}"
    NOT_READY_IN_TIME = "not up within health.startup_timeout = {timeout}"
    NO_ANSWER_WITHIN = "no answer within {timeout}"
    NO_END_WITHIN = "body not complete within {timeout}"
    NO_COMPLETE_ANSWER = "no complete answer within {timeout}"
    NO_WHOLE_ANSWER = "incomplete answer"
    CANCELLED = "cancelled"
    BODY_TOO_LARGE = "more than {kib} KiB in the body"
    CALL_STILL_RUNS = "the call of {age} ago is still running"
    PROBE_STILL_RUNS = "the last probe is still running"
    STATUS = "status {status}"
    STATUS_SAYING = "status {status}, {why}"
    PROBE_REFUSED = (
        "status {status}: it answers, but refuses the probe; set health.host, health.scheme or health.headers"
    )
    PROBE_REFUSED_HOST = "status {status}: it answers, but refuses the probe; set health.host to a name that it allows"
    PROBE_REFUSED_LOGIN = (
        "status {status}: it answers, but refuses the probe; name a path without a login, or set health.headers"
    )
    PROBE_REFUSED_PATH = "status {status}: it answers, but does not have this path; correct the option that names it"
    PROBE_REFUSED_REDIRECT = (
        "status {status}, a redirect to {location}: it answers, but refuses the probe; name that path, "
        "or set health.host or health.headers"
    )
    ANSWERED = "answered {status}"
    ANSWERED_REDIRECT = "answered {status}, a redirect to {location}"
    CUT_OFF = "connection closed: {error}"
    UNREACHABLE = "private socket unreachable: {error}"
    QUEUE_FULL = "connection queue full"
    CLOSED = "connection closed without an answer"
    ANSWER_TOO_LARGE = "answer larger than {kib} KiB"
    ODD_ANSWER = "private socket answered {line}"
    ANSWER_BROKEN = "answer incomplete or not JSON"
    NO_REPORT = "answer is not a report"

    # The port
    PORT_REFUSED = "port taken: {why}"
    PORT_FREED = "port freed: {why}"
    PORT_LOOKED_AT = "checking the port"
    PORT_TAKEN_OVER = "port taken over from a worker of an earlier circusd"
    PORT_HELD = "the port is held by {holders}"
    PORT_HELD_AND_STOPPING = "the port is held by {holders}; stopping {others}"
    PORT_HELD_BY_OURS = (
        "the port is held by {processes}, started by this circusd for another purpose; stop or restart that"
    )
    STOPPING = "stopping {holders}"
    ENDING = "ending {processes}"
    ENDED = "ended {processes}"
    HOLDER = "pid {facts}: {whose}"
    HOLDERS_AND_MORE = "{holders}, and {n} more"
    FACT_PID = "{pid}"
    FACT_COMMAND = "{pid} ({command})"
    FACT_UNKNOWN = "unknown"
    FACT_USER = "user {name}"
    FACT_AGE = "for {age}"
    FACT_FOLDER = "in {folder}"
    FACT_ADDRESS = "on {address}"
    WHOSE_ORPHAN = "an orphan of our {circusd}, which is gone"
    WHOSE_ORPHAN_KEPT = "an orphan of our {circusd}, which is gone, kept because port.policy is never"
    WHOSE_INSTANCE = "belongs to {circusd}, which is running"
    WHOSE_UNKNOWN = "unknown, another user's; run as root to see it"
    WHOSE_STRANGER = "a stranger"

    # Replacing, reloading, recycling
    KEPT = "{why}; kept, because {failure}"
    REPLACEMENT_ASKED_FOR = "replacement requested by {by}"
    WATCHER_STOPPED = "the watcher was stopped"
    WATCHER_STOPPED_MEANWHILE = "the watcher was stopped meanwhile"
    WATCHER_IS_STOPPED = "the watcher is stopped"
    NOT_SPAWNED = "no new worker could be spawned: {why}"
    NEW_NOT_READY = "the new worker was not ready within health.startup_timeout = {timeout}"
    NEW_FAILED = "the new worker did not come up: {why}"
    READY = "up {after} after its start"
    READY_IN_PLACE = "up {after} after its start, successor of pid {pid}"
    RELOAD_ASKED_FOR = "reload requested by {by}"
    RELOAD_BEGUN = "reload of {total} workers, requested by {by}"
    RELOAD_ENDED = "reload {state}: {n} of {total} replaced"
    RELOAD_ENDED_SAYING = "reload {state}: {n} of {total} replaced; {why}"
    RELOAD_BROKEN_OFF = "reload {state}: {why}"
    STATE_BUSY = "busy"
    STATE_SICK = "sick"
    STATE_HUNG = "hung"
    STATE_ACTIVE = "active"
    STATE_DONE = "done"
    STATE_FAILED = "failed"
    STATE_STOPPED = "stopped"
    STATE_STARTING = "starting"
    STATE_STOPPING = "stopping"
    STATE_HELD = "held"
    STATE_SPARE = "spare"
    STATE_LEAVING = "leaving"
    STATE_UP = "up"
    STATE_FAILING = "failing"
    RECYCLED = "recycled: {why}"
    GROWN = "uses {mib} MiB, worker.max_rss = {limit} MiB"
    SERVED_ENOUGH = "served {n} requests, worker.max_requests = {limit}"
    LIVED_ENOUGH = "up for {age}, worker.max_age = {max_age}"

    # Commands, and what circusd says no with
    ASKED_FOR = "{command}, requested by {by}"
    ASKED_FOR_REFUSED = "{command}, requested by {by}; refused: {why}"
    EVENT = "{event}: {why}"
    EVENT_UNHEALTHY = "unhealthy"
    EVENT_RECOVERED = "recovered"
    EVENT_RESTART = "restart"
    EVENT_COOLDOWN = "cooldown"
    NO_ARMED_WATCHER = "no armed watcher {watcher}"
    NO_SUCH_WORKER = "{watcher} has no worker {pid} that started at {started}"
    WATCHER_IS = "{watcher} is {state}"
    BEING_ENDED = "worker {pid} is being stopped already"
    STILL_STARTING = "worker {pid} is still starting; until it is up only health.startup_timeout applies"
    PROBE_TOO_OLD = "the probe of worker {pid} is {age} old, too old to act on"
    ANOTHER_REPLACED = "another worker of this watcher is being replaced"
    RESTARTS_USED_UP = "restart budget used up, next try in {wait}"
    DOES_NOT_SERVE = "worker {pid} is {state}, so it cannot be reloaded; `xboard-circus retry` starts a held one"
    SINGLETON = (
        "{watcher} is a singleton, so a new worker can't start beside the old one; "
        "`xboard-circus restart {watcher}` stops it and then starts it"
    )
    BINDS_BY_ITSELF = (
        "each worker of {watcher} binds port {port} itself, so a new one can't start beside an old one; "
        "`xboard-circus restart {watcher}`, or let it serve on a [socket:...]"
    )
    UNKNOWN_EVENT = "unknown event {name}"
    NO_COMMAND = "this is no command: send a JSON object with a command and its properties"
    INI_UNREADABLE = "{file} cannot be read: {error}; nothing was changed"
    INI_CIRCUS_CHANGED = "[circus] {names} changed: nothing was applied; `xboard-circus restart` applies it"
    INI_SOCKET_CHANGED = "[socket:{name}] changed: nothing was applied; `xboard-circus restart` applies it"
    RELOAD_RUNS = "a reload of {watcher} runs already: {done} done"
    NO_ANSWER = "no answer from circusd at {endpoint}: {why}"
    SILENT = "silent for {wait}"
    IT_HAS_ENDED = "it has ended"
    USER_REFUSED = (
        "it is run by {user}, and {me} may not command it; run this as {user} or root, or write endpoint_owner = {me} "
        "into [circus] of its ini and restart it"
    )
    IMPOSTOR = "a process of user {user} listens there, and it is not believed to be circusd"
    NO_ENDPOINT = "it is neither tcp://HOST:PORT nor ipc://PATH"
    REFUSED = "circusd refused {command}: {why}"
    STILL_BUSY = "still busy after {wait} ({why})"

    # A circusd that was lost
    CIRCUSD_KILLED = "circusd (pid {pid}) was killed or crashed, without a stop request"
    CIRCUSD_OOM_KILLED = "circusd (pid {pid}) was killed, out of memory: {why}"
    CIRCUSD_WOUND_UP = "circusd (pid {pid}) exited by itself, see its log"
    CIRCUSD_ENDED = "circusd (pid {pid}) was killed: {why}"
    CIRCUSD_BACK = "{then}; {why}"
    MONITOR_ENDED_IT = "it did not answer any more, so the monitor killed it"
    UNATTENDED = "{why}; its workers still serve, but are not replaced until circusd is started again"
    HOST_RESTARTED = "the host was restarted while circusd (pid {pid}) ran"
    THEN_AGAIN_AFTER_SEEN = "circusd runs again, as pid {pid}, {after} after it was last seen"
    THEN_AGAIN_AFTER_LOST = "circusd runs again, as pid {pid}, {after} after it was lost"

    # Alerts
    CIRCUSD_SILENT = "circusd has not answered for {held}: {why}"
    CIRCUSD_ANSWERS = "circusd answers again"
    NONE_UP_FOR = "no worker up for {held}"
    NONE_UP_FOR_SAYING = "no worker up for {held}: {why}"
    PORT_IS_HELD = "the port is held"
    LIMIT_REACHED = "max_per_hour = {most} is reached: further alerts that are not critical are held back for {wait}"
    EARLIER = "{n} earlier ones"
    HELD_BACK_ONE = "{n} alert was held back by max_per_hour: {names}"
    HELD_BACK = "{n} alerts were held back by max_per_hour: {names}"
    NO_SUCH_WATCHER = "circusd has no watcher of that name any more"

    # Logs
    LOGS = "{titles}"
    LOG_OF_WATCHER = "{watcher}: {stream}"
    LOG_OF_CIRCUSD = "circusd itself"
    LOG_OF_PRINTED = "circusd: its output, and that of processes without a stream"
    LOG_OF_PLUGIN = "[{plugin}]"
    LOG_OF_MONITOR = "the monitor of circusd"

    # The verdict on a watcher
    SO_MANY_UP = "{n} of {total} workers up"
    SO_MANY_UP_SAYING = "{n} of {total} workers up: {why}"
    SO_MANY_RUN = "{n} of {total} processes run"
    NONE_UP = "none of {total} workers is up"
    NONE_UP_SAYING = "none of {total} workers is up: {why}"
    STARTING = "starting, {n} of {total} workers up"
    PREDECESSORS_SERVE = "{n} of the workers of an earlier circusd serve on: {why}"
    STARTING_SAYING = "starting, {n} of {total} workers up: {why}"
    OF_WORKER = "#{slot} is {state}"
    OF_WORKER_SAYING = "#{slot}: {why}"
    NO_WORKER_IN_ITS_PLACE = "a worker is missing"
    RELOAD_AT = "reload: {done} of {total} workers replaced"
    NOBODY_PROBES = "no plugin probes the workers"
    NEXT_START = "the start is tried again"
    NEXT_TRY = "#{slot} is started again"
    NEXT_PORT = "the port is tried again"
    NEXT_STARTED = "#{slot} is terminated unless it is up"
    NEXT_REPLACED = "#{slot} is replaced"
    NEXT_RELOADED = "the next worker is replaced"
    NEXT_RECOVERY = "no worker is replaced; each recovers when its live path succeeds"
    CURE_LOOP = (
        "correct what `xboard-circus why` and `xboard-circus logs {watcher}` show, "
        "then `xboard-circus restart {watcher}`"
    )
    CURE_OUTPUT = "make room for {file}, or let circusd's user write it; what was lost does not come back"
    CURE_LOGS = "`xboard-circus logs {watcher}` shows what its workers wrote"
    CURE_START = "`circusctl start {watcher}` starts it"
    CURE_PORT = "stop what holds port {port}, or set another port in the ini file"
    CURE_DEPENDENCY = "restore what the live path depends on, such as a database"
    CURE_PROBER = "put [plugin:xboard] into the ini file; where it is there, its log says what is wrong"

    # What Circus refuses a command for
    CIRCUS_BUSY = "another command is running: {command}"
    CIRCUS_RESTARTING = "circusd is restarting"


def state_named(state: str) -> str:
    """Return *state*, as circusd or Circus names it, as a `Reason` where the catalogue has it.

    >>> state_named("stopped").as_data(), state_named("unheard of")
    ({'key': 'STATE_STOPPED', 'fields': {}}, 'unheard of')
    """
    member = Say.__members__.get(f"STATE_{state.upper()}")
    return state if member is None else member()
