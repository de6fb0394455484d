"""Check an ini file as a whole, without effects: its text, and whether the folders of its unix sockets are there."""

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import NamedTuple

from xboard_circus.checks import circus_plugins
from xboard_circus.checks.findings import ERROR, WARNING, Finding, within
from xboard_circus.config import Config, PluginConfig, SocketConfig, is_armed, is_dashboard, is_our_plugin
from xboard_circus.config_files import included, patterns
from xboard_circus.errors import Command
from xboard_circus.host.sockets import is_loopback
from xboard_circus.options.circus import CIRCUS_OPTIONS, PLUGIN_OPTIONS, SOCKET_OPTIONS
from xboard_circus.options.ini_scan import repeated
from xboard_circus.options.reading import did_you_mean, flat, suggestion
from xboard_circus.service.layout import OVERLAY

BUNDLE = "xboard_circus.plugins.bundle.Bundle"
PAGE_IN_THE_NETWORK = "the dashboard steers circusd, and its token goes over the network as it is"
PAGE_ON_THIS_HOST = "write host = 127.0.0.1, and put a proxy with https in front or use ssh -L"
_KINDS = ("watcher", "plugin", "socket", "env")
_OURS = ("alert",)

# Circus hands a plugin's options to the watcher that runs it, too.
_NOT_FOR_PLUGINS = ("cmd", "args", "env", "hooks", "numprocesses")


class Address(NamedTuple):
    """A TCP address that circusd or a watcher is going to bind.

    Attributes:
        section, option: Where it stands in the file; option is "" where the default applies.
        public: Requests come in here; otherwise it is one of circusd's endpoints.
    """

    section: str
    option: str
    host: str
    port: int
    public: bool


def findings(config: Config) -> Iterator[Finding]:
    """Yield findings on the file as a whole; watchers have rules of their own."""
    for rule in RULES:
        yield from rule(config)
    for socket in config.sockets:
        yield from within(socket.section, _socket(config, socket))
    for plugin in config.plugins:
        yield from within(plugin.name, _plugin(config, plugin))


def addresses(config: Config) -> list[Address]:
    """Return every TCP address in the file."""
    known = ((place, address) for _, place, _, address in endpoints(config) if address is not None)
    found = [Address("circus", place, *address, public=False) for place, address in known]
    if config.circus["httpd"]:
        option = "httpd_port" if "httpd_port" in config.given else "httpd"
        found.append(Address("circus", option, config.circus["httpd_host"], config.circus["httpd_port"], public=True))
    found += [Address(each.section, "port", each.host, each.port, public=True) for each in config.sockets if each.port]
    ports = ((each.section, each.options.port) for each in config.watchers)
    found += [Address(section, "port.port", port.host, port.port, public=True) for section, port in ports if port.port]
    return found


def endpoints(config: Config) -> Iterator[tuple[str, str, str, tuple[str, int] | None]]:
    """Yield (option, place, endpoint, host and port) for each; *place* is "" where the default applies."""
    for option in ("endpoint", "pubsub_endpoint", *(["stats_endpoint"] if config.circus["statsd"] else [])):
        endpoint = str(config.circus[option])
        yield option, option if option in config.given else "", endpoint, split_endpoint(endpoint)


def split_endpoint(endpoint: str) -> tuple[str, int] | None:
    """Return host and port of a ``tcp://`` endpoint, None for any other.

    >>> split_endpoint("tcp://127.0.0.1:5555"), split_endpoint("ipc:///run/circus.sock")
    (('127.0.0.1', 5555), None)
    """
    match = re.fullmatch(r"tcp://(.+):(\d+)", endpoint)
    return (match[1].strip("[]"), int(match[2])) if match else None


def overlap(one: Address, other: Address) -> bool:
    """Return whether both cannot be bound at once."""
    hosts = {"127.0.0.1" if host == "localhost" else host for host in (one.host, other.host)}
    return one.port == other.port and (len(hosts) == 1 or bool(hosts & {"0.0.0.0", "::", "*", ""}))


def _lines(config: Config) -> Iterator[Finding]:
    for each in config.scans:
        for first, again in repeated(((entry.section, entry.option), entry) for entry in each.entries):
            what = f"written twice, in lines {first.line} and {again.line}; Circus keeps the first"
            yield Finding(ERROR, again.option, what, "delete one", again.section)
        for (name, before), (_, line) in repeated((section[0], section) for section in each.sections):
            yield Finding(ERROR, "", f"begins twice, in lines {before} and {line}", "make it one section", name)
        for line, entry in each.comments:
            what = f"Circus takes the comment in line {line} for the rest of the value, because it is indented"
            yield Finding(ERROR, entry.option, what, "begin the comment in the first column", entry.section)


def _sections(config: Config) -> Iterator[Finding]:
    written = {entry.section for each in config.scans for entry in each.entries}
    for section in dict.fromkeys(config.sections()):
        kind, colon, name = section.partition(":")
        if kind in _KINDS and section not in written:
            yield Finding(WARNING, "", "there is nothing in it, and Circus passes it over", "delete it", section)
        if section in ("circus", "env") or (kind in (*_KINDS, *_OURS) and colon and name.strip()):
            continue
        word, *rest = re.split(r"[:\s.]+", section, maxsplit=1)
        meant = did_you_mean(word, [*_KINDS, *_OURS, "circus"], alike=0.6)
        hint = f"did you mean [{':'.join([meant, *rest])}]?" if meant else "write [watcher:NAME], or delete it"
        yield Finding(WARNING if meant is None else ERROR, "", "Circus reads no section of this kind", hint, section)


def _includes(config: Config) -> Iterator[Finding]:
    main, *parts = config.scans
    again = "say `xboard-circus service install` again, which takes it over"
    is_services = config.path.name == OVERLAY
    written = parts[0] if is_services and parts else main
    for entry, pattern, files, _ in included(main):
        if not files:
            hint = again if is_services else "write it as seen from the folder of this file"
            yield Finding(ERROR, entry.option, f"{pattern} leads to no file", hint, "circus")
    named = {
        part.file: [os.path.normpath(part.file.parent / word) for _, word in patterns(part)] for part in config.scans
    }
    known = named[main.file]
    for place in set(known) - {*named[written.file], str(written.file)} if is_services else ():
        what = f"{place} is no longer included by {written.file}, but still by {main.file}, which the service reads"
        yield Finding(WARNING, "include", what, again, "circus")
    for part in parts:
        for entry, pattern in patterns(part):
            if os.path.normpath(part.file.parent / pattern) not in known:
                what = f"{part.file} includes {pattern}, and Circus follows no include of an included file"
                hint = again if part is written else f"write it in {written.file}"
                yield Finding(WARNING, entry.option, what, hint, "circus")


def _circus(config: Config) -> Iterator[Finding]:
    for key in config.given:
        meant = did_you_mean(key, CIRCUS_OPTIONS, alike=0.7)
        if key not in CIRCUS_OPTIONS:
            hint = f"did you mean {meant}?" if meant else "delete it"
            yield Finding(ERROR if meant else WARNING, key, "Circus does not know this option", hint, "circus")
    if "stats_endpoint" in config.given and "statsd" not in config.given:
        what = "starts circusd-stats, 20 MiB and 1.7 CPU seconds a minute"
        hint = "write statsd = True if you want circus-top, else delete the line"
        yield Finding(WARNING, "stats_endpoint", what, hint, "circus")
    if config.circus["multicast_endpoint"]:
        option = "multicast_endpoint" if "multicast_endpoint" in config.given else ""
        what = "circusd answers anyone on the network who asks for it by multicast"
        yield Finding(WARNING, option, what, "write multicast_endpoint = with nothing behind it", "circus")


def _httpd(config: Config) -> Iterator[Finding]:
    host = config.circus["httpd_host"]
    if config.circus["httpd"] and not is_loopback(host):
        hint = PAGE_ON_THIS_HOST.replace("host", "httpd_host")
        yield Finding(WARNING, "httpd_host", PAGE_IN_THE_NETWORK, hint, "circus")
    if config.circus["httpd"] and any(map(is_dashboard, config.watchers)):
        yield Finding(WARNING, "httpd", "there is a watcher for the dashboard already", "delete the line", "circus")


def _endpoints(config: Config) -> Iterator[Finding]:
    for option, place, endpoint, address in endpoints(config):
        if option == "stats_endpoint":
            continue
        if address is None and not endpoint.startswith("ipc://"):
            yield Finding(ERROR, place, "not an endpoint", "write tcp://127.0.0.1:PORT or ipc://FILE", "circus")
        elif address is None and len(endpoint) > len("ipc://") + 107:
            yield Finding(ERROR, place, "a unix socket's path has 107 letters at most", "use a shorter path", "circus")
        elif address is not None and ":" in address[0]:
            what = "the clients of Circus cannot connect over IPv6"
            yield Finding(ERROR, place, what, f"write tcp://127.0.0.1:{address[1]}", "circus")
        elif address is not None and not is_loopback(address[0]):
            what = "it has no password: anyone who can connect to it can run any command here"
            yield Finding(WARNING, place, what, f"write tcp://127.0.0.1:{address[1]}", "circus")


def _ports(config: Config) -> Iterator[Finding]:
    seen: list[Address] = []
    for address in addresses(config):
        for other in seen:
            if overlap(address, other):
                what = f"{address.host}:{address.port} is taken by [{other.section}] {other.option}".rstrip()
                yield Finding(ERROR, address.option, what, "choose another port", address.section)
                break
        seen.append(address)


def _sharing(config: Config) -> Iterator[Finding]:
    owner: dict[str, str] = {}
    for watcher in config.watchers:
        for used in watcher.sockets_used:
            first = owner.setdefault(used.lower(), watcher.section)
            if first != watcher.section and is_armed(watcher):
                what = f"[socket:{used}] is [{first}]'s, and its port would be closed when that one stops"
                yield Finding(ERROR, "cmd", what, "give each watcher a socket of its own", watcher.section)


def _environments(config: Config) -> Iterator[Finding]:
    names = [watcher.name for watcher in config.watchers]
    for section in dict.fromkeys(config.sections()):
        if not section.startswith("env:"):
            continue
        for pattern in map(str.strip, section[4:].split(",")):
            if not any(fnmatch(name, pattern) for name in names):
                hint = suggestion(pattern, names, alike=0.6, form="[env:{}]")
                yield Finding(WARNING, "", f"there is no watcher {pattern}", hint, section)


def _plugins(config: Config) -> Iterator[Finding]:
    armed = [watcher for watcher in config.watchers if is_armed(watcher)]
    if not config.watchers:
        yield Finding(ERROR, "", "there is no [watcher:...] in it, so nothing would run", "add one, or see circus.ini")
    if armed and not any(map(is_our_plugin, config.plugins)):
        what = "no plugin of xboard-circus: dead workers are replaced, hung and sick ones are not"
        yield Finding(WARNING, "", what, f"add [plugin:xboard] with use = {BUNDLE}")


def _socket(config: Config, socket: SocketConfig) -> Iterator[Finding]:
    for key in socket.given:
        if key not in SOCKET_OPTIONS:
            yield Finding(ERROR, key, "Circus does not know this option", suggestion(key, SOCKET_OPTIONS, alike=0.6))
    if "." in socket.name:
        yield Finding(ERROR, "", "the port guard does not find a socket with a dot in its name", "leave out the dot")
    users = [watcher for watcher in config.watchers if socket.name in map(str.lower, watcher.sockets_used)]
    if socket.path is None and not is_loopback(socket.host) and any(map(is_dashboard, users)):
        yield Finding(WARNING, "host", PAGE_IN_THE_NETWORK, PAGE_ON_THIS_HOST)
    if socket.path is not None and not os.access(folder := (config.folder / socket.path).parent, os.W_OK | os.X_OK):
        what = f"{folder} is no folder in which circusd may make the socket, and it would not start"
        yield Finding(ERROR, "path", what, Command("mkdir -p {}, or choose another path", folder))
    option = "so_reuseport" if "so_reuseport" in socket.given else ""
    if socket.path is not None and socket.so_reuseport:
        yield Finding(ERROR, option, "a unix socket with it is never bound", "take it out")
    elif socket.path is None and not socket.so_reuseport and any(map(is_armed, users)):
        what = "Circus would bind it before its port can be cleaned"
        yield Finding(ERROR, option, what, "write so_reuseport = True; the guard binds it, once, for all workers")
    elif socket.so_reuseport and not all(map(is_armed, users)):
        yield Finding(WARNING, option, "each worker binds a socket of its own, beside any stranger", "arm the watcher")


def _plugin(config: Config, plugin: PluginConfig) -> Iterator[Finding]:
    if not plugin.use:
        yield Finding(ERROR, "", "there is no use = in it, and circusd would not start", f"write use = {BUNDLE}")
    for problem in plugin.problems if is_our_plugin(plugin) else ():
        yield Finding(ERROR, problem.option, problem.what, problem.hint)
    wrong = {problem.option for problem in plugin.problems}
    known = {*PLUGIN_OPTIONS, *flat(plugin.options), *wrong}
    for key, value in plugin.given.items():
        if key in _NOT_FOR_PLUGINS:
            yield Finding(ERROR, key, "Circus gives it to the process that runs the plugin, and breaks it", "delete it")
        elif re.search(r"""[\s'"\\]|:::""", value) and key not in wrong:
            what = "Circus pastes it into the plugin's command line as it is, and the plugin dies"
            yield Finding(ERROR, key, what, "leave out blanks, quotes and backslashes")
        elif is_our_plugin(plugin) and key not in known and (meant := did_you_mean(key, PLUGIN_OPTIONS, alike=0.85)):
            yield Finding(ERROR, key, "unknown option", f"did you mean {meant}?")
    yield from circus_plugins.findings(config, plugin)


RULES = (_lines, _sections, _includes, _circus, _httpd, _endpoints, _ports, _sharing, _environments, _plugins)
