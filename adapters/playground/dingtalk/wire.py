"""What the two DingTalk hosts have in common: route names, refusals, recorded calls."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

OPEN = "open"
CONNECT = "connect"
TOKEN = "token"
GETTOKEN = "gettoken"
WEBHOOK = "webhook"
OTO_SEND = "oto_send"
GROUP_SEND = "group_send"
OTO_RECALL = "oto_recall"
GROUP_RECALL = "group_recall"
CARD_CREATE = "card_create"
CARD_DELIVER = "card_deliver"
CARD_CREATE_DELIVER = "card_create_deliver"
CARD_STREAM = "card_stream"
CARD_UPDATE = "card_update"
EMOTION_REPLY = "emotion_reply"
EMOTION_RECALL = "emotion_recall"
DOWNLOAD = "download"
FILE = "file"
USER = "user"

FREE = frozenset({OPEN, CONNECT, TOKEN, GETTOKEN, WEBHOOK, FILE, USER})
"""Routes outside the monthly count of API calls (reference/dingtalk.md 5.7)."""

SCOPES = {
    CARD_CREATE: "Card.Instance.Write",
    CARD_DELIVER: "Card.Instance.Write",
    CARD_CREATE_DELIVER: "Card.Instance.Write",
    CARD_UPDATE: "Card.Instance.Write",
    CARD_STREAM: "Card.Streaming.Write",
    OTO_SEND: "qyapi_robot_sendmsg",
    GROUP_SEND: "qyapi_robot_sendmsg",
    DOWNLOAD: "qyapi_robot_sendmsg",
    USER: "qyapi_get_member",
}

QPS_CODE = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
COUNT_CODE = "Forbidden.AccessDenied.ApiCountLimitForOrg"
PERMISSION_CODE = "Forbidden.AccessDenied.AccessTokenPermissionDenied"


class Refused(Exception):
    """api.dingtalk.com says no: a non-2xx status and `{code, message, requestid}`
    (reference/dingtalk.md 5.8)."""

    def __init__(self, status: int, code: str, message: str = "", **extra: Any) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.extra = status, code, message, extra

    def answer(self) -> web.Response:
        body = {"code": self.code, "message": self.message or self.code, "requestid": request_id()}
        return web.json_response(body | self.extra, status=self.status)


class OldRefused(Exception):
    """oapi.dingtalk.com says no: status 200 and `{errcode, errmsg, request_id}`."""

    def __init__(self, errcode: int, errmsg: str) -> None:
        super().__init__(errmsg)
        self.errcode, self.errmsg = errcode, errmsg

    def answer(self) -> web.Response:
        body = {"errcode": self.errcode, "errmsg": self.errmsg, "request_id": request_id()}
        return web.json_response(body)


def request_id() -> str:
    return str(uuid.uuid4()).upper()


@dataclass(slots=True)
class Call:
    """One request as it arrived. `at` is seconds since the epoch, `connection` tells
    TCP connections apart, `body` is the JSON (or the query of a GET). `status` is the
    HTTP status of the answer (0: none was sent) and `code` the refusal's own code."""

    route: str
    at: float
    body: Any
    connection: str
    status: int = 0
    code: str = ""


@dataclass(slots=True)
class Policy:
    """Everything that is a switch because the real server was seen doing both, or is
    not documented. Durations in seconds.

    `redeliver_after`: when an unacknowledged robot message or event comes again,
    counted from the first push; empty means fire and forget (reference 2.6).
    `keep_without_link`: a message sent while nobody listens counts as unacknowledged;
    otherwise it is lost at once. `ack_deadline`, `press_deadline`: reference 2.6.
    `ping_every`: SYSTEM pings, 0 for none. `keepalive_every`: KEEPALIVE frames.
    `greet`: CONNECTED and REGISTERED after the handshake. `leave_after`: from the
    disconnect frame to the close. `auth_status`: of an invalid token (400, seen: 401).
    `needs_accept`: connections/open answers XML without `Accept: application/json`.
    `stream_max_bytes`: a bigger frame is refused (param.stream.content).
    `blank_over_bytes`: a bigger final text makes a blank card (reference 6.4).
    `param_max_bytes`: of one cardParamMap value; 0 for no limit. `after_finalize`:
    whether a frame after the last one is refused or swallowed. `private_space`: what a
    button of a private card says as spaceId: the user, the chat or nothing (only the
    group's form is documented, reference 6.6). `recall_events`: the recall of a person's
    message is pushed and names it (unsure, reference 3). `unsafe_words`: texts
    holding one meet the content filter. `missing_scopes`: rights the app has not got.
    """

    redeliver_after: tuple[float, ...] = (16.0, 60.0)
    keep_without_link: bool = True
    ack_deadline: float = 3.0
    press_deadline: float = 2.0
    ping_every: float = 25.0
    keepalive_every: float = 0.0
    greet: bool = True
    leave_after: float = 10.0
    auth_status: int = 400
    needs_accept: bool = True
    token_seconds: float = 7200.0
    ticket_seconds: float = 90.0
    webhook_seconds: float = 5400.0
    stream_max_bytes: int = 20_000
    blank_over_bytes: int = 9_000
    param_max_bytes: int = 0
    after_finalize: Literal["refuse", "swallow"] = "refuse"
    private_space: Literal["user", "chat", "none"] = "user"
    recall_events: bool = False
    unsafe_words: set[str] = field(default_factory=set)
    missing_scopes: set[str] = field(default_factory=set)

    def unsafe(self, text: str) -> bool:
        return any(word in text for word in self.unsafe_words)


def as_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request body. Raises ValueError."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def need_str(body: dict[str, Any], key: str, code: str) -> str:
    """A non-empty string field. Raises Refused 400 `code`."""
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(400, code, f"{key} must be a non-empty string")
    return value
