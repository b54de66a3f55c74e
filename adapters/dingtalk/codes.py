"""DingTalk's refusals as our errors: the one table (reference/dingtalk.md 5.1-5.8, 6)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.foreign import at, number_at, text_at
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

STALE_TOKEN = frozenset({"InvalidAuthentication", "40014", "42001", "88"})
"""The token is dead: fetch another and repeat once (reference/dingtalk.md 5.1)."""

CARD_EXISTS = "param.cardAlreadyExist"
"""The outTrackId was used before (reference/dingtalk.md 6.3)."""

NO_STREAM = "param.stream.outTrackId"
"""The card does not take frames: unknown, or finished (reference/dingtalk.md 6.4)."""

UNKNOWN = "unknownError"
"""Streaming with the wrong key, without the failure state, or without the right (6.4)."""

NO_SESSION = "300001"
"""The session webhook has expired (reference/dingtalk.md 5.2)."""

BROKEN_TEMPLATE = frozenset(
    {UNKNOWN, "param.templateUnpublished", "param.cardTemplateIdEmpty", "param.stream.keyEmpty"}
)
"""The template, not this card, is at fault: the next card will fare no better (6.1, 6.4)."""

SECOND, MINUTE, BAN = 1.0, 60.0, 300.0
"""Waits after a refusal: the QPS window, the webhook's minute, an IP's ban (5.2, 5.7)."""


@dataclass(frozen=True, slots=True)
class _Means:
    """What a code means; `wait` in seconds for RateLimited."""

    kind: type[BorderError]
    wait: float = SECOND


_DENIED = "Forbidden.AccessDenied."

_CODES: dict[type[BorderError], str] = {
    AuthError: "authFailed invalidClientIdOrSecret invalidParameter.token.invalid "
    + " ".join(STALE_TOKEN),
    PermissionDenied: f"{_DENIED}AccessTokenPermissionDenied {_DENIED}IpNotInWhiteList "
    "send.forbidden bot.forbidden.sendMessage unauthorized illegal.receivers 310000 "
    "chatbotId.notAllow.sendOTO invalidParameter.robotCode.auth "
    "invalidParameter.robotCode.coolApp",
    QuotaExhausted: f"{_DENIED}ApiCountLimitForOrg 90020 90030 20001",
    Gone: "group.disbanded bot.stopped template.stopped robot.oto.notExist resource.not.found "
    "staffId.notExisted invalid.openConversationId conversation.org.notMatch "
    f"param.cardNotExist param.openSpaceIdInvalid {NO_STREAM} {NO_SESSION} "
    "400013 400101 400102 400106",
    TooBig: "param.stream.content invalidParameter.msgParam.tooLong 460101 101002",
    RefusedContent: "contain.unsafe.url contain.notAllowed.text contain.notAllowed.picture "
    "contain.notAllowed.content param.contentUnsafe 430101 430102 430103 430104",
    Transient: "system.busy -1",
    Uncertain: "system.error unknown.send.result operationTimeout",
}

_TABLE: dict[str, _Means] = {
    **{code: _Means(kind) for kind, codes in _CODES.items() for code in codes.split()},
    f"{_DENIED}QpsLimitForAppkeyAndApi": _Means(RateLimited),
    f"{_DENIED}QpsLimitForApi": _Means(RateLimited),
    f"{_DENIED}QpmLimitForAppkeyAndApi": _Means(RateLimited, MINUTE),
    "90018": _Means(RateLimited),
    "90002": _Means(RateLimited),
    "send.too.fast": _Means(RateLimited),
    "send.byToken.tooFast": _Means(RateLimited),
    "130101": _Means(RateLimited, MINUTE),
    "410100": _Means(RateLimited, MINUTE),
    UNKNOWN: _Means(Bug),
}


FREE = frozenset(code for code, means in _TABLE.items() if means.kind is RateLimited)
"""Refusals for haste do not count against the month (reference/dingtalk.md 5.7)."""


def code_of(answer: Answer) -> str:
    """The new API's `code` or the old one's `errcode`, as text; empty when the body is
    neither envelope, `0` when it says that all is well."""
    body = answer.body
    if not isinstance(body, dict):
        return ""
    return text_at(body, "errcode") or text_at(body, "code")


def error_of(answer: Answer, what: str, bucket: str = "") -> BorderError:
    """The error that a refused answer means. `what` names the call, `bucket` its budget.
    The message is the service's own; requests are never quoted."""
    code = code_of(answer)
    if number_at(answer.body, "status") == 1111:
        return RateLimited(
            f"{what}: this IP is banned", code="1111", retry_after=BAN, bucket=bucket
        )
    if not code:
        return _without_code(answer, what, bucket)
    words = text_at(answer.body, "message") or text_at(answer.body, "errmsg")
    request = text_at(answer.body, "requestid") or text_at(answer.body, "request_id")
    cause = f"{what}: HTTP {answer.status}, {code[:100]}: {words[:200]} ({request[:40]})"
    means = _TABLE.get(code) or _guess(answer.status, code, words)
    return _make(means, cause, code, answer.body, bucket)


def _make(means: _Means, cause: str, code: str, body: object, bucket: str) -> BorderError:
    if means.kind is RateLimited:
        return RateLimited(cause, code=code, retry_after=means.wait, bucket=bucket)
    if means.kind is PermissionDenied:
        return PermissionDenied(cause, code=code, scopes=_scopes(body))
    return means.kind(cause, code=code)


def _guess(status: int, code: str, words: str) -> _Means:
    """A code that no table knows: by its words, then by the HTTP status (5.2, 5.8)."""
    if "too fast" in words.lower() or status == 429:
        return _Means(RateLimited, MINUTE)
    if status == 401:
        return _Means(AuthError)
    if status == 403 or code.startswith(_DENIED):
        return _Means(PermissionDenied)
    return _Means(Uncertain if status >= 500 else Bug)


def _without_code(answer: Answer, what: str, bucket: str) -> BorderError:
    """No envelope: a gateway's page, a ban, a cut body (reference/dingtalk.md 5.7, 5.8)."""
    cause, status = f"{what}: HTTP {answer.status} without a code", str(answer.status)
    if answer.status == 429:
        return RateLimited(cause, code=status, bucket=bucket)
    if answer.status == 403:
        return RateLimited(cause, code=status, retry_after=MINUTE)
    if answer.status == 401:
        return AuthError(cause, code=status)
    if answer.status == 413:
        return TooBig(cause, code=status)
    if answer.status >= 500 or answer.status < 300:
        return Uncertain(cause, code=status)
    return Bug(cause, code=status)


def _scopes(body: object) -> tuple[str, ...]:
    """The missing rights that the error names (reference/dingtalk.md 5.8)."""
    found = at(body, "accessdenieddetail", "requiredScopes")
    return tuple(s for s in found if isinstance(s, str)) if isinstance(found, list) else ()
