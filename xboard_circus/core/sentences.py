"""List all sentences that circusd, its hooks, its plugins and its workers give as a reason.

`Say.X(...)` returns a `Reason`, whose fields may hold other reasons. The translations of all catalogues are in
`xboard_circus/translations/`. Decide by `key_of(reason)`, never by the text.
"""

import re
from collections.abc import Iterable
from typing import Any

from xboard_circus.core.reason import Reason, Template, reason_in, say_key, with_say

CHECK = "xboard-circus check"
"""The command that names who holds a port."""
NAMES = frozenset({"name", "host", "state", "plugin", "version", "python", "endpoint"})
"""Texts of the state that stand where a reader takes them for ours."""
_WORD = r"[\w./:,@+*~=%&#$()\[\]-]*[\w/@+*~=%&#$()\[\]-]"  # that ends no sentence


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

    SAID = '"{words}"'
    SAID_BY = 'user {user} says "{words}"'

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
    PORT_CONFLICT = 'port taken: "{line}"'
    EXITED = "exited with code {code}"
    EXITED_STARTING = "exited with code {code} before it was up"
    EXITED_SAYING = 'exited with code {code}: "{line}"'
    EXITED_UNASKED = "exited with code 0 without a stop request"
    EXITED_UNASKED_STARTING = "exited with code 0 before it was up, without a stop request"
    KILLED_AT_TIMEOUT = "{why}; killed in the middle of its shutdown at graceful_timeout = {timeout}"
    CUT_AT_DRAIN_LIMIT = "{why}; {n} requests cut off at the drain limit of {timeout} (--timeout-graceful-shutdown)"
    SHORT_OF = "circusd cannot start a process ({why}), next try in {wait}"
    LEFT_BEHIND = "ended what worker {pid} left behind: {processes}"
    DID_NOT_LEAVE = "worker {pid} was ordered to leave and did not: it is probed and replaced as before"
    SOCKET_GONE = "its private socket is gone from the runtime folder, so it cannot be probed"
    RUNS_PLAINLY = "runs without health checks and restart limits: {why}"
    NOT_CREATED = "Circus could not create it: {why}"
    CREATED_WHEN_TRIED_AGAIN = "it could be created when tried again"
    CUT_IN_ALL = "{n} requests were cut off at the drain limit; raise --timeout-graceful-shutdown and graceful_timeout"
    ANOTHER_CIRCUSD = "circusd with pid {pid} runs on {file} already; `xboard-circus restart` replaces it"
    TRACEBACK_IN_LOG = "{what}; the traceback is in circusd's log"
    CIRCUS_LACKS = "this Circus lacks {what}; install circus 0.19"
    RETRY_ASKED_FOR = "retry requested by {by}"
    NO_SUCH_SLOT = "{watcher} has no held worker in slot {slot}"
    TOO_MANY_REPLACED = "{n} workers of this watcher are being replaced, health.max_unavailable = {limit}"
    RELOAD_RAISED = "an error of xboard's own: {error}; the log of circusd has its traceback"
    NOT_REPLACED = "worker {pid} was not replaced: it was ordered to leave before and still runs"
    CIRCUSD_ENDS_ALREADY = "circusd is ending already"
    NO_WORKER_CAN_STAY = "no armed watcher that runs has a listener that the next circusd could take over"
    INI_REFUSED = "{file} is refused, nothing was changed: {why}"
    NO_LAUNCHER = "Circus could not start the launcher, see circusd's log"
    NO_FORKS_HERE = "workers are started, not forked: this system has no subreaper"
    NO_FORKS_WITH = "workers are started, not forked: {option} is set"
    NO_FORKS_OF_COMMAND = "workers are started, not forked: the command is not `python -m {module}` alone"
    NOT_FORKED_FROM = "the app is not imported before the fork (worker.preload = app): {why}"
    CODE_CHANGED = (
        "files of the app have changed in the middle of the reload, such as {file}: all workers are replaced once more"
    )
    CODE_CHANGES = (
        "files of the app change all along, such as {file}, and its workers are of different versions; reload when all "
        "are in place"
    )
    IMPORT_TAKES_LONG = (
        "the import of the app before the fork takes more than {limit}: each first worker imports it itself, until a "
        "reload"
    )
    FORKSERVER_FAILED = "no worker is forked: {why}"
    FORKSERVER_SLOW = "the forkserver answered so late that circusd has waited {waited} for it"
    FORKSERVER_ENDED = "the forkserver has ended"
    FORKSERVER_ENDED_BY = "the forkserver has ended: {why}"
    FORKSERVER_SILENT = "the forkserver did not answer within {limit}, {n} times"
    FORKSERVER_GROWN = "the forkserver has grown to more than {limit}, twice what it had after its import"
    FORKSERVER_STOPPED = "the forkserver did not answer within {limit}, since a signal has stopped it"
    WORKERS_DIFFER = (
        "workers {pid} and {other} have imported different versions of {file}: `xboard-circus reload {watcher}` brings "
        "all of them to the one on disk"
    )
    CODE_NOT_COMPARED = "whether all workers are of one version is not known: their app has too many files to compare"
    NO_TWO_WORKERS_ALIKE = "each worker has another environment, user, folder or command than the one before"
    FORKSERVER_FORKED_NONE = "the forkserver did not fork"
    HOOK_REFUSED = "hook {hook} returned false"
    HOOK_RAISED = "hook {hook} raised {error}"

    # What it was answering
    REQUEST = "{method} {route}, for {age} (request {id})"
    REQUEST_OF_SIZE = "{method} {route} with {size}, for {age} (request {id})"
    REQUEST_RAN = "its event loop ran {request}"
    REQUEST_BEGAN_LAST = "most likely {request}, which began last"
    REQUEST_IN_FLIGHT = "in flight: {request}"
    REQUEST_NONE_RAN = "its event loop ran no request, but a background task or callback; in flight: {request}"
    REQUEST_AND_OTHERS = "{request}; others in flight: {n}"
    REQUEST_AND_LARGEST = "{request}; with the largest body {largest}"
    REQUEST_IN_COMMON = "in flight in {n} of the last {total} out-of-memory deaths: {request}"
    WHILE_ANSWERING = "{why}; {requests}"
    POISON = "poison: {request} ended {n} workers within {held}; last request {id}"
    THEN_POISON = "{poison}; not counted against the restart budget"
    LATE_REQUEST = "answered 504: {request}; it is in {where}"
    SLOW_REQUEST = "no answer yet: {request}; it is in {where}"
    REQUESTS_UNREADABLE = "this worker's record of requests is unreadable"
    REQUESTS_NOT_KEPT = "requests in flight are not recorded: {why}"

    # Who ordered it
    OPERATOR = "operator"
    OPERATOR_BY = "operator: {by}"
    BY_CIRCUSCTL = "circusctl {command}"
    BY_SIGNAL = "a signal to circusd"
    BY_PAGE = "dashboard: {role} from {address}"
    ROLE_ADMIN = "admin"
    ROLE_READER = "reader"
    BY_LIMITER = "the restart limiter"
    BY_PORT_GUARD = "the port guard"
    FOR_RELOAD = "reload"
    FOR_RECYCLE = "recycle"

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
    THEN_REPLACED = "restart budget of this worker: {failures} of {burst} used in {window}; its successor runs already"
    THEN_USED_UP_REPLACED = "restart budget used up; its successor runs already"
    THEN_USED_UP_AT_ONCE = "restart budget used up, but it ran for long enough: next try at once"
    THEN_COOL_AGAIN = "failed again: cooling down, next try in {wait}"
    WAITING_PLAINLY = "waiting before the next try"
    WAITING_COOLING = "cooling down"
    WAITS_FOR_TURN = "cooling down, waiting for another worker's try"
    WAITS_FOR_PORT = "waiting for the port: {why}"
    DOOR_OPEN = "no worker is started while its user could become root: {why}"
    CURE_DOOR = "{how}; workers then start within seconds, plugins with `xboard-circus restart`"
    ENV_FILE_UNUSABLE = "no worker is started without its env files: {why}"
    CURE_ENV_FILE = "correct the file; it is read again every few seconds"
    BEFORE_RUNS = "run.before is running: {command}"
    OUTPUT_LOST = "output is lost: {file} cannot be written: {error}"
    DISK_FULL = "{error}: {used} of {size} used on {mount}, {free} free"
    NO_INODES = "{error}: all {n} inodes used on {mount}"
    OUTPUT_BACK = "{file} is written again; {lost} bytes were lost in {held}"
    BEFORE_DONE = "run.before done in {took}"
    BEFORE_EXITED = "run.before exited with code {code}"
    BEFORE_EXITED_SAYING = 'run.before exited with code {code}: "{line}"'
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
    START_ONE = "`xboard-circus scale {watcher} 1` starts one, `xboard-circus stop {watcher}` closes its port"
    NOBODY_WANTED = "{why}: {cure}"
    NONE_WANTED_NOW = "set to 0 workers"

    # What a probe found
    HUNG = "hung: {why}"
    SICK = "sick: {why}"
    FOUND = "{found}: {why}"
    FOUND_SILENCE = "no answer {times}"
    FOUND_OVERLOADED = "overloaded: its event loop works, but does not get round to probes"
    FOUND_POOL_FULL = "thread pool full"
    FOUND_FILES_FULL = "descriptors used up: {n} of {n}"
    FOUND_LIVE_FAILED = "live path failed {times}"
    FOUND_HEALING = "ok {times}, {n} needed"
    FOUND_NOT_READY = "not ready"
    TIMES_ONCE = "once"
    TIMES_MANY = "{n} times in a row"
    DEPENDENCY_DOWN = "a dependency is down, so no worker is replaced: {n} of {total} workers fail their live path"
    DEPENDENCY_DOWN_SAYING = "a dependency is down, so no worker is replaced: {n} of {total} workers fail: {why}"
    HANG_TOGETHER = (
        "{n} of {total} workers hang together, so a dependency may not answer that they wait for in their event loops: "
        "one at a time is replaced"
    )
    HANG_OVER = "most workers answer again"
    ALL_WELL_AGAIN = "the live path of every worker succeeds again"
    WELL_AGAIN = "ok again"
    OF_URL = "health.url: {why}"
    OF_NOBODY_KNOWS_WHOM = "one address for all workers, so the failing one is unknown: {why}"
    NOT_UP_IN_TIME = "not up within health.startup_timeout = {timeout}"
    NO_CORE_FREE = "it was ready to run for {queued} of that, and no core was free"
    NO_ANSWER_WITHIN = "no answer within {timeout}"
    STOPPED_BY_SIGNAL = "a signal such as SIGSTOP has stopped its process"
    LOOP_BLOCKED = "event loop blocked for {age}"
    SHOWS_NOTHING = "no answer and no sign of its event loop for {age}, perhaps C code holds the GIL"
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
        'status {status}, a redirect to "{location}": it answers, but refuses the probe; name that path, '
        "or set health.host or health.headers"
    )
    ANSWERED = "answered {status}"
    ANSWERED_REDIRECT = 'answered {status}, a redirect to "{location}"'
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
    PORT_SHUT = "a worker, or what it started, shut the listening socket down"
    PORT_FILE_GONE = "{path}, the file of the listening socket, was deleted or replaced"
    PORT_DEAF = "a worker, or what it started, had the kernel drop connections to the listening socket, by {option}"
    PORT_CHANGED = "a worker, or what it started, changed {options} of the listening socket, which cannot be put back"
    PORT_PUT_BACK = (
        "a worker, or what it started, changed {options} of the listening socket, so that requests wait or are lost; "
        "it was put back. `xboard-circus reload {watcher}` replaces that worker"
    )
    PORT_LISTENS_AGAIN = "{why}; it listens again"
    PORT_SHUT_FOR_GOOD = "{why}; all workers are replaced, and get another one"
    PORT_SHARED = "connections may go to another process that shares the listening socket: {holders}"
    PORT_LOOKED_AT = "checking the port"
    PORT_HELD = "the port is held by {holders}"
    PORT_HELD_AND_STOPPING = "the port is held by {holders}; stopping {others}"
    PORT_INTERFACE = "interface = {name} cannot be read; write the address of that interface into host"
    PORT_HELD_BY_OURS = (
        "the port is held by {processes}, started by this circusd for another purpose; stop or restart that"
    )
    STOPPING = "stopping {holders}"
    ENDING = "ending {processes}"
    ENDED = "ended {processes}"
    HOLDER = "pid {facts}: {whose}"
    HOLDERS_AND_MORE = "{holders}, and {n} more"
    FACT_PID = "{pid}"
    FACT_COMMAND = '{pid} ("{command}")'
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
    WHOSE_HANDED = "has it from user {giver}, and may not know of it"
    WHOSE_HEIR = "no worker, nor a child of one"

    # Replacing, reloading, recycling
    KEPT = "{why}; kept, because {failure}"
    SUCCESSOR_AHEAD = "{why}: a successor is started, before it is known whether it hangs"
    CAME_BACK = "{why}: it answers again, and drains, because its successor has taken over"
    CAME_BACK_LATELY = "an event loop of this watcher was blocked and came back: no successor ahead for {wait}"
    NO_MEMORY_FOR_ONE = "memory is short for one more worker"
    REPLACEMENT_ASKED_FOR = "replacement requested by {by}"
    WATCHER_STOPPED = "the watcher was stopped"
    WATCHER_STOPPED_MEANWHILE = "the watcher was stopped meanwhile"
    WATCHER_IS_STOPPED = "the watcher is stopped"
    WATCHER_STOPPED_BY = "the watcher was stopped by {by}"
    NOT_SPAWNED = "no new worker could be spawned: {why}"
    NEW_NOT_READY = "the new worker of #{slot} was not ready within health.startup_timeout = {timeout}"
    NOT_IMPORTED = "the new code cannot be imported: {why}"
    IMPORT_BROKEN_OFF = "nothing is known of the new code, its import did not end: {why}"
    NEW_FAILED = "the new worker of #{slot} did not come up: {why}"
    READY = "up {after} after its start"
    READY_IN_PLACE = "up {after} after its start, successor of pid {pid}"
    RELOAD_ASKED_FOR = "reload requested by {by}"
    RELOAD_BEGUN = "reload of {total} workers, requested by {by}"
    RELOAD_ENDED = "reload {state}: {n} of {total} replaced"
    RELOAD_ENDED_SAYING = "reload {state}: {n} of {total} replaced; {why}"
    RELOAD_BROKEN_OFF = "reload {state}: {why}"
    TAKING_BACK = "{why}; the former options are put back"
    TAKEN_BACK = "{why}; workers with the changed options were replaced by ones with the former: {n}"
    NOT_TAKEN_BACK = (
        "{why}; workers that had started with the changed options serve on, because {failure}: "
        "`xboard-circus reload {watcher}` replaces them by ones with the former"
    )
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
    EVENT_PREFLIGHT_FAILED = "preflight failed"
    NO_ARMED_WATCHER = "no armed watcher {watcher}"
    NO_SUCH_WORKER = "{watcher} has no worker {pid} that started at {started}"
    WATCHER_IS = "{watcher} is {state}"
    BEING_ENDED = "worker {pid} is being stopped already"
    BEING_REPLACED = "worker {pid} is being replaced already"
    BEING_REPLACED_BY = "worker {pid} is being replaced already, by pid {new}"
    STILL_STARTING = "worker {pid} is still starting; until it is up only health.startup_timeout applies"
    PROBE_TOO_OLD = "the probe of worker {pid} is {age} old, too old to act on"
    ANOTHER_REPLACED = "another worker of this watcher is being replaced"
    RESTARTS_USED_UP = "restart budget used up, next try in {wait}"
    SINGLETON = (
        "{watcher} is a singleton, so a new worker can't start beside the old one; "
        "`xboard-circus restart {watcher}` stops it and then starts it"
    )
    BINDS_BY_ITSELF = (
        "each worker of {watcher} binds port {port} itself, so a new one can't start beside an old one; "
        "`xboard-circus restart {watcher}`, or let it serve on a [socket:...]"
    )
    UNKNOWN_EVENT = "unknown event {name}"
    TOO_FEW = "{watcher} keeps its {n}, {less} fewer than that cannot be; `xboard-circus stop {watcher}` stops it"
    NO_COMMAND = "this is no command: send a JSON object with a command and its properties"
    INI_UNREADABLE = "{file} cannot be read: {error}; nothing was changed"
    INI_CIRCUS_CHANGED = "[circus] {names} changed: nothing was applied; `xboard-circus restart` applies it"
    INI_SOCKET_CHANGED = "[socket:{name}] changed: nothing was applied; `xboard-circus restart` applies it"
    INI_WATCHER_CHANGED = (
        "[watcher:{name}] {names} changed, which its running workers cannot take over: nothing was applied; "
        "`xboard-circus restart` applies it"
    )
    INI_WATCHER_RENAMED = (
        "[watcher:{name}] is new, and to serve on [socket:{socket}] of [watcher:{gone}], which the file has no more: "
        "nothing was applied; `xboard-circus restart` applies it"
    )
    RELOAD_RUNS = "a reload of {watcher} runs already: {done} done"
    NO_ANSWER = "no answer from circusd at {endpoint}: {why}"
    SILENT = "no reply within {wait}"
    IT_HAS_ENDED = "it has ended"
    TOO_LARGE = "its answer is larger than {limit} MiB"
    TOO_DEEP = "its answer is nested too deeply"
    USER_REFUSED = (
        "it is run by {user}, and {me} may not command it; run this as {user}, or write endpoint_owner = {me} "
        "into [circus] of its ini and restart it"
    )
    REFUSED_AS_ROOT = "it is run by {user}, and accepts no connection of root's; run this as {user}"
    ROOT_REFUSED = (
        "it is run by root, and {me} may not command it; run this as root, or write endpoint_owner = {me} "
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
    CIRCUSD_NOT_FOLLOWED = "circusd (pid {pid}) left in a restart, and the next one ended with exit code {code}"
    CIRCUSD_BACK = "{then}; {why}"
    MONITOR_ENDED_IT = "it did not answer any more, so the monitor killed it"
    FIRST_PROCESS_ENDED_IT = "it did not answer any more, so the container's first process killed it"
    UNATTENDED = "{why}; workers that were up serve on, but are not replaced until circusd is started again"
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
    OF_WORKER_AFTER = "{what}, after: {why}"
    DOING = "{n} {state}"
    DOING_SAYING = "{n} {state} ({why})"
    NO_WORKER_IN_ITS_PLACE = "a worker is missing"
    RELOAD_AT = "reload: {done} of {total} workers replaced"
    NOBODY_PROBES = "no plugin probes the workers"
    NEXT_START = "the start is tried again"
    NEXT_TRY = "#{slot} is started again"
    NEXT_PORT = "the port is tried again"
    NEXT_STARTED = "#{slot} is terminated unless it is up"
    NEXT_LOOPS = "#{slot} is starting, and is tried again if that fails too"
    NEXT_REPLACED = "#{slot} is replaced"
    NEXT_RELOADED = "the next worker is replaced"
    NEXT_NOTHING = "nothing by itself"
    NEXT_SPAWNED = "the missing workers are started"
    NEXT_OUTPUT = "the file is opened again each second"
    NEXT_IF_IT_FAILS_ON = "#{slot} is replaced if it fails on"
    NEXT_SERVES_ON = "#{slot} is not replaced, and recovers once the cause is gone"
    NEXT_RECOVERY = "no worker is replaced; each recovers when its live path succeeds"
    CURE_NOT_CREATED = "correct it in the ini file or on the disk, then `circusctl reloadconfig`"
    CURE_LOOP = "correct what `xboard-circus why {watcher}` shows, then `xboard-circus restart {watcher}`"
    CURE_CODE = "correct what `xboard-circus why {watcher}` shows; the next start has it"
    CURE_RETRY = "correct what `xboard-circus why {watcher}` shows, then `xboard-circus retry {watcher}`"
    CURE_HELD = (
        "correct what `xboard-circus why {watcher}` shows, then `xboard-circus retry {watcher} {slot}`, "
        "or `xboard-circus reload {watcher}` after a change of the code"
    )
    CURE_OUTPUT = "make room for {file}, or let circusd's user write it"
    CURE_DISK = "`{command}` shows what fills it"
    CURE_OVERLOAD = "add workers (numprocesses), or take long work out of the event loop (a plain `def` endpoint)"
    CURE_POISON = (
        "correct what `xboard-circus why` and `xboard-circus logs {watcher}` show, "
        "or refuse these requests until then, by the proxy or request.refuse_poison"
    )
    CURE_LOGS = (
        "`xboard-circus why {watcher}` shows the last death with its stacks, "
        "`xboard-circus logs {watcher}` what its workers wrote"
    )
    CURE_START = "`xboard-circus start {watcher}` starts it"
    CURE_PORT_HELD = "`{command}`, or set another port than {port} in the ini file"
    CURE_PORT = (
        "stop what holds port {port}, which `{command}` names (as root also another user's), "
        "or set another port in the ini file"
    )
    CURE_AS_USER = "run `xboard-circus status` as user {user}: what its circusd advises others is not shown"
    CURE_SOCKET_FILE = "make the folder of {path} if it is missing, or stop what listens there, which `ss -xlp` names"
    CURE_SHARED = "end that process by its pid; until then it takes its share of connections, whatever is reloaded"
    CURE_HANDED = "look at what that user runs, and do not end this process: it may have been given the socket for that"
    CURE_DEPENDENCY = "restore what the live path depends on, such as a database"
    CURE_HANG = "restore what they wait for: `xboard-circus requests {watcher}` names their requests"
    CURE_REFUSED = "correct that option in the ini file: the app answers, and nothing of it has failed"
    CURE_NOT_READY = "restore what the ready path depends on, such as a database"
    CURE_PROBER = "put [plugin:xboard] into the ini file; where it is there, its log says what is wrong"

    # The first line of each face
    VERDICT_OK = "ok"
    VERDICT_DEGRADED = "degraded"
    VERDICT_DOWN = "down"
    VERDICT_LOOPING = "looping"
    VERDICT_BLOCKED = "port taken"
    VERDICT_DEPENDENCY = "dependency down"
    VERDICT_DEPLOYING = "deploying"
    VERDICT_RELOAD_FAILED = "reload failed"
    VERDICT_CIRCUSD_LOST = "circusd down"
    HEAD_DOWN = "DOWN"
    HEAD_SINCE = "{age}, since {at}"
    HEAD_TROUBLE = "{verdict} for {age}: {watcher}, {n} of {total} up"
    HEAD_STOPPED = "stopped for {age}: {watcher}"
    HEAD_BEGUN = "{age} ago, at {at}"
    HEAD_RELOAD_FAILED = "reload failed, begun {age}: {watcher}, {n} replaced, the old code serves on"
    HEAD_RELOAD_FAILED_MIXED = (
        "reload failed, begun {age}: {watcher}, {n} replaced, the old code serves on in {old} of {total} workers"
    )
    HEAD_NOTHING_SERVES = "Nothing serves: {watcher} is stopped, for {age}"
    HEAD_NOTHING_SERVES_BY = "Nothing serves: {watcher} was stopped {age}, by {by}"
    HEAD_FAILS = "Every start fails: {why}"
    HEAD_WHY = "Why: {why}"
    HEAD_NEXT = "Next: {next}"
    HEAD_NEXT_IN = "Next: {next} in {wait}"
    HEAD_NEXT_AT_ONCE = "Next: {next} at once"
    HEAD_DO = "Cure: {cure}"
    HEAD_RUN = "Cure: run `{command}`"
    HEAD_FINE = "All fine: {facts}"
    FINE_BACKEND = "1 backend"
    FINE_BACKENDS = "{n} backends"
    FINE_WORKER = "1 worker"
    FINE_WORKERS = "{n} workers"
    FINE_RATE = "{n} requests/s"
    FINE_P95 = "p95 {value}"
    FINE_TROUBLE = "last trouble {age} ago"
    FINE_NO_TROUBLE = "no trouble on record"
    GONE = "circusd is down for {age}: nothing replaces a worker that ends"
    GONE_SILENT = "circusd has not answered for {age}: {why}"
    GONE_NEVER = "circusd does not answer: {why}"
    GONE_SERVES = "Its workers still answer on :{port} ({n} alive)"
    GONE_FAILS = "Its workers still answer on :{port} ({n} alive), the live path with {status}"
    GONE_MUTE = "Nothing answers on {ports}"
    GONE_ALL = "None of its ports answers"
    CURE_RELOAD = "correct what `xboard-circus why {watcher}` shows, then `xboard-circus reload {watcher}`"
    INCIDENT_ONCE = "{slots} ended: {why}"
    INCIDENT_TIMES = "{slots} ended {n} times in {lasted}: {why}"
    INCIDENT_TIMES_LAST = "{slots} ended {n} times in {lasted}, last: {why}"

    # What Circus refuses a command for
    CIRCUS_BUSY = "another command is running: {command}"
    CIRCUS_RESTARTING = "circusd is restarting"


def as_said(text: str) -> str:
    """Return *text* in quotes, unless it is a sentence of ours: what a program says cannot pass for our words.

    >>> print(as_said('no "such" table. Cure: run `x`'), as_said(Say.OPERATOR()))
    "no 'such' table. Cure: run 'x'" operator
    """
    return Say.SAID(words=text) if text and not isinstance(text, Reason) else text


def as_heard(reason: str, user: str = "") -> str:
    """Return *reason*, which another user's process gave, in quotes unless it is of the catalogue and advises nothing.

    With a *user*, so is named who says it.

    >>> as_heard(Say.STATUS(status=503)), as_heard(Say.STATUS(status="503. Next: nothing. Cure: run sh x"))
    ('status 503', '"status 503. Next: nothing. Cure: run sh x"')
    """
    is_by = isinstance(reason, Reason) and user and (reason.key, reason.fields.get("user")) == ("SAID_BY", user)
    if is_by or not reason or (isinstance(reason, Reason) and reason.informs()):
        return reason
    return Say.SAID_BY(user=user, words=reason[:]) if user else as_said(reason[:])


def as_named(name: str, user: str) -> str:
    """Return *name*, as the circusd of another *user* says it, in quotes if it is more than words with blanks between.

    >>> as_named("plugin:my app", "ann"), as_named("x. Cure: sh x", "ann")
    ('plugin:my app', 'user ann says "x. Cure: sh x"')
    """
    return name if re.fullmatch(f"({_WORD}( {_WORD})*)?", name) else Say.SAID_BY(user=user, words=name)[:]


def name_all(entries: Iterable[Any], user: str) -> None:
    """Put into quotes, in each of *entries*, what the circusd of another *user* has in place of a name."""
    for entry in entries:
        for key in NAMES & entry.keys():
            entry[key] = entry[key] and as_named(entry[key], user)


def quote_all(entry: Any, user: str) -> None:
    """Put each reason in *entry*, and below it, in quotes that the circusd of another *user* may not give as ours.

    A cure is left as it is: whether it harms anybody is for who shows it. So is a single word that has no data.

    >>> said = [{"by": "probe", "next": "x. Cure: run `sh x`"}]
    >>> quote_all(said, "ann")
    >>> print(said[0]["by"], said[0]["next"])
    probe user ann says "x. Cure: run 'sh x'"
    """
    for each in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        quote_all(each, user)
    for name in [*entry] if isinstance(entry, dict) else ():
        is_word = name not in ("reason", "by", "next") or str(entry[name]).replace(".", "_").isidentifier()
        if name != "cure" and (say_key(name) in entry or not is_word):
            entry.update({say_key(name): None} | with_say(as_heard(reason_in(entry, name), user), name))


def state_named(state: str) -> str:
    """Return *state*, as circusd or Circus names it, as a `Reason` where the catalogue has it.

    >>> state_named("stopped").as_data(), state_named("unheard of")
    ({'key': 'STATE_STOPPED', 'fields': {}}, 'unheard of')
    """
    member = Say.__members__.get(f"STATE_{state.upper()}")
    return state if member is None else member()
