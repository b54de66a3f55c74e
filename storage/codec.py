"""Values to rows and back (pure).

Text and JSON are kept as they are with one exception, the same everywhere and for every
database: a NUL character and half a surrogate pair become U+FFFD, because no UTF-8 text
column takes them. A whole pair written as two halves becomes its character.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import RowMapping

from bot.contract import (
    Ending,
    Exchange,
    Handle,
    Moment,
    NewTurn,
    Part,
    Person,
    QuotePart,
    TextPart,
    Turn,
    UnreadablePart,
    Usage,
)
from bot.errors import StoreError

Row = Mapping[str, Any] | RowMapping


# ---------------------------------------------------------------- text and JSON


def sound(text: str) -> str:
    """`text` without what a database cannot hold."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def dump(value: Any) -> str:
    """JSON text. Raises StoreError for what is not JSON."""
    try:
        raw = orjson.dumps(value)
        if b"\\u0000" not in raw:
            return raw.decode()
    except TypeError:
        pass
    try:
        return orjson.dumps(_sound_json(value)).decode()
    except TypeError as error:
        raise StoreError(f"not JSON: {error}") from error


def _sound_json(value: Any) -> Any:
    if isinstance(value, str):
        return sound(value)
    if isinstance(value, Mapping):
        return {_sound_json(key): _sound_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sound_json(item) for item in value]
    return value


def load(text: str) -> Any:
    return orjson.loads(text)


# ---------------------------------------------------------------- parts and people


def parts_to_json(parts: tuple[Part, ...]) -> str:
    return dump([_part_to_json(part) for part in parts])


def _part_to_json(part: Part) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, QuotePart):
        return {"quote": part.text, "author": part.author}
    return {"unreadable": part.kind, "name": part.name}


def parts_from_json(text: str) -> tuple[Part, ...]:
    items = load(text)
    if len(items) == 1 and "text" in items[0]:  # nearly always, fifty times a question
        return (TextPart(items[0]["text"]),)
    return tuple([_part_from_json(item) for item in items])


def _part_from_json(item: dict[str, str]) -> Part:
    if "text" in item:
        return TextPart(item["text"])
    if "quote" in item:
        return QuotePart(item["quote"], item["author"])
    return UnreadablePart(item["unreadable"], item["name"])


def person_to_json(person: Person) -> str:
    return dump([person.id, person.name, *person.also])


@lru_cache(maxsize=1024)
def person_from_json(text: str) -> Person:
    """Remembered: a history is mostly the same people again."""
    id_, name, *also = load(text)
    return Person(id_, name, tuple(also))


# ---------------------------------------------------------------- turns

PLAIN = (
    "id",
    "kind",
    "bot",
    "platform",
    "chat",
    "chat_kind",
    "topic",
    "conversation",
    "lane",
    "message_id",
    "lang",
    "notice",
    "replaces",
)
"""Fields of NewTurn that are text and stand in a column of the same name."""

_plain_of = attrgetter(*PLAIN)


def _sound_all(texts: Sequence[str]) -> Sequence[str]:
    """One look at them together is enough where nothing is wrong."""
    together = "".join(texts)
    return texts if sound(together) is together else [sound(text) for text in texts]


def new_to_row(new: NewTurn) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(PLAIN, _sound_all(_plain_of(new)), strict=True))
    row["asked_at"] = new.asked_at
    row["sender"] = sound(new.sender.id)
    row["person"] = person_to_json(new.sender)
    row["parts"] = parts_to_json(new.parts)
    row["address"] = dump(new.address)
    row["notice_args"] = dump(new.notice_args)
    return row


def new_from_row(row: Row) -> NewTurn:
    return NewTurn(
        **{name: row[name] for name in PLAIN},
        sender=person_from_json(row["person"]),
        parts=parts_from_json(row["parts"]),
        address=load(row["address"]),
        asked_at=row["asked_at"],
        notice_args=load(row["notice_args"]),
    )


def turn_from_row(row: Row, handles: tuple[Handle, ...]) -> Turn:
    decided = row["outcome"] is not None
    return Turn(
        new=new_from_row(row),
        no=row["no"],
        state=row["state"],
        attempt=row["attempt"],
        deaths=row["deaths"],
        generation=row["generation"],
        checkpoint="" if decided else row["answer"],
        handles=handles,
        ending=ending_from_row(row) if decided else None,
        seen_at=row["seen_at"],
        thoughts="" if decided else row["reasoning"],
        ended=row["ended_at"] is not None,
        joined=row["joined_at"] is not None,
    )


def exchanges_of(
    rows: Iterable[tuple[str, str, str, str, str, float]],
) -> Iterator[Exchange]:
    """From columns of turns: id, person, parts, answer, reasoning, asked_at."""
    for id_, person, parts, answer, reasoning, asked_at in rows:
        who, question = person_from_json(person), parts_from_json(parts)
        yield Exchange(id_, who, question, answer, reasoning, asked_at)


# ---------------------------------------------------------------- endings

SAME = ("reasoning", "note", "footer", "finish", "model", "cost", "error", "delivery", "proof")
"""Fields of Ending that stand in a column of the same name."""


def ending_to_row(ending: Ending) -> dict[str, Any]:
    """All but the trail, which grows: see `grown`."""
    row = {name: getattr(ending, name) for name in SAME}
    return {"outcome": ending.state, "answer": ending.text, **row, **_usage_to_row(ending.usage)}


def ending_from_row(row: Row) -> Ending:
    same = {name: row[name] for name in SAME}
    return Ending(
        state=row["outcome"],
        text=row["answer"],
        usage=usage_from_row(row),
        trail=trail_from_json(row["trail"]),
        **same,
    )


def trail_from_json(text: str) -> tuple[Moment, ...]:
    return tuple(Moment(*item) for item in load(text))


def grown(stored: str, more: tuple[Moment, ...]) -> str:
    """The stored trail and what is new in `more`, in the order in which it was told: the
    times are of a clock that may jump."""
    known = load(stored)
    for moment in more:
        item = [moment.at, sound(moment.what), sound(moment.detail)]
        if item not in known:
            known.append(item)
    return dump(known)


def _usage_to_row(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "cached_tokens": usage.cached,
        "reasoning_tokens": usage.reasoning,
    }


def usage_from_row(row: Row) -> Usage:
    return Usage(
        prompt=row["prompt_tokens"],
        completion=row["completion_tokens"],
        cached=row["cached_tokens"],
        reasoning=row["reasoning_tokens"],
    )


# ---------------------------------------------------------------- the reply journal


def handle_to_row(handle: Handle) -> dict[str, Any]:
    return {
        "key": handle.key,
        "rung": handle.rung,
        "card_id": handle.card_id,
        "message_id": handle.message_id,
        "sequence": handle.sequence,
        "extra": dump(handle.extra),
    }


def handle_from_row(row: Row) -> Handle:
    return Handle(
        key=row["key"],
        rung=row["rung"],
        card_id=row["card_id"],
        message_id=row["message_id"],
        sequence=row["sequence"],
        extra=load(row["extra"]),
    )
