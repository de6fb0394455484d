"""Find holders of a port and orphans of an earlier circusd, and stop them.

Only `try_bind` on a numeric address is quick enough for circusd's loop: call the rest from a thread.
`xboard_circus.core.ports` decides what may be stopped. The environment of a process is searched for our own marks, and
goes no further.
"""

import errno
import os
import signal
import socket
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping

from xboard_circus.core.ports import Holder
from xboard_circus.errors import PortError
from xboard_circus.host import circusd_record, procs, runtime, servers, sockets
from xboard_circus.masking import safe_command

# A process that is deep in the kernel dies when it comes out of it, perhaps after minutes.
KILL_PATIENCE = 5.0

_NO_SUCH_FAMILY = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def holders(host: str, port: int) -> list[Holder]:
    """Return every process that holds a TCP socket which listens where a bind to *host*:*port* would.

    A socket that several processes share is held by all of them. A socket with holders that cannot be seen (another
    user's, another container's) gives a `Holder` without pid. A host name stands for all its addresses.
    """
    addresses = [target.address for target in sockets.targets(host, port)]
    found = sockets.listening(addresses, port)
    if not all(listening.pids for listening in found):
        # Its holder may have ended, or passed it on, between the query for listeners and the look at the files.
        found = sockets.listening(addresses, port)
    lines, circusds = [], runtime.supervisors()
    for listening in found:
        lines += holders_of(listening.pids, listening.uid, str(listening), circusds)
        if not listening.pids:
            user = "" if listening.uid is None else servers.name_of(listening.uid)
            lines.append(Holder(pid=None, started=None, user=user, address=str(listening), inspectable=False))
    return lines


def holders_of(
    pids: Iterable[int], user: int | None, address: str = "", circusds: Mapping[procs.Identity, str] | None = None
) -> list[Holder]:
    """Return the facts of *pids*, which hold a socket of *user*'s; one that is neither that user's, nor below one of
    them that is, has it from *user*.

    Anybody may hand a socket to a process that takes descriptors, such as dbus-daemon, to have it killed.
    """
    found = [each for pid in sorted(pids) if (each := holder_of(pid, address, circusds))]
    if user is None:
        return found
    its = {each.pid for each in found if each.pid and procs.users_of(each.pid) <= {user}}
    above = its - {1}  # which has the sockets of systemd's units, and all processes below it
    given = {each.pid for each in found if each.pid not in its and above.isdisjoint(procs.ancestors(each.pid))}
    return [each._replace(giver=servers.name_of(user)) if each.pid in given else each for each in found]


def orphans(instance: str) -> list[Holder]:
    """Return every process with the mark of *instance*, a circusd that is gone and a lost parent, oldest first.

    So is a worker that this circusd has recorded: the mark of one that may not be dumped (prctl) cannot be read. Never
    ourselves, nor our ancestors.
    """
    circusds = runtime.supervisors()
    marked = (holder_of(pid, circusds=circusds) for pid, marks in _marked(instance) if not _is_detached(pid, marks))
    ours = (each for each in marked if each is not None and each.instance == instance and each.circusd is not None)
    found = [each for each in ours if not each.circusd_alive and each.lost and _is_running(each)]
    known = {(holder.pid, holder.started) for holder in found}
    recorded = [each for each in _recorded_orphans(instance, circusds) if (each.pid, each.started) not in known]
    return _oldest_first([*found, *recorded])


def _recorded_orphans(instance: str, circusds: Mapping[procs.Identity, str]) -> Iterator[Holder]:
    """Yield the recorded workers of *instance* that have lost their circusd, and run as the user that they had."""
    if (life := circusd_record.read(instance)) is None:
        return
    circusd = procs.Identity(life.pid, life.started)
    alive = {each.pid for each in (*circusds, circusd) if procs.is_running(*each)}
    own = procs.spared()
    for worker, (_, user) in circusd_record.workers(instance).items():
        # As root's it may be what a user has become by sudo, unless it was recorded as that.
        users = frozenset(procs.users_of(worker.pid) - {0} if user is None else {user})
        stat = procs.read_stat(worker.pid)
        if stat is None or worker.pid in own or stat.parent in alive or not procs.is_running(*worker, users):
            continue
        if (holder := holder_of(worker.pid)) is not None and holder.started == worker.started:
            lost = holder._replace(instance=instance, circusd=circusd, circusd_alive=False, inspectable=False)
            yield lost._replace(users=users)


def left_alone(instance: str, below: Iterable[procs.Identity] = ()) -> list[procs.Identity]:
    """Return what outlives the circusd of *instance*: what ran *below* it, or has its mark; the oldest first.

    For after its end, and that of its orphans: sessions of their own are meant to outlive a worker.
    """
    own = procs.spared()
    found = {each for each in below if each.pid not in own}
    found |= {
        each for pid, _ in _marked(instance) if procs.is_of_our_pid_space(pid) and (each := procs.Identity.of(pid))
    }
    return sorted((each for each in found if procs.is_running(*each)), key=lambda each: (each.started, each.pid))


def _marked(instance: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the processes with the mark of *instance*, with all its marks; not ourselves, nor our ancestors."""
    own = procs.spared()
    for pid in procs.pids():
        if pid not in own and (marks := procs.marks(pid) or {}).get("XBOARD_INSTANCE") == instance:
            yield pid, marks


def stop(holders: Iterable[Holder], *, grace: float) -> list[Holder]:
    """Stop *holders* and their children; return those that still run, the unknown ones among them, without those that
    have become another user's.

    SIGTERM, up to *grace* seconds, SIGKILL for the rest. Parents go first, or they would start their children again;
    the children are listed before, because they lose their parent with it. A stranger's children are left alone, and so
    is what belongs to another circusd. Blocks, for *grace* and `KILL_PATIENCE` seconds at most.
    """
    holders = list(holders)
    family = _with_children(holders)
    left = _signalled(family, signal.SIGTERM, grace)
    if left:
        left = _with_children(left)  # again, because they may have started others by now
        _signalled(left, signal.SIGKILL, KILL_PATIENCE)
    known = {(holder.pid, holder.started) for holder in holders}
    others = {(holder.pid, holder.started): holder for holder in (*family, *left)}
    everyone = [*holders, *(holder for identity, holder in others.items() if identity not in known)]
    return [holder for holder in everyone if _is_running(holder)]


def try_bind(host: str, port: int) -> OSError | None:
    """Return the error that a bind and listen on *host*:*port* meets now; None if it succeeds.

    By doing it, and undoing it at once. With SO_REUSEADDR, as servers do, so that connections in TIME_WAIT do not
    count; never with SO_REUSEPORT, because a bind beside another's would succeed and hide it. A name must be free on
    all its addresses, except those of a family that this machine does not have.
    """
    try:
        addresses = sockets.targets(host, port)
    except PortError as error:
        return OSError(errno.EADDRNOTAVAIL, str(error))
    errors = [_bind_error(target) for target in addresses]
    taken = next((error for error in errors if error is not None and error.errno not in _NO_SUCH_FAMILY), None)
    return taken or (None if None in errors else errors[0])


def holder_of(pid: int, address: str = "", circusds: Mapping[procs.Identity, str] | None = None) -> Holder | None:
    """Return the facts of *pid*, which holds *address*; None if it is gone, or becomes another user's meanwhile.

    For many, read *circusds* once: a host may have a thousand processes, and a file for each circusd.
    """
    started, users = procs.start_time(pid), procs.users_of(pid)
    if started is None:
        return None
    marks = procs.marks(pid)
    circusds = runtime.supervisors() if circusds is None else circusds
    instance, circusd, circusd_alive = _marks(procs.Identity(pid, started), marks or {}, circusds)
    user, command, cwd = procs.user_of(pid), command_of(pid), procs.folder_of(pid)
    if (procs.start_time(pid), procs.users_of(pid)) != (started, users):
        return None
    owner = "" if user is None else servers.name_of(user)
    found = Holder(pid, started, command, owner, procs.age(started), cwd, address, marks is not None, instance)
    lost = instance is not None and is_lost(pid, marks or {})
    return found._replace(circusd=circusd, circusd_alive=circusd_alive, lost=lost, users=frozenset(users))


def command_of(pid: int) -> str:
    """Return the command of *pid* without its secrets."""
    return safe_command(procs.command_line(pid) or [procs.name_of(pid)])


def is_lost(pid: int, marks: Mapping[str, str]) -> bool:
    """Return whether a process with our marks has lost its parent, or is in the session of one of our workers.

    Marks alone prove nothing: a shell may have the environment of a worker. The session cannot be copied: Circus gives
    each worker one of its own, named by the launcher's pid, and all its forks stay in it. A process with a live parent
    without marks belongs to that.
    """
    seen = {pid}
    while True:
        launcher, session = procs.launcher_in(marks), procs.session_of(pid)
        if session is None:
            return False
        if launcher == str(session):
            return True
        stat = procs.read_stat(pid)
        if stat is None or stat.parent in seen:
            return False
        if stat.parent in (0, 1):
            return True
        if session == pid and (stat.parent == os.getpid() or (not launcher and _adopts(stat.parent, marks))):
            return True  # adopted: circusd knows which of its children it has started
        above = procs.marks(stat.parent) or {}
        if above.get("XBOARD_INSTANCE") != marks.get("XBOARD_INSTANCE"):
            return False
        pid, marks = stat.parent, above
        seen.add(pid)


def _is_detached(pid: int, marks: Mapping[str, str]) -> bool:
    """Return whether *pid* is in a session that an app of ours has made: it is meant to outlive its worker.

    The session of a worker is named by its launcher. What an app starts does not know the launcher, but the session,
    unless it was started at an import before the fork, or by an older release: then one with a live leader counts.
    """
    if "XBOARD_WATCHER" not in marks:
        return False  # a plugin
    launcher, session = procs.launcher_in(marks), procs.session_of(pid)
    if session is None:
        return True
    if launcher:
        return launcher != str(session)
    if "XBOARD_FORK_ORDERS" in marks:
        return False  # the launcher of a forkserver, which takes this from what the app may start
    if (marks.get("XBOARD_SESSION") or str(session)) != str(session):
        return True
    leader = procs.read_stat(session)
    return leader is not None and not leader.has_ended


def _adopts(parent: int, marks: Mapping[str, str]) -> bool:
    """Return whether *parent* may have adopted a plugin whose circusd is gone: an older subreaper above us."""
    try:
        circusd = procs.Identity.parse(marks.get("XBOARD_CIRCUSD", ""))
    except ValueError:
        return False
    started = procs.start_time(parent)
    return parent in procs.ancestors() and started is not None and started <= circusd.started


def _marks(
    process: procs.Identity, marks: Mapping[str, str], circusds: Mapping[procs.Identity, str]
) -> tuple[str | None, procs.Identity | None, bool]:
    """Return the instance and the circusd of *process*, and whether that circusd lives."""
    # A circusd has no marks of its own, or, started inside one of our processes, those of another.
    if process in circusds:
        return circusds[process], process, True
    instance = marks.get("XBOARD_INSTANCE") or None
    try:
        circusd = procs.Identity.parse(marks.get("XBOARD_CIRCUSD", ""))
    except ValueError:
        return instance, None, False
    # In a container its pid means another process than here, so whether it is gone is unknown. One that runs supervises
    # *process* by its record, or because *process* runs below it; everything runs below pid 1, which proves nothing.
    is_recorded = instance is not None and circusds.get(circusd) == instance
    supervises = is_recorded or (circusd.pid > 1 and circusd.pid in procs.ancestors(process.pid))
    alive = not procs.is_of_our_pid_space(process.pid) or (supervises and procs.is_running(*circusd))
    return instance, circusd, alive


def _with_children(holders: Iterable[Holder]) -> list[Holder]:
    """Return the running processes of *holders*, and what runs below them for the same circusd; parents first."""
    processes, circusds = procs.snapshot(), runtime.supervisors()
    children = defaultdict(list)
    for pid, stat in processes.items():
        children[stat.parent].append(pid)
    family = {holder.pid: holder for holder in holders if holder.pid in processes and _is_running(holder)}
    # Leave out ourselves, our ancestors, and what runs beside us.
    own = procs.spared()
    for root in [holder for holder in family.values() if holder.instance is not None and holder.pid not in own]:
        parents = deque([root.pid])
        while parents:
            for pid in children[parents.popleft() or 0]:
                child = holder_of(pid, circusds=circusds)
                if child is not None and child.started == processes[pid].started and _goes_with(child, root):
                    family.setdefault(pid, child)
                    parents.append(pid)
    return _oldest_first(family.values())


def _goes_with(child: Holder, root: Holder) -> bool:
    """Return whether *child* has the marks of *root*, or none: it cleared its environment, or is not readable."""
    if not (child.pid and root.pid and procs.is_of(child.pid, root.users)):
        return False
    session = procs.session_of(child.pid)
    if session != root.pid and _is_detached(child.pid, procs.marks(child.pid) or {}):
        return False
    if child.instance is None and (not root.inspectable or "XBOARD_WATCHER" in (procs.marks(root.pid) or {})):
        # A child in a session of its own is meant to outlive its worker, also without our marks (`env -i`, sudo).
        return session == procs.session_of(root.pid)
    return child.instance is None or (child.instance, child.circusd) == (root.instance, root.circusd)


def _is_running(holder: Holder) -> bool:
    """Return whether *holder* still runs, as the user that it had; unknown counts as running."""
    return holder.pid is None or holder.started is None or procs.is_running(holder.pid, holder.started, holder.users)


def _oldest_first(found: Iterable[Holder]) -> list[Holder]:
    return sorted(found, key=lambda holder: (holder.started or 0, holder.pid or 0))


def _signalled(targets: Iterable[Holder], signum: signal.Signals, patience: float) -> list[Holder]:
    """Send *signum* to *targets*, and wait; return those that got it and still run."""
    found = {procs.Identity(each.pid, each.started): each for each in targets if each.pid and each.started is not None}
    return [found[each] for each in procs.signal_all({each: found[each].users for each in found}, signum, patience)]


def _bind_error(target: sockets.BindTarget) -> OSError | None:
    try:
        with socket.socket(target.family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(target.sockaddr)
            trial.listen(1)
    except OSError as error:
        return error
    return None
