"""Examine the holders of the ports, the users who can connect to circusd's endpoints, and the firewall."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from xboard_circus.checks import endpoint_rules, port_rules
from xboard_circus.checks.file_rules import addresses, endpoints
from xboard_circus.checks.findings import Finding, Level, bad, good, unknown, warning
from xboard_circus.doctor.case import Case
from xboard_circus.errors import Command
from xboard_circus.host import listeners
from xboard_circus.host.programs import output_of
from xboard_circus.host.sockets import is_loopback

Output = Callable[..., "str | None"]


def ports(case: Case) -> Iterator[Finding]:
    """Yield a finding for each address: its holder, and whether that is right."""
    # A stranger's port is what keeps the backend down, even where a start would wait for it.
    troubled = list(port_rules.findings(case.read_config, stranger=Level.ERROR))
    yield from troubled
    for address in addresses(case.read_config):
        bound = f"{address.host}:{address.port}"
        if any(each.section in ("", address.section) and bound in each.what for each in troubled):
            continue
        place = f"[{address.section}] {bound}"
        refused = listeners.try_bind(address.host, address.port)
        if refused is not None and refused.errno == errno.EADDRINUSE:
            yield good(f"{place} is held by our circusd")
        elif case.snapshot is not None and address.public:
            yield bad(f"{place}: circusd runs, but no process listens", "`xboard-circus status` shows why")
        else:
            yield good(f"{place} is free")


def control(case: Case) -> Iterator[Finding]:
    """Yield the users who can connect to each endpoint of circusd, which has no password."""
    config = case.read_config
    for option, _, endpoint, address in endpoints(config):
        if address:
            yield of_address(option, *address, is_guarded=endpoint_rules.guards(config, option))
        elif endpoint.startswith("ipc://"):
            yield of_file(option, config.folder / endpoint.removeprefix("ipc://"))
    if config.circus.get("multicast_endpoint"):
        what = "circusd answers anyone on the network who asks for it by multicast"
        yield bad(what, "write multicast_endpoint = with nothing behind it into [circus]")


def of_address(option: str, host: str, port: int, *, is_guarded: bool) -> Finding:
    """Return the users who can connect to a TCP endpoint."""
    if not is_loopback(host):
        what = f"{option} tcp://{host}:{port} takes commands from other hosts, without a password"
        return bad(what, f"write {option} = tcp://127.0.0.1:{port} into [circus]")
    who = "circusd's user" if is_guarded else "any of its users"
    return good(f"{option} tcp://{host}:{port} is reached from this host alone, by {who}")


def of_file(option: str, path: Path) -> Finding:
    """Return the users who can connect to a unix socket: they may write to it and enter every folder above."""
    try:
        is_shut = os.path.exists(path) and not stat.S_IMODE(path.lstat().st_mode) & 0o022
        is_closed = endpoint_rules.is_closed(path.parent)
    except OSError as error:
        return warning(f"{option} {path} cannot be looked at: {error.strerror}", "look as circusd's user")
    if not is_shut and not is_closed:
        what = f"{option} {path}: other users of this host may enter its folder and give commands"
        return bad(what, Command("chmod 0700 {}", path.parent))
    return good(f"{option} {path} is reached by its own user alone")


def firewall(case: Case) -> Iterator[Finding]:
    """Yield a line for each public port."""
    public = [address for address in addresses(case.read_config) if address.public]
    outside = sorted({address.port for address in public if not is_loopback(address.host)})
    inside = sorted({address.port for address in public if is_loopback(address.host)} - set(outside))
    if inside:
        yield good(f"port {', '.join(map(str, inside))}: for this host alone, so no firewall stands before it")
    yield from (of_port(port, is_root=os.geteuid() == 0) for port in outside)


def of_port(port: int, *, is_root: bool, output: Output = output_of) -> Finding:
    """Return whether requests from outside reach *port*."""
    if not is_root:
        hint = f"`sudo ufw status`, or `sudo nft list ruleset`; `sudo ufw allow {port}` opens it"
        return unknown(f"port {port}: the rules cannot be read, that needs root", Command(hint))
    for name, command, allows, cure in FIREWALLS:
        rules = output(*command.split())
        if rules is None or (name == "ufw" and "inactive" in rules):
            continue
        if allows(rules, port):
            return good(f"port {port}: {name} lets it through")
        what = f"port {port}: {name} does not seem to let it through"
        return warning(what, Command(f"`{cure.format(port)}` opens it"))
    hint = "ask the administrator of the network"
    return unknown(f"port {port}: neither ufw, nft nor iptables can be queried here", hint)


def ufw_allows(status: str, port: int) -> bool:
    """Return whether ``ufw status`` names *port* as open.

    >>> ufw_allows("Status: active\\n\\n8000/tcp   ALLOW   Anywhere\\n", 8000)
    True
    """
    opened = re.findall(r"^(\d+(?:[:,]\d+)*)(?:/tcp)?\s.*\b(?:ALLOW|LIMIT)\b", status, re.M)
    return any(map(partial(_names, port=port), opened))


def nft_allows(rules: str, port: int) -> bool:
    """Return whether a ruleset accepts TCP to *port*: no input chain drops by default or in a rule, or one names it."""
    # To the brace on its own line: within a rule they enclose a set of ports.
    chains = re.findall(r"hook input .*?^\s*\}\s*$", rules, re.M | re.S)
    refusing = filter(re.compile(r"policy drop|^\s*(?:counter .*)?(?:drop|reject)\b", re.M).search, chains)
    return all(_accepts(chain, r"tcp dport (?:\{ ?)?([\d, -]+)", "accept", port) for chain in refusing)


def iptables_allows(rules: str, port: int) -> bool:
    """Return whether ``iptables -S INPUT`` accepts TCP to *port*."""
    if not re.search(r"^-P INPUT (DROP|REJECT)|^-A INPUT -j (DROP|REJECT)", rules, re.M):
        return True
    return _accepts(rules, r"--dports? ([\d,:]+)", "ACCEPT", port)


# Name, command that prints the rules, test whether they open a port, command that opens it.
FIREWALLS = (
    ("ufw", "ufw status", ufw_allows, "sudo ufw allow {}"),
    ("nftables", "nft list ruleset", nft_allows, "sudo nft add rule inet filter input tcp dport {} accept"),
    ("iptables", "iptables -S INPUT", iptables_allows, "sudo iptables -I INPUT -p tcp --dport {} -j ACCEPT"),
)


def _accepts(rules: str, pattern: str, verb: str, port: int) -> bool:
    accepting = (line for line in rules.splitlines() if verb in line)
    return any(_names(found, port) for line in accepting for found in re.findall(pattern, line))


def _names(ports: str, port: int) -> bool:
    """Return whether a list such as ``22, 8000-8010`` or ``80,443`` holds *port*."""
    ranges = re.findall(r"(\d+)(?:[-:](\d+))?", ports)
    return any(int(first) <= port <= int(last or first) for first, last in ranges)
