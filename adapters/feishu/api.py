"""Feishu's REST calls as methods (reference/feishu.md 5 and 6.3).

Every method raises of the BorderError family, translated in codes.py, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from adapters.feishu.codes import STALE_TOKEN, code_of, error_of
from adapters.feishu.settings import BotIdentity, FeishuSettings
from adapters.foreign import at, text_at
from adapters.http import Answer, Http
from adapters.meter import Unlimited, Unmetered
from adapters.tokens import of_token
from bot.contract import Budget, Charge, Clock, Json, Meter, Window
from bot.errors import BorderError, Bug, QuotaExhausted, Transient, Uncertain

log = logging.getLogger(__name__)

API_WINDOWS = (Window(50, 1.0), Window(1000, 60.0))
"""Per API, app and tenant (reference/feishu.md 5.8)."""

EARLY = 600.0
"""Seconds before its end at which a token is replaced (reference/feishu.md 5.1)."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that exists now."""

    message_id: str
    chat_id: str = ""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    refresh_at: float
    ends_at: float


class FeishuApi:
    """The REST side of one app. `clock` dates the token only; nothing here waits. `meter`
    hears of every request that counts against the month: all but those for a token
    (reference/feishu.md 5.9)."""

    def __init__(
        self,
        settings: FeishuSettings,
        http: Http,
        clock: Clock,
        meter: Meter | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._meter, self._budget = meter or Unmetered(), budget or Unlimited()
        self._base = settings.base_url.rstrip("/")
        self._token: _Token | None = None
        self._fetching = asyncio.Lock()

    @property
    def app_id(self) -> str:
        return self._settings.app_id

    def ahead(self) -> float:
        """Seconds by which Feishu's clock is ahead of ours, up to a second too few; 0 while
        that is not known."""
        now = self._http.now(self._base)
        return 0.0 if now is None else now - self._clock.time()

    # ------------------------------------------------------------ limits

    def bucket(self, api: str) -> str:
        """The name of an API's budget; limits are per app (reference/feishu.md 5.8)."""
        return f"feishu/{self._settings.app_id}/{api}"

    def charge(self, api: str) -> Charge:
        """One call of `api`: send, reply, patch, delete, create, content, settings, update."""
        return Charge(self.bucket(api), API_WINDOWS)

    def room(self, charge: Charge) -> AbstractAsyncContextManager[None]:
        """For a call beside the replies, which ask for theirs themselves: as
        bot.contract.Budget."""
        return self._budget.room(charge)

    # ------------------------------------------------------------ token

    async def token(self) -> str:
        """The tenant token: one fetch at a time, early enough (reference/feishu.md 5.1)."""
        if self._token is None or self._clock.monotonic() >= self._token.refresh_at:
            async with self._fetching:
                await self._refresh()
        assert self._token is not None
        return self._token.text

    async def _refresh(self) -> None:
        now = self._clock.monotonic()
        old = self._token
        if old is not None and now < old.refresh_at:
            return
        try:
            self._token = await self._fetch_token(now)
        except BorderError as error:
            if old is None or now >= old.ends_at:
                raise
            log.warning("token kept, refresh failed: %s", error)
            self._token = _Token(old.text, min(now + 30.0, old.ends_at), old.ends_at)

    async def _fetch_token(self, now: float) -> _Token:
        body = {"app_id": self._settings.app_id, "app_secret": self._settings.app_secret}
        url = f"{self._base}/open-apis/auth/v3/tenant_access_token/internal"
        try:
            answer = await self._http.call("POST", url, json=body)
        except Uncertain as error:
            raise Transient(f"token: {error.cause}") from None
        text, expire = text_at(answer.body, "tenant_access_token"), at(answer.body, "expire")
        if code_of(answer) == 0 and text and isinstance(expire, int | float):
            return _Token(text, now + expire - min(EARLY, expire / 2), now + expire)
        raise of_token(self._clean(error_of(answer, "token")))

    def drop_token(self, text: str) -> None:
        """Forget `text` if it is still the token in use."""
        if self._token is not None and self._token.text == text:
            self._token = None

    # ------------------------------------------------------------ calls

    async def call(
        self,
        method: str,
        path: str,
        *,
        api: str,
        json: object = None,
        params: Mapping[str, str] | None = None,
        place: str = "",
    ) -> Any:
        """One call below /open-apis/; the whole answer body. A dead token is replaced and
        the call repeated once. `place` is the bucket that 230020 blames."""
        token = await self.token()
        answer = await self._send(method, path, token, json, params, api)
        if code_of(answer) in STALE_TOKEN:
            self.drop_token(token)
            answer = await self._send(method, path, await self.token(), json, params, api)
        if code_of(answer) == 0 and answer.status < 400:
            return answer.body
        error = self._clean(error_of(answer, api, self.bucket(api), place))
        if isinstance(error, QuotaExhausted):
            self._meter.used_up()
        raise error

    async def _send(
        self,
        method: str,
        path: str,
        token: str,
        json: object,
        params: Mapping[str, str] | None,
        api: str,
    ) -> Answer:
        """Counted unless it certainly never left; one that was refused may be billed."""
        left = True
        try:
            return await self._http.call(
                method,
                f"{self._base}/open-apis/{path}",
                json=json,
                params=params,
                headers={"Authorization": f"Bearer {token}"},
            )
        except (Transient, Bug):
            left = False
            raise
        finally:
            if left:
                self._meter.count(api)

    def _clean(self, error: BorderError) -> BorderError:
        """The error without our secrets, should the service have echoed one (law 10)."""
        secrets = [self._settings.app_secret, self._token.text if self._token else ""]
        for secret in filter(None, secrets):
            error.cause = error.cause.replace(secret, "***")
        error.args = (error.cause,)
        return error

    async def bot_identity(self) -> BotIdentity:
        """Who we are (reference/feishu.md 5.2)."""
        body = await self.call("GET", "bot/v3/info", api="bot_info")
        open_id = text_at(body, "bot", "open_id")
        if not open_id:
            raise Bug("bot_info: no open_id")
        return BotIdentity(open_id, text_at(body, "bot", "app_name"))

    # ------------------------------------------------------------ messages

    async def send(
        self,
        receiver: str,
        msg_type: str,
        content: Json,
        uuid: str,
        place: str = "",
        *,
        of: str = "chat_id",
    ) -> Sent:
        """A new message to a chat, or to a person when `of` is open_id, union_id or
        user_id; `uuid` (at most 50 characters) makes a repeat within an hour harmless
        (reference/feishu.md 5.3)."""
        body = await self.call(
            "POST",
            "im/v1/messages",
            api="send",
            params={"receive_id_type": of},
            json={"receive_id": receiver, **_message(msg_type, content), "uuid": uuid},
            place=place,
        )
        return _sent(body, "send")

    async def reply(
        self,
        message_id: str,
        msg_type: str,
        content: Json,
        uuid: str,
        *,
        in_thread: bool = False,
        place: str = "",
    ) -> Sent:
        """A reply to a message, in its thread when it has one (reference/feishu.md 5.3)."""
        body = await self.call(
            "POST",
            f"im/v1/messages/{quote(message_id, safe='')}/reply",
            api="reply",
            json={**_message(msg_type, content), "reply_in_thread": in_thread, "uuid": uuid},
            place=place,
        )
        return _sent(body, "reply")

    async def patch(self, message_id: str, card: Json, place: str = "") -> None:
        """Replace one of our own cards (reference/feishu.md 5.4)."""
        await self.call(
            "PATCH",
            f"im/v1/messages/{quote(message_id, safe='')}",
            api="patch",
            json={"content": dumps(card)},
            place=place,
        )

    async def delete(self, message_id: str) -> None:
        """Take one of our own messages back (reference/feishu.md 5.4)."""
        path = f"im/v1/messages/{quote(message_id, safe='')}"
        await self.call("DELETE", path, api="delete")

    # ------------------------------------------------------------ card entities

    async def create_card(self, card: Json) -> str:
        """A card entity's id, decimal digits (reference/feishu.md 6.3)."""
        body = await self.call(
            "POST",
            "cardkit/v1/cards",
            api="create",
            json={"type": "card_json", "data": dumps(card)},
        )
        card_id = text_at(body, "data", "card_id")
        if not card_id:
            raise Bug("create: no card_id")
        return card_id

    async def card_content(
        self, card_id: str, element: str, content: str, sequence: int, uuid: str
    ) -> None:
        """The whole text so far of one element, typed by the client; not empty, at most
        100 000 characters (reference/feishu.md 6.4, 6.5)."""
        await self.call(
            "PUT",
            f"{_card(card_id)}/elements/{quote(element, safe='')}/content",
            api="content",
            json={"content": content, "sequence": sequence, "uuid": uuid},
        )

    async def card_settings(self, card_id: str, config: Json, sequence: int, uuid: str) -> None:
        """Change the card's config, such as streaming_mode and summary."""
        settings = dumps({"config": config})
        await self.call(
            "PATCH",
            f"{_card(card_id)}/settings",
            api="settings",
            json={"settings": settings, "sequence": sequence, "uuid": uuid},
        )

    async def card_update(self, card_id: str, card: Json, sequence: int, uuid: str) -> None:
        """Replace the whole card."""
        await self.call(
            "PUT",
            _card(card_id),
            api="update",
            json={
                "card": {"type": "card_json", "data": dumps(card)},
                "sequence": sequence,
                "uuid": uuid,
            },
        )

    async def card_of(self, message_id: str) -> str:
        """The card entity that a message shows (id_convert, reference/feishu.md 6.3)."""
        body = await self.call(
            "POST", "cardkit/v1/cards/id_convert", api="id_convert", json={"message_id": message_id}
        )
        return text_at(body, "data", "card_id")

    # ------------------------------------------------------------ reactions

    async def add_reaction(self, message_id: str, emoji: str) -> str:
        """The reaction's id (reference/feishu.md 5.5)."""
        path = f"im/v1/messages/{quote(message_id, safe='')}/reactions"
        body = {"reaction_type": {"emoji_type": emoji}}
        async with self.room(self.charge("react")):
            found = await self.call("POST", path, api="react", json=body)
        return text_at(found, "data", "reaction_id")

    async def own_reactions(self, message_id: str, emoji: str) -> list[str]:
        """The ids of our own reactions of this kind (reference/feishu.md 5.5)."""
        path = f"im/v1/messages/{quote(message_id, safe='')}/reactions"
        query = {"reaction_type": emoji, "page_size": "50"}
        async with self.room(self.charge("list_reactions")):
            body = await self.call("GET", path, api="list_reactions", params=query)
        items = at(body, "data", "items")
        ours = [
            text_at(item, "reaction_id")
            for item in (items if isinstance(items, list) else [])
            if text_at(item, "operator", "operator_id") == self._settings.app_id
        ]
        return [reaction for reaction in ours if reaction]

    async def remove_reaction(self, message_id: str, reaction_id: str) -> None:
        path = f"im/v1/messages/{quote(message_id, safe='')}/reactions/"
        async with self.room(self.charge("unreact")):
            await self.call("DELETE", path + quote(reaction_id, safe=""), api="unreact")


def dumps(value: object) -> str:
    """JSON as Feishu wants nested JSON: a string (reference/feishu.md 6.3)."""
    return orjson.dumps(value).decode()


def _card(card_id: str) -> str:
    return f"cardkit/v1/cards/{quote(card_id, safe='')}"


def _message(msg_type: str, content: Json) -> dict[str, object]:
    return {"msg_type": msg_type, "content": dumps(content)}


def _sent(body: object, what: str) -> Sent:
    """Proof that a message exists (law 6); a zero code without an id is a lost answer."""
    message_id = text_at(body, "data", "message_id")
    if not message_id:
        raise Uncertain(f"{what}: code 0 without message_id")
    return Sent(message_id, text_at(body, "data", "chat_id"))
