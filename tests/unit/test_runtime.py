import errno
import json
import math
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime, worker_files
from xboard_circus.worker import __main__ as worker

IS_ROOT = os.geteuid() == 0
NOBODY = 65534
UNNAMED = 54_321  # no user of this system
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime folder as a path that a socket fits under, whatever pytest's own folder is called."""
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        yield Path("run")


@pytest.fixture
def gone() -> procs.Identity:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = procs.Identity.of(process.pid)
    assert identity is not None
    return identity


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def own() -> procs.Identity:
    identity = procs.Identity.of(os.getpid())
    assert identity is not None
    return identity


# The folders


def test_folders_are_closed_to_others_whatever_the_umask(root: Path) -> None:
    before = os.umask(0o000)
    try:
        folder = runtime.watcher_dir("abc", "web")
    finally:
        os.umask(before)

    passage = 0o711 if IS_ROOT else 0o700
    assert folder == root / "abc" / "web"
    assert [mode(root), mode(root / "abc"), mode(folder)] == [passage, passage, 0o700]


def test_a_folder_of_the_users_own_keeps_its_mode(root: Path) -> None:
    root.mkdir(0o755)

    assert runtime.root() == root
    assert mode(root) == 0o755


def test_missing_folders_above_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "a" / "b" / "run"))

    assert runtime.root().is_dir()


def test_without_the_variable_the_place_depends_on_the_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(runtime.VARIABLE, raising=False)
    monkeypatch.setenv("TMPDIR", "/var/tmp")

    places = {Path("/run/xboard-circus")} if IS_ROOT else set()
    assert runtime.root_path() in places | {Path(f"/tmp/xboard-circus-{os.geteuid()}")}


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a folder to another user")
def test_another_users_folder_in_the_temporary_one_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(runtime.VARIABLE, raising=False)
    monkeypatch.setattr(runtime, "TEMPORARY", tmp_path)
    monkeypatch.setattr(runtime, "SESSIONS", tmp_path / "user")
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    squatted, session = tmp_path / "xboard-circus-4321", tmp_path / "user" / "4321"

    assert runtime.root_path() == squatted
    squatted.mkdir()  # root's
    assert runtime.root_path() == squatted
    with pytest.raises(
        XboardError, match=r"user 0's and not ours \(4321\): put it right, or set XBOARD_RUNTIME_DIR to"
    ):
        runtime.root()
    session.mkdir(parents=True)
    assert runtime.root_path() == squatted  # another's too

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(home)))
    assert runtime.root_path() == squatted
    os.chown(home, 4321, -1)
    assert runtime.root_path() == home / ".xboard-circus"
    home.chmod(0o770)
    assert runtime.root_path() == squatted

    home.chmod(0o755)
    os.chown(session, 4321, -1)
    assert runtime.root_path() == session / "xboard-circus"


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a folder to another user")
def test_who_removes_the_folder_that_he_made_in_our_place_does_not_move_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an attacker who makes /tmp/xboard-circus-UID before us and removes it when we run, then the next command
    and the next circusd find our files where they are, also once we have a session."""
    monkeypatch.delenv(runtime.VARIABLE, raising=False)
    monkeypatch.setattr(runtime, "TEMPORARY", tmp_path)
    monkeypatch.setattr(runtime, "SESSIONS", tmp_path / "user")
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path / "home")))
    usual, session, ours = tmp_path / "xboard-circus-4321", tmp_path / "user" / "4321", tmp_path / "home/.xboard-circus"
    ours.mkdir(parents=True)
    session.mkdir(parents=True)
    for folder in (ours.parent, ours):
        os.chown(folder, 4321, -1)
    usual.mkdir()  # root's
    assert runtime.root_path() == ours

    usual.rmdir()
    assert runtime.root_path() == ours
    os.chown(session, 4321, -1)
    assert runtime.root_path() == ours
    usual.write_text("")
    assert runtime.root_path() == ours
    usual.unlink()
    ours.rmdir()
    assert runtime.root_path() == usual
    usual.mkdir()
    os.chown(usual, 4321, -1)
    ours.mkdir()
    os.chown(ours, 4321, -1)
    assert runtime.root_path() == usual, "in which our files are as long as it is ours"


def make_link(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    root.symlink_to(root.parent / "elsewhere")


def make_open(root: Path) -> None:
    root.mkdir()
    root.chmod(0o770)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(make_link, "a symbolic link", id="a link"),
        pytest.param(lambda root: root.touch(), "no folder", id="a file"),
        pytest.param(make_open, "open to the writing of others", id="the group may write"),
    ],
)
def test_a_root_that_others_can_write_in_is_refused(root: Path, spoil: Callable[[Path], None], told: str) -> None:
    spoil(root)

    for use in (runtime.root, lambda: runtime.read_record("abc"), lambda: runtime.watcher_dir("abc", "web")):
        with pytest.raises(XboardError, match=f"{told}.*{runtime.VARIABLE}"):
            use()


@as_root
def test_a_root_below_a_folder_that_a_group_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its members could put another folder in the place of root's; with the sticky bit, of his own alone."""
    (above := tmp_path / "shared").mkdir()
    os.chown(above, 0, pwd.getpwuid(NOBODY).pw_gid)
    above.chmod(0o1775)
    monkeypatch.setenv(runtime.VARIABLE, str(above / "run"))
    runtime.root()

    above.chmod(0o775)

    with pytest.raises(XboardError, match="shared, which is user 0's, or open to a group"):
        runtime.root()


@as_root
def test_a_root_of_another_user_is_refused(root: Path) -> None:
    root.mkdir()
    os.chown(root, NOBODY, NOBODY)

    with pytest.raises(XboardError, match=f"user {NOBODY}'s"):
        runtime.root()


def test_a_relative_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runtime.VARIABLE, "run")

    with pytest.raises(XboardError, match="absolute"):
        runtime.root()


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "file" / "deep" / "run"))

    with pytest.raises(XboardError, match=r"can't make .*: Not a directory"):
        runtime.root()


@pytest.mark.parametrize("instance", ["", "..", "a/b", "x" * 65])
def test_an_instance_is_a_plain_name(root: Path, instance: str) -> None:
    with pytest.raises(XboardError, match="no instance id"):
        runtime.instance_dir(instance)


def test_the_instance_is_named_by_the_real_path_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "link.ini").symlink_to(tmp_path / "circus.ini")

    ids = {runtime.instance_id(tmp_path / name) for name in ("circus.ini", "link.ini", "./a/../circus.ini")}

    assert [len(one) for one in ids] == [12]
    assert ids != {runtime.instance_id(tmp_path / "other.ini")}


@pytest.fixture
def releases(root: Path, tmp_path: Path) -> Path:
    for number in range(1, 4):
        (tmp_path / f"r{number}").mkdir()
        (tmp_path / f"r{number}" / "circus.ini").touch()
    return tmp_path


def lead(link: Path, release: str) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(release)


def record(ini: Path, circusd: procs.Identity, **more: object) -> str:
    """Record *circusd* as its start does, and return the name of the instance."""
    instance = runtime.instance_id(ini)
    runtime.write_record(instance, **circusd._asdict(), config_file=str(ini), **more)
    return instance


def test_a_release_by_its_own_path_is_not_the_circusd_that_has_gone_on_to_the_next(
    releases: Path, gone: procs.Identity
) -> None:
    current, r1, r2 = (releases / name / "circus.ini" for name in ("current", "r1", "r2"))
    lead(current.parent, "r1")
    stopped = record(current, gone, stopped_by_operator=True)
    lead(current.parent, "r2")
    assert runtime.instance_id(current) == stopped  # the monitor must not start it

    running = record(r2, own())

    assert runtime.instance_id(current) == runtime.instance_id(r2) == running
    assert runtime.supervisor_of(runtime.instance_id(r1)) is None
    other = record(r1, procs.Identity(own().pid, own().started - 1))
    assert other not in (running, stopped)
    assert (runtime.instance_id(r1), runtime.instance_id(r2)) == (other, running)


@pytest.mark.parametrize("is_killed", [False, True])
def test_two_links_lead_to_their_own_circusds_whatever_release_they_were_started_in(
    releases: Path, is_killed: bool
) -> None:
    """Also where one of them was killed: it has to be started again, though the other one's link leads there too."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        second = procs.Identity.of(process.pid)
        assert second is not None
        staging, production = releases / "staging" / "circus.ini", releases / "production" / "circus.ini"
        lead(staging.parent, "r2")
        lead(production.parent, "r1")
        names = record(staging, own()), record(production, second)

        if is_killed:
            process.kill()
            process.wait()

        lead(production.parent, "r2")
        assert (runtime.instance_id(staging), runtime.instance_id(production)) == names  # both lead to one release
        lead(staging.parent, "r3")

        assert (runtime.instance_id(staging), runtime.instance_id(production)) == names
        assert runtime.instance_id(releases / "r1" / "circus.ini") not in names
        lead(production.parent, "r1")
        production.parent.unlink()  # and not made again yet
        assert runtime.instance_id(releases / "r1" / "circus.ini") == names[1]


def test_the_ini_of_a_circusd_that_is_gone_is_not_looked_at(
    releases: Path, gone: procs.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given one on a mount that is dead, when other instances look for theirs, then none of them waits for it."""
    current, r1, r3 = (releases / name / "circus.ini" for name in ("current", "r1", "r3"))
    record(r1, gone)
    monkeypatch.setattr(runtime, "settle", lambda path: pytest.fail(f"looks at {path}"))
    assert runtime.instance_id(r3) == runtime.digest(r3)[:12]
    monkeypatch.undo()
    monkeypatch.setenv(runtime.VARIABLE, str(releases / "run"))
    lead(current.parent, "r2")
    record(current, procs.Identity(gone.pid, gone.started + 1))
    record(r3, own())
    monkeypatch.setattr(runtime, "settle", lambda path: pytest.fail(f"looks at {path}"))
    assert runtime.instance_id(r3) == runtime.digest(r3)[:12]


def test_each_watcher_has_a_folder_of_its_own(root: Path) -> None:
    watchers = ["web", "we_b", "we b", "we/b", "..", ".", "", "circusd.json", "x" * 40, "x" * 41, "wéb"]

    folders = [runtime.watcher_dir("abc", watcher) for watcher in watchers]

    assert len(set(folders)) == len(watchers)
    assert {folder.parent for folder in folders} == {root / "abc"}
    assert max(len(folder.name) for folder in folders) <= 32


def test_a_folder_left_open_is_closed_again(root: Path) -> None:
    runtime.watcher_dir("abc", "web").chmod(0o777)

    assert mode(runtime.watcher_dir("abc", "web")) == 0o700


@as_root
def test_a_folder_is_given_to_the_watchers_user_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # others can't get through pytest's own folders
        Path(place).chmod(0o711)
        monkeypatch.setenv(runtime.VARIABLE, place)

        given = runtime.watcher_dir("abc", "web", NOBODY, NOBODY).stat()
        taken = runtime.watcher_dir("abc", "web").stat()

    assert [(given.st_uid, given.st_gid), taken.st_uid] == [(NOBODY, NOBODY), 0]


@as_root
@pytest.mark.parametrize("how", ["a number without a name owns it", "its group may write", "a link leads there"])
def test_a_folder_that_the_watchers_user_could_exchange_is_refused(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a folder above that the watcher's user may write in, then nothing is made below it: with renameat2 in a
    loop that user had a folder of root's given to it, after 6 to 162 starts."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o711)
        above = Path(place, "srv")
        above.mkdir()
        os.chown(above, 0 if how == "its group may write" else UNNAMED, UNNAMED)
        above.chmod(0o775)
        if how == "a link leads there":
            (above / "run").mkdir(0o711)
            Path(place, "link").symlink_to(above / "run")
            above = Path(place, "link")
        monkeypatch.setenv(runtime.VARIABLE, str(above / "run"))

        with pytest.raises(XboardError, match=rf"user {UNNAMED} may write in {place}/srv: set {runtime.VARIABLE}"):
            runtime.watcher_dir("abc", "web", UNNAMED, UNNAMED)

        assert not (above / "run" / "abc").exists()


@as_root
def test_a_folder_that_the_watchers_user_cannot_get_to_is_refused(root: Path) -> None:
    runtime.root().chmod(0o700)

    with pytest.raises(XboardError, match=rf"user {NOBODY} can't enter .*chmod o\+x"):
        runtime.watcher_dir("abc", "web", NOBODY, NOBODY)


def test_a_socket_path_may_be_as_long_as_the_system_takes_it() -> None:
    longest = "/" + "x" * (runtime.LONGEST_SOCKET_PATH - 1)

    runtime.check_socket_path(longest)
    with pytest.raises(XboardError, match=f"108 bytes long.*{runtime.VARIABLE}"):
        runtime.check_socket_path(longest + "x")


def test_the_length_is_counted_in_bytes() -> None:
    with pytest.raises(XboardError):
        runtime.check_socket_path("/" + "é" * 60)


def test_the_default_root_leaves_room_for_any_watcher() -> None:
    folder = Path("/tmp/xboard-circus-4294967294") / ("f" * 12) / runtime.safe_name("w" * 100)

    runtime.check_socket_path(folder / f"{worker_files.new_token()}.sock")


# Gates


def test_a_gate_that_lies_there_is_made_anew_and_a_link_not_followed(root: Path, tmp_path: Path) -> None:
    folder = runtime.watcher_dir("abc", "web")
    (folder / "gate-1").symlink_to(tmp_path / "victim")
    (folder / "gate-2").write_text("old")

    gates = [runtime.make_gate(folder, number) for number in (1, 2)]

    assert [(gate.name, gate.is_symlink(), gate.read_text()) for gate in gates] == [
        ("gate-1", False, ""),
        ("gate-2", False, ""),
    ]
    assert not (tmp_path / "victim").exists()


def test_a_gate_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(XboardError, match=r"can't make .*gate-1"):
        runtime.make_gate(tmp_path / "nowhere", 1)


# The record

FIELDS = {"pid": 1, "started": 5, "endpoint": "ipc:///x", "config_file": "/é/circus.ini", "version": "0.1.0"}


def test_a_record_reads_as_it_was_written_and_is_for_our_eyes_only(root: Path) -> None:
    runtime.write_record("abc", **{**FIELDS, "version": "0.0.9"})
    runtime.write_record("abc", **FIELDS)

    assert runtime.read_record("abc") == FIELDS
    assert mode(root / "abc" / runtime.RECORD) == 0o600
    assert [path.name for path in (root / "abc").iterdir()] == [runtime.RECORD]


def test_a_record_that_cannot_be_written_leaves_the_old_one(root: Path) -> None:
    runtime.write_record("abc", **FIELDS)

    with pytest.raises(TypeError):
        runtime.write_record("abc", pid=object())

    assert runtime.read_record("abc") == FIELDS
    assert [path.name for path in (root / "abc").iterdir()] == [runtime.RECORD]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', "{}", '{"pid": 1}', '{"pid": "x", "started": 1}', '{"pid": -1, "started": 1}', "\x00\xff"],
)
def test_a_damaged_record_is_none(root: Path, text: str) -> None:
    (runtime.instance_dir("abc") / runtime.RECORD).write_text(text)

    assert runtime.read_record("abc") is None


def test_reading_makes_nothing(root: Path) -> None:
    assert (runtime.read_record("abc"), runtime.supervisor_of("abc"), runtime.supervisors()) == (None, None, {})
    assert not root.exists()


def test_a_supervisor_is_one_that_runs(root: Path, gone: procs.Identity) -> None:
    runtime.write_record("aaa", pid=own().pid, started=own().started)
    runtime.write_record("bbb", pid=gone.pid, started=gone.started)
    runtime.write_record("ccc", pid=own().pid, started=own().started - 1)

    assert [runtime.supervisor_of(instance) for instance in ("aaa", "bbb", "ccc")] == [own(), None, None]
    ended = procs.Identity(own().pid, own().started - 1)
    assert runtime.supervisors() == {own(): "aaa", gone: "bbb", ended: "ccc"}


def test_a_successor_is_named_while_it_waits_at_its_gate(root: Path, gone: procs.Identity) -> None:
    old = {**FIELDS, "version": "old"}
    runtime.write_record("abc", **old)
    runtime.make_gate(runtime.instance_dir("abc"), 7)
    runtime.write_file("abc", "gate-8", {**FIELDS, "pid": gone.pid, "started": gone.started})
    for none_waits in (6, 7, 8):
        with pytest.raises(XboardError, match="is gone"):
            runtime.name_successor("abc", none_waits)
    before = runtime.read_record("abc")

    waits = {**FIELDS, "pid": own().pid, "started": own().started}
    runtime.write_file("abc", "gate-7", waits)
    runtime.name_successor("abc", 7)

    assert (before, runtime.read_record("abc")) == (old, waits)
    assert not (root / "abc" / "gate-7").exists()


# What is left behind


@contextmanager
def filled(folder: Path) -> Iterator[set[str]]:
    """Put everything there that may lie in a watcher's folder, of a live worker and a dead one; return the names."""
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(folder / "alive1.sock"))
        live.listen()
        with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as unnamed:
            dead.bind(str(folder / "dead1.sock"))
            unnamed.bind(str(folder / "dead2.new"))
        for name in (
            "alive1.up",
            "alive1.ready",
            "alive1.beat",
            "dead1.up",
            "dead1.ready",
            "dead1.beat",
            "4711.ready",
            "gate-3",
        ):
            (folder / name).touch()
        for name in ("Dead1.ready", "dead1.sock.bak", "dead1.txt", "gate-x", "x.sock", "notes"):
            (folder / name).touch()
        os.mkfifo(folder / "dead4.beat")
        os.mkfifo(folder / "dead4.sock")
        os.mkfifo(folder / "fifo")
        (folder / "link.sock").symlink_to("notes")
        (folder / "dead5.sock").symlink_to("alive1.sock")
        (folder / "dead5.up").symlink_to("/proc/kmsg")
        (folder / "dead3.ready").mkdir()
        yield {path.name for path in folder.iterdir()}


OF_THE_DEAD = {"dead1.sock", "dead1.up", "dead1.ready", "dead1.beat", "4711.ready"}
OF_THE_DEAD |= {"dead4.beat", "dead4.sock", "link.sock", "dead5.sock", "dead5.up"}  # FIFOs and links, not followed


def test_only_what_belongs_to_the_dead_is_removed(short: Path) -> None:
    runtime.watcher_dir("abc", "web")
    folder = short / "abc" / "web"
    with filled(folder) as before:
        removed = runtime.remove_stale("abc")

    assert {path.name for path in removed} == OF_THE_DEAD | {"dead2.new", "gate-3"}
    assert {path.name for path in folder.iterdir()} == before - {path.name for path in removed}


def test_gates_and_sockets_in_the_making_stay_while_a_circusd_runs(short: Path) -> None:
    runtime.watcher_dir("abc", "web")
    with filled(short / "abc" / "web"):
        runtime.write_record("abc", pid=own().pid, started=own().started)

        removed = runtime.remove_stale("abc")

    assert {path.name for path in removed} == OF_THE_DEAD


def test_the_files_of_one_worker_go_and_a_folder_of_its_apps_stays(short: Path) -> None:
    runtime.watcher_dir("abc", "web")
    folder = short / "abc" / "web"
    (folder / "dead1.ready").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "dead1.sock"))
    (folder / "dead1.up").touch()

    worker_files.remove(folder, "dead1")

    assert [path.name for path in folder.iterdir()] == ["dead1.ready"]


@pytest.mark.parametrize(
    ("noted", "found"),
    [
        pytest.param(worker_files.CUT.pack(3, 20.0), (3, 20.0), id="what it cut off"),
        pytest.param(worker_files.CUT.pack(1 << 60, 20.0), (0, 0.0), id="more than there can be"),
        pytest.param(worker_files.CUT.pack(3, math.nan), (0, 0.0), id="no number"),
        pytest.param(b"3", (0, 0.0), id="too little"),
        pytest.param(bytes(100), (0, 0.0), id="too much"),
        pytest.param(None, (0, 0.0), id="nothing"),
    ],
)
def test_what_a_worker_notes_of_requests_that_it_cut_off_is_its_claim(
    tmp_path: Path, noted: bytes | None, found: tuple[int, float]
) -> None:
    if noted is not None:
        (tmp_path / "live1.cut").write_bytes(noted)

    assert worker_files.cut_of(tmp_path, "live1") == found


def test_what_a_worker_has_cut_off_outlives_its_own_end(tmp_path: Path) -> None:
    (tmp_path / "dead1.up").touch()
    (tmp_path / "dead1.cut").touch()

    worker_files.remove(tmp_path, "dead1")
    assert [path.name for path in tmp_path.iterdir()] == ["dead1.cut"]
    worker_files.remove(tmp_path, "dead1", worker_files.LEFT)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_socket_and_a_socket_no_mark(short: Path) -> None:
    runtime.watcher_dir("abc", "web")
    folder = short / "abc" / "web"
    (folder / "dead1.sock").touch()
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(folder / "dead1.ready"))

    assert runtime.remove_stale("abc") == []


def test_of_very_many_files_no_more_than_a_limit_are_looked_at(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more marks than circusd could sweep in its start, then it removes some, and the others at later starts."""
    folder = runtime.watcher_dir("abc", "web")
    most = worker_files.MOST_NAMES
    for number in range(most + most // 2):
        (folder / f"{number:x}.up").touch()
    looked_at: list[Path] = []
    monkeypatch.setattr(worker_files, "is_socket", lambda path: looked_at.append(path))

    removed = [len(runtime.remove_stale("abc")) for _ in range(3)]

    assert removed == [most, most // 2, 0]
    assert len(looked_at) == sum(removed)
    assert [*folder.iterdir()] == []


def test_nothing_is_removed_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "dead1.ready").touch()
    (runtime.instance_dir("abc") / "web").symlink_to(tmp_path / "elsewhere")

    assert runtime.remove_stale("abc") == []


def test_a_record_is_json_that_a_person_can_read(root: Path) -> None:
    runtime.write_record("abc", **FIELDS)

    assert json.loads((root / "abc" / runtime.RECORD).read_text()) == FIELDS


@pytest.mark.parametrize(
    ("error", "hinted"),
    [(OSError("AF_UNIX path too long"), True), (OSError(errno.ENOSPC, "No space left on device"), False)],
)
def test_a_private_socket_that_cannot_be_made_says_of_a_long_path_alone_that_it_is_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: OSError, hinted: bool
) -> None:
    def refuse(_: Path) -> None:
        raise error

    monkeypatch.setattr(worker, "PrivateSocket", refuse)
    given: Any = SimpleNamespace(file=lambda _: Path("/run/x/1.sock"), can_use_folder=lambda: False)

    assert worker.private_socket(given) is None

    assert str(error) in caplog.text
    assert ("XBOARD_RUNTIME_DIR" in caplog.text) == hinted
