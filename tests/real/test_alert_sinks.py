"""Each sink against a real server or program: what arrives, what is said when it does not, and that nothing leaks."""

import base64
import hashlib
import hmac
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import trustme

from xboard_circus.alerts import services
from xboard_circus.alerts.command import CommandSink
from xboard_circus.alerts.message import Message, Sink
from xboard_circus.alerts.otlp import OtlpSink
from xboard_circus.alerts.secrets import AlertError, Secret
from xboard_circus.alerts.services import ServiceSink
from xboard_circus.alerts.smtp import SmtpSink
from xboard_circus.alerts.text import Origin, rendered
from xboard_circus.alerts.webhook import WebhookSink
from xboard_circus.core.alert_gate import About, Notice
from xboard_circus.core.alerting import Severity, Trouble

from .alert_servers import LONGEST_HANG, HookServer, MailServer, hook_server, mail_server
from .free_ports import free_port
from .processes import process

TOKEN = "T0-s3cr3t-t0k3n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.fixture
def hook() -> Iterator[HookServer]:
    with hook_server() as server:
        yield server


def message(**changes: object) -> Message:
    values = {"about": About.PROBLEM, "watcher": "web", "trouble": Trouble.DOWN, "severity": Severity.CRITICAL}
    values |= {"reason": "no worker up for 30 s", "since": 0.0, "at": 30.0, **changes}
    return rendered(Notice(**values), Origin("host1", "/srv/circus.ini"))  # type: ignore[arg-type]


def secret_file(folder: Path, text: str, name: str = "secret") -> Secret:
    file = folder / name
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return Secret(file=file)


def webhook(folder: Path, url: str, **options: object) -> WebhookSink:
    arguments = {"url": secret_file(folder, f"{url}/hook/{TOKEN}?key={TOKEN}"), "timeout": 20.0, **options}
    return WebhookSink(**arguments)  # type: ignore[arg-type]


def refusal_of(sink: Sink) -> str:
    """Why *sink* does not deliver; nothing of it, nor of where it comes from, may hold the secret."""
    with pytest.raises(AlertError) as caught:
        sink.deliver(message())
    whole = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in whole
    return str(caught.value)


# --- webhooks ---


def test_a_program_gets_the_document(hook: HookServer, tmp_path: Path) -> None:
    sent = message()
    webhook(tmp_path, hook.url).deliver(sent)

    (got,) = hook.got
    assert got.path == f"/hook/{TOKEN}?key={TOKEN}"
    assert json.loads(got.body) == sent.document
    assert got.headers["idempotency-key"] == sent.id
    assert got.headers["content-type"].startswith("application/json")


def test_the_document_is_signed_where_there_is_a_secret(hook: HookServer, tmp_path: Path) -> None:
    webhook(tmp_path, hook.url, secret=secret_file(tmp_path, "key", "signing")).deliver(message())

    wanted = hmac.new(b"key", hook.got[0].body, hashlib.sha256).hexdigest()
    assert hook.got[0].headers["x-xboard-signature"] == f"sha256={wanted}"


def test_feishu_gets_a_rich_text_with_a_signature(tmp_path: Path) -> None:
    with hook_server(answer='{"code": 0, "msg": "success"}') as hook:
        signing = secret_file(tmp_path, "key", "signing")
        webhook(tmp_path, hook.url, shape="feishu", secret=signing, wall_clock=lambda: 1_700_000_000.5).deliver(
            message(reason='<at user_id="all">all</at>')
        )

    body = json.loads(hook.got[0].body)
    assert body["timestamp"] == "1700000000"
    assert body["sign"] == base64.b64encode(hmac.new(b"1700000000\nkey", b"", hashlib.sha256).digest()).decode()
    post = body["content"]["post"]["zh_cn"]
    assert post["title"] == "[CRITICAL] web on host1: down"
    assert [{"tag": "text", "text": 'Reason: <at user_id="all">all</at>'}] in post["content"]


def test_dingtalk_gets_a_text_and_its_signature_in_the_address(tmp_path: Path) -> None:
    with hook_server(answer='{"errcode": 0, "errmsg": "ok"}') as hook:
        signing = secret_file(tmp_path, "key", "signing")
        webhook(tmp_path, hook.url, shape="dingtalk", secret=signing, wall_clock=lambda: 1_700_000_000.5).deliver(
            message()
        )

    query = parse_qs(urlsplit(hook.got[0].path).query)
    wanted = base64.b64encode(hmac.new(b"key", b"1700000000500\nkey", hashlib.sha256).digest()).decode()
    assert (query["timestamp"], query["sign"], query["key"]) == (["1700000000500"], [wanted], [TOKEN])
    body = json.loads(hook.got[0].body)
    assert body["msgtype"] == "text"
    assert "no worker up for 30 s" in body["text"]["content"]


def test_wecom_gets_a_text_that_is_not_too_long_for_it(tmp_path: Path) -> None:
    with hook_server(answer='{"errcode": 0, "errmsg": "ok"}') as hook:
        webhook(tmp_path, hook.url, shape="wecom").deliver(message(reason="长" * 2000))

    content = json.loads(hook.got[0].body)["text"]["content"]
    assert len(content.encode()) <= 2048
    assert content.startswith("[CRITICAL] web on host1: down")


@pytest.mark.parametrize(
    ("shape", "answer", "why"),
    [
        pytest.param(
            "feishu", '{"code": 19021, "msg": "sign match fail"}', "error 19021: sign match fail", id="feishu"
        ),
        pytest.param("dingtalk", '{"errcode": 310000, "errmsg": "keywords not in content"}', "310000", id="dingtalk"),
        pytest.param("wecom", '{"errcode": 93000, "errmsg": "invalid webhook url"}', "93000", id="wecom"),
        pytest.param("wecom", "<html>a portal</html>", "without the JSON of a wecom robot", id="no robot at all"),
        pytest.param("feishu", "[1]", "without the JSON", id="JSON of something else"),
    ],
)
def test_a_robot_that_says_no_with_a_200_has_not_taken_it(shape: str, answer: str, why: str, tmp_path: Path) -> None:
    with hook_server(answer=answer) as hook:
        assert why in refusal_of(webhook(tmp_path, hook.url, shape=shape))


def test_a_server_that_fails_is_quoted_without_the_address(tmp_path: Path) -> None:
    with hook_server("500") as hook:
        assert refusal_of(webhook(tmp_path, hook.url)) == "answered 500: no luck at ***"


def test_nobody_there_is_said_without_the_address(tmp_path: Path) -> None:
    assert refusal_of(webhook(tmp_path, f"http://127.0.0.1:{free_port()}")) == "Connection refused"


@pytest.mark.parametrize("is_proxied", [False, True], ids=["direct", "through a proxy"])
@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_server_that_takes_its_time_is_cut_off(
    how: str, is_proxied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hook_server(how) as hook:
        monkeypatch.setenv("http_proxy", hook.url)
        monkeypatch.setenv("no_proxy", "")
        url = "http://hook.invalid/x" if is_proxied else hook.url
        began = time.monotonic()
        sink = webhook(tmp_path, url, timeout=0.5, is_proxied=is_proxied)
        assert refusal_of(sink) == "no complete answer within 0.5 s"
        assert time.monotonic() - began < 30 < LONGEST_HANG


MUCH, LITTLE = 64 << 20, 32 << 20  # more than the buffers of a connection hold


@contextmanager
def endless_answer(
    begin: bytes, piece: bytes, *, much: int = MUCH, pause: float = 0.0
) -> Iterator[tuple[int, list[int]]]:
    """A server that answers each client without end; its port, and how many bytes each has taken, *much* at most."""
    took: list[int] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                took.append(0)
                with client, suppress(OSError):
                    client.settimeout(90)
                    client.sendall(begin)
                    while took[-1] < much:
                        took[-1] += client.send(piece)
                        time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], took
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(90)


def test_a_collector_that_answers_without_end_fills_no_memory_and_holds_up_no_alert(tmp_path: Path) -> None:
    with endless_answer(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 16)) as (port, took):
        OtlpSink(secret_file(tmp_path, f"http://127.0.0.1:{port}/v1/traces"), timeout=60).deliver(message())
    assert len(took) == 1
    assert took[0] < LITTLE


def test_a_collector_that_drips_is_cut_off_and_no_redirect_of_it_followed(tmp_path: Path) -> None:
    with hook_server("drip") as hook:
        sink = OtlpSink(secret_file(tmp_path, f"{hook.url}/{TOKEN}"), timeout=0.5)
        assert refusal_of(sink) == "no complete answer within 0.5 s"
    with hook_server("redirect", "403") as hook:  # another one: on a crowded machine the drip may begin after the 0.5 s
        patient = OtlpSink(secret_file(tmp_path, f"{hook.url}/{TOKEN}"), timeout=30)
        assert refusal_of(patient).startswith("answered 302")
        assert refusal_of(patient).startswith("answered 403")
    assert len(hook.got) == 2


def test_a_mail_server_that_answers_without_end_fills_no_memory() -> None:
    with endless_answer(b"220 hello\r\n", (b"250-" + b"x" * 994 + b"\r\n") * 64) as (port, took):
        to = {"sender": "a@example.org", "to": ("b@example.org",), "security": "none", "timeout": 60.0}
        refusal_of(SmtpSink(host="127.0.0.1", port=port, **to))  # type: ignore[arg-type]
    assert took[0] < LITTLE


@pytest.mark.parametrize("security", ["starttls", "none"])
def test_a_mail_server_that_answers_byte_by_byte_is_cut_off(security: str) -> None:
    with endless_answer(b"220-", b"x", much=600, pause=0.1) as (port, took):
        to = {"sender": "a@example.org", "to": ("b@example.org",), "security": security, "timeout": 0.5}
        assert refusal_of(SmtpSink(host="127.0.0.1", port=port, **to)) == "no complete answer within 0.5 s"  # type: ignore[arg-type]
    assert took[0] < 600


def test_a_service_of_apprise_that_answers_without_end_fills_no_memory(tmp_path: Path) -> None:
    with endless_answer(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 20), much=2 << 30) as (port, took):
        why = refusal_of(ServiceSink(secret_file(tmp_path, f"json://127.0.0.1:{port}/x"), timeout=60))
    assert why.startswith("Apprise: ")
    assert took[0] < 512 << 20


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with hook_server("redirect") as hook:
        assert refusal_of(webhook(tmp_path, hook.url)).startswith("answered 302")
        assert len(hook.got) == 1


def test_a_server_that_asks_for_a_pause_is_heard(tmp_path: Path) -> None:
    with hook_server("429") as hook, pytest.raises(AlertError) as caught:
        webhook(tmp_path, hook.url).deliver(message())
    assert (caught.value.retry_after, caught.value.refused) == (7, False)


@pytest.mark.parametrize(("answer", "refused"), [("403", True), ("500", False)])
def test_a_server_that_refuses_a_message_is_told_from_one_that_is_in_trouble(
    answer: str, refused: bool, tmp_path: Path
) -> None:
    with hook_server(answer) as hook, pytest.raises(AlertError) as caught:
        webhook(tmp_path, hook.url).deliver(message())
    assert caught.value.refused == refused


@pytest.mark.parametrize(("answer", "refused"), [("554 spam", True), ("451 try again later", False)])
def test_a_mail_that_is_refused_is_told_from_one_that_is_put_off(answer: str, refused: bool, ca_file: Path) -> None:
    with mail_server(answer) as server, pytest.raises(AlertError) as caught:
        mail_sink(server, ca_file, security="none").deliver(message())
    assert caught.value.refused == refused


def test_a_proxy_of_the_environment_counts_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    with hook_server() as hook:
        webhook(tmp_path, hook.url).deliver(message())
        assert refusal_of(webhook(tmp_path, hook.url, is_proxied=True)) == "Connection refused"


def test_a_certificate_counts_where_its_authority_is_named(tls: ssl.SSLContext, ca_file: Path, tmp_path: Path) -> None:
    with hook_server(tls=tls) as hook:
        webhook(tmp_path, hook.url, ca_file=ca_file).deliver(message())
        assert "certificate verify failed" in refusal_of(webhook(tmp_path, hook.url))


@pytest.mark.parametrize("url", ["", "ftp://example.org", "http://", f"http://[::1/{TOKEN}", f"http://a b/{TOKEN}"])
def test_what_is_no_address_is_not_quoted(url: str, tmp_path: Path) -> None:
    sink = WebhookSink(url=secret_file(tmp_path, url))

    assert str(tmp_path / "secret") in refusal_of(sink)


# --- services of Apprise ---


def service(folder: Path, url: str, **options: object) -> ServiceSink:
    address = f"json{url.removeprefix('http')}/{TOKEN}/?+x-key={TOKEN}"
    return ServiceSink(secret_file(folder, address), **{"timeout": 30.0, **options})  # type: ignore[arg-type]


def test_a_service_of_apprise_gets_title_text_and_kind(hook: HookServer, tmp_path: Path) -> None:
    sink = service(tmp_path, hook.url)
    sink.deliver(message())
    sink.deliver(message(about=About.RECOVERED))

    first, last = (json.loads(each.body) for each in hook.taken)
    assert (first["title"], first["type"], last["type"]) == ("[CRITICAL] web on host1: down", "failure", "success")
    assert first["message"].startswith("Reason: no worker up for 30 s\n")
    assert hook.got[0].path == f"/{TOKEN}/"
    assert TOKEN not in f"{sink!r} {sink.place}"


def test_a_service_that_refuses_fails_or_hangs_is_told_apart_without_the_address(tmp_path: Path) -> None:
    with hook_server("500", "403", "hang") as hook:
        sink = service(tmp_path, hook.url)
        assert "error=500" in refusal_of(sink)
        with pytest.raises(AlertError, match="error=403") as caught:
            sink.deliver(message())
        assert caught.value.refused
        slow = service(tmp_path, f"{hook.url}", timeout=3.0)
        assert refusal_of(slow) == "Apprise was killed: not done within 3 s"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Apprise's own
def test_slack_gets_a_text_in_which_no_user_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slack's own address is one of Apprise's; a reason may quote a stranger, so marks of Slack's in it are escaped."""
    address = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    sent: list[tuple[str, str]] = []

    def request(_: str, url: str, *, data: str, **__: object) -> requests.Response:
        sent.append((url, data))
        answer = requests.Response()
        answer.status_code, answer._content = 200, b"ok"
        return answer

    monkeypatch.setattr(requests, "request", request)
    given = message(reason="<!channel> & co").document
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**given, "address": address})))

    assert services.main() == 0
    ((url, body),) = sent
    assert url == address
    assert "Reason: &lt;!channel&gt; &amp; co" in body


@pytest.mark.parametrize("address", ["", "no address", f"json://a b/{TOKEN}", f"nosuch://{TOKEN}/{TOKEN}"])
def test_what_apprise_does_not_know_is_not_quoted(address: str, tmp_path: Path) -> None:
    why = refusal_of(ServiceSink(secret_file(tmp_path, address)))

    assert "secret is empty" in why or "no address of Apprise" in why or "no service that Apprise knows" in why


def test_without_the_extra_the_cure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xboard_circus.alerts.services.is_installed", lambda: False)

    why = refusal_of(service(tmp_path, "http://localhost:1"))

    assert why == "Apprise is not installed: pip install 'apprise<3,>=2.0.1'", "anybody may own our name on an index"


# --- secrets ---


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_can_reach_is_refused(mode: int, hook: HookServer, tmp_path: Path) -> None:
    sink = webhook(tmp_path, hook.url)
    (tmp_path / "secret").chmod(mode)

    assert refusal_of(sink) == (
        f"{tmp_path}/secret can be read by others (mode {mode:04o}): chmod 600 {tmp_path}/secret"
    )
    (tmp_path / "secret").chmod(0o600)
    sink.deliver(message())
    assert len(hook.taken) == 1


def test_a_secret_may_come_from_the_environment(hook: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = WebhookSink(url=Secret(env="HOOK_OF_THE_TEST"))
    assert refusal_of(sink) == "HOOK_OF_THE_TEST is not set in the environment"

    monkeypatch.setenv("HOOK_OF_THE_TEST", f"{hook.url}/{TOKEN}")
    sink.deliver(message())

    assert len(hook.taken) == 1
    assert TOKEN not in f"{sink!r} {sink.place}"


# --- e-mail ---


def mail_sink(server: MailServer, ca_file: Path | None, **options: object) -> SmtpSink:
    arguments = {"host": "localhost", "port": server.port, "sender": "XBoard <alerts@example.org>", "timeout": 20.0}
    arguments |= {"to": ("ops@example.org",), "ca_file": ca_file, **options}
    return SmtpSink(**arguments)  # type: ignore[arg-type]


def test_a_mail_goes_over_starttls_with_a_login(tls: ssl.SSLContext, ca_file: Path, tmp_path: Path) -> None:
    sent = message(reason="no worker up")
    with mail_server(tls=tls, password=TOKEN) as server:
        mail_sink(server, ca_file, user="alerts", password=secret_file(tmp_path, TOKEN)).deliver(sent)

    ((_, to, mail),) = server.got
    assert server.logins == [True]
    assert to == ["ops@example.org"]
    assert mail["subject"] == "[CRITICAL] web on host1: down"
    assert mail["message-id"] == f"<{sent.id}@example.org>"
    assert mail["auto-submitted"] == "auto-generated"
    body = mail.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert "xboard-circus -c /srv/circus.ini why web" in body.decode()


def test_a_mail_goes_over_a_connection_that_is_tls_from_the_start(tls: ssl.SSLContext, ca_file: Path) -> None:
    with mail_server(tls=tls, implicit=True) as server:
        mail_sink(server, ca_file, security="tls").deliver(message(watcher="=?utf-8?q?a=0ABcc:_b@example.org?="))
        assert "certificate verify failed" in refusal_of(mail_sink(server, None, security="tls"))

    ((_, _, mail),) = server.got
    assert (mail["bcc"], mail["subject"][:29]) == (None, "[CRITICAL] = ?utf-8?q?a=0ABcc")


@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_a_mail_server_that_never_says_a_word_is_cut_off(security: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sink = SmtpSink(
            host="127.0.0.1",
            port=mute.getsockname()[1],
            sender="a@example.org",
            to=("b@example.org",),
            security=security,
            timeout=0.5,
        )
        assert refusal_of(sink) in ("no complete answer within 0.5 s", "no answer in time")


def test_a_wrong_password_is_told_and_not_quoted(tls: ssl.SSLContext, ca_file: Path, tmp_path: Path) -> None:
    with mail_server(tls=tls, password="another") as server:
        sink = mail_sink(server, ca_file, user="alerts", password=secret_file(tmp_path, TOKEN))
        assert refusal_of(sink).startswith("the login was refused: 535")


def test_a_server_without_starttls_gets_neither_password_nor_mail(ca_file: Path, tmp_path: Path) -> None:
    with mail_server() as server:
        sink = mail_sink(server, ca_file, user="alerts", password=secret_file(tmp_path, TOKEN))
        assert refusal_of(sink) == "the server offers no STARTTLS, or no login"
        assert server.got == []


def test_an_unknown_certificate_is_refused(tls: ssl.SSLContext) -> None:
    with mail_server(tls=tls) as server:
        assert "certificate verify failed" in refusal_of(mail_sink(server, None))


def test_a_mail_server_that_hangs_is_cut_off(tls: ssl.SSLContext, ca_file: Path) -> None:
    with mail_server("hang", tls=tls) as server:
        began = time.monotonic()
        # Time enough for all that comes before the hang, on a crowded machine too.
        assert refusal_of(mail_sink(server, ca_file, timeout=3.0)) == "no complete answer within 3 s"
        assert time.monotonic() - began < 30 < LONGEST_HANG


def test_a_mail_server_that_fails_is_quoted(ca_file: Path) -> None:
    with mail_server("451 try again later") as server:
        assert refusal_of(mail_sink(server, ca_file, security="none")) == "answered 451 try again later"


def test_who_was_refused_for_now_is_tried_again_alone(ca_file: Path) -> None:
    sent = message()
    with mail_server() as server:
        server.refused["boss@example.org"] = "450 greylisted"
        sink = mail_sink(server, ca_file, security="none", to=("ops@example.org", "Boss <boss@example.org>"))
        with pytest.raises(AlertError, match="not yet taken for Boss"):
            sink.deliver(sent)
        sink.deliver(sent)

    assert [to for _, to, _ in server.got] == [["ops@example.org"], ["boss@example.org"]]


def test_who_is_refused_for_good_does_not_hold_up_the_others(ca_file: Path) -> None:
    with mail_server() as server:
        server.refused["boss@example.org"] = "550 no such user"
        mail_sink(server, ca_file, security="none", to=("ops@example.org", "boss@example.org")).deliver(message())

    assert [to for _, to, _ in server.got] == [["ops@example.org"]]


def test_where_every_recipient_is_refused_nothing_was_delivered(ca_file: Path) -> None:
    with mail_server() as server:
        server.refused["ops@example.org"] = "550 no such user"
        assert refusal_of(mail_sink(server, ca_file, security="none")) == (
            "every recipient was refused: 550 no such user"
        )


# --- commands ---

PROGRAM = """
import json, os, pathlib, sys, time
told = json.load(sys.stdin)
facts = {"argv": sys.argv[1:], "told": told, "environ": dict(os.environ), "pid": os.getpid()}
pathlib.Path("got.new").write_text(json.dumps(facts))
pathlib.Path("got.new").rename("got")
if "fail" in sys.argv: sys.exit("no such pager " + os.environ.get("TOKEN_ENV", ""))
if "hang" in sys.argv: time.sleep(60)
"""


def command(folder: Path, *arguments: str, **options: object) -> CommandSink:
    return CommandSink((sys.executable, "-c", PROGRAM, *arguments), folder, **options)  # type: ignore[arg-type]


def test_a_command_gets_the_document_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_OF_THE_TEST", TOKEN)
    sent = message()
    command(tmp_path, "$HOME; touch x", hidden=["HOOK_OF_THE_TEST"]).deliver(sent)

    got = json.loads((tmp_path / "got").read_text())
    assert (got["argv"], got["told"]) == (["$HOME; touch x"], dict(sent.document))
    assert TOKEN not in json.dumps(got)


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    assert refusal_of(command(tmp_path, "fail")) == f"{sys.executable} ended with 1: no such pager"


def test_of_what_a_command_complains_no_secret_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a variable with a telling name, which circusd has and no alert needs, then its value is masked too."""
    monkeypatch.setenv("TOKEN_ENV", TOKEN)

    assert refusal_of(command(tmp_path, "fail")) == f"{sys.executable} ended with 1: no such pager ***"


ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from xboard_circus.alerts.command import CommandSink
from xboard_circus.alerts.message import Message
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
CommandSink(("sh", "-c", "ulimit -f unlimited; cat > got"), Path(sys.argv[1])).deliver(Message("1", "", "", {"a": 1}))
"""


def test_a_command_gets_the_alert_also_where_no_temporary_file_can_be_written(tmp_path: Path) -> None:
    """Given no room for a file, as on a full disk, of which the alert may tell, then the command is run."""
    subprocess.run([sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)], check=True, timeout=60)

    assert json.loads((tmp_path / "got").read_text()) == {"a": 1}


def test_a_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    assert refusal_of(command(tmp_path, "hang", timeout=6.0)) == f"{sys.executable} was killed: not done within 6 s"

    pid = json.loads((tmp_path / "got").read_text())["pid"]
    with pytest.raises(ProcessLookupError):
        process(pid)
    assert not Path(f"/proc/{pid}").exists()


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    sink = CommandSink(("/no/such/program",), tmp_path)

    assert refusal_of(sink) == "/no/such/program cannot be run: No such file or directory"
    assert os.getcwd() != str(tmp_path)
