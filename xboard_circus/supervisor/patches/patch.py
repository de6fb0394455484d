"""Replace one method or attribute of a Circus object: check that it fits, install it, undo it."""

import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec

P = ParamSpec("P")
Original = Callable[..., Any]
KINDS: "list[PatchKind[Any]]" = []


class PatchFailed(Exception):
    """A patch does not fit this Circus, or could not be installed; all installed ones are undone."""


class Patch:
    """One replaced attribute of *target*; *make* returns the replacement of the original.

    Without a target there is nothing to replace: with check_delay = -1 Circus has no periodic call at all.
    """

    def __init__(self, kind: "PatchKind[Any]", target: Any, make: Callable[[Any], Any]) -> None:
        self.kind = kind
        self.make = make
        self._target = target
        self._own: tuple[bool, Any] | None = None

    def missing(self) -> str:
        """Return what this Circus lacks, or ""."""
        return "" if self._target is None or hasattr(self._target, self.kind.name) else str(self.kind)

    def install(self) -> None:
        """Install the patch."""
        if self._target is None:
            return
        name = self.kind.name
        fresh = self.make(getattr(self._target, name))
        self._own = name in vars(self._target), vars(self._target).get(name)
        setattr(self._target, name, fresh)

    def undo(self) -> None:
        """Undo the patch: the object is as before."""
        if self._own is None:
            return
        (had, value), self._own = self._own, None
        if had:
            setattr(self._target, self.kind.name, value)
        else:
            delattr(self._target, self.kind.name)


class PatchKind(Generic[P]):
    """Kind of a patch, made from a function by `replaces`. Call it with an object of Circus's to get a patch.

    Attributes:
        of: The class of Circus that has the attribute *name*.
        without: What breaks without it.
        fact: How that is known.
    """

    def __init__(
        self, where: str, make: Callable[Concatenate[Any, Any, P], Any], at: Callable[[Any], Any], by: type[Patch]
    ) -> None:
        self.of, _, self.name = where.rpartition(".")
        self._make, self._at, self._by = make, at, by
        self.file = make.__module__.rpartition(".")[2]
        self.what, _, rest = " ".join((make.__doc__ or "").split()).partition(" Without it: ")
        self.without, _, self.fact = rest.partition(" Fact: ")
        KINDS.append(self)

    def __call__(self, given: Any, *args: P.args, **kwargs: P.kwargs) -> Patch:
        return self._by(self, self._at(given), lambda original: self._make(original, given, *args, **kwargs))

    def __str__(self) -> str:
        return f"{self.of}.{self.name}"


def replaces(
    where: str, *, at: Callable[[Any], Any] = lambda given: given, by: type[Patch] = Patch
) -> Callable[[Callable[Concatenate[Any, Any, P], Any]], PatchKind[P]]:
    """Make a function (original, object, more...) -> replacement the patch of *where*, such as "Watcher.spawn_process".

    Its docstring gives its purpose, then "Without it:" what breaks, and "Fact:" how that is known. *at* finds the
    patched object from the given one.
    """
    return lambda make: PatchKind(where, make, at, by)


def wraps(
    where: str, *, at: Callable[[Any], Any] = lambda given: given
) -> Callable[[Callable[..., Any]], PatchKind[...]]:
    """Make a function the patch of *where*, as `replaces` does; it is called in place of the original.

    It gets the original, the object and what else the patch is given, and then the arguments of the call.
    """

    def decorate(function: Callable[..., Any]) -> PatchKind[...]:
        @functools.wraps(function)
        def make(*given: Any, **named: Any) -> Original:
            return lambda *args, **kwargs: function(*given, *args, **named, **kwargs)

        return PatchKind(where, make, at, Patch)

    return decorate


def install(patches: Sequence[Patch]) -> None:
    """Install all *patches*, or none. Raises PatchFailed, with everything undone."""
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
        raise PatchFailed(f"{done[-1].kind}: {str(error) or type(error).__name__}") from error


def undo(patches: Sequence[Patch]) -> None:
    """Undo *patches*, the last one first."""
    for patch in reversed(patches):
        patch.undo()


def every_kind() -> list[PatchKind[Any]]:
    """Return all kinds of patches, for the list in the docs."""
    room = __name__.rpartition(".")[0]
    for file in Path(__file__).parent.glob("[a-z]*.py"):
        importlib.import_module(f"{room}.{file.stem}")
    return KINDS
