"""Deliver an alert to an address of Apprise, such as slack://... or tgram://..., in a process of its own for each try.

Apprise takes 50 MB once it is imported, which the plugin would keep for months, and knows no time limit for a delivery.
"""

import json
import logging
import os
import re
import resource
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from xboard_circus.alerts.command import run
from xboard_circus.alerts.extras import installed_by
from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import SHORTEST_MASKED, AlertError, Secret, scrubbed
from xboard_circus.alerts.webhook import NOT_NOW

REFUSED = 2
MOST_MEMORY = 256 << 20  # bytes; with Apprise imported it has a fifth of that, and Apprise reads an answer to its end
KINDS = {"info": "info", "warning": "warning", "critical": "failure"}


def is_installed() -> bool:
    """Return whether the extra is there, without an import of it."""
    return find_spec("apprise") is not None


@dataclass(frozen=True)
class ServiceSink:
    """Send alerts to a service by Apprise.

    Attributes:
        hidden: Variables with the secrets of the sinks, which are removed from the environment of Apprise.
    """

    url: Secret
    timeout: float = 10.0
    ca_file: Path | None = None
    is_proxied: bool = False
    hidden: Collection[str] = ()

    @property
    def place(self) -> str:
        return f"Apprise, its address from {self.url}"

    def deliver(self, message: Message) -> None:
        """Have Apprise send it; it has *timeout* seconds."""
        if not is_installed():
            raise AlertError(f"Apprise is not installed: {installed_by('apprise')}")
        url = self.url.read()
        if not re.fullmatch(r"[a-z0-9]+://\S+", url, re.IGNORECASE):
            raise AlertError(f"what {self.url} holds is no address of Apprise, such as slack://...")
        environment = {name: value for name, value in os.environ.items() if name not in self.hidden}
        if self.ca_file is not None:
            environment["REQUESTS_CA_BUNDLE"] = str(self.ca_file)
        if not self.is_proxied:
            environment |= {"NO_PROXY": "*", "no_proxy": "*"}
        command = (sys.executable, "-m", "xboard_circus.alerts.services")
        document = {**message.document, "text": message.text, "title": message.title, "address": url}
        # Not in the folder of the ini file, whose modules Python would import first.
        code, complaint = run(command, document, name="Apprise", cwd="/", env=environment, timeout=self.timeout)
        if code:
            why = scrubbed(complaint.strip().rpartition("\n")[2], _parts(url)) or f"ended with {code}"
            raise AlertError(f"Apprise: {why}", refused=code == REFUSED)


def _parts(url: str) -> Iterator[str]:
    """Yield all of an address that may be a secret: in most services, the host is a token too."""
    _, _, rest = url.partition("://")
    for text in (rest, unquote(rest)):
        yield text
        yield from (part for part in re.split(r"[/:@?&=+,\s]", text) if len(part) >= SHORTEST_MASKED)


def main() -> int:
    """Send the document on stdin; return 0, 1 for a failure, or REFUSED where the service judged the message."""
    import apprise

    complaints: list[str] = []
    said = logging.StreamHandler()
    said.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("apprise").addHandler(said)
    document: Mapping[str, Any] = json.load(sys.stdin)
    service = apprise.Apprise.instantiate(str(document["address"]))
    if service is None:
        print("no service that Apprise knows has this address", file=sys.stderr)
        return 1
    kind = "success" if document.get("event") == "recovered" else KINDS.get(str(document.get("severity")), "info")
    body = str(document["text"]).partition("\n")[2] or str(document["text"])  # its first line is the title
    sent = apprise.Apprise()
    sent.add(service)
    if sent.notify(body, title=str(document["title"]), notify_type=kind, body_format="text"):
        return 0
    print(complaints[-1] if complaints else "not delivered", file=sys.stderr)
    status = re.search(r"error[= ](\d{3})\b", " ".join(complaints))
    return REFUSED if status and 400 <= int(status[1]) < 500 and int(status[1]) not in NOT_NOW else 1


if __name__ == "__main__":
    with suppress(ValueError):  # the hard limit is lower already
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    sys.exit(main())
