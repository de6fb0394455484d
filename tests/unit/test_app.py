"""The sample backend, asked over HTTP as its clients ask it: a real uvicorn, a real database, a real folder."""

import http.client
import json
import os
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest
import requests
import uvicorn
from fastapi import FastAPI

from xboard_circus.app import SampleSettings, create_app
from xboard_circus.sample.boards import MOST_TEXT, Board, BoardStore
from xboard_circus.sample.uploads import STALE_PART_AGE, UnsafeName, UploadFolder, safe_name

CAP = 200_000


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


@dataclass(frozen=True)
class Backend:
    settings: SampleSettings
    port: int
    app: FastAPI

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send *path* as it is: http.client, unlike most clients, tidies nothing up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def send(self, method: str, path: str, document: object) -> Reply:
        return self.ask(method, path, json.dumps(document).encode(), Content_Type="application/json")

    def parts(self) -> list[str]:
        return [name for name in os.listdir(self.settings.uploads) if name.startswith(".")]


@contextmanager
def running(settings: SampleSettings) -> Iterator[Backend]:
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, loop="asyncio", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive())
        yield Backend(settings, server.servers[0].sockets[0].getsockname()[1], app)
    finally:
        server.should_exit = True
        thread.join(60)


def eventually(condition: object, *, within: float = 60.0) -> None:
    assert callable(condition)
    give_up_at = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come to pass"
        time.sleep(0.005)


def settings_in(folder: Path) -> SampleSettings:
    return SampleSettings(folder / "data" / "xboard.db", folder / "uploads", max_upload=CAP, log_level="warning")


@pytest.fixture
def settings(tmp_path: Path) -> SampleSettings:
    return settings_in(tmp_path)


@pytest.fixture
def backend(settings: SampleSettings) -> Iterator[Backend]:
    with running(settings) as backend:
        yield backend


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One backend for all the requests that must change nothing."""
    with running(settings_in(tmp_path_factory.mktemp("untouched"))) as backend:
        yield backend


class TestSettings:
    def test_defaults_are_files_in_the_working_directory(self) -> None:
        here = Path.cwd()

        assert SampleSettings.from_environment({}) == SampleSettings(
            here / "xboard.db", here / "uploads", 104_857_600, "info"
        )

    def test_uvicorns_trace_is_debug_here(self) -> None:
        assert SampleSettings.from_environment({"LOG_LEVEL": "TRACE"}).log_level == "debug"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("LOG_LEVEL", "loud"),
            ("XBOARD_MAX_UPLOAD", "100 MB"),
            ("XBOARD_MAX_UPLOAD", "-1"),
            ("XBOARD_MAX_UPLOAD", ""),
            ("XBOARD_MAX_UPLOAD", "²"),
        ],
    )
    def test_a_wrong_value_names_its_variable(self, name: str, value: str) -> None:
        with pytest.raises(ValueError, match=name):
            SampleSettings.from_environment({name: value})


class TestBoards:
    def test_a_board_lives_from_its_creation_to_its_deletion(self, backend: Backend) -> None:
        made = backend.send("POST", "/boards", {"name": "  Pläne ", "description": "2027"})
        assert made.status == 201
        board = made.json
        assert (board["id"], board["name"], board["description"]) == (1, "Pläne", "2027")

        assert backend.ask("GET", "/boards/1").json == board
        changed = backend.send("PUT", "/boards/1", {"name": "Ideen"})
        assert (changed.status, changed.json["name"], changed.json["description"]) == (200, "Ideen", "")
        assert changed.json["created_time"] == board["created_time"]
        gone = backend.ask("DELETE", "/boards/1")
        assert (gone.status, gone.body) == (204, b"")
        assert backend.ask("GET", "/boards/1").status == 404

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_a_board_that_is_not_there_is_404(self, untouched: Backend, method: str) -> None:
        reply = untouched.ask(method, "/boards/7")

        assert (reply.status, reply.json) == (404, {"detail": "there is no board 7"})

    def test_changing_a_board_that_is_not_there_is_404(self, untouched: Backend) -> None:
        assert untouched.send("PUT", "/boards/7", {"name": "x"}).status == 404

    def test_a_name_is_given_once(self, backend: Backend) -> None:
        for name in ("one", "two"):
            backend.send("POST", "/boards", {"name": name})

        assert backend.send("POST", "/boards", {"name": "one"}).status == 409
        assert backend.send("PUT", "/boards/2", {"name": "one"}).status == 409
        assert backend.send("PUT", "/boards/2", {"name": "two", "description": "its own name"}).status == 200

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b'{"name": ""}', id="empty"),
            pytest.param(b'{"name": "   "}', id="blank"),
            pytest.param(b'{"name": "%s"}' % (b"x" * 101), id="too long"),
            pytest.param(b'{"name": null}', id="null"),
            pytest.param(b'{"name": 5}', id="a number"),
            pytest.param(b"{}", id="no name"),
            pytest.param(b'{"name": "a\\u0000b"}', id="NUL"),
            pytest.param(b'{"name": "a\\nb"}', id="two lines"),
            pytest.param(b'{"name": "a\\u202eb"}', id="right to left"),
            pytest.param(b'{"name": "a\\u200bb"}', id="no width"),
            pytest.param(b'{"name": "\\ud800"}', id="half a surrogate pair"),
            pytest.param(b'{"name": NaN}', id="not a number"),
            pytest.param(b'{"name": "x", "nmae": "y"}', id="unknown field"),
            pytest.param(b'{"name": "x", "\\ud800": "y"}', id="unknown field that is no text"),
            pytest.param(b'{"name": "x", "description": "%s"}' % (b"x" * 10_001), id="long description"),
            pytest.param(b'["name"]', id="a list"),
            pytest.param(b'{"name": ', id="half a document"),
        ],
    )
    def test_a_wrong_board_is_422(self, untouched: Backend, body: bytes) -> None:
        reply = untouched.ask("POST", "/boards", body, Content_Type="application/json")

        assert reply.status == 422, reply
        assert reply.json["detail"]
        assert untouched.ask("GET", "/boards").json["total"] == 0

    @pytest.mark.parametrize(
        "body", [pytest.param(b"[" * 60_000, id="deep"), pytest.param(b'{"name": "\xff"}', id="not UTF-8")]
    )
    def test_a_body_that_is_no_json_is_the_clients_fault(self, untouched: Backend, body: bytes) -> None:
        assert untouched.ask("POST", "/boards", body, Content_Type="application/json").status in (400, 422)

    @pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "chunked"])
    def test_a_large_body_is_refused_and_blocks_nobody(self, untouched: Backend, is_chunked: bool) -> None:
        """Given 2.3 MB of unknown keys, when they are posted, then 413 at once: to name each took 6 s of the loop."""
        body = json.dumps(dict.fromkeys(map(str, range(200_000)), 1)).encode()
        began = time.process_time()  # of the client, and of the backend in its thread

        with closing(http.client.HTTPConnection("127.0.0.1", untouched.port, timeout=60)) as connection:
            sent = iter([body[:50_000], body[50_000:100_000]]) if is_chunked else body
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/boards", sent, headers, encode_chunked=is_chunked)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (413, b'{"detail":"a body must not be larger than 65536 bytes"}')

        assert untouched.ask("GET", "/health/live").status == 200
        assert time.process_time() - began < 2

    def test_of_many_faults_the_first_are_named(self, untouched: Backend) -> None:
        reply = untouched.send("POST", "/boards", dict.fromkeys(map(str, range(5000)), 1))

        assert (reply.status, len(reply.body) < 4000) == (422, True)

    @pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "9" * 5000, "1.5", "x", "%00"])
    def test_a_wrong_number_is_422(self, untouched: Backend, number: str) -> None:
        assert untouched.ask("GET", f"/boards/{number}").status == 422

    def test_the_largest_number_is_simply_not_there(self, untouched: Backend) -> None:
        assert untouched.ask("GET", "/boards/9223372036854775807").status == 404

    def test_sql_in_a_name_is_a_name(self, backend: Backend) -> None:
        name = "'); DROP TABLE boards; --"

        assert backend.send("POST", "/boards", {"name": name}).json["name"] == name
        assert backend.ask("GET", "/boards").json["total"] == 1

    def test_pages_follow_each_other(self, backend: Backend) -> None:
        for number in range(5):
            backend.send("POST", "/boards", {"name": f"board {number}"})

        def names(query: str) -> list[str]:
            boards = backend.ask("GET", f"/boards?{query}").json["boards"]
            assert isinstance(boards, list)
            return [board["name"] for board in boards]

        assert names("limit=2") == ["board 0", "board 1"]
        assert names("limit=2&offset=4") == ["board 4"]
        assert names("offset=9223372036854775807") == []
        assert backend.ask("GET", "/boards?limit=1").json["total"] == 5

    @pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "offset=-1", "offset=9223372036854775808"])
    def test_a_wrong_page_is_422(self, untouched: Backend, query: str) -> None:
        assert untouched.ask("GET", f"/boards?{query}").status == 422

    def test_concurrent_writers_lose_nothing(self, settings: SampleSettings) -> None:
        with running(settings) as one, running(settings) as other, ThreadPoolExecutor(16) as pool:
            # FastAPI builds its routes at the first request, which two loops of one process must not do at once.
            for backend in (one, other):
                assert backend.ask("GET", "/boards").json["total"] == 0
            replies = pool.map(
                lambda n: (one, other)[n % 2].send("POST", "/boards", {"name": f"board {n}"}).status, range(100)
            )

            assert list(replies) == [201] * 100
            assert one.ask("GET", "/boards").json["total"] == 100

    def test_of_concurrent_writers_of_one_name_one_wins(self, backend: Backend) -> None:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: backend.send("POST", "/boards", {"name": "mine"}).status, range(16)))

        assert sorted(statuses) == [201] + [409] * 15

    def test_a_page_of_long_texts_is_cut_and_the_rest_follows(self, settings: SampleSettings) -> None:
        store = BoardStore(settings.database)
        with closing(store.prepare()) as keeper:
            rows = [(f"board {number}", "\x01" * 10_000, "", "") for number in range(300)]
            keeper.executemany(
                "INSERT INTO boards (name, description, created_time, changed_time) VALUES (?, ?, ?, ?)", rows
            )
            keeper.commit()
            pages, found = list[int](), 0
            while found < 300:
                boards, total = store.page(limit=1000, offset=found)
                pages.append(sum(len(each.description) for each in boards))
                found += len(boards)

            assert (len(pages), total) == (3, 300)
            assert max(pages) <= MOST_TEXT + 10_000

    def test_nobody_else_may_open_its_database(self, settings: SampleSettings) -> None:
        """Given another user of the host, who could else lock it for as long as he likes."""
        with closing(BoardStore(settings.database).prepare()):
            modes = {path.name: path.stat().st_mode & 0o777 for path in settings.database.parent.glob("*.db*")}

        assert len(modes) == 3
        assert [name for name, mode in modes.items() if mode & 0o007] == []

    def test_a_locked_database_is_503_and_passes(self, tmp_path: Path, settings: SampleSettings) -> None:
        store = BoardStore(settings.database, timeout=0.05)
        with closing(store.prepare()) as keeper:
            keeper.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                store.create(name="x", description="")
            assert store.page(limit=1, offset=0) == ([], 0)
            keeper.rollback()

            assert store.create(name="x", description="").id == 1

    def test_a_database_that_went_missing_is_503_and_not_made_anew(self, backend: Backend) -> None:
        for name in os.listdir(backend.settings.database.parent):
            (backend.settings.database.parent / name).unlink()

        reply = backend.ask("GET", "/boards")

        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.json == {"detail": "database: unable to open database file"}
        assert os.listdir(backend.settings.database.parent) == []

    def test_workers_that_start_at_once_share_one_schema(self, settings: SampleSettings) -> None:
        barrier = threading.Barrier(16)

        def start(number: int) -> Board:
            store = BoardStore(settings.database)
            barrier.wait()
            with closing(store.prepare()):
                return store.create(name=f"board {number}", description="")

        with ThreadPoolExecutor(16) as pool:
            boards = list(pool.map(start, range(16)))

        assert {board.id for board in boards} == set(range(1, 17))

    def test_what_was_written_is_there_after_a_restart(self, settings: SampleSettings) -> None:
        with running(settings) as backend:
            backend.send("POST", "/boards", {"name": "kept"})
        with running(settings) as backend:
            assert backend.ask("GET", "/boards/1").json["name"] == "kept"


NAMES = [
    pytest.param("report.pdf", id="plain"),
    pytest.param("Entwurf für Zoë (2).txt", id="umlauts and blanks"),
    pytest.param("日本語のファイル.txt", id="japanese"),
    pytest.param("🎉.png", id="emoji"),
    pytest.param('quo"te;x=1.txt', id="quotes, as in a header"),
    pytest.param("100%25.txt", id="percent"),
    pytest.param("a?b#c&d.txt", id="as in an address"),
    pytest.param("-rf", id="as an option"),
    pytest.param("a..b", id="dots within"),
    pytest.param("x" * 255, id="as long as can be"),
]

HOSTILE = [
    pytest.param("../evil", id="up"),
    pytest.param("..", id="parent"),
    pytest.param(".", id="itself"),
    pytest.param("a/../../evil", id="down and up"),
    pytest.param("/etc/passwd", id="absolute"),
    pytest.param("..\\evil", id="backslash"),
    pytest.param("a\0.txt", id="NUL"),
    pytest.param("a\nb", id="line feed"),
    pytest.param("a\r\nX-Evil: 1", id="header"),
    pytest.param("a\x1b[2Jb", id="escape"),
    pytest.param("a\u2028b", id="line separator"),
    pytest.param("a\u202egpj.exe", id="right to left"),
    pytest.param("a\u2066b", id="isolate"),
    pytest.param("a\u200bb", id="no width"),
    pytest.param("a\ufeffb", id="byte order mark"),
    pytest.param(".hidden", id="hidden"),
    pytest.param(" a", id="leading blank"),
    pytest.param("a ", id="trailing blank"),
    pytest.param("", id="empty"),
    pytest.param("x" * 256, id="too long"),
    pytest.param("ä" * 128, id="too long in bytes"),
]


def test_no_more_of_a_name_is_normalized_than_may_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a name of accents alone, whose order takes the square of its length, then it is refused by its begin: 32 KB
    held the event loop for 2 s."""
    normalize, normalized = unicodedata.normalize, list[str]()

    def noted(form: Literal["NFC"], text: str) -> str:
        normalized.append(text)
        return normalize(form, text)

    monkeypatch.setattr("unicodedata.normalize", noted)
    with pytest.raises(UnsafeName, match="longer than 255 bytes"):
        safe_name("a" + "\u0345" * 8_000 + "\u0334" * 8_000)
    assert [len(each) < 2_000 for each in normalized] == [True]


class TestUploads:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_file_comes_back_as_it_went(self, backend: Backend, name: str) -> None:
        path = f"/uploads/{quote(name, safe='')}"
        body = bytes(range(256)) * 300

        put = backend.ask("PUT", path, body)
        assert (put.status, put.json["name"], put.json["size"]) == (201, name, len(body))

        got = backend.ask("GET", path)
        assert (got.status, got.body) == (200, body)
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["content-disposition"].startswith("attachment; filename")
        assert got.headers["x-content-type-options"] == "nosniff"
        assert backend.ask("DELETE", path).status == 204
        assert os.listdir(backend.settings.uploads) == []

    @pytest.mark.parametrize("name", HOSTILE)
    @pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
    def test_a_hostile_name_is_refused_and_leads_nowhere(self, untouched: Backend, method: str, name: str) -> None:
        outside = untouched.settings.uploads.parent
        before = sorted(outside.rglob("*"))

        reply = untouched.ask(method, f"/uploads/{quote(name, safe='')}", b"x" if method == "PUT" else None)

        assert reply.status in (400, 404), reply  # the router itself takes no line break
        assert sorted(outside.rglob("*")) == before

    @pytest.mark.parametrize(
        "path", ["/uploads/../evil", "/uploads/..", "/uploads//etc/passwd", "/uploads/%2e%2e%2fevil", "/uploads/%ff"]
    )
    def test_a_path_that_no_client_tidied_up_leads_nowhere(self, untouched: Backend, path: str) -> None:
        before = sorted(untouched.settings.uploads.parent.rglob("*"))

        assert untouched.ask("PUT", path, b"x").status == 400
        assert sorted(untouched.settings.uploads.parent.rglob("*")) == before

    def test_an_empty_file_is_a_file(self, backend: Backend) -> None:
        assert backend.ask("PUT", "/uploads/empty", b"").json["size"] == 0
        assert backend.ask("GET", "/uploads/empty").body == b""

    def test_a_file_is_never_overwritten(self, backend: Backend) -> None:
        backend.ask("PUT", "/uploads/a", b"first")

        assert backend.ask("PUT", "/uploads/a", b"second").status == 409
        assert backend.ask("GET", "/uploads/a").body == b"first"

    def test_two_spellings_of_one_name_are_one_name(self, backend: Backend) -> None:
        backend.ask("PUT", "/uploads/Zoe%CC%88", b"decomposed")

        assert backend.ask("PUT", "/uploads/Zo%C3%AB", b"composed").status == 409

    def test_of_concurrent_uploads_of_one_name_one_wins_whole(self, backend: Backend) -> None:
        bodies = [bytes([number]) * 100_000 for number in range(12)]
        with ThreadPoolExecutor(12) as pool:
            statuses = list(pool.map(lambda body: backend.ask("PUT", "/uploads/a", body).status, bodies))

        assert sorted(statuses) == [201] + [409] * 11
        assert backend.ask("GET", "/uploads/a").body == bodies[statuses.index(201)]
        assert backend.parts() == []

    def test_a_file_of_just_the_cap_is_let_in(self, backend: Backend) -> None:
        assert backend.ask("PUT", "/uploads/a", b"x" * CAP).status == 201

    def test_a_file_over_the_cap_is_413_before_it_is_sent(self, untouched: Backend) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", untouched.port, timeout=60)
        with closing(connection):
            connection.putrequest("PUT", "/uploads/a")
            connection.putheader("Content-Length", str(10**12))
            connection.endheaders()

            assert connection.getresponse().status == 413
        assert os.listdir(untouched.settings.uploads) == []

    def test_a_file_that_hides_its_length_is_cut_off_at_the_cap(self, untouched: Backend) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(CAP // 10_000 + 1):
                yield b"x" * 10_000

        reply = requests.put(f"http://127.0.0.1:{untouched.port}/uploads/a", data=chunks(), timeout=60)

        assert reply.status_code == 413
        assert os.listdir(untouched.settings.uploads) == []

    def test_an_upload_that_breaks_off_leaves_nothing(self, untouched: Backend) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", untouched.port, timeout=60)
        connection.putrequest("PUT", "/uploads/a")
        connection.putheader("Content-Length", "100000")
        connection.endheaders(b"x" * 50_000)
        eventually(lambda: untouched.parts())

        connection.close()

        eventually(lambda: os.listdir(untouched.settings.uploads) == [])

    def test_the_list_shows_finished_files_by_name_in_pages(self, backend: Backend) -> None:
        for name in ("b", "a", "c"):
            backend.ask("PUT", f"/uploads/{name}", b"x")
        (backend.settings.uploads / ".part-of-somebody").touch()
        (backend.settings.uploads / "folder").mkdir()
        (backend.settings.uploads / "link").symlink_to("/etc/passwd")

        listed = backend.ask("GET", "/uploads?limit=2&offset=1").json

        assert listed["total"] == 3
        uploads = listed["uploads"]
        assert isinstance(uploads, list)
        assert [(upload["name"], upload["size"]) for upload in uploads] == [("b", 1), ("c", 1)]

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize("name", ["missing", "folder", "link"])
    def test_what_is_no_file_is_not_there(self, backend: Backend, method: str, name: str) -> None:
        (backend.settings.uploads / "folder").mkdir()
        (backend.settings.uploads / "link").symlink_to("/etc/passwd")

        assert backend.ask(method, f"/uploads/{name}").status == 404

    def test_a_folder_that_went_missing_is_503(self, backend: Backend) -> None:
        backend.settings.uploads.rmdir()

        reply = backend.ask("PUT", "/uploads/a", b"x")

        assert (reply.status, reply.json) == (503, {"detail": "uploads: No such file or directory"})

    def test_what_killed_workers_left_is_removed_after_a_day(self, tmp_path: Path) -> None:
        uploads = UploadFolder(tmp_path, max_bytes=1)
        for name, age in ((".part-old", STALE_PART_AGE + 60), (".part-new", 0), ("kept", STALE_PART_AGE + 60)):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (time.time() - age,) * 2)

        uploads.prepare()

        assert sorted(os.listdir(tmp_path)) == [".part-new", "kept"]

    def test_one_list_is_made_at_a_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Given many clients that ask for it at once, the memory of one is taken."""
        uploads, scan, together, most = UploadFolder(tmp_path, max_bytes=1), os.scandir, threading.Semaphore(0), []

        def scandir(folder: Path) -> object:
            together.release()
            time.sleep(0.01)  # for others to come in, if they may
            most.append(together._value)
            together.acquire()
            return scan(folder)

        monkeypatch.setattr(os, "scandir", scandir)
        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(uploads.page, limit=1, offset=0)

        assert most == [1] * 8

    def test_a_name_with_half_a_surrogate_pair_is_unsafe(self) -> None:
        with pytest.raises(UnsafeName):
            safe_name("a\ud800")


class TestHealth:
    def test_a_healthy_backend_says_so_everywhere(self, untouched: Backend) -> None:
        checks = {"database": "ok", "uploads": "ok"}

        assert untouched.ask("GET", "/health/live").json == {"status": "ok"}
        assert untouched.ask("GET", "/health/ready").json == {"status": "ok", "checks": checks}
        summary = untouched.ask("GET", "/health").json
        assert (summary["status"], summary["checks"], summary["pid"]) == ("ok", checks, os.getpid())
        assert os.listdir(untouched.settings.uploads) == []

    @pytest.mark.parametrize("path", ["/health/ready", "/health"])
    def test_without_its_uploads_folder_it_is_alive_but_not_ready(self, backend: Backend, path: str) -> None:
        backend.settings.uploads.rmdir()

        reply = backend.ask("GET", path)

        assert (reply.status, reply.json["reason"]) == (503, "uploads: No such file or directory")
        assert backend.ask("GET", "/health/live").status == 200

    def test_without_its_database_it_is_not_ready(self, backend: Backend) -> None:
        backend.settings.database.unlink()

        reply = backend.ask("GET", "/health/ready")

        assert (reply.status, reply.json["reason"]) == (503, "database: unable to open database file")

    def test_while_another_holds_the_write_lock_it_is_not_ready(self, backend: Backend) -> None:
        with closing(sqlite3.connect(backend.settings.database)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            reply = backend.ask("GET", "/health/ready")

        assert (reply.status, reply.json["reason"]) == (503, "database: database is locked")
        assert time.monotonic() - began < 4.5  # SQLite itself would wait for 5 s
        assert backend.ask("GET", "/health/ready").status == 200

    def test_a_full_thread_pool_does_not_keep_health_waiting(self, backend: Backend) -> None:
        def pool_is_full() -> bool:
            return sum(thread.name.startswith("AnyIO") for thread in threading.enumerate()) >= 40

        backend.app.state.boards.timeout = 15  # a crowded machine takes longer over fifty threads than the usual 5 s
        with closing(sqlite3.connect(backend.settings.database)) as other, ThreadPoolExecutor(50) as pool:
            other.execute("BEGIN IMMEDIATE")
            writers = [pool.submit(backend.send, "POST", "/boards", {"name": f"board {n}"}) for n in range(50)]
            eventually(pool_is_full)
            live, ready = backend.ask("GET", "/health/live"), backend.ask("GET", "/health/ready")
            other.rollback()

            assert (live.status, ready.json["reason"]) == (200, "database: database is locked")
            assert {writer.result().status for writer in writers} == {201}

    def test_its_documentation_is_there(self, untouched: Backend) -> None:
        assert untouched.ask("GET", "/docs").status == 200
        paths = untouched.ask("GET", "/openapi.json").json["paths"]
        assert isinstance(paths, dict)
        assert {"/boards", "/boards/{board_id}", "/uploads", "/health", "/health/live", "/health/ready"} <= set(paths)


def test_a_database_that_is_none_stops_the_start(settings: SampleSettings) -> None:
    settings.database.parent.mkdir()
    settings.database.write_text("this is no database, and it is long enough to be read as one: " * 20)

    with pytest.raises(sqlite3.DatabaseError), closing(BoardStore(settings.database).prepare()):
        pass
