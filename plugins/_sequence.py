"""Track which of circusd's numbered events have been seen. No effects."""


class Sequence:
    """Take each event once, and notice gaps.

    >>> sequence = Sequence()
    >>> sequence.caught_up("e", 3)
    >>> sequence.takes("e-4"), sequence.takes("e-4"), sequence.is_behind
    (True, False, False)
    >>> sequence.takes("e-6"), sequence.is_behind
    (True, True)

    Attributes:
        epoch: Names the circusd of these events; "" before the first.
        floor: All events up to this number are known.
        is_behind: Events are missing; query circusd for them.
    """

    def __init__(self) -> None:
        self.epoch = ""
        self.floor = 0
        self.is_behind = True
        self._seen: set[int] = set()

    def takes(self, name: object) -> bool:
        """Note an event by its ``seq``; return whether it is new. One without a ``seq`` always is."""
        epoch, _, number = str(name or "").rpartition("-")
        if not epoch or not number.isdigit() or len(number) > 15:
            return True
        self._enter(epoch)
        place = int(number)
        if place <= self.floor or place in self._seen:
            return False
        self._seen.add(place)
        while self.floor + 1 in self._seen:
            self.floor += 1
            self._seen.discard(self.floor)
        self.is_behind = self.is_behind or bool(self._seen)
        return True

    def caught_up(self, epoch: str, last: int) -> None:
        """Note that circusd has answered with all events that it keeps, up to number *last*."""
        self._enter(epoch)
        self.floor = max(self.floor, last)
        self._seen = {place for place in self._seen if place > self.floor}
        self.is_behind = bool(self._seen)

    def _enter(self, epoch: str) -> None:
        if epoch != self.epoch:
            self.epoch, self.floor, self.is_behind = epoch, 0, True
            self._seen.clear()
