"""Define one rendered alert for one sink, which can wait in a file."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Message(NamedTuple):
    """One message to a sink.

    Attributes:
        id: The same in all tries, for a receiver that gets it twice after a lost answer.
        fold: A later message with the same fold replaces one that still waits; "" for none.
        document: JSON for programs.
        cuts: How often its delivery had begun and not ended when the plugin did.
    """

    id: str
    title: str
    text: str
    document: Mapping[str, Any]
    fold: str = ""
    cuts: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Message":
        """Return the message that `_asdict` made *data* of; raise KeyError or TypeError for other data."""
        texts = {name: str(data[name]) for name in ("id", "title", "text", "fold")}
        return cls(**texts, document=dict(data["document"]), cuts=int(data.get("cuts", 0)))


class Sink(Protocol):
    """Destination of alerts.

    Attributes:
        place: Its description, without a secret.
    """

    @property
    def place(self) -> str: ...

    def deliver(self, message: Message) -> None:
        """Deliver *message*, or raise AlertError. Blocks no longer than the sink's time-out."""
