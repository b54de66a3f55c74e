"""What every call has in common: route names, refusals, recorded calls, switches."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

DISCOVER = "discover"
CONNECT = "connect"
TOKEN = "token"
BOT_INFO = "bot_info"
SEND = "send"
REPLY = "reply"
EDIT = "edit"
PATCH = "patch"
RECALL = "recall"
GET_MESSAGE = "get_message"
LIST_MESSAGES = "list_messages"
CHAT_INFO = "chat_info"
MEMBERS = "members"
REACT = "react"
UNREACT = "unreact"
LIST_REACTIONS = "list_reactions"
CARD_CREATE = "card_create"
CARD_CONTENT = "card_content"
CARD_SETTINGS = "card_settings"
CARD_UPDATE = "card_update"
ID_CONVERT = "id_convert"
UNKNOWN = "unknown"

UNCOUNTED = frozenset({DISCOVER, CONNECT, TOKEN, UNKNOWN})
"""Routes outside the rate limits and the monthly count."""

CARD_OPERATIONS = frozenset({CARD_CONTENT, CARD_SETTINGS, CARD_UPDATE})

_CARD = ("cardkit:card:write",)
_WRITE = ("im:message", "im:message:send_as_bot")
_READ = ("im:message", "im:message:readonly")
_CHAT = ("im:chat", "im:chat:readonly", "im:chat:read")
_REACT = ("im:message", "im:message.reactions:write_only")
SCOPES: dict[str, tuple[str, ...]] = {
    SEND: _WRITE,
    REPLY: _WRITE,
    EDIT: ("im:message", "im:message:update"),
    PATCH: ("im:message", "im:message:update"),
    RECALL: ("im:message", "im:message:recall"),
    GET_MESSAGE: _READ,
    LIST_MESSAGES: _READ,
    CHAT_INFO: _CHAT,
    MEMBERS: (*_CHAT, "im:chat.members:read"),
    REACT: _REACT,
    UNREACT: _REACT,
    LIST_REACTIONS: ("im:message", "im:message.reactions:read"),
    CARD_CREATE: _CARD,
    CARD_CONTENT: _CARD,
    CARD_SETTINGS: _CARD,
    CARD_UPDATE: _CARD,
    ID_CONVERT: _CARD,
}
"""Any one of them opens the route (reference/feishu.md 7)."""

RATE_LIMITED = 99991400
BAD_PARAMETER = 99992402


class Refused(Exception):
    """The platform says no (reference/feishu.md 5.10). `blame`: a careful client would
    not have asked, so it goes on the list of violations."""

    def __init__(
        self,
        code: int,
        msg: str,
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
        error: dict[str, Any] | None = None,
        blame: bool = False,
    ) -> None:
        super().__init__(f"{code}: {msg}")
        self.code, self.msg, self.status = code, msg, status
        self.headers, self.error, self.blame = dict(headers or {}), error or {}, blame

    def answer(self) -> web.Response:
        log_id = new_log_id()
        body = {"code": self.code, "msg": self.msg, "error": {"log_id": log_id} | self.error}
        headers = {"X-Tt-Logid": log_id} | self.headers
        return web.json_response(body, status=self.status, headers=headers)


def malformed(field_name: str, description: str) -> Refused:
    """99992402, with the field that is wrong."""
    violation = {"field": field_name, "value": "", "description": description}
    return Refused(
        BAD_PARAMETER,
        f"field validation failed: {field_name} {description}",
        error={"field_violations": [violation]},
        blame=True,
    )


def success(data: Mapping[str, Any], **top: Any) -> web.Response:
    """A good answer; `top` replaces `data` where a call answers at top level."""
    body = {"code": 0, "msg": "success"} | (top or {"data": dict(data)})
    return web.json_response(body, headers={"X-Tt-Logid": new_log_id()})


def new_log_id() -> str:
    return "2026" + uuid.uuid4().hex.upper()[:28]


@dataclass(slots=True)
class Call:
    """One request as it arrived. `at` is seconds since the epoch, `connection` tells TCP
    connections apart, `path` is the path asked for, `body` the JSON (or the query of a
    GET). `status` is the HTTP status of the answer (0: none was sent), `code` the refusal."""

    route: str
    at: float
    body: Any
    connection: str
    path: str = ""
    status: int = 0
    code: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One API call after the checks of the gateway: path parameters, query, JSON body.
    `size` is the length of the body in bytes."""

    params: Mapping[str, str]
    query: Mapping[str, str]
    body: dict[str, Any]
    size: int

    def text(self, key: str, *, most: int = 0) -> str:
        """A string that must be there. Raises Refused."""
        value = self.body.get(key)
        if not isinstance(value, str) or not value:
            raise malformed(key, "is required")
        if most and len(value) > most:
            raise malformed(key, f"is longer than {most}")
        return value

    def optional(self, key: str, *, most: int = 0) -> str:
        """A string, or empty when it is absent. Raises Refused."""
        return self.text(key, most=most) if self.body.get(key) not in (None, "") else ""

    def flag(self, key: str) -> bool:
        value = self.body.get(key, False)
        if value not in (True, False, None):
            raise malformed(key, "is not a boolean")
        return bool(value)

    def json(self, key: str) -> dict[str, Any]:
        """An object that travels as a string. Raises Refused."""
        text = self.text(key)
        try:
            return as_object(text)
        except ValueError:
            raise malformed(key, "is not the JSON of an object") from None


def as_object(raw: str | bytes) -> dict[str, Any]:
    """The JSON object. Raises ValueError."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(slots=True)
class Policy:
    """Everything that is a switch because the real server was seen doing both, or is not
    documented, or differs between tenants. Durations in seconds; sections of
    reference/feishu.md in brackets.

    `ack_deadline`, `redeliver_after`: [2.7]; each repeat counts from the push before.
    `new_event_id`, `new_frame_id`: whether a repeat gets new ids. `repeat_on_connect`: a
    new link is first given what waits for its next repeat. `ping_interval`,
    `reconnect_*`: ClientConfig [2.1]. `pong_config`: pongs carry it. `most_links`: per app;
    field reports say 2. `single_use_tickets`, `ticket_seconds` [2.1]. `drop_idle_after`:
    a link without a ping for so long is closed; 0 for never. `fragment_bytes`: payloads
    are cut into such pieces, 0 for never; `fragment_shuffle`, `fragment_twice` and
    `lose_fragments` (how many sets lack one piece) [2.6]. `action_frame`: the frame type
    of button presses [2.8]. `log_id_new`: every other data frame has one.
    `absent`: how optional fields are left out [4.2]. `show_user_id`: scope granted.
    `hears_all`: group messages without @ arrive too. `all_in_mentions`: `@all` stands in
    mentions. `topic_root_only`: events of topic groups lack thread_id.
    `own_reactions`: an event for the bot's own reactions [4.5].
    `token_seconds`, `stale_status`: HTTP status of 99991663 [5.1]. `uuid_seconds` [5.3].
    `send_seconds`: how long a send takes, its uuid answering 230049 meanwhile. `latency`
    before every REST call. `missing_scopes`. `quota`: calls left this month, None for
    no end [5.9].
    `stream_seconds` [6.6], `card_days` [6.1], `card_ready_after` [6.7]. `markdown_tables`
    per card, `table_code`: how CardKit refuses more of them [6.2]. `refused_takes_sequence`.
    `card_limit_code` of more than 10 operations a second on one card. `unsafe_words`:
    texts holding one are refused with 230028.
    """

    ack_deadline: float = 3.0
    redeliver_after: tuple[float, ...] = (15.0, 300.0, 3600.0, 21600.0)
    new_event_id: bool = False
    new_frame_id: bool = True
    repeat_on_connect: bool = False
    ping_interval: int = 120
    reconnect_nonce: int = 30
    reconnect_interval: int = 120
    pong_config: bool = True
    most_links: int = 50
    single_use_tickets: bool = True
    ticket_seconds: float = 60.0
    drop_idle_after: float = 0.0
    fragment_bytes: int = 0
    fragment_shuffle: bool = False
    fragment_twice: bool = False
    lose_fragments: int = 0
    action_frame: Literal["event", "card"] = "event"
    log_id_new: bool = True
    absent: Literal["absent", "null", "empty"] = "absent"
    show_user_id: bool = False
    hears_all: bool = False
    all_in_mentions: bool = False
    topic_root_only: bool = False
    own_reactions: bool = False
    token_seconds: float = 7200.0
    stale_status: int = 400
    uuid_seconds: float = 3600.0
    send_seconds: float = 0.0
    latency: float = 0.0
    missing_scopes: set[str] = field(default_factory=set)
    quota: int | None = None
    stream_seconds: float = 600.0
    card_days: float = 14.0
    card_ready_after: float = 0.0
    markdown_tables: int = 3
    table_code: Literal[230099, 300305] = 230099
    refused_takes_sequence: bool = False
    card_limit_code: int = RATE_LIMITED
    unsafe_words: set[str] = field(default_factory=set)

    def unsafe(self, text: str) -> bool:
        return any(word in text for word in self.unsafe_words)
