"""What a person says, as the event that the bot receives (reference/feishu.md 4)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.wire import dumps
from adapters.playground.feishu.world import SimChat, SimMessage, SimPerson
from adapters.playground.view import Block

RECEIVED = "im.message.receive_v1"
RECALLED = "im.message.recalled_v1"
ACTION = "card.action.trigger"
REACTION = "im.message.reaction.created_v1"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """How a person says something; `content` replaces what would be made of `text`."""

    text: str
    kind: str
    mention_bot: bool
    mention_all: bool
    mentions: tuple[SimPerson, ...]
    content: str | Json | None


def envelope(backend: Backend, event_type: str, event_id: str, event: Json) -> Json:
    """create_time is a string: milliseconds, for card actions microseconds (4.1)."""
    millis = backend.millis()
    header = {
        "event_id": event_id,
        "event_type": event_type,
        "create_time": str(millis * 1000 if event_type == ACTION else millis),
        "token": "",
        "app_id": backend.app_id,
        "tenant_key": backend.world.tenant_key,
    }
    return {"schema": "2.0", "header": header, "event": event}


def ids_of(backend: Backend, person: SimPerson) -> Json:
    """open_id, union_id, and user_id where the scope for it was granted."""
    ids = {"open_id": person.id, "union_id": person.union_id, "user_id": person.user_id}
    if not backend.policy.show_user_id:
        ids["user_id"] = ""
    return _left_out(backend, ids)


def _left_out(backend: Backend, fields: Json) -> Json:
    """Optional fields without a value, absent, null or empty (4.2)."""
    if backend.policy.absent == "absent":
        return {key: value for key, value in fields.items() if value}
    if backend.policy.absent == "null":
        return {key: value or None for key, value in fields.items()}
    return fields


# ---------------------------------------------------------------- a message


def content_of(backend: Backend, said: Said) -> tuple[str, list[Json]]:
    """The content string and the mentions of what is said."""
    words, mentions = _with_mentions(backend, said)
    content = said.content if said.content is not None else _SHAPES[said.kind](words)
    return (content if isinstance(content, str) else dumps(content)), mentions


def _with_mentions(backend: Backend, said: Said) -> tuple[str, list[Json]]:
    """The text with its placeholders, numbered in the order of the mentions."""
    world, words, found = backend.world, said.text, []
    mentioned: list[tuple[str, Json]] = []
    if said.mention_bot:
        # a bot has no user_id (4.2)
        ids: Json = {"open_id": world.bot_open_id, "union_id": "on_bot", "user_id": ""}
        mentioned.append((world.bot_name, _left_out(backend, ids) | {"mentioned_type": "bot"}))
    for person in said.mentions:
        mentioned.append((person.name, ids_of(backend, person) | {"mentioned_type": "user"}))
    fronts = []
    for number, (name, ids) in enumerate(mentioned, 1):
        key = f"@_user_{number}"
        kind = ids.pop("mentioned_type")
        found.append(
            {"key": key, "id": ids, "mentioned_type": kind, "name": name}
            | {"tenant_key": world.tenant_key}
        )
        if f"@{name}" in words:
            words = words.replace(f"@{name}", key, 1)
        else:
            fronts.append(key)
    if said.mention_all:
        fronts.append("@_all")
        if backend.policy.all_in_mentions:
            found.append({"key": "@_all", "id": {}, "name": "所有人", "tenant_key": ""})
    return " ".join([*fronts, words]) if words else " ".join(fronts), found


def _post(words: str) -> Json:
    """Paragraphs of text and at elements; no locale key, no `md` (4.3)."""
    paragraphs = []
    for line in words.split("\n"):
        pieces = [piece for piece in re.split(r"(@_user_\d+|@_all)", line) if piece]
        paragraphs.append([_piece(piece) for piece in pieces])
    return {"title": "", "content": paragraphs}


def _piece(piece: str) -> Json:
    if re.fullmatch(r"@_user_\d+|@_all", piece):
        return {"tag": "at", "user_id": piece, "user_name": "", "style": []}
    return {"tag": "text", "text": piece, "style": []}


_KEY = "v3_0089_7d5b2a3c"
_SHAPES: dict[str, Any] = {
    "text": lambda words: {"text": words},
    "post": _post,
    "image": lambda _: {"image_key": f"img_{_KEY}"},
    "file": lambda words: {"file_key": f"file_{_KEY}", "file_name": words or "report.pdf"},
    "folder": lambda words: {"file_key": f"file_{_KEY}", "file_name": words or "folder"},
    "audio": lambda _: {"file_key": f"file_{_KEY}", "duration": 2000},
    "media": lambda words: {
        "file_key": f"file_{_KEY}",
        "image_key": f"img_{_KEY}",
        "file_name": words or "clip.mp4",
        "duration": 2000,
    },
    "sticker": lambda _: {"file_key": f"file_{_KEY}"},
    "interactive": lambda words: {
        "title": words,
        "elements": [[{"tag": "text", "text": "请升级至最新版本客户端，以查看内容"}]],
    },
    "merge_forward": lambda _: {"content": "Merged and Forwarded Message"},
    "share_chat": lambda _: {"chat_id": "oc_0dd200d32fda15216d2c2ef1ddb32f76"},
    "share_user": lambda _: {"user_id": "ou_0dd200d32fda15216d2c2ef1ddb32f76"},
    "location": lambda words: {
        "name": words or "天安门",
        "longitude": "116.397",
        "latitude": "39.909",
    },
    "todo": lambda words: {"task_id": "t1", "summary": _post(words), "due_time": "1795500000000"},
    "vote": lambda words: {"topic": words or "vote", "options": ["a", "b"]},
    "video_chat": lambda words: {"topic": words or "call", "start_time": "1795500000000"},
    "calendar": lambda words: {
        "summary": words or "meeting",
        "start_time": "1795500000000",
        "end_time": "1795503600000",
    },
    "hongbao": lambda words: {"text": words or "[红包]"},
    "system": lambda _: {"template": "{from_user} joined", "from_user": ["x"], "to_chatters": []},
}
"""Content by message_type (4.3)."""

KINDS = frozenset(_SHAPES)


def received(backend: Backend, message: SimMessage) -> Json:
    """The `event` of im.message.receive_v1."""
    author = message.author
    assert author is not None
    chat = backend.world.chats[message.chat]
    hide_thread = chat.topic and backend.policy.topic_root_only
    body: Json = {
        "message_id": message.id,
        "create_time": str(int(message.at * 1000)),
        "chat_id": message.chat,
        "chat_type": chat.kind,
        "message_type": message.msg_type,
        "content": "" if message.gone else message.content,
        "user_agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Lark/7.35.5",
    }
    optional = {
        "root_id": message.root or (message.id if hide_thread else ""),
        "parent_id": message.parent,
        "thread_id": "" if hide_thread else message.thread,
        "mentions": message.mentions,
    }
    return {
        "sender": {
            "sender_id": ids_of(backend, author),
            "sender_type": "user",
            "tenant_key": backend.world.tenant_key,
        },
        "message": body | _left_out(backend, optional),
    }


def reaches_bot(backend: Backend, chat: SimChat, said: Said) -> bool:
    """Whether the granted scopes let the bot hear it (4.2)."""
    if chat.kind == "p2p" or backend.policy.hears_all:
        return True
    return said.mention_bot or said.mention_all


# ---------------------------------------------------------------- what others see of it


def shown(said: Said, mentions: list[Json], content: str) -> list[Block]:
    """The person's own bubble."""
    if said.content is not None or said.kind not in ("text", "post"):
        label = said.text or f"[{said.kind}]"
        return [Block("markdown", text=label)]
    words = content_words(said.kind, content)
    for mention in reversed(mentions):
        words = words.replace(mention["key"], "@" + mention["name"])
    return [Block("markdown", text=words.replace("@_all", "@所有人"))]


def content_words(kind: str, content: str) -> str:
    """The words in the content of a text or an inbound post."""
    parsed = json.loads(content)
    if kind == "text":
        return str(parsed["text"])
    rows = ["".join(p.get("text", p.get("user_id", "")) for p in row) for row in parsed["content"]]
    return "\n".join(rows)


def pings_of(said: Said) -> list[str]:
    """Which people a person's message notifies."""
    return (["all"] if said.mention_all else []) + [person.id for person in said.mentions]
