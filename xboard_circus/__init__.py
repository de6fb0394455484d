"""Keep a FastAPI backend, served by uvicorn workers, up under Circus.

Hooks inside circusd replace dead workers at once, free the port from our own orphans and limit restarts with a budget
and a cooldown; a plugin probes every worker on a socket of its own, and has the hung and the sick ones replaced.
``core`` decides and has no effects, ``plugins`` is what Circus loads, ``cli`` is the command ``xboard-circus``.
"""

__version__ = "0.1.0"
