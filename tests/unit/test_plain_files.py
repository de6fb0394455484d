"""Files of another user, which root's commands read: no open waits, and no read is without a bound."""

import contextlib
import ctypes
import fcntl
import logging
import os
import pwd
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circus.stream.file_stream import FileStream, TimedRotatingFileStream

from xboard_circus import config, config_files
from xboard_circus.doctor import old_files
from xboard_circus.env_files import EnvFile
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime, writers, written_files
from xboard_circus.host.file_rights import others_at
from xboard_circus.instance import Instance
from xboard_circus.ledger.database import LedgerError, open_to_read
from xboard_circus.logs import LogFile, tail
from xboard_circus.logs.lines import open_log
from xboard_circus.plugins.log_pruner import removed
from xboard_circus.rotating_log import RotatingLog
from xboard_circus.supervisor import circusd_out
from xboard_circus.supervisor.patches import boot

IN_OPEN = 0x20  # of inotify(7)
TOO_MANY = r"\d+ options and \d+ variables are too many"

Read = Callable[[Path], object]


def read_log(path: Path) -> object:
    return tail(LogFile("web", "web", path, "web"), 10)


def read_ledger(path: Path) -> list[Any]:
    with contextlib.closing(open_to_read(path)) as connection:
        return connection.execute("SELECT 1 FROM sqlite_master").fetchall()


READERS: dict[str, Read] = {
    "ini": config.load,
    "log": read_log,
    "env file": lambda path: EnvFile("worker.env_file", path).read(),
    "ledger": read_ledger,
    "token": lambda path: runtime.read_private(path, 10),
    "pid file": written_files.read_whole,
}


@pytest.fixture(params=READERS)
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return one of our readers, which takes the files of this process for those of another user."""
    if request.param == "ledger":
        monkeypatch.setattr("xboard_circus.ledger.database.os.geteuid", lambda: os.getuid() + 4000)
    return READERS[request.param]


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[Path]:
    """A file on which its owner has a lease: the open of another waits until that is given back, for 45 s at most."""
    path = tmp_path / "file"
    path.touch(0o600)
    before: Any = signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield path
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)


@pytest.mark.timeout(20)
def test_a_lease_on_a_file_holds_nobody_up(reads: Read, leased: Path) -> None:
    with pytest.raises((OSError, XboardError), match="holds a lease on it"):
        reads(leased)


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(reads: Read, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises((OSError, XboardError)):
        reads(tmp_path / "pipe")


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_log_has_its_writer_wait_for_no_reader(tmp_path: Path) -> None:
    """Given a pipe, when a log is opened there, then that is an error without a reader; with one that reads nothing,
    lines are lost when it is full."""
    os.mkfifo(tmp_path / "pipe")
    log = RotatingLog(tmp_path / "pipe", max_bytes=1000, old_files=1)
    line = logging.makeLogRecord({"msg": "x" * 65536})

    with pytest.raises(OSError, match=f"it is a pipe that no process reads: '{tmp_path}/pipe'"):
        open(tmp_path / "pipe", "ab", opener=written_files.opener).close()
    log.emit(line)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(3):
        log.emit(line)

    assert os.read(reader, 1 << 20).startswith(b"xxx")
    log.emit(line)
    assert os.read(reader, 1 << 20)
    log.close()
    os.close(reader)


@pytest.mark.timeout(20)
@pytest.mark.skipif(sys.platform != "linux", reason="it is told of an open by inotify")
def test_what_is_no_plain_file_is_not_even_opened(tmp_path: Path) -> None:
    """Given an ini, a log, a pid file or a file it includes that is a pipe or a device, then it is not opened at all:
    that of /dev/watchdog resets the host, and another user's ini could name it to root's status."""
    system, pipe = ctypes.CDLL(None), tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    watch = system.inotify_init1(os.O_NONBLOCK)
    try:
        assert system.inotify_add_watch(watch, os.fsencode(pipe), IN_OPEN) > 0
        with pytest.raises(OSError, match="it is no plain file"):
            written_files.read_whole(pipe)
        assert old_files._pid_in(pipe) is None  # `doctor`
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
    finally:
        os.close(watch)
    assert read_log(Path("/dev/zero")) == []
    with pytest.raises(FileNotFoundError, match="it is a device"):
        open_log(Path("/dev/zero"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("words", "size"), [("more.ini " * 2000, 1), ("more.ini " * 4, 300_000), ("*/../" * 9 + "*.ini", 1)]
)
def test_of_what_an_ini_includes_no_more_than_a_bound_is_read(tmp_path: Path, words: str, size: int) -> None:
    """Given an ini that includes one file again and again (60 times 0.9 MB took root 79 s and 800 MiB), or a pattern
    that leads round without end."""
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
    (tmp_path / "circus.ini").write_text(f"[circus]\ninclude = {words}\n")
    (tmp_path / "more.ini").write_text("#" * size)

    with pytest.raises(XboardError, match="it includes too much: more than 1024 KiB, or 1024 files"):
        config.load(tmp_path / "circus.ini")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("x" + " " * 100_000 + "y", "more than 20000 lines, or 200 blanks in a row", id="blanks in a line"),
        pytest.param("x = y\n" + " z\n" * 100_000, "more than 20000 lines, or 200", id="a value of many lines"),
        pytest.param("".join(f"a{n} = b\n" for n in range(4000)), TOO_MANY, id="variables"),
        pytest.param(
            "".join(f"a{n} = b\n" for n in range(900)) + "".join(f"[watcher:{n}]\ncmd = a\n" for n in range(4000)),
            TOO_MANY,
            id="watchers, each with a copy of all variables",
        ),
        pytest.param(
            "".join(f"[watcher:{n}]\ncmd = a\n" for n in range(300))
            + "[DEFAULT]\n"
            + "".join(f"a{n} = b\n" for n in range(900)),
            TOO_MANY,
            id="defaults of each section",
        ),
    ],
)
def test_no_ini_takes_long_to_read(tmp_path: Path, text: str, why: str) -> None:
    """Given an ini of another user that took root's commands a minute for 28 KB, or hours: a line of blanks, in which
    Python looks for a sign from each blank on; and variables, of which Circus makes a copy for each option."""
    (tmp_path / "circus.ini").write_text(f"[env]\n{text}\n")

    with pytest.raises(XboardError, match=why):
        config.load(tmp_path / "circus.ini")
    assert config.load_readable(tmp_path / "circus.ini").watchers == ()
    with pytest.raises((XboardError, OSError), match=why):  # put in its place when it has been looked at
        config._read_config(str(tmp_path / "circus.ini"), None, False)


def test_a_pod_with_thousands_of_variables_reads_an_ini_of_sixty_watchers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an environment as Kubernetes makes it beside a thousand services, then it does not make an ini too much."""
    for number in range(5000):
        monkeypatch.setenv(f"SERVICE_{number}_PORT", "tcp://10.0.0.1:80")
    watchers = (f"[watcher:web{n}]\ncmd = true\n" + "".join(f"x{k} = y\n" for k in range(14)) for n in range(60))
    (tmp_path / "circus.ini").write_text("".join(watchers))

    assert len(config.load(tmp_path / "circus.ini").watchers) == 60


def test_what_can_be_read_of_a_broken_ini_needs_no_room_on_a_disk(tmp_path: Path) -> None:
    """Given an ini with a line that nobody can read, and no room for any file, as `stop` may find them."""
    (tmp_path / "circus.ini").write_text("[circus\n[watcher:web]\ncmd = sleep 9\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        found = config.load_readable(tmp_path / "circus.ini")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [each.cmd for each in found.watchers] == ["sleep 9"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["pipe", "large"])
@pytest.mark.parametrize("name", ["circus.ini", "more.ini"])
@pytest.mark.parametrize("load", [config.load, config.load_readable])
def test_what_takes_the_place_of_an_ini_in_the_middle_of_its_reading_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], object], name: str, what: str
) -> None:
    """Given an owner of an ini who is told by inotify of our first look at it, before Circus's parser has its turn."""
    (tmp_path / "circus.ini").write_text("[circus]\ninclude = more.ini\n")
    (tmp_path / "more.ini").write_text("[watcher:web]\ncmd = sleep 9\n")
    scans = config_files.read_scans

    def then_replaced(path: Path, shown: str, *, looks: bool) -> object:
        found = scans(path, shown, looks=looks)
        (tmp_path / name).unlink()
        if what == "pipe":
            os.mkfifo(tmp_path / name, 0o600)
        else:
            (tmp_path / name).touch()
            os.truncate(tmp_path / name, 2 << 20)
        return found

    monkeypatch.setattr("xboard_circus.config_files.read_scans", then_replaced)

    with contextlib.suppress(XboardError):
        load(tmp_path / "circus.ini")

    assert not (tmp_path / name).is_file() or what == "large"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_include_that_is_exchanged_after_it_was_opened_is_judged_where_it_lies(tmp_path: Path) -> None:
    """Given a link of nobody's to a file of root's, which nobody turns, or puts his folder in its place, when root has
    opened the one, then nobody may not read what is open; and what circusd's commands can read has none of it."""
    for path in (*list(tmp_path.parents)[:-2], tmp_path):
        path.chmod(0o755)
    (closed := tmp_path / "closed").mkdir(0o700)
    (closed / "more.ini").write_text("[watcher:roots]\ncmd = sleep 1\n")
    (own := tmp_path / "own").mkdir()
    (own / "more.ini").write_text("[watcher:web]\ncmd = sleep 9\n")
    (way := tmp_path / "way").symlink_to(closed)
    nobody = writers.User.of(65534)
    assert nobody is not None
    with (way / "more.ini").open("rb") as opened:
        assert not nobody.may_read(opened.fileno(), way / "more.ini")
        way.unlink()
        way.symlink_to(own)
        assert not nobody.may_read(opened.fileno(), way / "more.ini")
    with (way / "more.ini").open("rb") as opened:
        assert nobody.may_read(opened.fileno(), way / "more.ini")
    ini = tmp_path / "circus.ini"
    ini.write_text("[circus]\ninclude = closed/more.ini own/more.ini\n")
    assert len(config.load(ini).watchers) == 2
    os.chown(ini, 65534, -1)
    with pytest.raises(
        XboardError, match=r"closed/more\.ini: cannot be read: nobody, who may write what includes it, may not"
    ):
        config.load(ini)
    assert config.load_readable(ini).watchers == ()
    assert [each.name for each in config._load(ini, "", [], looks=True).watchers] == ["web"]  # as in a race of the two


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_pipe_of_our_own_in_the_place_of_the_ledger_holds_nobody_up(tmp_path: Path, suffix: str) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.touch()
    Path(f"{ledger}{suffix}").unlink(missing_ok=True)
    os.mkfifo(f"{ledger}{suffix}", 0o600)

    with pytest.raises(LedgerError, match="no plain file"):
        READERS["ledger"](ledger)


@pytest.mark.timeout(20)
def test_a_pipe_that_takes_the_place_of_anothers_ledger_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an owner who is told by inotify of our look at the ledger, before SQLite opens it, and waits for ever."""
    ledger = tmp_path / "ledger.db"
    ledger.touch()

    def then_replaced(path: Path, flags: int) -> int:
        found = written_files.plain_opener(path, flags)
        ledger.unlink()
        os.mkfifo(ledger, 0o600)
        return found

    monkeypatch.setattr("xboard_circus.ledger.database.os.geteuid", lambda: os.getuid() + 4000)
    monkeypatch.setattr("xboard_circus.ledger.database.plain_opener", then_replaced)
    monkeypatch.setattr("xboard_circus.ledger.database.OPENS_WITHIN", 0.5)

    with pytest.raises(LedgerError, match="does not let it be opened"):
        READERS["ledger"](ledger)


@pytest.mark.timeout(20)
@pytest.mark.skipif(os.geteuid() != 0, reason="it makes a link of another user's")
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_another_users_link_in_the_place_of_the_ledger_is_not_followed(tmp_path: Path, suffix: str) -> None:
    """Given a ledger or a log of SQLite's that leads to a pipe of root's, then root's read waits for neither."""
    ledger = tmp_path / "ledger.db"
    os.mkfifo(tmp_path / "pipe", 0o600)
    if suffix:
        ledger.touch()
    os.symlink(tmp_path / "pipe", f"{ledger}{suffix}")
    os.lchown(f"{ledger}{suffix}", 4000, 4000)

    with pytest.raises(LedgerError, match="is a link of another user's"):
        READERS["ledger"](ledger)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users' rights")
def test_a_ledger_whose_folder_is_away_is_not_opened_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a user who takes the folder of a ledger away while it is looked at, then no look says that it is root's."""
    ledger = tmp_path / "theirs" / "ledger.db"
    ledger.parent.mkdir()
    ledger.touch()

    def besides(*_: object) -> Iterator[object]:
        ledger.parent.rename(tmp_path / "away")
        return iter(())

    monkeypatch.setattr("xboard_circus.host.writers.besides", besides)
    with pytest.raises(LedgerError, match="is gone"):
        open_to_read(ledger)


def test_an_ini_that_is_put_there_during_the_look_is_not_taken_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an ini that is away when its owner is looked for, and is there when it is read, then it is refused."""
    ini, settle = tmp_path / "circus.ini", written_files.settle
    ini.write_text("[circus]\n[watcher:web]\ncmd = sleep 60\n")
    assert Instance(ini).owner == os.geteuid()
    monkeypatch.setattr(written_files, "settle", lambda path: settle(path)._replace(owner=None))

    with pytest.raises(XboardError, match="was put there while this command looked at it"):
        Instance(ini)


def test_without_a_descriptor_left_nobody_is_taken_for_the_owner(tmp_path: Path) -> None:
    """Given a file in more folders than this process may open, then that is an error, not a file without an owner."""
    deep = tmp_path.joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    (deep / "circus.ini").touch()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(90, before[1]), before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            written_files.settle(deep / "circus.ini")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert written_files.settle(deep / "circus.ini").owner == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="it opens a file as another user")
def test_root_opens_a_ledger_in_another_users_folder_with_the_rights_of_that_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a user who may exchange the folder of a ledger for a link, between root's look and SQLite's opens, then
    SQLite makes no file of root's where that leads: it made `ledger.db-shm` there, and gave it to that user."""
    rights = []

    def taken() -> tuple[str, str, set[str]]:
        lines = Path("/proc/thread-self/status").read_text().splitlines()
        facts = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        return facts["Uid"][3], facts["Gid"][3], set(facts["Groups"])

    def noted(path: Path, flags: int) -> int:
        rights.append(taken())
        return written_files.plain_opener(path, flags)

    before = taken()
    monkeypatch.setattr("xboard_circus.ledger.database.plain_opener", noted)
    with tempfile.TemporaryDirectory(dir="/tmp") as above:
        ledger = Path(above, "theirs", "ledger.db")
        ledger.parent.mkdir()
        with contextlib.closing(sqlite3.connect(ledger)) as made:
            made.executescript("PRAGMA journal_mode = WAL; CREATE TABLE events (time)")
        for path in (Path(above), ledger.parent, ledger):
            path.chmod(0o755)
        for path in (ledger.parent, ledger):
            shutil.chown(path, "daemon", "daemon")

        with contextlib.closing(open_to_read(ledger)) as connection:
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("events",)]
            assert connection.in_transaction  # a later one would open its files anew, in root's thread

        daemon = pwd.getpwnam("daemon")
        os.chown(ledger, 0, 0)
        assert others_at(ledger) == (daemon.pw_uid, daemon.pw_gid)  # who may exchange the folder
        assert others_at(Path("/" + "usr/../" * 130 + str(ledger))) == (daemon.pw_uid, daemon.pw_gid)

        os.chown(ledger, daemon.pw_uid, daemon.pw_gid)
        os.chown(ledger.parent, 1_700_003, 0)  # of a container of that user's, say, and closed to him outside
        ledger.parent.chmod(0o700)
        assert others_at(ledger) == (daemon.pw_uid, daemon.pw_gid)

    groups = os.getgrouplist("daemon", daemon.pw_gid)
    assert rights[:1] == [(str(daemon.pw_uid), str(daemon.pw_gid), {*map(str, groups)})]
    assert taken() == before


@pytest.mark.timeout(20)
def test_of_a_file_of_8_tb_no_more_than_a_bound_is_read(reads: Read, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        os.truncate(file.fileno(), 8 << 40)
    (tmp_path / "file").chmod(0o600)

    with contextlib.suppress(OSError, XboardError, sqlite3.Error):
        found: Any = reads(tmp_path / "file")
        assert len(found) <= 10


@pytest.mark.parametrize("has_o_path", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "circus.ini",
        "link.ini",
        "a/../circus.ini",
        "away/circus.ini",
        "missing.ini",
        "nowhere/x.ini",
        "dangling",
        "loop",
    ],
)
def test_where_a_path_leads_is_what_realpath_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, has_o_path: bool
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "circus.ini").touch()
    for link, target in {"link.ini": "circus.ini", "away": str(tmp_path), "dangling": "a/none", "loop": "loop"}.items():
        (tmp_path / link).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    if not has_o_path:
        monkeypatch.delattr(os, "O_PATH", raising=False)
    found = written_files.settle(Path(name))
    assert found.file == os.path.realpath(name)
    assert found.owner == (os.geteuid() if os.path.exists(name) else None)


def rotate_by_circus(stream: Any) -> None:
    """Rotate a log of a watcher, by what circusd has in the place of Circus's own."""
    of_stream = [(kind, target) for kind, target in boot.KINDS_AND_TARGETS if kind.file == "circus_stream"]
    patches = [kind(target) for kind, target in of_stream if target in type(stream).__mro__]
    try:
        for each in patches:
            each.install()
        stream._do_rollover()
    finally:
        if stream._file:  # not after a failed rotation
            stream.close()
        for each in reversed(patches):
            each.undo()


ROTATE: dict[str, Callable[[Path], object]] = {
    "pruner": lambda logs: removed(LogFile("web", "", logs / "web.log", None, 2), keep_days=1, now=1e9),
    "log of ours": lambda logs: RotatingLog(logs / "web.log", max_bytes=1, old_files=2).doRollover(),
    "log of Circus": lambda logs: rotate_by_circus(FileStream(str(logs / "web.log"), max_bytes=1, backup_count=2)),
    "dated log": lambda logs: rotate_by_circus(TimedRotatingFileStream(str(logs / "web.log"), 1, rotate_when="D")),
    "circusd.out": lambda logs: circusd_out.Output(logs.parent)._keep_the_end(),
}


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root is led to another user's files")
@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("by", ROTATE)
def test_root_rotates_and_deletes_no_log_through_another_users_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, when: str
) -> None:
    """Given a user who exchanges the folder of root's logs for a link to another's, when root rotates or prunes, or has
    just begun to, then nothing is deleted or renamed there."""
    logs, victim = tmp_path / "logs", tmp_path / "victim"
    names = [
        "web.log",
        "web.log.1",
        "web.log.2",
        "web.log.20200101",
        "web.log.20200102",
        "circusd.out",
        "circusd.out.1",
    ]
    for folder in (logs, victim):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(f"{name} of {folder.name}")
            os.utime(folder / name, (0, 0))

    def exchange() -> None:
        logs.rename(tmp_path / "moved")
        logs.symlink_to(victim)
        os.lchown(logs, 65534, 65534)

    def listed(folder: Path) -> dict[str, str]:
        return {each.name: each.read_text() for each in folder.iterdir()}

    before = listed(victim)
    if when == "before":
        exchange()
        with pytest.raises(PermissionError, match="another user's link"):
            ROTATE[by](logs)
    else:
        opens = written_files._open_folder

        def overtaken(folder: str) -> int:
            descriptor = opens(folder)
            if folder == str(logs) and not logs.is_symlink():
                exchange()
            return descriptor

        monkeypatch.setattr(written_files, "_open_folder", overtaken)
        with contextlib.suppress(PermissionError):  # it may go on in the folder that it holds, or not
            ROTATE[by](logs)
        assert logs.is_symlink()
    assert listed(victim) == before


@pytest.mark.parametrize("by", ROTATE)
def test_logs_behind_a_link_of_who_runs_circusd_are_rotated_and_deleted(tmp_path: Path, by: str) -> None:
    """Given an operator who keeps the logs on another disk, behind a link, then they are rotated and pruned there; a
    folder that is missing is no error of the pruner's."""
    logs, real = tmp_path / "logs", tmp_path / "disk"
    if by == "pruner":
        assert ROTATE[by](logs) == []
    real.mkdir()
    logs.symlink_to(real)
    for name in ("web.log", "web.log.1", "web.log.2", "web.log.20200101", "circusd.out", "circusd.out.1"):
        (real / name).write_text(name)
        os.utime(real / name, (0, 0))
    done = ROTATE[by](logs)
    left = {each.name: each.read_text() for each in real.iterdir()}
    numbered = [left.get(f"web.log.{number}") for number in (1, 2)]
    if by == "pruner":
        assert (done, numbered) == ([logs / "web.log.1", logs / "web.log.2"], [None, None])
    elif by == "circusd.out":
        assert left["circusd.out.1"] == "circusd.out"
    elif by == "dated log":
        assert (left["web.log"], left.get("web.log.20200101")) == ("", "web.log.20200101")
        assert "web.log" not in left.values()  # that of 1970 is the oldest one, of which one is kept
    else:
        assert numbered == ["web.log", "web.log.1"]
