"""One replaced method or attribute of a Circus object: whether it fits, how it is put in, how it is taken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

Original = Callable[..., Any]


class PatchFailed(Exception):
    """A patch does not fit this Circus, or could not be installed; everything that was installed is taken off."""


class Patch:
    """One replaced attribute of *target*.

    Attributes:
        of: The class of Circus that *target* belongs to.
        name: The attribute that is replaced.
        without: What breaks without it.
        fact: How that is known.
    """

    of: ClassVar[str]
    name: ClassVar[str]
    without: ClassVar[str]
    fact: ClassVar[str]

    def __init__(self, target: Any) -> None:
        self._target = target
        self._own: tuple[bool, Any] | None = None

    def replacement(self, original: Any) -> Any:
        """Return what stands in the place of *original*."""
        raise NotImplementedError

    def missing(self) -> str:
        """Return what this Circus lacks, or ""."""
        return "" if hasattr(self._target, self.name) else f"{self.of}.{self.name}"

    def install(self) -> None:
        """Put it in."""
        original = getattr(self._target, self.name)
        fresh = self.replacement(original)
        self._own = self.name in vars(self._target), vars(self._target).get(self.name)
        setattr(self._target, self.name, fresh)

    def undo(self) -> None:
        """Take it off: the object is again what it was."""
        if self._own is None:
            return
        (had, value), self._own = self._own, None
        if had:
            setattr(self._target, self.name, value)
        else:
            delattr(self._target, self.name)


def install(patches: Sequence[Patch]) -> None:
    """Install all *patches*, or none. Raises PatchFailed, with everything taken off again."""
    missing = {what for patch in patches if (what := patch.missing())}
    if missing:
        raise PatchFailed(", ".join(sorted(missing)))
    done: list[Patch] = []
    try:
        for patch in patches:
            done.append(patch)
            patch.install()
    except Exception as error:
        undo(done)
        raise PatchFailed(f"{done[-1].of}.{done[-1].name}: {error}") from error


def undo(patches: Sequence[Patch]) -> None:
    """Take *patches* off, the last one first."""
    for patch in reversed(patches):
        patch.undo()


def every_kind() -> list[type[Patch]]:
    """Return all patches that there are, for the list in the docs."""
    from xboard_circus.supervisor.patches import (  # noqa: F401
        boot,
        circus_arbiter,
        circus_controller,
        circus_log,
        circus_process,
        circus_watcher,
    )

    def below(kind: type[Patch]) -> list[type[Patch]]:
        return [each for sub in kind.__subclasses__() for each in (sub, *below(sub))]

    return [kind for kind in below(Patch) if hasattr(kind, "without")]
