"""Define the command init, which writes a circus.ini or a Dockerfile for an app."""

from pathlib import Path
from shlex import quote
from typing import Any

import click

from xboard_circus.cli.context import Number
from xboard_circus.cli.screen import interrupted, say
from xboard_circus.init import NewBackend, write_config, write_dockerfile

_OF_ENDPOINT = "Port for commands to circusd; it publishes events on the next one."


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--app", required=True, metavar="MODULE:APP", help="The ASGI app that the workers serve.")
@click.option("--port", type=Number(1, 65535), default=NewBackend.port, help="Public port.")
@click.option("--page-port", type=Number(1, 65535), help="Port of the dashboard.  [default: 8080]")
@click.option("--endpoint-port", type=Number(1, 65534), default=NewBackend.endpoint_port, help=_OF_ENDPOINT)
@click.option("--workers", type=Number(min=1), default=NewBackend.workers, help="Number of workers.")
@click.option("--live-path", metavar="PATH", help="Path that answers 2xx while a worker works.")
@click.option("--ready-path", metavar="PATH", help="Path that answers 2xx when a worker is ready.")
@click.option("--docker", is_flag=True, help="Write a Dockerfile instead; the image has an ini file of its own.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(folder: Path, docker: bool, force: bool, **given: Any) -> None:
    """Write a circus.ini for your own app into DIR (default: the current folder)."""
    unsure = interrupted(f"{folder} may hold a part of the new files; --force writes all of them anew")
    if docker:
        with unsure:
            written = write_dockerfile(folder, NewBackend(**given), force=force)
        say(
            f"wrote {written}; next: its packages into requirements.txt, then "
            f"`docker build -t backend {quote(str(folder))}`"
        )
        return
    with unsure:
        written = write_config(folder, NewBackend(**given), force=force)
    say(f"wrote {written}; next: `xboard-circus -c {quote(str(written))} start`")
