"""The words of pm2 and supervisorctl that are no commands of ours, with what to type here.

docs/operations.md has them as a table. A command of ours of the same name is in `SAME`.
"""

from typing import NamedTuple


class ForeignWord(NamedTuple):
    """Words of the same meaning, as their tools spell them, and our answer in one line."""

    names: str
    answer: str


SAME = "dashboard describe init logs reload restart scale signal start status stop"

_SECTION = "a watcher is a section of circus.ini: {}, then `xboard-circus restart`; no request is lost"
_CLOUD = "no cloud service: `xboard-circus dashboard` opens the page of this host, alerts go to `[alert:NAME]`"
_MODULE = "no module manager: plugins are Python packages, named in `[plugin:NAME]` sections"
_SETTINGS = "settings are the options of circus.ini: `xboard-circus options` explains them, `describe NAME` shows them"
_CODE = "code is fetched by git or your pipeline; `xboard-circus reload` then puts it into service"
_STDIN = "a worker has no terminal: `xboard-circus logs -f NAME` follows its output"
_SHELL = "no shell of its own: each command is typed by itself; `xboard-circus --help` lists them"
_FILES = "no server of files: mount Starlette's `StaticFiles` in the app, or put nginx in front"
_RESET = "`xboard-circus retry NAME [SLOT]` forgets the failures of a held slot, or of all, and starts it"
_LATEST = "install the new version with pip, then `xboard-circus restart`; no request is lost"

WORDS = (
    ForeignWord("list ls l ps", "`xboard-circus status`"),
    ForeignWord("jlist prettylist slist sysinfos", "`xboard-circus status --json`"),
    ForeignWord("desc info show", "`xboard-circus describe NAME`"),
    ForeignWord("env", "`xboard-circus describe NAME` shows the options and the names of the variables"),
    ForeignWord("pid id", "`xboard-circus status NAME` shows the pids"),
    ForeignWord("monit imonit dash", "`xboard-circus top`, or `xboard-circus dashboard` in a browser"),
    ForeignWord("tail", "`xboard-circus logs NAME`, with `-f` to follow it"),
    ForeignWord("maintail", "`xboard-circus logs circusd`, with `-f` to follow it"),
    ForeignWord("attach send fg", _STDIN),
    ForeignWord(
        "sendSignal",
        "`xboard-circus signal NAME[:SLOT] USR1`, where the app handles it; HUP would end uvicorn: `reload`",
    ),
    ForeignWord("startOrRestart startOrReload startOrGracefulReload", "`xboard-circus start`, then `reload`"),
    ForeignWord("kill shutdown", "`xboard-circus stop` stops circusd and all that it runs"),
    ForeignWord("delete del remove", _SECTION.format("delete it there")),
    ForeignWord("add create", _SECTION.format("write one there")),
    ForeignWord("update reread", "`xboard-circus check` reads circus.ini, `xboard-circus restart` puts it into force"),
    ForeignWord("updatePM2 deepUpdate", _LATEST),
    ForeignWord("avail", "`xboard-circus check` lists what circus.ini has, `xboard-circus status` what runs"),
    ForeignWord("reset", _RESET),
    ForeignWord("flush clear", "logs rotate by `max_bytes` of their stream; `truncate -s 0` empties one at once"),
    ForeignWord("reloadLogs logrotate", "logs rotate by `max_bytes` of their stream, and follow a rename or deletion"),
    ForeignWord("save dump cleardump resurrect", "circus.ini is what is started after a boot; nothing is to be saved"),
    ForeignWord("startup", "`sudo xboard-circus service install` starts it at boot"),
    ForeignWord("unstartup", "`sudo xboard-circus service remove` takes the service away"),
    ForeignWord("ecosystem", "`xboard-circus init --app MODULE:APP` writes a circus.ini"),
    ForeignWord("ping", "`xboard-circus status`; it exits with 1 where circusd does not run"),
    ForeignWord("report sysmonit", "`xboard-circus doctor` examines host and backend"),
    ForeignWord("version", "`xboard-circus --version`"),
    ForeignWord("help examples", "`xboard-circus --help`, `xboard-circus COMMAND --help`"),
    ForeignWord("exit quit open", _SHELL),
    ForeignWord("set get multiset unset conf config", _SETTINGS),
    ForeignWord("deploy pull forward backward", _CODE),
    ForeignWord("install uninstall autoinstall publish package install-otel uninstall-otel", _MODULE),
    ForeignWord("module:install module:uninstall module:update module:generate module:publish", _MODULE),
    ForeignWord("link interact unlink monitor unmonitor plus register login logout", _CLOUD),
    ForeignWord(
        "trigger",
        "no messages to an app: call a route of it, or `xboard-circus signal NAME USR1`, where the app handles it",
    ),
    ForeignWord("inspect", "no debugger is attached; a hung worker's stacks are in `xboard-circus why`"),
    ForeignWord("profile:cpu profile:mem", "no profiler inside: `py-spy` or `memray` attach to a pid of `status`"),
    ForeignWord("serve expose", _FILES),
)

ANSWERS = {name: word.answer for word in WORDS for name in word.names.split()}
