"""Check that each port of an ini file is free on this host, and name its holder if not."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence

from xboard_circus.checks.file_rules import Address, addresses
from xboard_circus.checks.findings import Finding, Level
from xboard_circus.config import Config, WatcherConfig, is_armed
from xboard_circus.core.ports import Holder, Kind, Policy, classify, plan, shared_by, was_handed
from xboard_circus.core.sentences import Say
from xboard_circus.errors import Command, XboardError
from xboard_circus.host import listeners, procs, runtime
from xboard_circus.host.worker_files import new_token


def findings(config: Config, *, stranger: Level = Level.WARNING, ages: bool = True) -> Iterator[Finding]:
    """Yield findings on every address that cannot be bound; our own circusd may hold it.

    With *stranger*, findings on a port whose holder a start would wait for have that level. Without *ages*, a finding
    reads the same as long as the same process holds the port.
    """
    instance = runtime.instance_id(config.path)
    try:
        yield from _runtime_folder(config, instance)
        circusd = runtime.supervisor_of(instance)
    except XboardError as error:
        yield Finding(Level.ERROR, "", str(error), "")
        return
    left: dict[str, list[Holder]] = {}
    for address in addresses(config):
        if (refused := listeners.try_bind(address.host, address.port)) is None:
            continue
        if refused.errno != errno.EADDRINUSE:
            yield _not_bindable(address, refused)
            continue
        found = listeners.holders(address.host, address.port)
        held = [holder for holder in found if not _is_ours(holder, instance, circusd)]
        if held and _is_taken_over(config, address, held, instance):
            left[f"{address.host}:{address.port}"] = held
        elif held and len(held) < len(found):
            yield _shared(config, address, held)
        elif held:
            held = held if ages else [holder._replace(age=None) for holder in held]
            yield _taken(config, address, held, instance, stranger)
    if left:
        yield _left(left, circusd)


def _is_taken_over(config: Config, address: Address, held: Sequence[Holder], instance: str) -> bool:
    """Return whether all that hold the address were left by a circusd that is gone, and the next one ends them."""
    if (watcher := _guarded_by(config, address)) is None or Policy(watcher.options.port.policy) is Policy.NEVER:
        return False
    return all(classify(each, instance=instance, own=()) is Kind.ORPHAN for each in held)


def _left(left: Mapping[str, Sequence[Holder]], circusd: procs.Identity | None) -> Finding:
    """Return one finding on all addresses that the next circusd takes over, or *circusd* has taken over."""
    pids = {each.pid for held in left.values() for each in held}
    lost = " and ".join(sorted({str(each.circusd[0]) for held in left.values() for each in held if each.circusd}))
    held_by = "is still held" if len(left) == 1 else "are still held"
    what = f"{' and '.join(left)} {held_by} by {len(pids)} process{'' if len(pids) == 1 else 'es'} of circusd {lost}"
    hint = "nothing to do: a start takes over, and ends what was left when its own workers are up"
    if circusd is not None:
        hint = f"nothing to do: circusd (pid {circusd.pid}) ends what was left when its own workers are up"
    return Finding(Level.WARNING, "", f"{what}, which is gone", hint)


def _runtime_folder(config: Config, instance: str) -> Iterator[Finding]:
    for watcher in filter(is_armed, config.watchers):
        folder = runtime.root_path() / instance / runtime.safe_name(watcher.name)
        try:
            runtime.check_socket_path(folder / f"{new_token()}.sock")
        except XboardError as error:
            yield Finding(Level.ERROR, "", str(error), "", watcher.section)


def _is_ours(holder: Holder, instance: str, circusd: procs.Identity | None) -> bool:
    """Return whether the holder is the circusd that runs this file, or one of its processes."""
    its = (holder.pid, holder.started), holder.circusd if holder.instance == instance else None
    return circusd is not None and circusd in its


def _not_bindable(address: Address, error: OSError) -> Finding:
    reason = os.strerror(error.errno) if error.errno else str(error)
    hints = {errno.EACCES: "use a port from 1024 on, or start circusd as root"}
    hints[errno.EADDRNOTAVAIL] = "use an address of this host, or 0.0.0.0 for all of them"
    what = f"{address.host}:{address.port} cannot be bound: {reason}"
    return Finding(Level.ERROR, address.option, what, hints.get(error.errno or 0, "choose another"), address.section)


def _shared(config: Config, address: Address, held: Sequence[Holder]) -> Finding:
    watcher = _guarded_by(config, address)
    user = (watcher and watcher.uid) or ""  # whose workers may have handed it on, though circusd's user made it
    why = shared_by([each._replace(giver=user) if user not in ("", each.user) else each for each in held])
    what = f"{address.host}:{address.port}: {why}"
    cure = (Say.CURE_HANDED if was_handed(why) else Say.CURE_SHARED)()
    return Finding(Level.WARNING, address.option, what, cure, address.section)


def _taken(config: Config, address: Address, held: list[Holder], instance: str, stranger: Level) -> Finding:
    watcher = _guarded_by(config, address)
    policy = Policy(watcher.options.port.policy) if watcher else Policy.ORPHANS
    outcome = plan(held, policy=policy, instance=instance, own=())
    place = f"{address.host}:{address.port}"
    if watcher is None and outcome.refuse:
        who = "an endpoint of circusd" if not address.public else "a socket without a port guard"
        what = f"{place} is {who}, and circusd would not start: {outcome.reason}"
        return Finding(Level.ERROR, address.option, what, _cure(config, address, outcome.refuse), address.section)
    if watcher is None or not outcome.refuse:
        hint = f"they are ended when {watcher.name} starts" if watcher else "`xboard-circus start` and `restart` end it"
        hint = f"nothing to do: {hint}"
        return Finding(Level.WARNING, address.option, f"{place} is still held: {outcome.reason}", hint, address.section)
    kinds = {classify(holder, instance=instance, own=()) for holder in outcome.refuse}
    hint = f"stop it; until then {watcher.name} waits and tries every {watcher.options.port.retry:g} s"
    if Kind.UNKNOWN in kinds:
        hint = f"look as root who it is; until it is gone {watcher.name} waits"
    elif Kind.HANDED in kinds:
        hint = f"{Say.CURE_HANDED()}; until then {watcher.name} waits"
    return Finding(stranger, address.option, f"{place}: {outcome.reason}", hint, address.section)


def _cure(config: Config, address: Address, refused: Sequence[Holder]) -> str:
    pids = [str(each.pid) for each in refused if each.pid is not None]
    users = {each.name: each.uid for each in config.watchers if address.section in _sockets_of(config, each)}
    if any(each.giver and each.user not in users.values() for each in refused):
        return Say.CURE_HANDED()
    user = next(iter(users), "")
    if not user or not pids or len(pids) < len(refused):
        return "stop that process, or choose another port"
    why = f"workers of {user}, which is not armed, carry no mark: if an earlier circusd has left this one"
    return Command(f"{why}, `kill {' '.join(pids)}` ends it; otherwise choose another port")


def orphans(config: Config) -> list[Holder]:
    """Return the orphans on addresses that no port guard clears, where their end frees the address.

    Such as circusd-stats, which outlives a circusd that was killed and holds `stats_endpoint`.
    """
    instance, found = runtime.instance_id(config.path), list[Holder]()
    for address in addresses(config):
        if _guarded_by(config, address) is None:
            held = listeners.holders(address.host, address.port)
            outcome = plan(held, policy=Policy.ORPHANS, instance=instance, own=())
            found += () if outcome.refuse else outcome.stop
    return found


def _guarded_by(config: Config, address: Address) -> WatcherConfig | None:
    """Return the armed watcher with this port: its guard clears it, or waits."""
    armed = filter(is_armed, config.watchers)
    return next((each for each in armed if address.section in (each.section, *_sockets_of(config, each))), None)


def _sockets_of(config: Config, watcher: WatcherConfig) -> list[str]:
    return [found.section for name in watcher.sockets_used if (found := config.socket(name))]
