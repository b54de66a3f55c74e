"""Cards: entities, streaming, sequences (reference/feishu.md 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.feishu import check, render
from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.limits import CARD, too_chatty, too_fast
from adapters.playground.feishu.render import Picture
from adapters.playground.feishu.typewriter import Frame
from adapters.playground.feishu.wire import RATE_LIMITED, Ask, Refused, dumps, malformed
from adapters.playground.view import Bubble

Json = dict[str, Any]

DAY = 86_400.0
MOST_CHARACTERS = 100_000
MOST_SEQUENCE = 2**31 - 1
PAINTS_KEPT = 10_000
FRAMES_KEPT = 1_000

_SETTINGS = {"streaming_mode", "streaming_config", "summary", "enable_forward", "width_mode"}


@dataclass(frozen=True, slots=True)
class Paint:
    """One change of a streamed element: `typed` when only a tail was added, else the whole
    text appeared at once (6.5)."""

    card_id: str
    element_id: str
    text: str
    typed: bool


@dataclass(eq=False, slots=True)
class Entity:
    """One card. `inline`: it came inside a message, not from CardKit. `timed_out`: streaming
    mode closed by itself and nobody has been told yet. `uuids` remembers what each stood
    for. `frames`: what its clients were told, in order."""

    id: str
    card: Json
    created_at: float
    inline: bool
    message_id: str = ""
    sequence: int = 0
    streaming: bool = False
    opened_at: float = 0.0
    timed_out: bool = False
    uuids: dict[str, str] = field(default_factory=dict)
    picture: Picture = field(default_factory=Picture)
    frames: list[Frame] = field(default_factory=list)

    @property
    def summary(self) -> str:
        found = self.card.get("config", {}).get("summary", {})
        return str(found.get("content", "")) if isinstance(found, dict) else ""


class Cards:
    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self.entities: dict[str, Entity] = {}
        self.paints: list[Paint] = []

    # calls ---------------------------------------------------------

    def create(self, ask: Ask) -> Json:
        """POST cardkit/v1/cards."""
        return {"card_id": self.make(self._card(ask), inline=False).id}

    def content(self, ask: Ask) -> Json:
        """PUT …/elements/{eid}/content: the whole text so far."""
        words = ask.body.get("content")
        if not isinstance(words, str) or not 1 <= len(words) <= MOST_CHARACTERS:
            raise malformed("content", "must have 1 to 100000 characters")
        entity = self._begin(ask)
        if entity is None:
            return {}
        self._must_stream(entity)
        element = _element(entity.card, ask.params["element_id"])
        before = str(element.get("content", ""))
        element["content"] = words
        try:
            self._sound(entity.card)
        except Refused:
            element["content"] = before
            raise
        self._paint(entity, str(element["element_id"]), before, words)
        return self._done(entity, ask, typed=True)

    def settings(self, ask: Ask) -> Json:
        """PATCH …/settings: merged into the config, with or without the wrapper (6.3)."""
        given = ask.json("settings")
        config = given.get("config", given)
        if not isinstance(config, dict) or not config or config.keys() - _SETTINGS:
            raise Refused(300122, "ErrMsg: update card settings failed;", blame=True)
        entity = self._begin(ask)
        if entity is None:
            return {}
        entity.card["config"] = entity.card.get("config", {}) | config
        if "streaming_mode" in config:
            self._set_streaming(entity)
        return self._done(entity, ask)

    def update(self, ask: Ask) -> Json:
        """PUT cardkit/v1/cards/{id}: another card in its place."""
        body = ask.body.get("card")
        if not isinstance(body, dict):
            raise malformed("card", "is required")
        card = self._card(Ask(ask.params, ask.query, body, ask.size))
        entity = self._begin(ask)
        if entity is None:
            return {}
        entity.card = card
        self._set_streaming(entity)
        return self._done(entity, ask, typed=False)

    def id_convert(self, ask: Ask) -> Json:
        """POST cardkit/v1/cards/id_convert."""
        message = self._b.world.messages.get(ask.text("message_id"))
        if message is None or not message.card_id:
            raise Refused(200740, "ErrMsg: card not found;")
        return {"card_id": message.card_id}

    # entities -----------------------------------------------------

    def make(self, card: Json, *, inline: bool) -> Entity:
        """A new entity; the card has been checked."""
        number = self._b.world.rng.randrange(7 * 10**18, 8 * 10**18)
        entity = Entity(str(number), card, self._b.clock.time(), inline)
        self.entities[entity.id] = entity
        self._set_streaming(entity)
        self._frame(entity, typed=False)
        return entity

    def for_message(self, card_id: str) -> Entity:
        """The entity that a message is about to show, once (6.4, 6.7). Raises Refused."""
        entity = self.entities.get(card_id)
        young = entity is not None and (
            self._b.clock.time() < entity.created_at + self._b.policy.card_ready_after
        )
        if entity is None or young:
            raise check.Problem(11310, 0, "ROOT", "cardid is invalid", not young).in_message()
        if entity.message_id:
            # which code it is, is not documented
            raise check.Problem(200914, 0, "ROOT", "card has been sent").in_message()
        return entity

    def show(self, entity: Entity) -> Picture:
        """What the entity shows now."""
        entity.picture = render.of_card(entity.card, self._b.world.name_of)
        return entity.picture

    def replace(self, entity: Entity, card: Json) -> None:
        """Another card by PATCH or as the answer to a button."""
        entity.card = card
        self._set_streaming(entity)
        self._frame(entity, typed=False)
        self._redraw(entity)

    def sound_in_message(self, card: Json) -> None:
        """Raises Refused 230099."""
        found = check.problem(card, self._b.policy, self._known())
        if found is not None:
            raise found.in_message()

    def too_old(self, entity: Entity) -> bool:
        return self._b.clock.time() > entity.created_at + self._b.policy.card_days * DAY

    # parts of every call --------------------------------------------

    def _card(self, ask: Ask) -> Json:
        kind = ask.text("type")
        if kind != "card_json":
            raise Refused(10002, f"ErrMsg: type {kind} is not available here;", blame=True)
        try:
            card = ask.json("data")
        except Refused:
            if isinstance(ask.body.get("data"), str):
                raise Refused(200220, "ErrMsg: card json is invalid;", blame=True) from None
            raise
        if card.get("schema") != "2.0":
            raise Refused(300303, "ErrMsg: card schema is not 2.0;", blame=True)
        self._sound(card)
        return card

    def _sound(self, card: Json) -> None:
        found = check.problem(card, self._b.policy, self._known())
        if found is not None:
            raise found.in_kit()
        if self._b.policy.unsafe(dumps(card)):
            raise Refused(230028, "The messages do NOT pass the audit.")

    def _known(self) -> frozenset[str]:
        return frozenset({"all", self._b.world.bot_open_id, *self._b.world.people})

    def _begin(self, ask: Ask) -> Entity | None:
        """The entity, ready for this operation; None when its uuid was served before."""
        entity = self.entities.get(ask.params["card_id"])
        sequence, uuid = _sequence(ask), ask.optional("uuid", most=64)
        if entity is None:
            raise Refused(200740, "ErrMsg: card not found;")
        if self.too_old(entity):
            raise Refused(200750, "ErrMsg: card is expired;")
        self._may(entity)
        if uuid in entity.uuids:
            if entity.uuids[uuid] != _fingerprint(ask):
                raise Refused(200770, "ErrMsg: uuid conflict;", blame=True)
            return None
        if not entity.sequence < sequence <= MOST_SEQUENCE:
            raise Refused(300317, "ErrMsg: sequence number compare failed;")
        if self._b.policy.refused_takes_sequence:
            entity.sequence = sequence
        return entity

    def _may(self, entity: Entity) -> None:
        if not self._b.strict_limits:
            return
        wait = self._b.windows.wait(f"card {entity.id}", CARD)
        if not wait:
            return
        if self._b.policy.card_limit_code == RATE_LIMITED:
            raise too_fast(f"card {entity.id}", CARD, wait)
        raise too_chatty("ErrMsg: too many operations on one card;")

    def _done(self, entity: Entity, ask: Ask, *, typed: bool | None = None) -> Json:
        """`typed`: as in Frame; None when the call changed no text."""
        entity.sequence = _sequence(ask)
        if ask.optional("uuid"):
            entity.uuids[ask.text("uuid")] = _fingerprint(ask)
        if typed is not None:
            self._frame(entity, typed=typed)
        self._redraw(entity)
        return {}

    # streaming ----------------------------------------------------------

    def _set_streaming(self, entity: Entity) -> None:
        """Follow the card's config; opening again starts the window anew (6.6)."""
        wanted = entity.card.get("config", {}).get("streaming_mode") is True
        entity.streaming, entity.timed_out = wanted, False
        if wanted:
            entity.opened_at = self._b.clock.monotonic()
            self._b.spawn(self._time_out(entity, entity.opened_at))

    async def _time_out(self, entity: Entity, opened_at: float) -> None:
        await self._b.clock.sleep(self._b.policy.stream_seconds)
        if entity.streaming and entity.opened_at == opened_at:
            self._expire(entity)

    def _expire(self, entity: Entity) -> None:
        entity.streaming, entity.timed_out = False, True
        entity.card.get("config", {})["streaming_mode"] = False
        self._redraw(entity)

    def _must_stream(self, entity: Entity) -> None:
        age = self._b.clock.monotonic() - entity.opened_at
        if entity.streaming and age >= self._b.policy.stream_seconds:
            self._expire(entity)
        if entity.timed_out:
            entity.timed_out = False
            raise Refused(200850, "ErrMsg: card streaming timeout;")
        if not entity.streaming:
            raise Refused(300309, "ErrMsg: streaming mode is closed;")

    # what is seen -----------------------------------------------------

    def _paint(self, entity: Entity, element: str, before: str, words: str) -> None:
        self.paints.append(Paint(entity.id, element, words, words.startswith(before)))
        if len(self.paints) > PAINTS_KEPT:
            del self.paints[: PAINTS_KEPT // 2]

    def _frame(self, entity: Entity, *, typed: bool) -> None:
        texts = {
            str(element["element_id"]): str(element.get("content", ""))
            for element in render.walk(render.elements_of(entity.card))
            if "element_id" in element and element.get("tag") == "markdown"
        }
        config = entity.card.get("config", {}).get("streaming_config")
        now = self._b.clock.monotonic()
        entity.frames.append(Frame(now, texts, typed, config if isinstance(config, dict) else {}))
        if len(entity.frames) > FRAMES_KEPT:
            del entity.frames[: FRAMES_KEPT // 2]

    def _redraw(self, entity: Entity) -> None:
        bubble = self._b.world.bubbles.get(entity.message_id)
        if bubble is None or bubble.recalled:
            return
        picture = self.show(entity)

        def alter(bubble: Bubble) -> None:
            bubble.blocks, bubble.streaming = picture.blocks, entity.streaming
            bubble.pings += [ping for ping in picture.pings if ping not in bubble.pings]

        self._b.world.change(bubble, alter)


def _sequence(ask: Ask) -> int:
    value = ask.body.get("sequence")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise malformed("sequence", "must be a positive int32")
    return value


def _fingerprint(ask: Ask) -> str:
    """What a uuid stands for: the call without its sequence."""
    body = {key: value for key, value in ask.body.items() if key not in ("uuid", "sequence")}
    return dumps([dict(ask.params), body])


def _element(card: Json, element_id: str) -> Json:
    """The text element of that id, anywhere in the card. Raises Refused."""
    if not re.fullmatch(check.ELEMENT_ID, element_id):
        raise Refused(300301, "ErrMsg: element_id is malformed;", blame=True)
    for element in render.walk(render.elements_of(card)):
        for part in (element, element.get("text")):
            if isinstance(part, dict) and part.get("element_id") == element_id:
                if part.get("tag") not in ("markdown", "plain_text"):
                    raise Refused(300310, "ErrMsg: element is not a text element;", blame=True)
                return part
    raise Refused(300313, "ErrMsg: update element failed;", blame=True)
