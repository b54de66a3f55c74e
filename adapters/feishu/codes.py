"""Feishu's error codes as our errors: the one table (reference/feishu.md 5.10, 6.8)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from adapters.foreign import at, text_at
from adapters.http import Answer
from bot.errors import (
    AuthError,
    BorderError,
    Bug,
    Gone,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    RefusedContent,
    TooBig,
    Transient,
    Uncertain,
)

STALE_TOKEN = frozenset({99991661, 99991663, 99991664, 99991665, 99991671})
"""The token is missing or dead: fetch another and repeat once (reference/feishu.md 5.1)."""

STREAM_CLOSED = frozenset({"200510", "200850", "300309"})
"""Streaming mode is closed: reopen once (reference/feishu.md 6.6)."""

SEQUENCE = "300317"
"""The sequence was not above the last one (reference/feishu.md 6.4)."""

CARD_NOT_YET = "230099/11310/cardid"
"""The card entity is not visible yet (reference/feishu.md 6.7)."""

NO_THREAD = frozenset({"230019", "230071", "230072"})
"""Codes of a reply that cannot go into a thread (reference/feishu.md 5.10)."""

NO_TARGET = frozenset({"230011", "230110", "230111", "99992354"})
"""The message to reply to is recalled, deleted or unknown (reference/feishu.md 5.10)."""

ALREADY_GONE = frozenset({"230011", "230110"})
"""The message was recalled or deleted before (reference/feishu.md 5.10)."""

SCOPE_MISSING = "99991672"
"""The app lacks a scope (reference/feishu.md 5.10)."""

_AUTH = {10003, 10014, 10015, 99991662, 99991673, 99991401} | STALE_TOKEN
_DENIED = {99991672, 99991677, 99991679, 230027, 230006, 232025, 230017, 230018, 230013, 300311}
_RATE = {99991400, 230020, 2200, 5000, 11232, 11233, 11247}
_GONE = {
    *(230002, 230011, 230019, 230026, 230029, 230031, 230034, 230035, 230036, 230038, 230050),
    *(230053, 230110, 230111, 231003, 232006, 232009, 232011, 232033, 232034, 200740, 200750),
    *range(99992351, 99992365),
} - {99992361}
_TOO_BIG = {230025: "bytes", 200860: "bytes", 300305: "elements"}
_CONTENT = {230022, 230028}
_AGAIN = {1, 300120, 200810, 231015}
_SAME_KEY = {230049}

_TABLE: dict[int, type[BorderError]] = {
    **dict.fromkeys(_AUTH, AuthError),
    **dict.fromkeys(_DENIED, PermissionDenied),
    **dict.fromkeys(_RATE, RateLimited),
    **dict.fromkeys(_GONE, Gone),
    **dict.fromkeys(_TOO_BIG, TooBig),
    **dict.fromkeys(_CONTENT, RefusedContent),
    **dict.fromkeys(_AGAIN, Transient),
    **dict.fromkeys(_SAME_KEY, Uncertain),
    99991403: QuotaExhausted,
}

_SUB_CODE = re.compile(r"ErrCode:\s*(\d+)")
_NEED_SCOPE = re.compile(r"need scope:\s*([A-Za-z0-9_.:]+)")


def code_of(answer: Answer) -> int | None:
    """The `code` of a JSON answer; None when the body is not Feishu's envelope."""
    code = at(answer.body, "code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def error_of(answer: Answer, what: str, api: str = "", place: str = "") -> BorderError:
    """The error that a refused answer means. `what` names the call; `api` and `place` are
    the buckets of its rate limits (the API's own; the chat's or message's)."""
    code = code_of(answer)
    if code is None:
        return _without_code(answer, what, api)
    message = text_at(answer.body, "msg")[:300]
    cause = f"{what}: code {code}: {message}"
    if code == 230099:
        return _card_refused(cause, message)
    kind = _TABLE.get(code)
    if kind is RateLimited:
        return _limited(answer, code, cause, api, place)
    if kind is PermissionDenied:
        return PermissionDenied(cause, code=str(code), scopes=_scopes(answer.body))
    if kind is TooBig:
        return TooBig(cause, code=str(code), what=_TOO_BIG[code])
    if kind is None:
        kind = Transient if answer.status >= 500 else Bug
    return kind(cause, code=str(code))


def _without_code(answer: Answer, what: str, api: str) -> BorderError:
    """No envelope: a gateway's page, a cut body. Only a lost answer is uncertain."""
    cause = f"{what}: HTTP {answer.status} without a code"
    if answer.status == 429:
        return RateLimited(cause, code="429", retry_after=_reset(answer.headers), bucket=api)
    if answer.status == 413:
        return TooBig(cause, code="413")
    if answer.status >= 500 or answer.status < 300:
        return Uncertain(cause, code=str(answer.status))
    return Bug(cause, code=str(answer.status))


def _limited(answer: Answer, code: int, cause: str, api: str, place: str) -> RateLimited:
    """230020 is the limit of one chat, person or message; the others are the API's."""
    if code == 230020:
        return RateLimited(cause, code=str(code), retry_after=0.5, bucket=place)
    bucket = api if code == 99991400 else ""
    return RateLimited(cause, code=str(code), retry_after=_reset(answer.headers), bucket=bucket)


def _reset(headers: Mapping[str, str]) -> float:
    """Seconds to wait from `x-ogw-ratelimit-reset` (reference/feishu.md 5.8)."""
    text = headers.get("x-ogw-ratelimit-reset", "")
    try:
        seconds = float(text)
    except ValueError:
        return 1.0
    return min(max(seconds, 0.2), 60.0) if seconds == seconds else 1.0


def _scopes(body: object) -> tuple[str, ...]:
    """The missing scopes that the error names (reference/feishu.md 5.10). 230027 names its
    one in the text alone: "Lack of necessary permissions, ext=need scope: …" [field]."""
    violations = at(body, "error", "permission_violations")
    found = [text_at(v, "subject") for v in violations] if isinstance(violations, list) else []
    found += _NEED_SCOPE.findall(text_at(body, "msg"))
    return tuple(dict.fromkeys(scope for scope in found if scope))


def _card_refused(cause: str, message: str) -> BorderError:
    """230099 hides a second code in its text (reference/feishu.md 5.10)."""
    match = _SUB_CODE.search(message)
    code = f"230099/{match[1]}" if match else "230099"
    low = message.lower()
    if "cardid is invalid" in low:
        return Transient(cause, code=CARD_NOT_YET)
    if "action is lock" in low:
        return Transient(cause, code=code)
    if "table number" in low:
        return TooBig(cause, code=code, what="tables")
    if "exceeds the limit" in low:
        return TooBig(cause, code=code, what="elements")
    return Bug(cause, code=code)
