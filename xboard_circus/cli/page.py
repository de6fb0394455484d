"""Define the command dashboard: print the link to the page, and open it in a browser."""

import html
import os
import socket
import sys
import webbrowser
from pathlib import Path

import click

from xboard_circus.checks import authorship
from xboard_circus.cli.context import for_instance
from xboard_circus.cli.screen import say
from xboard_circus.config import Config
from xboard_circus.dashboard.settings import dashboard_of, folder_of, options_of
from xboard_circus.dashboard.tokens import load
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime, servers
from xboard_circus.host.sockets import for_client, is_loopback
from xboard_circus.instance import Instance

ANSWER_WITHIN = 2.0
# A link on the browser's command line could be read by every user with `ps`.
_LEAD = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={link}"><a href="{link}">Open</a>'
)


@click.command()
@click.option("--read-only", is_flag=True, help="Print the link with the read-only token.")
@click.option("--no-open", is_flag=True, help="Print the link, and open no browser.")
@for_instance
def dashboard(instance: Instance, read_only: bool, no_open: bool) -> None:
    """Print the link to the dashboard, and open it in a browser.

    The link contains a token: anyone with the link can do what you can. Exits with 1 if nothing answers there yet.
    """
    _refuse_ini_of_others(instance)
    host, port = address_of(instance.config)
    tokens = load(folder_of(instance.config))
    answers = _answers(host, port)
    link = link_to(instance.config, host, port, tokens.reader if read_only else tokens.admin)
    if answers or instance.owner in (0, os.geteuid()):  # another user may begin to listen where his ini says
        print(link)
    if not answers:
        raise XboardError(f"nothing answers at {host}:{port}; `xboard-circus status` shows whether the dashboard runs")
    if not no_open and has_browser():
        _open(link, runtime.root() / f"dashboard-{instance.id}.html")


def _refuse_ini_of_others(instance: Instance) -> None:
    """Raise XboardError if another user may name the address that gets our token: of root's ini, or of one that we have
    never started.

    No look at the address helps: its name may lead elsewhere when the browser looks it up, and a server of root's at
    that port may show pages of others.
    """
    if os.geteuid() == 0 and (found := authorship.other_author(instance.config)) is not None:
        what = f"{found[0]} may write {found[1]}, and say who gets a token of root's"
        raise XboardError(f"{what}: run this as the user of the page")
    if instance.owner not in (0, os.geteuid()) and not runtime.was_started(instance.id):
        who, cure = servers.name_of(instance.owner), "where that is right, `xboard-circus start` it first"
        raise XboardError(f"{instance.shown} is {who}'s, who would say who gets your token; {cure}")


def address_of(config: Config) -> tuple[str, int]:
    """Return the address of the page for a browser on this host; XboardError if the ini file has none."""
    if (watcher := dashboard_of(config)) is not None:
        if (shared := next(filter(None, map(config.socket, watcher.sockets_used)), None)) is None or not shared.port:
            hint = "let it serve on a [socket:...], as in circus.ini"
            raise XboardError(f"{config.shown}: [{watcher.section}]: the address of the dashboard is unknown; {hint}")
        return for_client(shared.host), shared.port
    if config.circus["httpd"]:
        return for_client(str(config.circus["httpd_host"])), int(config.circus["httpd_port"])
    hint = "`xboard-circus init` writes a [watcher:dashboard], or write httpd = True into [circus]"
    raise XboardError(f"{config.shown}: there is no dashboard in it; {hint}")


def link_to(config: Config, host: str, port: int, token: str) -> str:
    """Return the link; the part behind the # is for the page's script, and no server ever sees it."""
    root = (options_of(config, None).root_path or "").rstrip("/")
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{root}/login#token={token}"


def has_browser() -> bool:
    """Return whether a browser can open: a terminal with a screen."""
    has_screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return has_screen and sys.stdout.isatty()


def _answers(host: str, port: int) -> bool:
    """Return whether the page answers; XboardError for a process of another user but root, or of another host.

    The token is ours or root's, and so is a page that knows it. Who wrote the ini named both this address and the
    folder of the token, perhaps that of a page of ours.
    """
    try:
        with socket.create_connection((host, port), ANSWER_WITHIN) as door:
            found, theirs, own = servers.server_of(door), door.getpeername()[0], door.getsockname()[0]
    except OSError:
        return False
    if (user := None if found is None else found.stranger(servers.users_of(""))) is not None:
        raise XboardError(f"a process of user {user} listens at {host}:{port}, and would get the token; end it first")
    if theirs != own and not is_loopback(theirs):
        raise XboardError(f"{host} is no address of this host, and {host}:{port} would get the token: correct the ini")
    return True


def _open(link: str, file: Path) -> None:
    """Open *link* through a file that only we can read."""
    try:
        file.unlink(missing_ok=True)
        file.touch(0o600, exist_ok=False)
        file.write_text(_LEAD.format(link=html.escape(link)), encoding="utf-8")
        webbrowser.open(file.as_uri())
    except (OSError, webbrowser.Error) as error:
        say(f"no browser could be opened ({error}); the link above does it", "yellow")
