"""What a model service says when it says no, translated once into our errors. Pure.

Source: reference/models.md 1.7 (DeepSeek) and 3 (error words of the look-alikes). The text
of a refusal goes into the log's cause, scrubbed; of a refused key it never does, because
services quote the key there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from bot.errors import (
    AuthError,
    BorderError,
    Bug,
    QuotaExhausted,
    RateLimited,
    RefusedContent,
    TooBig,
    Transient,
)

_LONGEST = 300
_KEYS = re.compile(r"(sk-|Bearer\s+)[\w.*-]+|\*{2,}[\w-]*")
_TRACES = ("x-ds-trace-id", "x-deepseek-request-id", "x-request-id")


@dataclass(frozen=True, slots=True)
class Refusal:
    """`status` is the HTTP status, or the one a stream's error object names (0: none).
    `words` are its type, code and message in lower case, for recognising it. `retry_after` is in
    seconds, 0 when the service did not say."""

    status: int
    code: str
    message: str
    words: str
    retry_after: float = 0.0
    trace: str = ""


def error_in(value: Any) -> bool:
    """Whether a parsed body or event is an error although the HTTP status was 200."""
    if not isinstance(value, dict):
        return False
    if value.get("error") or value.get("error_code") or value.get("object") == "error":
        return True
    return "choices" not in value and bool(value.get("code")) and "message" in value


def read_refusal(
    status: int, value: Any, headers: Mapping[str, str] | None = None, now: float = 0.0
) -> Refusal:
    """The refusal in any of the known envelopes; `value` is the parsed body or None,
    `now` is seconds since the epoch for a Retry-After that is a date."""
    headers = headers or {}
    fields = _fields(value)
    code = _word(fields.get("code", fields.get("error_code")))
    kind = _word(fields.get("type"))
    message = _word(fields.get("message", fields.get("error_msg", fields.get("msg"))))
    if not 400 <= status < 600:
        status = int(code) if re.fullmatch(r"[45]\d\d", code) else 0
    return Refusal(
        status=status,
        code=code or kind,
        message=message,
        words=f"{kind} {code} {message}".lower(),
        retry_after=_retry_after(headers.get("Retry-After", ""), now),
        trace=next((headers[name] for name in _TRACES if headers.get(name)), ""),
    )


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        inner = value.get("error")
        if isinstance(inner, dict):
            return inner
        if isinstance(inner, str):
            return {**value, "message": value.get("message", inner)}
        return value
    return {"message": value} if isinstance(value, str) else {}


def _word(value: Any) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _retry_after(value: str, now: float) -> float:
    """Seconds; 0 when absent or nonsense."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


_MONEY = re.compile(
    r"insufficient.{0,3}balance|insufficient_quota|exceeded_current_quota|arrearage"
    r"|accountoverdue|provider_quota_exceeded|\b1113\b"
)
_LENGTH = re.compile(
    r"context.{0,3}length|context.{0,3}window|maximum context|prompt is too long|too many tokens"
    r"|input length|range of input"
)
_MODEL = re.compile(
    r"model.{0,3}names? are|model.{0,80}(not.{0,3}(exist|found)|disabled|unknown)"
    r"|(unknown|invalid|unsupported).{0,3}model|no such model|resource_not_found"
)
_CONTENT = re.compile(
    r"content exists risk|content.{0,3}filter|data_?inspection|sensitive|content_policy"
)
_KEY = re.compile(
    r"authentication|invalid.{0,3}(api|iam).{0,3}(key|token)|incorrect api key|unauthorized"
    r"|invalid token|token is invalid"
)
_RATE = re.compile(r"rate.{0,3}limit|ratelimit|too many requests|concurrency")
_LOAD = re.compile(r"overloaded|too busy|server_unavailable|insufficient_system_resource")


def translate(refusal: Refusal, key: str = "") -> BorderError:
    """The error to raise. `key` is the API key, scrubbed wherever it stands."""
    facts = _Facts(refusal, key)
    return _account(facts) or _load(facts) or _request(facts)


class _Facts:
    """A refusal with its sentences for the log."""

    def __init__(self, refusal: Refusal, key: str) -> None:
        self.status, self.words = refusal.status, refusal.words
        self.retry_after = refusal.retry_after
        self.code = _scrub(refusal.code, key)[:64]
        trace = re.sub(r"[^\w-]", "", refusal.trace)[:64]
        self.bare = f"model service: {refusal.status or 'error in the stream'}"
        self.bare += f" (trace {trace})" if trace else ""
        self.cause = f"{self.bare} {_scrub(refusal.message, key)[:_LONGEST]}".strip()


def _scrub(text: str, key: str) -> str:
    text = " ".join(text.split())
    return _KEYS.sub("***", text.replace(key, "***") if key else text)


def _account(facts: _Facts) -> BorderError | None:
    """Key and money. Some services say "no money" with 403 or 429."""
    status, words = facts.status, facts.words
    if status == 402 or _MONEY.search(words):
        return QuotaExhausted(facts.cause, note="model.balance", code=facts.code)
    if status == 403 and _MODEL.search(words):
        return Bug(facts.cause, note="model.unknown_model", code=facts.code)
    if status in (401, 403) or (status == 0 and _KEY.search(words)):
        return AuthError(facts.bare, note="model.auth", code=facts.code)
    return None


def _load(facts: _Facts) -> BorderError | None:
    """What may pass by itself."""
    status, words = facts.status, facts.words
    if status == 429 or (status == 0 and _RATE.search(words)):
        return RateLimited(
            facts.cause, note="model.busy", code=facts.code, retry_after=facts.retry_after or 1.0
        )
    if status in (503, 529) or (status in (0, 500) and _LOAD.search(words)):
        return Transient(facts.cause, note="model.overloaded", code=facts.code)
    if status in (408, 409, 425, 499) or status >= 500:
        return Transient(facts.cause, note="model.broken", code=facts.code)
    return None


def _request(facts: _Facts) -> BorderError:
    """What is wrong with the request itself; an error that nobody knows, met inside a
    stream, counts as the service's fault."""
    cause, code = facts.cause, facts.code
    if facts.status == 413 or _LENGTH.search(facts.words):
        return TooBig(cause, note="model.too_long", code=code, what="tokens")
    if _MODEL.search(facts.words):
        return Bug(cause, note="model.unknown_model", code=code)
    if _CONTENT.search(facts.words):
        return RefusedContent(cause, code=code)
    if facts.status == 0 and "invalid" not in facts.words:
        return Transient(cause, note="model.broken", code=code)
    return Bug(cause, note="model.bad_request", code=code)
