"""A worker: uvicorn on the shared public socket, and a private socket that tells how it fares.

Run as ``python -m xboard_circus.worker``.
"""

EXIT_RECYCLED = 75
"""The exit code of a worker that has served ``--limit-max-requests`` requests: no failure, and no one's command."""
