"""Define the command clean: stop the processes of this instance, free its ports, remove its stale files."""

import contextlib
import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import click

from xboard_circus.checks import authorship
from xboard_circus.checks.file_rules import addresses
from xboard_circus.cli import launching, stopping
from xboard_circus.cli.context import dry_run_option, for_instance
from xboard_circus.cli.error_boundary import DONE, FAILED
from xboard_circus.cli.screen import complain, interrupted, progress, say
from xboard_circus.core.ports import Policy, plan
from xboard_circus.errors import PortError
from xboard_circus.host import listeners, procs, runtime, servers
from xboard_circus.host.lock_file import NoLockFile
from xboard_circus.host.worker_files import is_socket, takes_connections
from xboard_circus.host.written_files import read_whole
from xboard_circus.instance import EndpointTaken, Instance, Silent
from xboard_circus.snapshot import Snapshot

UNTOUCHED = "nothing was stopped or removed"


@click.command()
@dry_run_option
@for_instance
def clean(instance: Instance, dry_run: bool) -> int:
    """Stop every process of this ini file, orphans too; free its ports and remove stale files.

    Other processes are left alone and named. Exits with 1 if one of them holds a port of this ini file.
    """
    problems, own, below = [], set[int](), list[procs.Identity]()
    with _interrupted(UNTOUCHED, dry_run), contextlib.suppress(NoLockFile):
        if not dry_run and os.path.isdir(runtime.root_path() / instance.id):  # else no start is at work
            click.get_current_context().with_resource(launching.alone(instance))
    with _interrupted(UNTOUCHED, dry_run):
        found = None
        try:
            found = instance.find()
        except EndpointTaken as taken:
            problems.append(str(taken))
    with _interrupted("circusd was ordered to stop and may still run; no orphan was stopped, no file removed", dry_run):
        if found is not None:
            own, below = _end_circusd(instance, found, dry_run=dry_run)
        if not dry_run:
            stopping.mark_stopped(instance)
    with _interrupted("circusd does not run; orphans that were named may still run, and no file was removed", dry_run):
        problems += _end_orphans(instance, own, dry_run=dry_run)
        problems += strangers_on_ports(instance, own, dry_run=dry_run)
    with _interrupted("no process is left to stop; stale files that were not named are still there", dry_run):
        _remove_files(instance, dry_run=dry_run)
    for problem in problems:
        complain(problem)
    if dry_run:
        say("nothing was done: --dry-run")
    elif left := instance.left_alone(below):
        say(f"clean of {instance.shown}: {left}", "yellow")
    elif not problems:
        say(f"clean: nothing that belongs to {instance.shown} is left")
    return FAILED if problems else DONE


def _interrupted(done: str, dry_run: bool) -> AbstractContextManager[None]:
    """Report on Ctrl-C what was *done*, and how to go on."""
    return interrupted(UNTOUCHED if dry_run else f"{done}; `xboard-circus clean` goes on")


def _end_circusd(
    instance: Instance, found: Snapshot | Silent, *, dry_run: bool
) -> tuple[set[int], list[procs.Identity]]:
    """End our circusd; return the pids that a dry run leaves running, and all that ran below it."""
    circusd = found.identity
    children = stopping.children_of(instance, found)()
    family = {each.pid for child in children for each in (child, *procs.below(child, recursive=True))}
    silent = " and does not answer" if isinstance(found, Silent) else ""
    pids = ", ".join(map(str, sorted(family))) or "nothing"
    say(f"{_verb(dry_run)} circusd, pid {circusd.pid}: it runs for {instance.shown}{silent}; below it: {pids}")
    if dry_run:
        return {circusd.pid, *family}, []
    below = procs.below(circusd, recursive=True)
    with progress() as shown:
        stopping.stop(instance, found, shown)
    return set(), below


def _end_orphans(instance: Instance, own: Collection[int], *, dry_run: bool) -> list[str]:
    orphans = [holder for holder in listeners.orphans(instance.id) if holder.pid not in own]
    ours = servers.name_of(os.geteuid())
    for orphan in orphans:
        whose = f", user {orphan.user}'s" if orphan.user not in ("", ours) else ""
        of = f"circusd {orphan.circusd[0]}" if orphan.circusd else "a circusd"
        say(f"{_verb(dry_run)} pid {orphan.pid} ({orphan.command}){whose}: an orphan of our {of}, which is gone")
    if dry_run or not orphans:
        return []
    grace = max((watcher.options.port.grace for watcher in instance.config.watchers), default=5.0)
    with progress() as shown:
        shown.waiting_for(f"waiting for {len(orphans)} orphans to finish")
        left = listeners.stop(orphans, grace=grace)
    return [f"pid {orphan.pid} ({orphan.command}) could not be stopped; try it as root" for orphan in left]


def strangers_on_ports(
    instance: Instance, own: Collection[int] = (), *, dry_run: bool = False, endpoints: bool = True
) -> Iterator[str]:
    """Yield a line for each of our ports that another process holds; those of *endpoints* too."""
    for address in addresses(instance.config):
        if not (address.public or endpoints):
            continue
        place = f"{address.host}:{address.port} of [{address.section}]"
        try:
            found = listeners.holders(address.host, address.port)
        except PortError as error:
            yield f"{place}: {error}"
            continue
        # In a dry run the orphans that hold it are still there, and have been named.
        refused = plan(found, policy=Policy.ORPHANS, instance=instance.id, own=own).refuse
        reason = plan(refused, policy=Policy.ORPHANS, instance=instance.id, own=own).reason
        if refused or (found and not dry_run):
            held = ", ".join(f"pid {holder.pid or 'unknown'} ({holder.command})" for holder in found)
            yield f"{place}: {reason or f'held by {held}'}; left alone"


def _remove_files(instance: Instance, *, dry_run: bool) -> None:
    writer = authorship.other_author(instance.config)
    for path, why in _stale_files(instance):
        if writer is not None:  # a user who may write the ini, or put a link there, could name any file of ours
            complain(f"{path}: {why}; left alone, because {writer[0]} may write {writer[1]}: its user may delete it")
            continue
        say(f"{'would remove' if dry_run else 'removed'} {path}: {why}")
        if not dry_run:
            path.unlink(missing_ok=True)
    for path in [] if dry_run else runtime.remove_stale(instance.id):
        say(f"removed {path}: its process is gone")


def _stale_files(instance: Instance) -> Iterator[tuple[Path, str]]:
    """Yield each unused file that would keep the next circusd from starting, with the reason."""
    folder = instance.config.folder
    if pidfile := instance.config.circus.get("pidfile"):
        with contextlib.suppress(OSError, ValueError):
            if procs.config_file_of(int(read_whole(folder / str(pidfile)))) is None:
                yield folder / str(pidfile), "the circusd that wrote it is gone"
    for each in instance.config.sockets:
        if each.path is not None and is_socket(path := folder / each.path) and not takes_connections(path):
            yield path, "no process listens on it"


def _verb(dry_run: bool) -> str:
    return "would stop" if dry_run else "stopping"
