"""What circusd and a forkserver say to each other; see `xboard_circus.worker.forkserver`."""

ORDERS, LEVEL, SPACE = "XBOARD_FORK_ORDERS", "XBOARD_FORK_LEVEL", "XBOARD_FORK_SPACE"
"""Variables: the socket that orders come by; what is imported; and room in the environment that /proc shows."""

READY, OUTDATED, HERE, GO = b"ready", b"outdated", b"here", b"go"
"""It has imported what it should; a file of that has changed; a worker is forked; the worker may go on."""

ANYWHERE = -1
"""In the place of a descriptor's number: the worker chooses one, and puts it into its environment."""
