"""AI cards: created, delivered, streamed, updated, pressed (reference/dingtalk.md 6)."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.dingtalk import pings, templates
from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.fences import open_fence
from adapters.playground.dingtalk.limits import LEEWAY
from adapters.playground.dingtalk.templates import Template
from adapters.playground.dingtalk.wire import QPS_CODE, Refused, need_str
from adapters.playground.dingtalk.world import SimChat, SimPerson
from adapters.playground.view import Block, Bubble

SPACING = 0.5
"""Least seconds between two frames of one card (reference 6.4)."""

_SPACE = re.compile(r"dtv1\.card//(IM_GROUP|IM_ROBOT)\.(.+)")


@dataclass(slots=True)
class Card:
    """One instance. `done` after the last frame (or flowStatus 3 or 5); `guids` holds
    the frames that took effect."""

    id: str
    template: Template
    params: dict[str, str]
    callbacks: bool
    private: dict[str, dict[str, str]] = field(default_factory=dict)
    space_type: str = ""
    space_id: str = ""
    bubble: Bubble | None = None
    done: bool = False
    blank: bool = False
    guids: set[str] = field(default_factory=set)
    last_frame: float = float("-inf")


class Cards:
    """`refusals`: what the next deliveries answer inside a 200 (`deliverResults`)."""

    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self.templates = templates.known()
        self.cards: dict[str, Card] = {}
        self.refusals: deque[str] = deque()

    # create and deliver ---------------------------------------------

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/card/instances."""
        return {"success": True, "result": self._new(body).id}

    def deliver(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/card/instances/deliver."""
        card = self.cards.get(need_str(body, "outTrackId", "param.outTrackIdEmpty"))
        if card is None:
            raise Refused(400, "param.cardNotExist")
        _space(body)
        return {"success": True, "result": [self._place(card, body)]}

    def create_and_deliver(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/card/instances/createAndDeliver: 200 also when not delivered."""
        kind, _ = _space(body)
        model = "imGroupOpenSpaceModel" if kind == "IM_GROUP" else "imRobotOpenSpaceModel"
        if not isinstance(body.get(model), dict):
            self._b.blame(f"createAndDeliver: no {model}")
        card = self._new(body)
        result = {"outTrackId": card.id, "deliverResults": [self._place(card, body)]}
        return {"success": True, "result": result}

    def _new(self, body: dict[str, Any]) -> Card:
        track = need_str(body, "outTrackId", "param.outTrackIdEmpty")
        template = self.templates.get(need_str(body, "cardTemplateId", "param.cardTemplateIdEmpty"))
        if template is None or not template.published:
            raise Refused(400, "param.templateUnpublished", "模板未发布")
        params = self._params(body.get("cardData"))
        if track in self.cards:
            raise Refused(400, "param.cardAlreadyExist", "card already exist")
        card = Card(track, template, params, body.get("callbackType") == "STREAM")
        self.cards[track] = card
        return card

    def _params(self, data: Any) -> dict[str, str]:
        """The cardParamMap; every value must be a string (reference 6.2)."""
        values = data.get("cardParamMap") if isinstance(data, dict) else None
        if not isinstance(values, dict):
            raise Refused(400, "InvalidParameter", "cardData.cardParamMap must be an object")
        limit = self._b.policy.param_max_bytes
        for name, value in values.items():
            if not isinstance(value, str):
                raise Refused(400, "InvalidParameter", f"cardParamMap.{name} must be a string")
            if len(name.encode()) > 100 or (limit and len(value.encode()) > limit):
                raise Refused(400, "InvalidParameter", f"cardParamMap.{name} is too long")
            if self._b.policy.unsafe(value):
                raise Refused(400, "param.contentUnsafe", "内容不合规")
        return dict(values)

    def _place(self, card: Card, body: dict[str, Any]) -> dict[str, Any]:
        kind, space = _space(body)
        answer = {"spaceType": kind, "spaceId": space, "success": False, "carrierId": ""}
        name = "imGroupOpenDeliverModel" if kind == "IM_GROUP" else "imRobotOpenDeliverModel"
        model = body.get(name)
        why = self._cannot(kind, space, model)
        if why:
            return answer | {"errorMsg": why}
        card.space_type, card.space_id = kind, space
        carrier = self._b.world.carriers[card.id] = self._b.world.new_id()
        self._show_first(card, self._aim(kind, space), pings.delivery_pings(model))
        return answer | {"success": True, "carrierId": carrier, "errorMsg": ""}

    def _cannot(self, kind: str, space: str, model: Any) -> str:
        if self.refusals:
            return self.refusals.popleft()
        if not isinstance(model, dict):
            return "deliverModel is empty"
        if kind == "IM_GROUP" and model.get("robotCode") != self._b.world.robot_code:
            return "robotCode is illegal"
        if kind == "IM_ROBOT" and model.get("spaceType") != "IM_ROBOT":
            return "spaceType is illegal"
        chat = self._b.world.chats.get(space)
        group = chat and chat.kind == "2" and not chat.disbanded
        known = group if kind == "IM_GROUP" else self._staff(space)
        return "" if known else "spaceId is illegal"

    def _staff(self, space: str) -> SimPerson | None:
        person = self._b.world.people.get(space)
        return person if person and person.staff_id == space else None

    def _aim(self, kind: str, space: str) -> SimChat:
        world = self._b.world
        return world.chats[space] if kind == "IM_GROUP" else world.p2p(world.people[space])

    def _show_first(self, card: Card, chat: SimChat, pinged: list[str]) -> None:
        content = "".join(b.text for b in card.template.draw(card.params) if b.kind == "markdown")
        card.bubble = self._b.world.put(
            card.id,
            chat.id,
            None,
            card.template.draw(card.params),
            kind="card",
            streaming=not card.done,
            pings=pinged + pings.card_pings(content),
        )

    # streaming --------------------------------------------------------

    def stream(self, body: dict[str, Any]) -> dict[str, Any]:
        """PUT /v1.0/card/streaming."""
        card = self.cards.get(need_str(body, "outTrackId", "param.stream.outTrackId"))
        if card is None:
            raise Refused(400, "param.stream.outTrackId", "card is not exist")
        guid = need_str(body, "guid", "param.stream.guidEmpty")
        if guid not in card.guids:
            self._frame(card, guid, body)
        return {"success": True, "result": True}

    def _frame(self, card: Card, guid: str, body: dict[str, Any]) -> None:
        key, content = self._readable(card, body)
        if card.done and self._finished(card):
            return
        self._spacing(card)
        card.guids.add(guid)
        card.params[key] = content
        if body.get("isFinalize") is True or body.get("isError") is True:
            card.done = True
            self._finalized(card, content)
        elif open_fence(content):
            self._b.blame(f"streaming: an open code fence in {card.id}")
        self._draw(card)

    def _readable(self, card: Card, body: dict[str, Any]) -> tuple[str, str]:
        key = need_str(body, "key", "param.stream.keyEmpty")
        content = need_str(body, "content", "param.stream.contentEmpty")
        if body.get("isFull") is not True:
            raise Refused(400, "param.stream.isFull", "isFull must be true")
        if len(content.encode()) > self._b.policy.stream_max_bytes:
            raise Refused(400, "param.stream.content", "content is too large")
        if self._b.policy.unsafe(content):
            raise Refused(400, "param.contentUnsafe", "内容不合规")
        broken = body.get("isError") is True and not card.template.failure
        if key not in card.template.streaming or broken:
            raise Refused(500, "unknownError", "未知错误")
        return key, content

    def _finished(self, card: Card) -> bool:
        """A new frame after the last one: refused (code unsure) or swallowed."""
        self._b.blame(f"streaming: a frame after the last one of {card.id}")
        if self._b.policy.after_finalize == "refuse":
            raise Refused(400, "param.stream.outTrackId", "card is finished")
        return True

    def _spacing(self, card: Card) -> None:
        now = self._b.clock.monotonic()
        if self._b.strict_limits and now - card.last_frame < SPACING - LEEWAY:
            self._b.blame(f"streaming: frames of {card.id} too close together")
            raise Refused(403, QPS_CODE, "单张卡片更新过快")
        card.last_frame = now

    def _finalized(self, card: Card, content: str) -> None:
        if len(content.encode()) > self._b.policy.blank_over_bytes:
            card.blank = True
            self._b.blame(f"streaming: {card.id} is too long to be shown")

    # updating ---------------------------------------------------------

    def update(self, body: dict[str, Any]) -> dict[str, Any]:
        """PUT /v1.0/card/instances: overwrites everything unless told by key."""
        card = self.cards.get(need_str(body, "outTrackId", "param.outTrackIdEmpty"))
        if card is None:
            raise Refused(400, "param.cardNotExist", "card not exist")
        if not body.get("cardData") and not body.get("privateData"):
            raise Refused(400, "param.cardDataAndPrivateDataBothEmpty")
        self._merge(card, body)
        private = body.get("privateData")
        for user, data in private.items() if isinstance(private, dict) else ():
            card.private[user] = self._params(data)
        return {"success": True, "result": True}

    def answered(self, card: Card, person: SimPerson, response: dict[str, Any]) -> None:
        """What the ack of a button changes (reference 2.5)."""
        self._merge(card, response)
        private = response.get("userPrivateData")
        if isinstance(private, dict):
            card.private[person.id] = self._params(private)

    def _merge(self, card: Card, body: dict[str, Any]) -> None:
        if not body.get("cardData"):
            return
        params = self._params(body["cardData"])
        options = body.get("cardUpdateOptions")
        by_key = isinstance(options, dict) and options.get("updateCardDataByKey") is True
        had = _content(card)
        card.params = card.params | params if by_key else params
        card.done = card.done or params.get("flowStatus") in ("3", "5")
        if had and not _content(card):
            self._b.blame(f"update: {card.id} lost its text")
        self._draw(card)

    def _draw(self, card: Card) -> None:
        if card.bubble is None:
            return

        def alter(bubble: Bubble) -> None:
            blocks = card.template.draw(card.params)
            bubble.blocks = [Block("small", "内容加载失败")] if card.blank else blocks
            bubble.streaming = not card.done
            for ping in pings.card_pings(_content(card)):
                if ping not in bubble.pings:
                    bubble.pings.append(ping)

        self._b.world.change(card.bubble, alter)

    # buttons ------------------------------------------------------------

    def callback(self, card: Card, block: str, person: SimPerson) -> dict[str, Any]:
        """The data of `/v1.0/card/instances/callback`, before its JSON strings (6.6)."""
        return {
            "type": "actionCallback",
            "outTrackId": card.id,
            "corpId": self._b.world.corp_id,
            "userId": person.staff_id,
            "userIdType": 1,
            "spaceId": self._said_space(card),
            "spaceType": card.space_type,
            "extension": "{}",
            "content": {
                "cardPrivateData": {
                    "actionIds": [block],
                    "params": {"action": block, "turn": card.params.get("turn", "")},
                }
            },
        }

    def _said_space(self, card: Card) -> str:
        if card.space_type == "IM_GROUP" or self._b.policy.private_space == "user":
            return card.space_id
        if self._b.policy.private_space == "none" or card.bubble is None:
            return ""
        return card.bubble.chat


def _content(card: Card) -> str:
    return "".join(b.text for b in card.template.draw(card.params) if b.kind == "markdown")


def _space(body: dict[str, Any]) -> tuple[str, str]:
    found = _SPACE.fullmatch(need_str(body, "openSpaceId", "param.openSpaceIdInvalid"))
    if not found:
        raise Refused(400, "param.openSpaceIdInvalid", "openSpaceId is invalid")
    return found.group(1), found.group(2)
