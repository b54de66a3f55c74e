"""Reactions, and what there is to know about chats and people (reference/feishu.md 5.5, 5.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.messages import Messages
from adapters.playground.feishu.wire import Ask, Refused, malformed
from adapters.playground.feishu.world import SimChat, SimMessage, SimPerson

Json = dict[str, Any]

_WORDS = """
    OK THUMBSUP THANKS MUSCLE FINGERHEART APPLAUSE FISTBUMP JIAYI DONE SMILE BLUSH LAUGH SMIRK
    LOL FACEPALM LOVE WINK PROUD WITTY SMART SCOWL THINKING SOB CRY ERROR NOSEPICK HAUGHTY SLAP
    SPITBLOOD TOASTED GLANCE DULL INNOCENTSMILE JOYFUL WOW TRICK YEAH ENOUGH TEARS EMBARRASSED
    KISS SMOOCH DROOL OBSESSED MONEY TEASE SHOWOFF COMFORT CLAP PRAISE STRIVE XBLUSH SILENT WAVE
    WHAT FROWN SHY DIZZY LOOKDOWN CHUCKLE WAIL CRAZY WHIMPER HUG BLUBBER WRONGED HUSKY SHHH SMUG
    ANGRY HAMMER SHOCKED TERROR PETRIFIED SKULL SWEAT SPEECHLESS SLEEP DROWSY YAWN SICK PUKE
    BETRAYED HEADSET EatingFood MeMeMe Sigh Typing Lemon Get LGTM OnIt OneSecond VRHeadset
    YouAreTheBest SALUTE SHAKE HIGHFIVE UPPERLEFT ThumbsDown SLIGHT TONGUE EYESCLOSED RoarForYou
    CALF BEAR BULL RAINBOWPUKE ROSE HEART PARTY LIPS BEER CAKE GIFT CUCUMBER Drumstick Pepper
    CANDIEDHAWS BubbleTea Coffee Yes No OKR CheckMark CrossMark MinusOne Hundred AWESOMEN Pin
    Alarm Loudspeaker Trophy Fire BOMB Music XmasTree Snowman XmasHat FIREWORKS REDPACKET FORTUNE
    LUCK FIRECRACKER StickyRiceBalls HEARTBROKEN POOP StatusFlashOfInspiration CLEAVER Soccer
    Basketball GeneralDoNotDisturb Status_PrivateMessage GeneralInMeetingBusy StatusReading
    StatusInFlight GeneralBusinessTrip GeneralWorkFromHome StatusEnjoyLife GeneralTravellingCar
    StatusBus GeneralSun GeneralMoonRest MoonRabbit Mooncake JubilantRabbit TV Movie Pumpkin
    BeamingFace Delighted ColdSweat FullMoonFace Partying GoGoGo ThanksFace SaluteFace Shrug
    ClownFace HappyDragon
"""
EMOJI = frozenset(_WORDS.split())
"""emoji_type, case-sensitive (appendix B)."""

MOST_MEMBERS = 100
"""Of one page (5.6)."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """`person` is None for the bot's own."""

    id: str
    message_id: str
    emoji: str
    person: SimPerson | None
    at: float


class Marks:
    def __init__(self, backend: Backend, messages: Messages) -> None:
        self._b, self._messages = backend, messages
        self._reactions: dict[str, Reaction] = {}

    def put(self, message: SimMessage, emoji: str, person: SimPerson | None) -> Reaction:
        """One per message, operator and emoji; repeating it gives the same."""
        for known in self._reactions.values():
            if (known.message_id, known.emoji, known.person) == (message.id, emoji, person):
                return known
        name = self._b.world.fresh("ZCaCIjUBVVWSrm5L-3ZTw")
        reaction = Reaction(name, message.id, emoji, person, self._b.clock.time())
        self._reactions[reaction.id] = reaction
        self._show(message.id)
        return reaction

    def _show(self, message_id: str) -> None:
        emojis = [r.emoji for r in self._reactions.values() if r.message_id == message_id]
        bubble = self._b.world.bubbles[message_id]
        self._b.world.change(bubble, lambda b: setattr(b, "reactions", emojis))

    # calls ---------------------------------------------------------

    def react(self, ask: Ask) -> Json:
        """POST …/reactions."""
        kind = ask.body.get("reaction_type")
        emoji = kind.get("emoji_type") if isinstance(kind, dict) else None
        if emoji not in EMOJI:
            raise Refused(231001, "reaction type is invalid.", blame=True)
        message = self._messages.find(ask.params["message_id"])
        if message.gone:
            raise Refused(231003, "The message is not found, may be has been recalled.")
        return self._shape(self.put(message, str(emoji), None))

    def unreact(self, ask: Ask) -> Json:
        """DELETE …/reactions/{reaction_id}: own ones only."""
        reaction = self._reactions.get(ask.params["reaction_id"])
        if reaction is None or reaction.message_id != ask.params["message_id"]:
            raise Refused(231010, "reaction id is invalid.")
        if reaction.person is not None:
            raise Refused(231007, "No permission to delete the reaction.")
        del self._reactions[reaction.id]
        self._show(reaction.message_id)
        return self._shape(reaction)

    def reactions(self, ask: Ask) -> Json:
        """GET …/reactions."""
        wanted = ask.query.get("reaction_type", "")
        found = [
            self._shape(one)
            for one in self._reactions.values()
            if one.message_id == ask.params["message_id"] and wanted in ("", one.emoji)
        ]
        return {"items": found, "has_more": False, "page_token": ""}

    def _shape(self, reaction: Reaction) -> Json:
        person = reaction.person
        operator = (person.id, "user") if person else (self._b.app_id, "app")
        return {
            "reaction_id": reaction.id,
            "operator": {"operator_id": operator[0], "operator_type": operator[1]},
            "action_time": str(int(reaction.at * 1000)),
            "reaction_type": {"emoji_type": reaction.emoji},
        }

    def _reachable(self, chat_id: str) -> SimChat:
        """A chat that exists and has the bot in it. Raises Refused."""
        chat = self._b.world.chats.get(chat_id)
        if chat is None:
            raise Refused(232006, "Your request specifies a chat_id which is invalid.")
        if chat.refusal in (232009, 230002):
            code = 232009 if chat.refusal == 232009 else 232011
            raise Refused(code, "The chat is dissolved, or the bot is not in it.")
        return chat

    def chat_info(self, ask: Ask) -> Json:
        """GET im/v1/chats/{id}; counts are strings."""
        chat = self._reachable(ask.params["chat_id"])
        mode = "p2p" if chat.kind == "p2p" else "topic" if chat.topic else "group"
        return {
            "name": chat.title,
            "description": "",
            "chat_mode": mode,
            "group_message_type": "thread" if chat.topic else "chat",
            "chat_type": "private",
            "external": False,
            "tenant_key": self._b.world.tenant_key,
            "user_count": str(len(chat.members)),
            "bot_count": "1",
            "chat_status": "normal",
        }

    def members(self, ask: Ask) -> Json:
        """GET im/v1/chats/{id}/members: people, no bots."""
        chat = self._reachable(ask.params["chat_id"])
        kind = ask.query.get("member_id_type", "open_id")
        if kind not in ("open_id", "union_id", "user_id"):
            raise malformed("member_id_type", "is not one of the options")
        items = [
            {"member_id_type": kind, "member_id": getattr(person, kind), "name": person.name}
            | {"tenant_key": self._b.world.tenant_key}
            for person in chat.members
        ]
        size, token = ask.query.get("page_size", "20"), ask.query.get("page_token", "0")
        if not size.isdigit() or not 1 <= int(size) <= MOST_MEMBERS or not token.isdigit():
            raise malformed("page_size", f"must be 1 to {MOST_MEMBERS}")
        begin, stop = int(token), int(token) + int(size)
        more = stop < len(items)
        return {
            "items": items[begin:stop],
            "member_total": len(items),
            "has_more": more,
            "page_token": str(stop) if more else "",
        }
