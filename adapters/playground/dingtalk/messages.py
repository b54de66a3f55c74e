"""What the gateway says about a message of a person (reference/dingtalk.md 4)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.dingtalk.world import SimChat, SimFile, SimPerson, World
from adapters.playground.view import Block, Bubble

NEVER_IN_GROUPS = frozenset({"audio", "video", "file"})
"""They cannot be combined with an @ (reference 4.3, last paragraph)."""

FILE_SECONDS = 7200.0


@dataclass(frozen=True, slots=True)
class Said:
    """`content` replaces the payload of `kind`; `overrides` is merged into the whole
    message last, and a None in it removes the field."""

    text: str
    kind: str = "text"
    mention_bot: bool = False
    mention_all: bool = False
    mentions: tuple[SimPerson, ...] = ()
    content: Any = None
    quote: str | dict[str, Any] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


def reaches_bot(chat: SimChat, said: Said) -> bool:
    """In groups only what names the bot; @all does not count (reference 4.3)."""
    if chat.kind == "1":
        return True
    return said.mention_bot and said.kind not in NEVER_IN_GROUPS


def payload(
    world: World, chat: SimChat, person: SimPerson, said: Said, webhook: tuple[str, int]
) -> dict[str, Any]:
    """The data of `/v1.0/im/bot/messages/get`."""
    message = _envelope(world, chat, person) | _content(world, chat, said)
    message |= {"sessionWebhook": webhook[0], "sessionWebhookExpiredTime": webhook[1]}
    if chat.kind == "2":
        message |= {"conversationTitle": chat.title, "atUsers": _at_users(world, said)}
        message["isInAtList"] = said.mention_bot
    if said.quote is not None:
        _add_quote(world, message, said.quote)
    return {k: v for k, v in (message | said.overrides).items() if v is not None}


def _envelope(world: World, chat: SimChat, person: SimPerson) -> dict[str, Any]:
    return {
        "msgId": world.new_id("msg"),
        "createAt": int(world.clock.time() * 1000),
        "conversationId": chat.id,
        "conversationType": chat.kind,
        "chatbotCorpId": world.corp_id,
        "chatbotUserId": world.bot_sender_id,
        "robotCode": world.robot_code,
        "senderId": person.sender_id,
        "senderStaffId": person.staff_id or None,
        "senderNick": person.name,
        "senderCorpId": world.corp_id if person.staff_id else None,
        "senderPlatform": "Mac",
        "isAdmin": False,
    }


def _at_users(world: World, said: Said) -> list[dict[str, str]]:
    users = [{"dingtalkId": world.bot_sender_id}] if said.mention_bot else []
    for person in said.mentions:
        at = {"dingtalkId": person.sender_id}
        users.append(at | ({"staffId": person.staff_id} if person.staff_id else {}))
    return users


def _content(world: World, chat: SimChat, said: Said) -> dict[str, Any]:
    if said.kind == "text":
        # The linked @name is cut out and leaves its space (reference 4.3).
        gap = " " if chat.kind == "2" and said.mention_bot else ""
        text = said.content if said.content is not None else {"content": gap + said.text}
        return {"msgtype": "text", "text": text}
    content = said.content if said.content is not None else _default(world, said)
    return {"msgtype": said.kind} | ({"content": content} if content is not None else {})


def _default(world: World, said: Said) -> dict[str, Any] | None:
    text = said.text
    if said.kind == "richText":
        return {"richText": [{"text": text}]}
    if said.kind in ("picture", "image"):
        code = add_file(world, text or "picture.png", b"\x89PNG\r\n\x1a\n")
        return {"downloadCode": code, "pictureDownloadCode": code}
    if said.kind in ("audio", "voice"):
        code = add_file(world, "voice.amr", b"#!AMR\n")
        return {"duration": 4000, "downloadCode": code, "recognition": text}
    if said.kind == "video":
        code = add_file(world, "video.mp4", b"\x00\x00\x00\x18ftyp")
        return {"duration": 4000, "downloadCode": code, "videoType": "mp4"}
    if said.kind == "file":
        name = text or "file.txt"
        code = add_file(world, name, b"file")
        return {"downloadCode": code, "fileName": name, "spaceId": "1", "fileId": "2"}
    if said.kind == "markdown":
        return {"text": text}
    if said.kind == "chatRecord":
        return {"summary": text, "chatRecord": json.dumps([{"content": text}])}
    return None


def add_file(world: World, name: str, data: bytes) -> str:
    """Put bytes behind a new download code."""
    code = world.new_id("dl")
    world.files[code] = SimFile(name, data, world.clock.time() + FILE_SECONDS)
    return code


# ---------------------------------------------------------------- quotes


def _add_quote(world: World, message: dict[str, Any], quote: str | dict[str, Any]) -> None:
    replied = quote if isinstance(quote, dict) else _replied(world, quote)
    message["originalMsgId"] = replied.get("msgId")
    if replied.get("msgType") == "interactiveCard":
        message["originalProcessQueryKey"] = replied.pop("processQueryKey", None)
    holder = message.get("text" if message["msgtype"] == "text" else "content")
    if isinstance(holder, dict):
        holder |= {"isReplyMsg": True, "repliedMsg": replied}


def _replied(world: World, bubble_id: str) -> dict[str, Any]:
    original = world.inbound.get(bubble_id)
    if original is None:
        return _replied_bot(world, world.bubbles[bubble_id])
    kind = original["msgtype"]
    content = original.get("text") if kind == "text" else original.get("content")
    return {
        "msgId": bubble_id,
        "msgType": kind,
        "senderId": original["senderId"],
        "createdAt": original["createAt"],
        "content": _flat(kind, content),
    }


def _flat(kind: str, content: Any) -> Any:
    return {"text": content["content"].strip()} if kind == "text" else content


def _replied_bot(world: World, bubble: Bubble) -> dict[str, Any]:
    """A card of the bot is quoted without its text (reference 4.4)."""
    quoted: dict[str, Any] = {
        "msgId": world.new_id("msg"),
        "msgType": "interactiveCard" if bubble.kind == "card" else "text",
        "senderId": world.bot_sender_id,
        "createdAt": int(bubble.at * 1000),
    }
    if bubble.kind == "card":
        return quoted | {"processQueryKey": world.carriers.get(bubble.id)}
    return quoted | {"content": {"text": bubble.text}}


# ---------------------------------------------------------------- what the chat shows


def shown(world: World, said: Said) -> tuple[list[Block], list[str]]:
    """The person's own bubble: its blocks and whom it pings."""
    names = [world.bot_name] if said.mention_bot else []
    names += ["所有人"] if said.mention_all else []
    names += [person.name for person in said.mentions]
    words = said.text if said.kind in ("text", "richText", "markdown") else f"[{said.kind}]"
    text = "".join(f"@{name} " for name in names) + words
    pings = ["all"] if said.mention_all else []
    return [Block("markdown", text)], pings + [person.id for person in said.mentions]
