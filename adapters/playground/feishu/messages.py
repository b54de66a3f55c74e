"""Messages of the bot: send, reply, change, take back, read (reference/feishu.md 5.3 to 5.6)."""

from __future__ import annotations

from typing import Any

from adapters.playground.feishu import check, contents, render
from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.cards import Cards
from adapters.playground.feishu.limits import CHAT, PATCHES
from adapters.playground.feishu.wire import Ask, Refused, dumps, malformed
from adapters.playground.feishu.world import Place, SimChat, SimMessage

Json = dict[str, Any]

MOST_EDITS = 20
GROUP_SCOPE = "im:message.group_msg"
"""Opens what is said in groups, beside the scope of the call (5.6)."""
REFUSALS = {
    230002: "The bot can not be outside the group.",
    230011: "The message was withdrawn.",
    230013: "Bot has NO availability to this user.",
    230035: "Send Message Permission deny.",
    230053: "The user has stopped the bot from sending messages.",
    230110: "Action unavailable as the message has been deleted.",
    232009: "Your request specifies a chat which has already been dissolved.",
}


class Messages:
    def __init__(self, backend: Backend, cards: Cards) -> None:
        self._b, self._cards = backend, cards
        self._sent: dict[str, tuple[float, str]] = {}
        self._busy: set[str] = set()

    # sending -------------------------------------------------------

    async def send(self, ask: Ask) -> Json:
        """POST im/v1/messages."""
        chat = self._receiver(ask)
        return await self._once(ask, chat, lambda: self._b.world.new_place(chat))

    async def reply(self, ask: Ask) -> Json:
        """POST im/v1/messages/{id}/reply."""
        target = self.find(ask.params["message_id"])
        chat = self._b.world.chats[target.chat]
        in_thread = ask.flag("reply_in_thread")

        def place() -> Place:
            if target.gone:
                raise _refused(target.gone)
            if in_thread and not target.thread and not chat.threads:
                raise Refused(230071, "The chat does not support replying in threads.")
            return self._b.world.place_beside(target, in_thread)

        return await self._once(ask, chat, place)

    def _receiver(self, ask: Ask) -> SimChat:
        kind, receiver = ask.query.get("receive_id_type", ""), ask.text("receive_id")
        if kind == "chat_id":
            if receiver not in self._b.world.chats:
                raise _refused(230002)
            return self._b.world.chats[receiver]
        if kind not in ("open_id", "union_id", "user_id"):
            raise malformed("receive_id_type", "is not one of the options")
        for person in self._b.world.people.values():
            if receiver == getattr(person, kind):
                return self._b.world.p2p(person)
        if kind == "open_id":
            raise Refused(99992361, "open_id cross app", blame=True)
        raise Refused(230034, "Invalid receive_id.")

    async def _once(self, ask: Ask, chat: SimChat, place: Any) -> Json:
        """One message per uuid and hour (5.3)."""
        uuid = ask.optional("uuid", most=50)
        sent_at, message_id = self._sent.get(uuid, (0.0, ""))
        if message_id and self._b.clock.time() < sent_at + self._b.policy.uuid_seconds:
            return self.rest_shape(self._b.world.messages[message_id])
        if uuid and uuid in self._busy:
            raise Refused(230049, "The message is being sent.")
        self._busy.add(uuid)
        try:
            if self._b.policy.send_seconds:
                await self._b.clock.sleep(self._b.policy.send_seconds)
            message = self._post(ask, chat, place)
        finally:
            self._busy.discard(uuid)
        if uuid:
            self._sent[uuid] = (message.at, message.id)
        return self.rest_shape(message)

    def _post(self, ask: Ask, chat: SimChat, place: Any) -> SimMessage:
        if chat.refusal:
            raise _refused(chat.refusal)
        kind, content = contents.read(ask)
        if self._b.policy.unsafe(ask.text("content")):
            raise Refused(230028, "The messages do NOT pass the audit.")
        self._b.limit(f"chat {chat.id}", CHAT, "The message triggers frequency limit.")
        shape = self._shape(kind, content)
        spot: Place = place()
        message = SimMessage(
            self._b.world.fresh("om_"),
            chat.id,
            None,
            kind,
            ask.text("content"),
            self._b.clock.time(),
            spot.root,
            spot.parent,
            spot.thread,
        )
        message.card_id = shape.pop("card_id", "")
        self._b.world.put(message, **shape)
        if message.card_id:
            self._cards.entities[message.card_id].message_id = message.id
        return message

    def _shape(self, kind: str, content: Json) -> Json:
        """What the bubble shows, as its fields; `card_id` beside them for a card."""
        if kind != "interactive":
            picture = render.of_message(kind, content, self._b.world.name_of)
            return {"blocks": picture.blocks, "pings": picture.pings}
        if content.get("type") == "template":
            raise check.Problem(200380, 0, "ROOT", "template does not exist").in_message()
        if content.get("type") == "card":
            data = content.get("data")
            entity = self._cards.for_message(str(data.get("card_id") if data else ""))
        else:
            self._cards.sound_in_message(content)
            entity = self._cards.make(content, inline=True)
        picture = self._cards.show(entity)
        return {
            "kind": "card",
            "card_id": entity.id,
            "blocks": picture.blocks,
            "pings": list(picture.pings),
            "streaming": entity.streaming,
        }

    # changing -------------------------------------------------------

    def patch(self, ask: Ask) -> Json:
        """PATCH im/v1/messages/{id}: another card in an own message (5.4)."""
        message = self._own(ask, 230027)
        content = contents.parse(ask.text("content"))
        entity = self._cards.entities.get(message.card_id)
        if entity is None or not entity.inline:
            raise Refused(230054, "This operation is not supported for this message type.")
        if self._cards.too_old(entity):
            raise Refused(230031, "The message is too old to be updated.")
        if ask.size > contents.CARD_BYTES:
            raise Refused(230025, "The length of the card reaches its limit.", blame=True)
        if not (_shared(entity.card) and _shared(content)):
            raise Refused(230001, "update_multi must be true in both cards.", blame=True)
        if self._b.policy.unsafe(ask.text("content")):
            raise Refused(230028, "The messages do NOT pass the audit.")
        self._b.limit(f"patch {message.id}", PATCHES, "The card message triggers its limit.")
        self._cards.sound_in_message(content)
        message.content, message.updated_at = dumps(content), self._b.clock.time()
        self._cards.replace(entity, content)
        return {}

    def edit(self, ask: Ask) -> Json:
        """PUT im/v1/messages/{id}: another text or post."""
        message = self._own(ask, 230071)
        kind, content = contents.read(ask, {"text", "post"})
        if message.msg_type not in ("text", "post"):
            raise Refused(230054, "This operation is not supported for this message type.")
        if message.edits >= MOST_EDITS:
            raise Refused(230072, "The message has reached the number of times it can be edited.")
        message.edits += 1
        self.rewrite(message, kind, content)
        message.content = ask.text("content")
        return self.rest_shape(message)

    def rewrite(self, message: SimMessage, kind: str, content: Json) -> None:
        """Another text or post in a message, whoever wrote it."""
        message.msg_type, message.content = kind, dumps(content)
        message.updated_at = self._b.clock.time()
        picture = render.of_message(kind, content, self._b.world.name_of)
        bubble = self._b.world.bubbles[message.id]
        self._b.world.change(bubble, lambda b: setattr(b, "blocks", picture.blocks))

    def recall(self, ask: Ask) -> Json:
        """DELETE im/v1/messages/{id}."""
        self.take_back(self._own(ask, 230026), 230110)
        return {}

    def take_back(self, message: SimMessage, code: int) -> None:
        """The message disappears; replies meet `code` from now on."""
        message.gone = code

        def alter(bubble: Any) -> None:
            bubble.recalled, bubble.streaming, bubble.blocks = True, False, []

        self._b.world.change(self._b.world.bubbles[message.id], alter)

    def find(self, message_id: str) -> SimMessage:
        """Raises Refused 99992354."""
        message = self._b.world.messages.get(message_id)
        if message is None:
            raise Refused(99992354, "The request you send is not a valid {open_message_id}.")
        return message

    def _own(self, ask: Ask, otherwise: int) -> SimMessage:
        message = self.find(ask.params["message_id"])
        if message.author is not None:
            raise Refused(otherwise, "The operator is not the sender of the message.")
        if message.gone:
            raise _refused(message.gone)
        return message

    # reading --------------------------------------------------------

    def get(self, ask: Ask) -> Json:
        """GET im/v1/messages/{id}."""
        message = self.find(ask.params["message_id"])
        self._may_read(message.chat)
        return {"items": [self.rest_shape(message)]}

    def history(self, ask: Ask) -> Json:
        """GET im/v1/messages: of a chat (in a plain group of each thread only its root) or of
        a thread, which knows no time range."""
        query = ask.query
        start, end = _seconds(query, "start_time", 0.0), _seconds(query, "end_time", 1e12)
        found = self._contained(query)
        if query.get("container_id_type") == "thread":
            if {"start_time", "end_time"} & query.keys():
                self._b.blame("list_messages: a time range of a thread")
        else:
            found = [m for m in found if start <= int(m.at) <= end]
        if query.get("sort_type", "ByCreateTimeAsc") == "ByCreateTimeDesc":
            found.reverse()
        size, token = query.get("page_size", "20"), query.get("page_token", "0")
        if not size.isdigit() or not 1 <= int(size) <= 50 or not token.isdigit():
            raise malformed("page_size", "must be 1 to 50")
        begin, stop = int(token), int(token) + int(size)
        more = stop < len(found)
        return {
            "has_more": more,
            "page_token": str(stop) if more else "",
            "items": [self.rest_shape(message) for message in found[begin:stop]],
        }

    def _contained(self, query: Any) -> list[SimMessage]:
        kind, container = query.get("container_id_type", ""), query.get("container_id", "")
        everything = list(self._b.world.messages.values())
        if kind == "thread":
            inside = [m for m in everything if m.thread == container]
            for chat in {m.chat for m in inside}:
                self._may_read(chat)
            return inside
        if kind != "chat":
            raise malformed("container_id_type", "must be chat or thread")
        self._may_read(container)
        whole = self._b.world.chats[container].topic
        here = [m for m in everything if m.chat == container]
        first = {m.thread: m for m in reversed(here)}
        return [m for m in here if whole or not m.thread or first[m.thread] is m]

    def _may_read(self, chat_id: str) -> None:
        """Only members read, and groups only with GROUP_SCOPE. Raises Refused."""
        chat = self._b.world.chats.get(chat_id)
        if chat is None or chat.refusal in (230002, 232009):
            raise _refused(chat.refusal if chat else 230002)
        if chat.kind == "group" and GROUP_SCOPE in self._b.policy.missing_scopes:
            words = f"Lack of necessary permissions, ext=need scope: {GROUP_SCOPE}"
            raise Refused(230027, words)

    def rest_shape(self, message: SimMessage) -> Json:
        """A message as REST tells it (4.4)."""
        author = message.author
        sender = (
            {"id": author.id, "id_type": "open_id", "sender_type": "user"}
            if author
            else {"id": self._b.app_id, "id_type": "app_id", "sender_type": "app"}
        )
        content = '{"text":"This message was recalled"}' if message.gone else message.content
        shape = {
            "message_id": message.id,
            "msg_type": message.msg_type,
            "create_time": str(int(message.at * 1000)),
            "update_time": str(int((message.updated_at or message.at) * 1000)),
            "deleted": bool(message.gone),
            "updated": bool(message.updated_at),
            "chat_id": message.chat,
            "sender": sender | {"tenant_key": self._b.world.tenant_key},
            "body": {"content": content},
        }
        ids = {"root_id": message.root, "parent_id": message.parent, "thread_id": message.thread}
        shape |= {key: value for key, value in ids.items() if value}
        if message.mentions:
            shape["mentions"] = [_mention(one) for one in message.mentions]
        return shape


def _refused(code: int) -> Refused:
    return Refused(code, REFUSALS.get(code, "refused"))


def _mention(mention: Json) -> Json:
    """In REST the id is a string."""
    open_id = mention["id"].get("open_id", "")
    return mention | {"id": open_id, "id_type": "open_id"}


def _shared(card: Json) -> bool:
    """update_multi: true by default in schema 2.0 alone."""
    default = card.get("schema") == "2.0"
    return card.get("config", {}).get("update_multi", default) is True


def _seconds(query: Any, key: str, default: float) -> float:
    text = query.get(key, "")
    if text and not text.isdigit():
        raise malformed(key, "is not a time in seconds")
    return float(text) if text else default
