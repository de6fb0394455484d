"""What Circus loads, by the name ``xboard_circus.plugins``.

Hooks, which run inside circusd and never block it:

- ``guard``: arms a watcher; everything else in circusd follows from its one ini line.
- ``port_guard``: frees the port from our own orphans, binds it, and names whoever else holds it.
- ``restart_limiter``: counts deaths, decides when the next try of a worker is due, and enforces it.

Plugins, which run in processes of their own and may wait:

- ``http_health``: asks every worker how it is, and has the hung and the sick ones replaced.
- ``restart_limiter``: the limiter again, for watchers that carry no hook.
- ``ledger``: writes what happened into SQLite.
- ``alerts``: tells people outside when something breaks, and when it is well again.
- ``bundle``: hosts these in a single process; ``[plugin:xboard]`` of ``circus.ini``.
"""
