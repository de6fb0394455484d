"""Fork the process of the plugins from circusd, which has imported three quarters of what they need.

Once, while circusd starts: a fork has none of the threads that ZeroMQ begins then, and could wait for ever for a lock
of theirs. The child closes all that is circusd's, and waits until Circus starts the plugin. One that is started again
later, or has other limits or streams than circusd, is a program of its own, as with Circus alone.
"""

import json
import os
import socket
import sys
import traceback
from contextlib import closing, suppress
from typing import Any, NoReturn

import psutil

from xboard_circus.host import shown_command
from xboard_circus.supervisor import prepared_forkserver
from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.patches.circus_process import Forked

TAKEN_WITHIN = 0.2  # circusd does nothing else meanwhile


class PreparedPlugin:
    """A child of circusd that becomes the first plugin of ours that Circus starts, or ends with circusd.

    Attributes:
        pid: Its pid, then that of the plugin.
    """

    def __init__(self, child: Forked, orders: socket.socket) -> None:
        self.pid = child.pid
        self._child = child
        self._orders: socket.socket | None = orders

    def become(self, process: Any) -> Forked | None:
        """Have it become Circus's *process*; None if that has to be started as a program."""
        if self._orders is None or not circus_process.runs_plugin(process):
            return None
        orders, self._orders = self._orders, None
        with closing(orders):  # without an order the child ends
            if not circus_process.is_like_circusd(process):
                return None
            order = {"words": circus_process.arguments_of(process), "closed": circus_process.closed_streams(process)}
            order |= {"env": process.env, "folder": process.working_dir}
            try:
                orders.sendall(json.dumps(order).encode())
            except OSError:
                with suppress(psutil.Error):
                    self._child.kill()
                    self._child.poll()
                return None
        return self._child


@contained(None)
def prepare() -> PreparedPlugin | None:
    """Fork the child; None where circusd has threads already, or Linux's /proc is missing."""
    if not sys.platform.startswith("linux") or len(os.listdir("/proc/self/task")) != 1:
        return None
    ours, theirs = socket.socketpair()
    with theirs:
        pid = prepared_forkserver.fork()
        if pid == 0:
            _wait_for_order(theirs)
    ours.settimeout(TAKEN_WITHIN)
    return PreparedPlugin(Forked(pid, None, None), ours)


def _wait_for_order(channel: socket.socket) -> NoReturn:
    """Live as the child: leave all that is circusd's, wait for the order, and run the plugin. Never return.

    The frames of circusd below stay, so that nothing of them is closed or written by its end.
    """
    code = 1
    try:
        prepared_forkserver.leave_circusd(channel.fileno())
        try:
            shown_command.show([sys.executable, "-c", "waits to become a plugin"], os.environ)
        except OSError:  # not on this kernel, or in this sandbox: the plugin is started
            os._exit(0)
        with channel:
            order = b"".join(iter(lambda: channel.recv(1 << 16), b""))
        if order:
            _run_plugin(**json.loads(order))
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # a plugin that ends in order does the same


def _run_plugin(*, words: list[str], env: dict[str, str], folder: str, closed: list[int]) -> None:
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in closed:
        os.dup2(nothing, number)
    os.close(nothing)
    shown_command.show(words, env)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *words[3:]]
    from circus import plugins  # circusd has no need of it

    plugins.main()
