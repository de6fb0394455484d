"""Build the JSON of each kind of webhook, sign it, and parse its answer. No effects.

Feishu, DingTalk and WeCom always answer 200; the body shows whether the message was accepted. A quoted text may come
from any user, so nothing in it may mention people: Feishu gets a rich text, in which ``<at>`` is no tag.

Apprise 2.3 cannot replace these three. To Feishu it signs nothing, and sends a text in which ``<at>`` mentions all; it
takes a refusal by DingTalk or WeCom, which is a 200, for a delivery; it encodes DingTalk's signature twice, and sends
WeCom texts that are too long for it.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from xboard_circus.alerts.message import Message

# WeCom refuses a longer text; the others allow some 20,000 and more.
WECOM_BYTES = 2048
LONGEST = 4000


@dataclass(frozen=True)
class WebhookRequest:
    """One HTTP request."""

    url: str
    body: bytes
    headers: Mapping[str, str]


def request_for(shape: str, message: Message, *, url: str, secret: str = "", now: float = 0.0) -> WebhookRequest:
    """Return the request for a webhook of *shape* with *message*; *now* is seconds of the wall clock."""
    headers = {"Content-Type": "application/json; charset=utf-8", "Idempotency-Key": message.id}
    if shape == "json":
        body = _encoded(dict(message.document))
        if secret:
            digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Xboard-Signature"] = f"sha256={digest}"
        return WebhookRequest(url, body, headers)
    content = _content(shape, message)
    if secret and shape == "feishu":
        stamp = str(int(now))
        content |= {"timestamp": stamp, "sign": _signature(f"{stamp}\n{secret}")}
    elif secret and shape == "dingtalk":
        stamp = str(int(now * 1000))
        sign = quote_plus(_signature(secret, f"{stamp}\n{secret}"))
        url += f"{'&' if '?' in url else '?'}timestamp={stamp}&sign={sign}"
    return WebhookRequest(url, _encoded(content), headers)


def _content(shape: str, message: Message) -> dict[str, Any]:
    text = message.text[:LONGEST]
    if shape == "feishu":
        lines = [[{"tag": "text", "text": line}] for line in text.splitlines()[1:]]
        return {"msg_type": "post", "content": {"post": {"zh_cn": {"title": message.title, "content": lines}}}}
    if shape == "wecom":
        text = text.encode()[:WECOM_BYTES].decode(errors="ignore")
    return {"msgtype": "text", "text": {"content": text}}


def _signature(key: str, text: str = "") -> str:
    """Return a robot's signature: Feishu's key is the time and the secret, DingTalk's the secret alone."""
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def refusal(shape: str, status: int, body: str) -> str:
    """Return the reason of a refusal from the answer; "" where the message was accepted.

    >>> refusal("json", 204, ""), refusal("wecom", 200, '{"errcode": 93000, "errmsg": "invalid webhook url"}')
    ('', 'answered error 93000: invalid webhook url')
    """
    if not 200 <= status < 300:
        return f"answered {status}" + (f": {body}" if body.strip() else "")
    if shape == "json":
        return ""
    try:
        answer = json.loads(body)
        code = next(answer[name] for name in ("errcode", "code", "StatusCode") if name in answer)
        if code == 0:
            return ""
        message = answer.get("errmsg") or answer.get("msg") or answer.get("StatusMessage") or "nothing more"
    except (ValueError, TypeError, AttributeError, StopIteration):
        return f"answered {status} without the JSON of a {shape} robot"
    return f"answered error {code}: {message}"


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
