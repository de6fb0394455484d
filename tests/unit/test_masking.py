import time
import tracemalloc

import pytest

from xboard_circus.masking import printable, safe_command, safe_line, safe_text, secrets_in


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        pytest.param(["x", "--password", "s3", "--port", "80"], "x --password *** --port 80", id="the next word"),
        pytest.param(["x", "--db-password=s3 s3"], "x --db-password=***", id="after an equals sign, blanks and all"),
        pytest.param(["x", "--API_KEY", "s3"], "x --API_KEY ***", id="any case, any joint"),
        pytest.param(["x", "-token", "s3"], "x -token ***", id="one dash"),
        pytest.param(["x", "--no-auth", "--token", "s3"], "x --no-auth *** ***", id="an option in a value's place"),
        pytest.param(["java", "-Ddb.password=s3"], "java -Ddb.password=***", id="a property"),
        pytest.param(["env", "DB_PASS=s3", "x"], "env DB_PASS=*** x", id="an assignment"),
        pytest.param(["x", "--ssl-keyfile", "/a.pem"], "x --ssl-keyfile /a.pem", id="a key file is no key"),
        pytest.param(["x", "--ssl-keyfile-password", "s3"], "x --ssl-keyfile-password ***", id="its password is"),
        pytest.param(["x", "--keep-alive", "5", "--monkey", "5"], "x --keep-alive 5 --monkey 5", id="no key in these"),
        pytest.param(["x", "redis://:s3@h:1/0"], "x redis://:***@h:1/0", id="a URL without a user"),
        pytest.param(["x", "DB=pg://u:s3@s3@h/d"], "x DB=pg://u:***@h/d", id="an unescaped @ in a password"),
        pytest.param(["x", "https://s3@h/p"], "x https://***@h/p", id="a token for a user"),
        pytest.param(["x", "ssh://git@h/p", "http://h:80/@a"], "x ssh://git@h/p http://h:80/@a", id="URLs without"),
        pytest.param(["x", "http://h/?a=1&key=s3&b=2"], "x http://h/?a=***&key=***&b=***", id="a query"),
        pytest.param(["psql", "host=a password=s3"], "psql 'host=a password=***'", id="a connection string"),
        pytest.param(["x", '{"password": "s3 s3"}'], """x '{"password": ***}'""", id="JSON"),
        pytest.param(["curl", "-H", "X-Mine: s3"], "curl -H ***", id="a header"),
        pytest.param(["sh", "-c", "x --token s3 && y"], "sh -c 'x --token *** && y'", id="a command in a word"),
        pytest.param(["x Authorization: Bearer s3 y"], "'x Authorization: *** y'", id="a header in a word"),
        pytest.param(["x: worker", "", "a\x1b[31m\nb\udcff"], "'x: worker' '' 'a b '", id="one printable line"),
        pytest.param([], "", id="nothing"),
        pytest.param(["x", *[""] * 5000], "x" + " ''" * 65 + " ...", id="empty words"),
        pytest.param(["x", "y" * 5000, "--token", "s3"], "x ...", id="a word too long to look through"),
    ],
)
def test_safe_command(argv: list[str], shown: str) -> None:
    assert safe_command(argv) == shown


def test_a_long_command_is_shortened() -> None:
    assert [len(safe_command(["x"] * words)) for words in (100, 101)] == [199, 200]


@pytest.mark.parametrize("part", ["a", "-", "pass", "key-", "://:", "--pass ", "a:", '"', "key='", "token: "])
def test_no_command_takes_long_to_read(part: str) -> None:
    began = time.process_time()

    safe_command([part * (4096 // len(part))])

    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Token s3cret",
        "DBPASS=s3cret",
        "SERVER_MASTERKEY: s3cret",
        "GH_PAT=s3cret",
        "DEPLOY_SSHKEY=s3cret",
        "ALERT_WEBHOOK_URL: https://chat.example/s3cret",
        "POST https://discord.com/api/webhooks/123/s3cret",
        "cloning with ghp_0123456789s3cret0123456789abcdef",
        "sent eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.s3cret_s3cret-s3cret",
        "Authorization: ApiKey s3cret",
        "authorization: Negotiate s3cret",
        'Authorization: Digest username="a", response="s3cret"',
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=s3cret",
        "headers=[(b'host', b'x'), (b'authorization', b'Bearer s3cret')]",
        "('password', 'my s3cret')",
        '{"body": "{\\"password\\": \\"s3cret\\"}"}',
        '{"password": "ab\\" s3cret"}',
        "db_password=SecretStr('s3cret')",
        "password=b'my s3cret'",
        "postgresql://app:pre/s3cret@db/x",
        "smtp://me@example.org:s3cret@mail.example.org:587",
        "redis://s3cret@cache/0",
        "GET /cb?state=1&code=s3cret HTTP/1.1",
        "https://b/x?X-Amz-Signature=s3cret&a=1",
        "https://hooks.slack.com/services/T1/B2/s3cret",
        "https://api.telegram.org/bot12:s3cret/sendMessage",
        "password:          s3cret",
        "数据库密码\uff1as3cret",
        "Passwort: s3cret",
        "GET /search?page=1&q=s3cret HTTP/1.1",
        "cookie: theme=dark; sid=s3cret",
        "Set-Cookie: sid=s3cret; Path=/",
        "no session for cookies=theme=dark;sid=s3cret",
    ],
)
def test_a_secret_is_masked_however_it_is_written(text: str) -> None:
    assert "s3cret" not in safe_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "exited with code: 1",
        "GET http://h:8000/npm/@scope/a",
        "ssh://git@h:22/a@b",
        "the token expired, try again",
        "what is this? a=b & c=d",
        "cookies are off",
        "compass=1 bypass=2",
        "imported ghp_ and eyJ",
        "ModuleNotFoundError: No module named 'keyring'",
        'File "/srv/app/auth.py", line 7, in login',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert safe_text(text) == text


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "pass",
        "key='",
        "://a:",
        'token\\": ',
        "password:   ",
        "('key', ",
        "?a=",
        "bearer ",
        "cookie: a=b; ",
        "eyJaaaaaaaa.",
    ],
)
def test_no_text_takes_long_to_read(part: str) -> None:
    began = time.process_time()

    safe_text(part * (65536 // len(part)))

    assert time.process_time() - began < 1


def test_long_texts_are_not_kept_in_memory() -> None:
    tracemalloc.start()
    try:
        for number in range(100):
            safe_line(f"{number}\U0001f600" + "a" * 60_000)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb\u2066c", "a?b?c"),
        ("a\u200bb\ufeffc", "a?b?c"),
        ("a\x1b[2J\r\x00", "a?[2J??"),
        ("a\u2028b\ud800", "a?b?"),
        ("web\u3164 \u115fw\uffa0\u2800e\u034f\u17b4b", "web? ?w??e??b"),
        ("a\ufe0fb\ufe00\U000e0100\u180b\u2065\ufff0c", "a?b?????c"),
        (
            "⚠\ufe0f 1\ufe0f\u20e3 👨🏽\u200d👩 🏳\ufe0f\u200d🌈 ⚠\ufe0e",
            "⚠\ufe0f 1\ufe0f\u20e3 👨🏽\u200d👩 🏳\ufe0f\u200d🌈 ⚠\ufe0e",
        ),
        ("⚠\ufe0f\ufe0f⚠\u200d ⚠\u200d\u200d⚠b\u200d⚠b\ufe0f\u200d⚠⚠\ufe00", "⚠\ufe0f?⚠? ⚠??⚠b?⚠b??⚠⚠?"),
        ("两个\u3000字\u00a0🎉\n\tb", "两个\u3000字\u00a0🎉\n\tb"),
    ],
)
def test_what_is_not_seen_or_turns_text_around_is_shown_as_a_question_mark(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "disabled-it"),
        ("TOKEN_TYPE", "bearer-like"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "11520.000"),
        ("DB_PASSWORD", "11520"),
        ("API_KEY", "password"),
        ("AUTH_TOKEN", "false"),
        ("URL", "https://git@example.org"),
    ],
)
def test_a_setting_with_a_telling_word_in_its_name_is_no_secret(name: str, value: str) -> None:
    assert [*secrets_in(name, value)] == []


@pytest.mark.parametrize(
    "name", ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "SECRET_KEY_BASE", "GH_TOKEN_2", "ACCESS_KEY_ID"]
)
def test_a_telling_word_of_a_name_makes_its_value_a_secret(name: str) -> None:
    assert [*secrets_in(name, "hunter2-value")] == ["hunter2-value"]


def test_a_token_as_the_user_of_a_url_is_a_secret() -> None:
    assert [*secrets_in("REPOSITORY", "https://ghp_abcdefghijk@github.com/a/b")] == ["ghp_abcdefghijk"]
