"""Whether a firewall of this host lets requests through to the public ports, where that can be read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from xboard_circus.checks.file_rules import addresses, is_loopback
from xboard_circus.checks.findings import Finding, good, unknown, warning
from xboard_circus.checks.programs import output_of
from xboard_circus.doctor.case import Case

Output = Callable[..., "str | None"]


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for each public port that other hosts are to reach."""
    if case.config is None:
        return
    public = [address for address in addresses(case.config) if address.public]
    outside = sorted({address.port for address in public if not is_loopback(address.host)})
    inside = sorted({address.port for address in public if is_loopback(address.host)} - set(outside))
    if inside:
        yield good(f"port {', '.join(map(str, inside))}: for this host alone, so no firewall stands before it")
    for port in outside:
        yield of_port(port, is_root=os.geteuid() == 0)


def of_port(port: int, *, is_root: bool, output: Output = output_of) -> Finding:
    """Return whether requests from outside come through to *port*."""
    if not is_root:
        hint = f"`sudo ufw status`, or `sudo nft list ruleset`; `sudo ufw allow {port}` opens it"
        return unknown(f"port {port}: the rules cannot be read, that needs root", hint)
    if (told := output("ufw", "status")) is not None and "inactive" not in told:
        return _told(port, ufw_allows(told, port), "ufw", f"sudo ufw allow {port}")
    if (told := output("nft", "list", "ruleset")) is not None:
        fix = f"sudo nft add rule inet filter input tcp dport {port} accept"
        return _told(port, nft_allows(told, port), "nftables", fix)
    if (told := output("iptables", "-S", "INPUT")) is not None:
        fix = f"sudo iptables -I INPUT -p tcp --dport {port} -j ACCEPT"
        return _told(port, iptables_allows(told, port), "iptables", fix)
    return unknown(
        f"port {port}: neither ufw, nft nor iptables can be queried here", "ask the administrator of the network"
    )


def ufw_allows(status: str, port: int) -> bool:
    """Return whether ``ufw status`` names *port* as open.

    >>> ufw_allows("Status: active\\n\\n8000/tcp   ALLOW   Anywhere\\n", 8000)
    True
    """
    for line in status.splitlines():
        match = re.match(r"(\d+(?:[:,]\d+)*)(?:/tcp)?\s.*\b(ALLOW|LIMIT)\b", line)
        if match and _names(match[1], port):
            return True
    return False


def nft_allows(rules: str, port: int) -> bool:
    """Return whether a ruleset lets TCP to *port* in: no input chain drops by default or in a rule, or one names it."""
    # To the brace that stands alone: within a rule they hold a set of ports.
    chains = re.findall(r"hook input .*?^\s*\}\s*$", rules, re.M | re.S)
    refusing = [
        chain for chain in chains if re.search(r"policy drop|^\s*(?:counter .*)?(?:drop|reject)\b", chain, re.M)
    ]
    return all(_accepts(chain, r"tcp dport (?:\{ ?)?([\d, -]+)", "accept", port) for chain in refusing)


def iptables_allows(rules: str, port: int) -> bool:
    """Return whether ``iptables -S INPUT`` lets TCP to *port* in."""
    if not re.search(r"^-P INPUT (DROP|REJECT)|^-A INPUT -j (DROP|REJECT)", rules, re.M):
        return True
    return _accepts(rules, r"--dports? ([\d,:]+)", "ACCEPT", port)


def _accepts(rules: str, pattern: str, verb: str, port: int) -> bool:
    return any(
        verb in line and any(_names(found, port) for found in re.findall(pattern, line)) for line in rules.splitlines()
    )


def _names(ports: str, port: int) -> bool:
    """Return whether a list such as ``22, 8000-8010`` or ``80,443`` holds *port*."""
    for part in re.split(r"[,\s]+", ports.strip()):
        first, _, last = part.replace(":", "-").partition("-")
        if first.isdigit() and int(first) <= port <= int(last if last.isdigit() else first):
            return True
    return False


def _told(port: int, is_open: bool, program: str, fix: str) -> Finding:
    if is_open:
        return good(f"port {port}: {program} lets it through")
    return warning(f"port {port}: {program} does not seem to let it through", f"`{fix}` opens it")
