"""Every sentence in which a reason is told, in one place: English as logs and tables show it, and a pattern for others.

A reason is made of sentences that stand in each other (`COUNTED` of how a worker ended and when the next is tried), so
who shows it in another language takes it apart by these very templates and needs no second list of English sentences.
For that, the name of a field says what may stand in it:

- ``why``, ``failure``, ``by``: another sentence, or what somebody else wrote, which is quoted as it is;
- ``holders``, ``others``: one ``HOLDER`` or several; ``facts``: pieces between commas, ``FACT_...`` among them;
- one of `FAMILIES`: a sentence whose name begins so (``{times}``: ``TIMES_ONCE``, ``TIMES_MANY``);
- one of `NUMBERS` or `SPANS`: digits; digits with their unit;
- anything else: a name, a figure or a quotation, which is the same in every language.
"""

from __future__ import annotations

from enum import Enum, unique

NUMBERS = frozenset({"before", "burst", "code", "done", "failures", "kib", "n", "pid", "port", "status", "total"})
SPANS = frozenset({"after", "age", "held", "max_age", "timeout", "wait", "window"})
FAMILIES = frozenset({"ending", "event", "found", "role", "state", "then", "times", "waiting", "what", "who", "whose"})


class Template(Enum):
    """Sentences with fields; called with the values of all its fields, one gives the English sentence."""

    def __call__(self, **values: object) -> str:
        return str(self.value).format(**values)


@unique
class Say(Template):
    """What circusd, its hooks, its plugins and its workers say.

    >>> Say.COUNTED(why=Say.DIED(signal="SIGSEGV"), then=Say.THEN_AT_ONCE(failures=1, burst=5, window="600 s"))
    'died by SIGSEGV; 1 of 5 failures in 600 s: next try at once'
    """

    # How a process ended
    CANNOT_RUN = "cannot be run: {why}"
    NO_PROGRAM = "no such program: {command}"
    NO_FOLDER = "no such working directory: {command}"
    NO_USER = "no such user or group, or no right to become it: {command}"
    NO_LIMIT = "a resource limit can't be set: {command}"
    COMMANDED = "commanded: {by}"
    COMMANDED_BY_SIGNAL = "commanded: {signal} sent by Circus"
    OOM_KILLED = "killed by SIGKILL: {why}"
    OOM_OF_HOST = "the kernel's OOM killer, oom_kill of the host rose"
    OOM_OF_CGROUP = "the kernel's OOM killer, oom_kill of its cgroup rose"
    KILLED = "killed from outside by SIGKILL"
    KILLED_PERHAPS_OOM = "killed from outside by SIGKILL (out of memory?)"
    DIED = "died by {signal}"
    DIED_STARTING = "died by {signal} before it was ready"
    UNSEEN = "ended, nobody saw how"
    CIRCUSD_GONE = "its circusd was gone before it ran"
    PORT_CONFLICT = "port conflict: {line}"
    EXITED = "exited with code {code}"
    EXITED_STARTING = "exited with code {code} before it was ready"
    EXITED_SAYING = "exited with code {code}: {line}"
    EXITED_UNASKED = "exited with code 0, unasked"
    EXITED_UNASKED_STARTING = "exited with code 0 before it was ready, unasked"
    NO_LAUNCHER = "Circus could not start the launcher, see circusd's log"

    # Who wanted it
    OPERATOR = "operator"
    OPERATOR_BY = "operator: {by}"
    BY_CIRCUSCTL = "circusctl {command}"
    BY_SIGNAL = "a signal to circusd"
    BY_PAGE = "dashboard: {role} from {address}"
    ROLE_ADMIN = "admin"
    ROLE_READER = "reader"
    BY_LIMITER = "the restart limiter"

    # When the next one is tried
    COUNTED = "{why}; {then}"
    THEN_COUNTED = "{failures} of {burst} failures in {window}"
    THEN_AT_ONCE = "{failures} of {burst} failures in {window}: next try at once"
    THEN_WAIT = "{failures} of {burst} failures in {window}: next try in {wait}"
    THEN_COOL_DOWN = "{failures} failures in {window}: cooling down, tried again in {wait}"
    THEN_ALL_COOL_DOWN = "{failures} failures of all workers in {window}: cooling down, tried again in {wait}"
    THEN_AT_ONCE_OF_WORKER = "{failures} of {burst} failures of this worker in {window}: next try at once"
    THEN_WAIT_OF_WORKER = "{failures} of {burst} failures of this worker in {window}: next try in {wait}"
    THEN_COOL_DOWN_OF_WORKER = "{failures} failures of this worker in {window}: cooling down, tried again in {wait}"
    THEN_COOL_AGAIN = "failed again: cooling down, tried again in {wait}"
    WAITING_PLAINLY = "waits before its restart"
    WAITING_COOLING = "cooling down"
    WAITS = "{waiting}, next try in {wait}"
    WAITS_FOR_TURN = "cooling down, waits for another worker's try"
    WAITS_FOR_PORT = "waits for the port: {why}"
    FORGIVEN = "ready for {held}: its restarts are forgotten"
    FORGIVEN_FROM_OUTSIDE = "ran for {held} without a failure: its restarts are forgotten"
    NOT_KEPT_UP = "{watcher} could not be kept up for {held}"
    NOT_KEPT_UP_SAYING = "{watcher} could not be kept up for {held}: {why}"
    PORT_OF_IT = "port {port}: {why}"
    WORKERS_ARE = "its workers are {states}"
    NO_WORKER = "it has no worker"
    NOBODY_WANTED = (
        "no worker is wanted, so nobody answers: `circusctl incr {watcher}` starts one, "
        "`circusctl stop {watcher}` closes its port"
    )
    NONE_WANTED_NOW = "no worker is wanted any more"

    # What a probe found
    WEDGED = "wedged: {why}"
    SICK = "sick: {why}"
    FOUND = "{found}: {why}"
    FOUND_SILENCE = "no answer {times}"
    FOUND_POOL_FULL = "thread pool full"
    FOUND_LIVE_FAILED = "live path failed {times}"
    FOUND_HEALING = "well {times}, {n} needed"
    FOUND_NOT_READY = "not ready"
    TIMES_ONCE = "once"
    TIMES_MANY = "{n} times in a row"
    DEPENDENCY_DOWN = "a dependency is down, none is replaced: {n} of {total} workers fail their live path"
    DEPENDENCY_DOWN_SAYING = "a dependency is down, none is replaced: {n} of {total} workers fail: {why}"
    ALL_WELL_AGAIN = "the live path of every worker succeeds again"
    WELL_AGAIN = "well again"
    OF_URL = "health.url: {why}"
    OF_NOBODY_KNOWS_WHOM = "nobody can tell which worker it is: {why}"
    NOT_READY_IN_TIME = "not ready within health.startup_timeout = {timeout}"
    NO_ANSWER_WITHIN = "no answer within {timeout}"
    NO_END_WITHIN = "no end of the body within {timeout}"
    NO_COMPLETE_ANSWER = "no complete answer within {timeout}"
    NO_WHOLE_ANSWER = "no whole answer"
    CANCELLED = "cancelled"
    BODY_TOO_LARGE = "more than {kib} KiB in the body"
    CALL_STILL_RUNS = "the call of {age} ago has not ended"
    PROBE_STILL_RUNS = "the last probe still hangs"
    STATUS = "status {status}"
    STATUS_SAYING = "status {status}, {why}"
    ANSWERED = "answered {status}"
    ANSWERED_REDIRECT = "answered {status}, a redirect to {location}"
    CUT_OFF = "it cut the connection off: {error}"
    UNREACHABLE = "its private socket cannot be reached: {error}"
    QUEUE_FULL = "it takes no connections: its queue is full"
    CLOSED = "it closed the connection without an answer"
    ANSWER_TOO_LARGE = "its answer is larger than {kib} KiB"
    ODD_ANSWER = "its private socket answers {line}"
    ANSWER_BROKEN = "its answer breaks off, or is not JSON"
    NO_REPORT = "its answer is not a report"
    ANOTHER_ANSWERED = "process {pid} answered in its place"

    # The port
    PORT_REFUSED = "port refused: {why}"
    PORT_FREED = "port freed: {why}"
    PORT_LOOKED_AT = "the port is being looked at"
    PORT_TAKEN_OVER = "the port was taken over from a worker of an earlier circusd"
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
    FACT_USER = "user {name}"
    FACT_AGE = "for {age}"
    FACT_FOLDER = "in {folder}"
    FACT_ADDRESS = "on {address}"
    WHOSE_ORPHAN = "an orphan of our {circusd}, which is gone"
    WHOSE_ORPHAN_KEPT = "an orphan of our {circusd}, which is gone, kept because port.policy is never"
    WHOSE_INSTANCE = "it belongs to {circusd}, which is running"
    WHOSE_UNKNOWN = "holder unknown: another user's, run as root to see it"
    WHOSE_STRANGER = "a stranger"

    # Replacing, reloading, recycling
    KEPT = "{why}; kept, since {failure}"
    REPLACEMENT_ASKED_FOR = "replacement asked for by {by}"
    WATCHER_STOPPED = "the watcher was stopped"
    WATCHER_STOPPED_MEANWHILE = "the watcher was stopped meanwhile"
    WATCHER_IS_STOPPED = "the watcher is stopped"
    ANOTHER_RIGHT_NOW = "another worker of this watcher is being replaced right now"
    NOT_SPAWNED = "no new worker could be spawned: {why}"
    NEW_NOT_READY = "the new worker was not ready within health.startup_timeout = {timeout}"
    NEW_FAILED = "the new worker did not get ready: {why}"
    READY = "ready {after} after its start"
    READY_IN_PLACE = "ready {after} after its start, in the place of pid {pid}"
    RELOAD_ASKED_FOR = "rolling reload asked for by {by}"
    RELOAD_BEGUN = "rolling reload of {total} workers, asked for by {by}"
    RELOAD_ENDED = "reload {state}: {n} of {total} replaced"
    RELOAD_ENDED_SAYING = "reload {state}: {n} of {total} replaced; {why}"
    RELOAD_BROKEN_OFF = "reload {state}: {why}"
    STATE_DONE = "done"
    STATE_FAILED = "failed"
    STATE_STOPPED = "stopped"
    STATE_STARTING = "starting"
    STATE_STOPPING = "stopping"
    STATE_WAITING = "waiting"
    STATE_SPARE = "spare"
    STATE_DRAINING = "draining"
    RECYCLED = "recycled: {why}"
    GROWN = "uses {mib} MiB, worker.max_rss = {limit} MiB"
    SERVED_ENOUGH = "served {n} requests, worker.max_requests = {limit}"
    LIVED_ENOUGH = "ready for {age}, worker.max_age = {max_age}"

    # Commands, and what circusd says no with
    ASKED_FOR = "{command}, asked for by {by}"
    ASKED_FOR_REFUSED = "{command}, asked for by {by}; refused: {why}"
    EVENT = "{event}: {why}"
    EVENT_UNHEALTHY = "unhealthy"
    EVENT_RECOVERED = "recovered"
    EVENT_RESTART = "restart"
    EVENT_COOLDOWN = "cooldown"
    NO_ARMED_WATCHER = "no armed watcher {watcher}"
    NO_SUCH_WORKER = "{watcher} has no worker {pid} that started at {started}"
    WATCHER_IS = "{watcher} is {state}"
    BEING_ENDED = "{pid} is being ended already"
    STILL_STARTING = "{pid} is still starting: health.startup_timeout rules"
    PROBE_TOO_OLD = "the probe of {pid} is {age} old: too old to kill for"
    ANOTHER_REPLACED = "another worker of this watcher is being replaced"
    RESTARTS_USED_UP = "its restarts are used up, next one in {wait}"
    DOES_NOT_SERVE = "{pid} does not serve; it is {state}"
    BINDS_BY_ITSELF = (
        "each worker of {watcher} binds its port by itself, so a new one can't be ready beside this one; "
        "restart the watcher"
    )
    BINDS_BY_ITSELF_NO_RELOAD = (
        "each worker of {watcher} binds port {port} by itself, so a new one can't be ready beside an old one; "
        "`xboard-circus restart {watcher}`, or let it serve on a [socket:...]"
    )
    UNKNOWN_EVENT = "unknown event {name}"
    INI_UNREADABLE = "{file} cannot be read: {error}; nothing was changed"
    INI_CIRCUS_CHANGED = "[circus] {names} changed: nothing was changed; `xboard-circus restart` puts it into force"
    INI_SOCKET_CHANGED = "[socket:{name}] changed: nothing was changed; `xboard-circus restart` puts it into force"
    RELOAD_RUNS = "a reload of {watcher} runs already: {done} done"
    NO_ANSWER = "no answer from circusd at {endpoint}: {why}"
    SILENT = "silent for {wait}"
    IT_HAS_ENDED = "it has ended"
    NO_ENDPOINT = "it is neither tcp://HOST:PORT nor ipc://PATH"
    REFUSED = "circusd refused {command}: {why}"
    STILL_BUSY = "still busy after {wait} ({why})"

    # A circusd that was lost
    CIRCUSD_KILLED = "circusd (pid {pid}) was killed or crashed, nobody had told it to end"
    CIRCUSD_OOM_KILLED = "circusd (pid {pid}) was killed for want of memory: {why}"
    CIRCUSD_WOUND_UP = "circusd (pid {pid}) ended by itself, its log tells why"
    CIRCUSD_ENDED = "circusd (pid {pid}) was ended: {why}"
    CIRCUSD_BACK = "{then}; {why}"
    MONITOR_ENDED_IT = "it did not answer any more, and the monitor ended it"
    UNATTENDED = "{why}; its workers serve on, and nobody replaces one until circusd is started again"
    HOST_RESTARTED = "the host was restarted while circusd (pid {pid}) ran"
    THEN_AGAIN_AFTER_SEEN = "circusd runs again, as pid {pid}, {after} after it was last seen"
    THEN_AGAIN_AFTER_LOST = "circusd runs again, as pid {pid}, {after} after it was lost"

    # Alerts
    CIRCUSD_SILENT = "circusd has not answered for {held}: {why}"
    CIRCUSD_ANSWERS = "circusd answers again"
    NONE_READY = "no worker ready for {held}"
    NONE_READY_SAYING = "no worker ready for {held}: {why}"
    SO_MANY_READY = "{n} of {total} workers ready"
    PORT_IS_HELD = "the port is held"
    HELD_BACK_ONE = "{n} alert was held back by the limit of an hour: {names}"
    HELD_BACK = "{n} alerts were held back by the limit of an hour: {names}"
    NO_SUCH_WATCHER = "circusd has no watcher of that name any more"

    # Logs
    LOG_OF_WATCHER = "{watcher}: what it writes to {stream}"
    LOG_OF_CIRCUSD = "circusd itself"
    LOG_OF_PRINTED = "circusd: what it and processes without a stream print"
    LOG_OF_PLUGIN = "[{plugin}] itself"
    LOG_OF_MONITOR = "the monitor of circusd itself"

    # Circus's own, which are quoted
    CIRCUS_BUSY = "arbiter is already running {command} command"
    CIRCUS_RESTARTING = "arbiter is restarting..."
    CIRCUS_KNOWS_NONE = "program {watcher} not found"
    CIRCUS_HAS_ONE = "{watcher} already exist"

    # The launcher's own, which imports nothing of this package
    NO_SUCH_PROGRAM = "program not found: {program}"
    NO_SUCH_PROGRAM_IN = "program not found: {program} in PATH={path}"
    NO_RIGHT_TO_RUN = "program can't be run: {program}: {error}"
    NO_SUCH_FOLDER = "no working directory {folder}: {error}"
    NO_SUCH_GROUP = "there is no group {group}"
    NO_SUCH_USER = "there is no user {user}"
    NO_RIGHT_TO_GROUP = "no right to become group {group}: {error}"
    NO_RIGHT_TO_USER = "no right to become user {user}: {error}"
    NO_SUCH_LIMIT = "there is no limit {limit} on this system"
    NO_RIGHT_TO_LIMIT = "the limit {limit} can't be set (hard limit {hard}): {error}"
