"""Refuse Circus's own plugins that harm an armed watcher, or do not work, and name a replacement.

`docs/operations.md` has the same as a table, and `tests/real/test_circus_plugins.py` runs them all with Circus 0.19.
What it refuses, circusd refuses at each `restart` too, so of what `RESTARTING` orders nothing comes but the order.
"""

from collections.abc import Iterator

from xboard_circus.checks.findings import ERROR, WARNING, Finding
from xboard_circus.config import Config, PluginConfig, is_armed

# Class: what it does, and its replacement.
BROKEN = {
    "CommandReloader": (
        "looks for a file named like the whole command line, and fails in each round: FileNotFoundError",
        "delete the section; `xboard-circus reload` replaces the workers one by one",
    ),
    "Flapping": (
        "stops the whole watcher, healthy workers too, after two deaths in a few seconds",
        "delete the section; restart.burst and restart.cooldown limit restarts",
    ),
    "HttpObserver": (
        "cannot be constructed with tornado 6: its process dies again and again",
        "delete the section; health.live_path or health.url probes each worker",
    ),
    "WatchDog": (
        "kills healthy workers again and again: none of them sends its UDP heartbeat",
        "delete the section; hung workers are replaced without it",
    ),
}
# Class: the options that name the watcher whose restart it orders, what it does, and its replacement.
RESTARTING = {
    "ResourceWatcher": (
        ("watcher", "service"),
        "orders a restart of all workers of {watcher}, again and again, while one of them is above its limit",
        "delete the section, and write worker.max_rss in [{section}]",
    ),
    "RedisObserver": (
        ("restart_on_timeout",),
        "orders a restart of all workers of {watcher} when Redis does not answer",
        "take it out; no restart of the workers brings Redis back",
    ),
}
# Class: what it does, and its replacement; it harms no worker.
_NO_REDIS = "cannot be constructed with redis 4 or later: its process dies again and again"
USELESS = {"RedisObserver": (_NO_REDIS, "delete the section; let health.ready_path look at Redis")}


def findings(config: Config, plugin: PluginConfig) -> Iterator[Finding]:
    """Yield what is wrong with a [plugin:...] section that names a plugin of Circus's own."""
    module, _, name = plugin.use.replace(":", ".").rpartition(".")
    if not module.startswith("circus.plugins"):
        return
    armed = [watcher for watcher in config.watchers if is_armed(watcher)]
    if name in BROKEN:
        yield Finding(ERROR if armed else WARNING, "use", *BROKEN[name])
    if name in RESTARTING:
        options, what, hint = RESTARTING[name]
        for option in options:
            for watcher in armed:
                if watcher.name.lower() == plugin.given.get(option, "").lower():
                    found = {"watcher": watcher.name, "section": watcher.section}
                    yield Finding(ERROR, option, what.format(**found), hint.format(**found))
    if name in USELESS:
        yield Finding(WARNING, "use", *USELESS[name])
