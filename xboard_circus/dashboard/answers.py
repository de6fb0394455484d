"""What the page's server answers: what it has done, or why it has not. In English; a page in another language takes
these sentences apart as it does those of `core.sentences`.
"""

from __future__ import annotations

from enum import unique

from xboard_circus.core.sentences import Template


@unique
class Answer(Template):
    """One answer."""

    # Done
    STARTED = "started {watchers}"
    STOPS = "stops {watchers}"
    RESTARTS = "restarts {watchers}"
    CANNOT_ROLL = "restarts, as it can't be rolled: {watchers}"
    ROLLS = "rolls {watcher} over"
    HAS_PROCESSES = "{watcher} has {n} processes now"
    ONE_MORE = "{watcher}: one process more"
    ONE_LESS = "{watcher}: one process less"
    TOLD_TO_END = "told {pid} of {watcher} to end"
    REPLACES = "replaces {pid} of {watcher}, new one first"
    ADDED = "added {watcher}"
    SHOWS = "shows {label}"
    SHOWS_NO_LONGER = "shows it no longer"

    # Not done
    NEEDS = "{action} needs {name}"
    NEEDS_NUMBER = "{action} needs {name}, a whole number"
    NO_ACTION = "there is no such action"
    NO_SERVER = "there is no such server on this page"
    NO_SERVER_TO_REMOVE = "there is no such server, or it stands in the ini file"
    NO_WATCHER = "there is no such watcher"
    NO_WORKER = "{watcher} has no such worker any more"
    NO_WATCHERS = "there is no watcher to do it with"
    NOT_ARMED = "{watcher} is not armed: no new worker can be had before the old one goes"
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
    NOT_FROM_HERE = "what is on another host's disk is not seen from here"
    NO_LEDGER = "no ledger is kept"
    NOTHING_RECORDED = "nothing is recorded of {whom} that would need a reason"
    LINES_LEFT_OUT = "[{n} lines left out: more than a page can show]"
    LOG_LOST = "[{path} cannot be read any more: {error}]"
    NOT_ASKED = "not asked yet"
    UNREADABLE = "its answer can't be read: {error}"

    # Not allowed
    LOG_IN = "log in first"
    OUT_OF_DATE = "the page is out of date; load it again"
    ONLY_LOOKS = "this token can only look"
    TOO_MANY_TOKENS = "too many wrong tokens; try again in {wait}"
    TOKEN_WANTED = "a token is wanted"
    JSON_WANTED = "JSON with an action is wanted"
    ONLY_GET_AND_POST = "only GET and POST"
    OTHER_SITE = "sent by another site's page"
    BODY = "a body of at most {n} bytes, with its length, is taken"
    ODD_HOST = (
        "the name in this address: it is none of this page's; if it is to be, write it into dashboard.hosts of the "
        "ini file"
    )
