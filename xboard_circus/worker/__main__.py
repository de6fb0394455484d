"""Run one uvicorn worker under Circus: ``python -m xboard_circus.worker APP [every option of uvicorn's]``.

It is uvicorn, and the app needs no change. In addition the public socket, inherited as ``--fd``, is opened by its true
family, so that answers leave at once; a private unix socket reports the health of this worker; on SIGTERM the open
connections are drained, see `xboard_circus.worker.drain`; and a SIGABRT writes every thread's Python stack to stderr.

The environment identifies the worker, see `Surroundings`; without it, this is plain uvicorn with a drain.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # the imports leave next to no garbage, and a tenth of their time would go into the search for it

import contextlib
import faulthandler
import logging
import os
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import click
import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.main import main as uvicorn_command

from xboard_circus.host.backlog import backlog_of
from xboard_circus.host.unix_sockets import DOES_NOT_LINGER
from xboard_circus.worker import EXIT_RECYCLED, NOT_FOR_THE_APP, forkserver
from xboard_circus.worker.app_code import AppCode
from xboard_circus.worker.fork_orders import ORDERS
from xboard_circus.worker.forsaken import end_with, names_process, outlive_output
from xboard_circus.worker.limits import forbid_core_files, raise_limits
from xboard_circus.worker.private_socket import PrivateSocket
from xboard_circus.worker.server import Surroundings, WorkerServer
from xboard_circus.worker.unread_output import outlast_reader

log = logging.getLogger("uvicorn.error")

PROGRAM = "python -m xboard_circus.worker"
LAST_SECONDS = 10.0  # for a worker without its wrapper, after its drain
UVICORNS_BACKLOG = 2048  # where its command line has no --backlog
STARTUP_FAILURE = 3
"""uvicorn's exit code for an app, a lifespan or a socket that cannot be used."""


def read_options(argv: Sequence[str]) -> dict[str, Any]:
    """Parse uvicorn's command line with uvicorn's own parser; numprocesses is the number, not a variable's."""
    for name in ("UVICORN_WORKERS", "UVICORN_RELOAD"):
        os.environ.pop(name, None)
    try:
        options: dict[str, Any] = uvicorn_command.make_context(PROGRAM, list(argv)).params
    except click.exceptions.Exit as done:  # --help, --version
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    if options["reload"] or (options["workers"] or 1) > 1:
        what = "--reload" if options["reload"] else "--workers"
        print(f"{PROGRAM}: {what} does not work under Circus, which starts numprocesses workers", file=sys.stderr)
        sys.exit(2)
    return options


class PublicConnection(socket.socket):
    """An accepted connection whose family and type are numbers: the event loop asks for them, and enums take 5 us."""

    family, type = socket.SocketType.family, socket.SocketType.type  # type: ignore[assignment]


class PublicListener(socket.socket):
    """A listener that one worker may have changed for all.

    Attributes:
        kind: Family, type and protocol of its connections.
    """

    kind: tuple[int, int, int]

    def accept(self) -> tuple[socket.socket, Any]:
        self.setblocking(False)  # one that was taken over could make the others hang here
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        connection = PublicConnection(*self.kind, descriptor)  # super() would look up the kind for each: 2 us of 6
        if self.kind[0] != socket.AF_UNIX:
            undo_inherited(connection)
        return connection, address


def undo_inherited(connection: socket.socket) -> None:
    """Undo what a worker that was taken over may set on the listener: it leaves requests unread, or cuts answers.

    circusd restores the listener itself within seconds. This takes 1 us.
    """
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DOES_NOT_LINGER)
        if sys.platform == "linux":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
    except OSError:  # closed already; `suppress` would take half as long as all the rest
        pass


def open_public(fd: int) -> socket.socket:
    """Open the inherited listener by its true family.

    ``uvicorn --fd`` takes each for a unix socket, so neither asyncio nor uvloop sets TCP_NODELAY on the connections,
    and every answer on a kept-alive one is 40 ms late. OSError unless *fd* is a bound stream socket.
    """
    listener = PublicListener(fileno=fd)
    listener.kind = int(listener.family), int(listener.type), listener.proto
    if listener.type != socket.SOCK_STREAM:
        raise OSError("it is not a stream socket")
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        if listener.getsockname()[1] == 0:
            raise OSError("it is not bound yet")  # listen() would bind it to a port of the kernel's choice
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
    listener.set_inheritable(False)  # the app's children would keep the port
    return listener


def public_sockets(config: uvicorn.Config, surroundings: Surroundings) -> list[socket.socket] | None:
    """Return the sockets that uvicorn listens on; None lets it bind by itself, by its options."""
    if surroundings.preflight:
        if config.fd is not None:
            with contextlib.suppress(OSError):
                os.close(config.fd)  # otherwise a child of the trial would hold the port
        return []
    if config.fd is None:
        return None
    listener = open_public(config.fd)
    if config.backlog == UVICORNS_BACKLOG and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        # uvicorn listens again, with its own number; that of [socket:...] is for all workers.
        config.backlog = backlog_of(listener) or config.backlog
    return [listener]


def let_go(descriptors: Collection[int]) -> None:
    """Replace *descriptors* by /dev/null in a child that the app has just forked.

    A child that lives on with the listener (ProcessPoolExecutor) would keep the port open after the worker's end, where
    no process accepts. Closed numbers would be given out again, and then be closed by objects that the child inherited.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def configure(options: Mapping[str, Any]) -> uvicorn.Config:
    """Set up logging and limits, which an app may change at its import. Treat *options* as uvicorn does."""
    if names_process(os.environ.get("XBOARD_CIRCUSD", "")):
        outlast_reader()  # before uvicorn's loggers take the streams
    options = dict(options)
    if (app_dir := options.pop("app_dir", None)) is not None:
        sys.path.insert(0, app_dir)
    options["workers"] = 1  # given, so that uvicorn does not read WEB_CONCURRENCY
    options["log_config"] = LOGGING_CONFIG if options["log_config"] is None else options["log_config"]
    options["headers"] = [tuple(header.split(":", 1)) for header in options["headers"]]
    for name in ("reload_dirs", "reload_includes", "reload_excludes"):
        options[name] = options[name] or None
    config = uvicorn.Config(**options)
    for line in raise_limits():
        log.warning(line)
    return config


def private_socket(surroundings: Surroundings) -> PrivateSocket | None:
    """Return the private socket; None where its folder is gone or closed: better to serve without probes than not."""
    path = surroundings.file("sock")
    try:
        return PrivateSocket(path) if path else None
    except OSError as error:
        # Python's own look at the length has no number.
        hint = "" if error.errno else "; set XBOARD_RUNTIME_DIR to a shorter folder"
        log.error("The private socket %s can't be made: %s%s", path, error, hint)
        if surroundings.can_use_folder():
            sys.exit(STARTUP_FAILURE)
        return None


def main(options: Mapping[str, Any], imported: forkserver.Imported | None) -> None:
    surroundings = Surroundings(os.environ)  # first: uvicorn adds its --env-file to the environment
    code = AppCode(options["app"], options["app_dir"]) if imported is None else imported.code
    config = (None if imported is None else imported.config) or configure(options)
    for name in NOT_FOR_THE_APP:  # processes that the app starts do not use our files
        os.environ.pop(name, None)
    os.environ["XBOARD_SESSION"] = str(os.getsid(0))  # a process in another one was detached, to outlive the worker
    server = WorkerServer(config, surroundings, private_socket(surroundings), code)
    os.register_at_fork(after_in_child=lambda: let_go(server.descriptors()))
    os.register_at_fork(after_in_child=server.forget_requests)
    outlive_output(surroundings.circusd)
    end_with(surroundings.launcher, grace=server.drain_limit + LAST_SECONDS)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            run(server, surroundings, code)
    finally:
        surroundings.remove_files()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
    if server.recycled:
        sys.exit(EXIT_RECYCLED)


def run(server: WorkerServer, surroundings: Surroundings, code: AppCode) -> None:
    try:
        sockets = public_sockets(server.config, surroundings)
    except OSError as error:
        log.error("The public socket (--fd %s) can't be used: %s", server.config.fd, error)
        sys.exit(STARTUP_FAILURE)
    if hasattr(server.config, "load_app"):  # not yet in uvicorn 0.36
        server.config.load_app()  # before there is a loop, as in uvicorn: an app may run one of its own meanwhile
        code.look()
    server.run(sockets)


if __name__ == "__main__":
    forbid_core_files()
    if sys.stderr is not None:
        faulthandler.enable(all_threads=True)
    # Not a Config, which would already read uvicorn's --env-file; that may be another one for the next worker.
    options = read_options(sys.argv[1:])
    imported_before = None
    if ORDERS in os.environ:
        imported_before = forkserver.serve(options, partial(configure, options))
    else:
        gc.enable()
    main(options, imported_before)
