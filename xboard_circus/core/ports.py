"""Decide which holders of a port may be stopped, and which are only named.

Nothing here looks at a process or sends a signal: the caller lists the holders of the port, carries out the plan, and
lists them again before it sends the next signal.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from enum import Enum
from shlex import quote
from typing import NamedTuple

from xboard_circus.core.durations import roughly
from xboard_circus.core.reason import Reason, key_of, one_line
from xboard_circus.core.sentences import Say

_NAMED = 3


class Kind(Enum):
    """Owner of a process that holds the port."""

    OURS = "ours"
    ORPHAN = "orphan"
    INSTANCE = "instance"
    STRANGER = "stranger"
    HANDED = "handed"
    UNKNOWN = "unknown"


WHOSE = {
    Kind.ORPHAN: Say.WHOSE_ORPHAN,
    Kind.INSTANCE: Say.WHOSE_INSTANCE,
    Kind.STRANGER: Say.WHOSE_STRANGER,
    Kind.HANDED: Say.WHOSE_HANDED,
    Kind.UNKNOWN: Say.WHOSE_UNKNOWN,
}


class Policy(Enum):
    """Which processes may be killed to free the port: ``port.policy``."""

    ORPHANS = "orphans"
    ANY = "any"
    NEVER = "never"


class Holder(NamedTuple):
    """A process that holds the port; one without a pid was not found.

    Attributes:
        pid: None where the system does not show it.
        started: Start time; None where it cannot be read, and then no signal is safe.
        age: Seconds since it started.
        inspectable: Its environment could be read.
        instance: The instance id in its environment; a successor of its circusd has the same.
        circusd: Pid and start time of the circusd in its environment.
        circusd_alive: That process is running, and is a circusd.
        lost: It has lost its parent, or is in the session of one of our workers. Unlike an environment, this cannot be
            copied.
        giver: The user it has the socket from; "" where that is its own, or a process above it has the socket.
        users: Those that it ran as, see `procs.users_of`; as another's it is not signalled any more.
    """

    pid: int | None
    started: int | None
    command: str = ""
    user: str = ""
    age: float | None = None
    cwd: str = ""
    address: str = ""
    inspectable: bool = True
    instance: str | None = None
    circusd: tuple[int, int] | None = None
    circusd_alive: bool = False
    lost: bool = True
    giver: str = ""
    users: frozenset[int] = frozenset()


class PortPlan(NamedTuple):
    """Plan for the holders; the port is free once *refuse* is empty and those in *stop* are gone.

    Attributes:
        reason: Names every refused or stopped process; "" without one.
    """

    stop: tuple[Holder, ...]
    refuse: tuple[Holder, ...]
    reason: str


def classify(holder: Holder, *, instance: str, own: Container[int]) -> Kind:
    """Classify the owner of *holder*; *own* are the pids of our circusd and of its live workers with their children.

    Proof is what the process carries and what the kernel reports of it, never its command line: an orphan names our
    instance and a circusd that is gone, and has lost its parent. An orphan of another instance is not ours to kill.
    Nor is a process to which another user has handed the socket, so that it is killed.
    """
    if holder.pid in own:
        return Kind.OURS
    if holder.pid is None or holder.started is None or not holder.inspectable:
        return Kind.UNKNOWN
    unmarked = Kind.HANDED if holder.giver else Kind.STRANGER
    if holder.instance is None or holder.circusd is None:
        return unmarked
    if holder.circusd_alive:
        return Kind.INSTANCE
    return Kind.ORPHAN if holder.instance == instance and holder.lost else unmarked


def plan(holders: Iterable[Holder], *, policy: Policy, instance: str, own: Container[int]) -> PortPlan:
    """Return which *holders* to stop and which to leave alone, and why.

    A stranger is stopped under ``any`` alone, and only if that frees the port: while another holder is refused, its
    death would be in vain. A live instance, an unknown holder, one that was handed the socket, and process 1 are safe
    under every policy.

    >>> stranger = Holder(pid=4242, started=7, command="python -m http.server", user="alice", age=11_000, cwd="/srv")
    >>> plan([stranger], policy=Policy.ORPHANS, instance="3f2a", own={100}).reason
    'the port is held by pid 4242 ("python -m http.server"), user alice, for 3 h, in /srv: a stranger'
    """
    kinds = {holder: classify(holder, instance=instance, own=own) for holder in _distinct(holders)}
    foreign = {holder: kind for holder, kind in kinds.items() if kind is not Kind.OURS}
    if refuse := [holder for holder, kind in foreign.items() if not _may_stop(holder, kind, policy)]:
        refuse = [holder for holder, kind in foreign.items() if holder in refuse or kind is Kind.STRANGER]
    stop = [holder for holder in foreign if holder not in refuse]
    held, stopped = (
        [_description(each, _owner(each, foreign[each], policy)) for each in group] for group in (refuse, stop)
    )
    return PortPlan(stop=tuple(stop), refuse=tuple(refuse), reason=_reason(held, stopped))


class Renamed(NamedTuple):
    """A *new* watcher that is to serve on the *socket* of one that is *gone* from the file."""

    new: str
    socket: str
    gone: str


def renamed(served: Mapping[str, Collection[str]], wanted: Mapping[str, Collection[str]]) -> Renamed | None:
    """Return a watcher with another name on the socket of one that goes, if none that stays serves there as well.

    *served* has the sockets by watcher now, *wanted* those by the changed file.

    >>> renamed({"web": ["web"], "api": ["api"]}, {"shop": ["web"], "api": ["api"]})
    Renamed(new='shop', socket='web', gone='web')
    >>> renamed({"web": ["web"], "api": ["web"]}, {"shop": ["web"], "api": ["web"]})
    >>> renamed({"web": ["web"]}, {"shop": ["shop"]})
    """
    kept = {socket for name in served.keys() & wanted.keys() for socket in served[name]}
    found = (
        Renamed(new, socket, gone)
        for gone in served.keys() - wanted.keys()
        for new in wanted.keys() - served.keys()
        for socket in wanted[new]
        if socket in served[gone] and socket not in kept
    )
    return next(found, None)


def shared_by(holders: Iterable[Holder]) -> str:
    """Return who shares the listening socket though circusd has not started it; the same text at each look.

    >>> shared_by([Holder(pid=4242, started=7, command="nc -l", user="alice", age=11.0)])
    'connections may go to another process that shares the listening socket: pid 4242 ("nc -l"), user alice: \
no worker, nor a child of one'
    """
    whose = {each: Say.WHOSE_HANDED(giver=each.giver) if each.giver else Say.WHOSE_HEIR() for each in holders}
    return Say.PORT_SHARED(holders=_some([_description(each._replace(age=None), whose[each]) for each in whose]))


def was_handed(reason: object) -> bool:
    """Return whether a *reason* names a process that another user may have handed the socket, to have it killed."""
    if isinstance(reason, Reason):
        return reason.key == Say.WHOSE_HANDED.name or any(map(was_handed, reason.fields.values()))
    return isinstance(reason, list | tuple) and any(map(was_handed, reason))


def holders_in(reason: str) -> list[int]:
    """Return the pids to end for the port in whose *reason* they are named; none unless that is known of each holder.

    >>> stranger = Holder(pid=812, started=7, command="nginx")
    >>> holders_in(plan([stranger], policy=Policy.ORPHANS, instance="3f2a", own=()).reason)
    [812]
    """
    if not isinstance(reason, Reason) or reason.key != Say.PORT_HELD.name:
        return []
    held = reason.fields["holders"]
    pids = [_pid_in(each) for each in (held if isinstance(held, list | tuple) else [held])]
    return [pid for pid in pids if pid] if all(pids) else []


def _pid_in(holder: object) -> int | None:
    """Return the pid of a stranger or an orphan in its description; a worker would be replaced by its circusd."""
    whose = (Say.WHOSE_STRANGER.name, Say.WHOSE_ORPHAN.name, Say.WHOSE_ORPHAN_KEPT.name)
    if not isinstance(holder, Reason) or holder.key != Say.HOLDER.name or key_of(holder.fields["whose"]) not in whose:
        return None
    fact = holder.fields["facts"]
    fact = fact[0] if isinstance(fact, list | tuple) else fact
    while isinstance(fact, Reason) and "pid" in fact.fields:
        fact = fact.fields["pid"]
    return fact if isinstance(fact, int) else None


def _reason(held: Sequence[Reason], stopped: Sequence[Reason]) -> str:
    if held and stopped:
        return Say.PORT_HELD_AND_STOPPING(holders=_some(held), others=_some(stopped))
    if held:
        return Say.PORT_HELD(holders=_some(held))
    return Say.STOPPING(holders=_some(stopped)) if stopped else ""


def _distinct(holders: Iterable[Holder]) -> Collection[Holder]:
    """Leave out holders that are listed twice: one process may hold the port on several addresses."""
    seen: dict[object, Holder] = {}
    for holder in holders:
        seen.setdefault((holder.pid, holder.started) if holder.pid is not None else holder.address, holder)
    return seen.values()


def _may_stop(holder: Holder, kind: Kind, policy: Policy) -> bool:
    if kind is Kind.ORPHAN:
        return policy is not Policy.NEVER
    return kind is Kind.STRANGER and policy is Policy.ANY and holder.pid != 1


def _some(names: Sequence[Reason]) -> Reason | Sequence[Reason]:
    names = sorted(names, key=was_handed, reverse=True)  # on these the cure depends
    more = len(names) - _NAMED
    return Say.HOLDERS_AND_MORE(holders=names[:_NAMED], n=more) if more > 0 else names


def _description(holder: Holder, whose: str) -> Reason:
    pid = Say.FACT_UNKNOWN() if holder.pid is None else Say.FACT_PID(pid=holder.pid)
    parts = [
        Say.FACT_COMMAND(pid=pid, command=one_line(holder.command, 100)) if holder.command else pid,
        holder.user and Say.FACT_USER(name=one_line(holder.user, 40)),
        "" if holder.age is None else Say.FACT_AGE(age=roughly(holder.age)),
        holder.cwd and Say.FACT_FOLDER(folder=quote(one_line(holder.cwd, 100).replace("`", "'"))),
        holder.address and Say.FACT_ADDRESS(address=one_line(holder.address, 60)),
    ]
    return Say.HOLDER(facts=[part for part in parts if part], whose=whose)


def _owner(holder: Holder, kind: Kind, policy: Policy) -> str:
    named = f"circusd {holder.circusd[0]}" if holder.circusd else "circusd"
    say = Say.WHOSE_ORPHAN_KEPT if kind is Kind.ORPHAN and policy is Policy.NEVER else WHOSE[kind]
    return say(circusd=named, giver=holder.giver)
