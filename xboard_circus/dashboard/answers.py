"""List the answers of the page's server: what it has done, or why it has not."""

from xboard_circus.core.reason import Template, catalogue


@catalogue
class Answer(Template):
    """One answer."""

    # Done
    STARTED = "started {watchers}"
    STOPS = "stops {watchers}"
    RESTARTS = "restarts {watchers}"
    RELOADS = "reloads {watcher}"
    RETRIES = "starts #{slot} of {watcher} now"
    RETRIES_ALL = "starts all held workers of {watcher} now"
    HAS_PROCESSES = "{watcher} has {n} workers now"
    ONE_MORE = "{watcher}: one worker more"
    ONE_LESS = "{watcher}: one worker less"
    TOLD_TO_END = "stops worker {pid} of {watcher}"
    REPLACES = "reloads worker {pid} of {watcher}, new one first"
    READS_INI = "circusd reads its ini file; watchers that changed are reloaded"
    ADDED = "added {watcher}"
    SHOWS = "shows {label}"
    SHOWS_NO_LONGER = "shows it no longer"

    # Not done
    NEEDS = "{action} needs {name}"
    NEEDS_NUMBER = "{action} needs {name}, a whole number"
    NO_PAGE = "there is no such page"
    NO_ACTION = "there is no such action"
    NO_SERVER = "there is no such server on this page"
    NO_SERVER_TO_REMOVE = "there is no such server, or it is set in the ini file"
    NO_WATCHER = "there is no such watcher"
    WORKER_IS_GONE = "{watcher} has no such worker any more"
    NOT_HELD = "#{slot} of {watcher} is not held any more"
    NONE_HELD = "no worker of {watcher} is held any more"
    NO_WATCHERS = "there is no watcher for this action"
    NOT_ARMED = "{watcher} is not armed: a new worker cannot start before the old one has ended"
    NO_ADDING = "adding watchers is off; dashboard.allow_add = True in the ini file turns it on"
    ODD_NAME = "a name has letters, digits, _ and - only"
    ODD_COMMAND = "the command has to be one line of at most 2000 characters"
    ODD_NUMBER = "numprocesses has to be from 1 to {n}"
    ODD_FOLDER = "working_dir has to be an absolute path"
    ODD_ENDPOINT = "that is no endpoint; write one such as tcp://10.0.0.7:5555 or ipc:///run/circus.sock"
    ODD_LABEL = "a label is one line of at most 60 characters"
    TOO_MANY_SERVERS = "there are {n} servers on this page already; remove one"
    TOO_MANY_PAGES = "{n} pages are open already"
    TOO_MANY_LOGS = "{n} logs are followed already"
    NOT_WRITTEN = "{path}: cannot be written: {error}"
    NOT_READ = "{path} cannot be read: {error}"
    NO_LOG = "there is no such log"
    NOT_FROM_HERE = "files on another host's disk cannot be read from here"
    NO_LEDGER = "no ledger is written"
    NOTHING_RECORDED = "no end or decision is recorded for {what}"
    LINES_LEFT_OUT = "[{n} lines left out: more than a page can show]"
    LOG_LOST = "[{path} cannot be read any more: {error}]"
    NOT_ASKED = "not polled yet"
    UNREADABLE = "its answer can't be read: {error}"

    # Not allowed
    LOG_IN = "log in first"
    ONLY_LOOKS = "this token is read-only"
    WRONG_TOKEN = "this token is wrong"
    TOO_MANY_TOKENS = "too many wrong tokens; try again in {wait}"
    TOKEN_WANTED = "a token is required"
    BROKEN_OFF = "the request ended before all of it had come"
    JSON_WANTED = "JSON with the text {name} in it is required"
    ONLY_GET_AND_POST = "only GET and POST"
    BODY = "a body of at most {n} bytes, with its length, is accepted"
    ODD_HOST = (
        "the host name in this address is not one of this page's; to allow it, add it to dashboard.hosts in the "
        "ini file"
    )
