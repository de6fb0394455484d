"""List the words of an alert: its kind, its title, what is done about it, the labels of its lines."""

from xboard_circus.core.reason import Template, catalogue


@catalogue
class AlertSay(Template):
    """Words of an alert; the reasons in it are `core.sentences.Say`."""

    TROUBLE_RESTART = "a worker ended"
    TROUBLE_UNHEALTHY = "unhealthy"
    TROUBLE_CRASH_LOOP = "crash loop"
    TROUBLE_PORT_REFUSED = "port held by another"
    TROUBLE_DOWN = "down"
    TROUBLE_PORT_SHARED = "port shared with another process"
    TROUBLE_OUTPUT_LOST = "output is lost"
    TROUBLE_POISON = "requests that end workers"
    TROUBLE_SILENT = "does not answer"
    TROUBLE_LOST = "killed or crashed"

    DONE_RESTART = "it is replaced"
    DONE_UNHEALTHY = "a hung or sick worker is replaced; where a dependency is down, none is"
    DONE_CRASH_LOOP = "one that dies young is tried again ever later, and then once in a cooldown"
    DONE_PORT_REFUSED = "no process was stopped; the port is tried again and again"
    DONE_DOWN = "workers are started again within the limits of the ini file"
    DONE_PORT_SHARED = "no process was stopped; the workers serve on beside it"
    DONE_OUTPUT_LOST = "the workers serve on; the log is opened again each second"
    DONE_POISON = "each worker is replaced, and no slot cools down for it; the others serve on"
    DONE_SILENT = "nothing can be done from here; the workers may still serve"
    DONE_LOST = "workers that were up serve on; what supervises circusd (systemd, Docker, the monitor) starts it again"

    TITLE_HEAD = "{head} ({host}: {trouble})"
    TITLE_PROBLEM = "{watcher} on {host}: {trouble}"
    TITLE_REMINDER = "{watcher} on {host}: still {trouble}, for {lasted}"
    TITLE_RECOVERED = "{watcher} on {host}: recovered ({trouble})"
    TITLE_STOPPED = "{watcher} on {host}: stopped while {trouble}"
    TITLE_HELD_BACK = "{host}: {count} alerts held back"
    TITLE_TEST = "{host}: test alert"

    HELD = "{watcher} {trouble} ({about})"
    HELD_PROBLEM = "problem"
    HELD_REMINDER = "reminder"
    HELD_RECOVERED = "recovered"
    HELD_STOPPED = "stopped"

    LINE = "{label}: {value}"
    LABEL_REASON = "Reason"
    LABEL_NOW = "Now"
    LABEL_SINCE = "Since"
    LABEL_LASTED = "Lasted"
    LABEL_COUNT = "Reported"
    TIMES = "{count} times"
    LABEL_DONE = "Done"
    LABEL_NEXT = "Next"
    LABEL_MORE = "More"
    LABEL_NOTE = "Note"
