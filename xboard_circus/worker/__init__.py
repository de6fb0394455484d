"""Run a worker: uvicorn on the shared public socket, and a private socket that reports its health.

Run as ``python -m xboard_circus.worker``.
"""

import re
from collections.abc import Mapping

MODULE = "xboard_circus.worker"
EXIT_RECYCLED = 75
"""Exit code of a worker that has served ``--limit-max-requests`` requests: neither a failure nor an order.

Any app can end so: it is believed of a worker that was up and whose command or environment sets that limit.
"""

OF_CIRCUSD = frozenset(
    f"XBOARD_{name}"
    for name in (
        *("PREFLIGHT", "WID", "WORKER", "WORKER_DIR", "LAUNCHER", "SESSION", "FORK_ORDERS", "REFUSED"),
        *("LIVE_PATH", "READY_PATH", "PROBE_HOST", "PROBE_SCHEME", "PROBE_HEADERS", "WEBSOCKET_SPREAD"),
        *("REQUESTS", "REQUEST_RECORD", "REQUEST_ID_HEADER", "REQUEST_SLOW", "REQUEST_TIMEOUT"),
    )
)
"""What circusd alone tells a worker, or leaves out: with XBOARD_SPARE of a file no worker would ever serve."""

NOT_FOR_THE_APP = ("XBOARD_WORKER", "XBOARD_LAUNCHER", "XBOARD_REQUESTS")
"""What is not for the app of a worker, nor for the processes that it starts."""

_NAMED = re.compile(rf"(?<![\w.]){re.escape(MODULE)}(?![\w.])")


def runs_worker(cmd: object, args: object = "") -> bool:
    """Return whether a watcher's `cmd` and `args` run our worker, which has a private socket.

    >>> runs_worker("python", "-m xboard_circus.worker app:app"), runs_worker("python -m xboard_circus.workers")
    (True, False)
    """
    words = args if isinstance(args, (list, tuple)) else [args or ""]
    return _NAMED.search("\n".join(map(str, (cmd or "", *words)))) is not None


def limits_requests(cmd: object, args: object, env: Mapping[str, str]) -> bool:
    """Return whether a watcher has uvicorn end its workers after a number of requests.

    >>> limits_requests("python -m xboard_circus.worker app:app", ["--limit-max-requests", "9"], {})
    True
    >>> limits_requests("python -m xboard_circus.worker app:app", "", {"HOME": "/"})
    False
    """
    return "UVICORN_LIMIT_MAX_REQUESTS" in env or "--limit-max-requests" in f"{cmd} {args}"
