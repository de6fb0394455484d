"""Hooks and plugins that Circus loads, by the name ``xboard_circus.plugins``.

Hooks, which run inside circusd and never block it:

- ``guard``: arms a watcher; everything else in circusd follows from its one ini line.
- ``port_guard``: frees the port from our own orphans, binds it, and names any other process that holds it.

Plugins, which run in processes of their own and may wait:

- ``http_health``: probes every worker, and has the hung and the sick ones replaced.
- ``restart_limiter``: stops and starts watchers without a hook that fail too often.
- ``ledger``: records events in SQLite.
- ``alerts``: sends alerts when something breaks, and when it is well again.
- ``systemd_notify``: notifies systemd that the service is ready, alive or stopping.
- ``giving_up``: makes circusd quit when a container's backend cannot be kept up.
- ``log_pruner``: removes old rotated logs.
- ``bundle``: hosts these in a single process; ``[plugin:xboard]`` of ``circus.ini``.
"""
