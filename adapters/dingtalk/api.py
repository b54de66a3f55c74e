"""DingTalk's REST calls as methods (reference/dingtalk.md 5 and 6).

Every method raises of the BorderError family, translated in codes.py, and nothing else.
What a 200 says inside its body is read: HTTP 200 is no proof of delivery (5.8).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from yarl import URL

from adapters.dingtalk.codes import FREE, STALE_TOKEN, code_of, error_of
from adapters.dingtalk.settings import DingTalkSettings
from adapters.foreign import at, dumps, items_at, number_at, text_at
from adapters.http import Answer, Http
from adapters.meter import Unlimited, Unmetered
from adapters.tokens import of_token
from bot.contract import Budget, CallKind, Charge, Clock, Json, Meter, Window
from bot.errors import (
    BorderError,
    Bug,
    Gone,
    QuotaExhausted,
    RateLimited,
    Transient,
    Uncertain,
)

log = logging.getLogger(__name__)

API_WINDOWS = (Window(20, 1.0),)
"""Per app and API (reference/dingtalk.md 5.7)."""

WEBHOOK_WINDOWS = (Window(20, 60.0),)
"""Per conversation; more closes it for ten minutes (reference/dingtalk.md 5.2)."""

EARLY = 300.0
"""Seconds before its end at which a token is replaced (reference/dingtalk.md 5.1)."""

DINGTALK = "dingtalk.com"


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    refresh_at: float
    ends_at: float


class DingTalkApi:
    """The REST side of one app. `clock` dates the token only; nothing here waits. `meter`
    hears of every request that counts against the month, API calls and session webhooks
    apart; tokens are free (reference/dingtalk.md 5.7)."""

    def __init__(
        self,
        settings: DingTalkSettings,
        http: Http,
        clock: Clock,
        meter: Meter | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._meter, self._budget = meter or Unmetered(), budget or Unlimited()
        self._base = settings.base_url.rstrip("/")
        self._hosts = [_origin(settings.base_url), _origin(settings.oapi_base_url)]
        self._token: _Token | None = None
        self._fetch: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ limits

    def bucket(self, api: str) -> str:
        """The name of an API's budget; limits are per app (reference/dingtalk.md 5.7)."""
        return f"dingtalk/{self._settings.client_id}/{api}"

    def charge(self, api: str) -> Charge:
        """One call of `api`: create, stream, update, group or oto."""
        return Charge(self.bucket(api), API_WINDOWS)

    def room(self, charge: Charge) -> AbstractAsyncContextManager[None]:
        """For a call beside the replies, which ask for theirs themselves: as
        bot.contract.Budget."""
        return self._budget.room(charge)

    # ------------------------------------------------------------ token

    async def token(self) -> str:
        """The app's token: one fetch for all who wait, whether it succeeds or fails, and
        early enough (reference/dingtalk.md 5.1)."""
        while self._token is None or self._clock.monotonic() >= self._token.refresh_at:
            if self._fetch is None:
                self._fetch = asyncio.create_task(self._refresh())
                self._fetch.add_done_callback(self._fetched)
            await asyncio.shield(self._fetch)
        return self._token.text

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetch = None
        if not task.cancelled():
            task.exception()  # who waits gets it too; nobody may be left waiting

    async def _refresh(self) -> None:
        now, old = self._clock.monotonic(), self._token
        try:
            self._token = await self._fetch_token(now)
        except BorderError as error:
            if old is None or now >= old.ends_at:
                raise
            log.warning("token kept, refresh failed: %s", error)
            self._token = _Token(old.text, min(now + 30.0, old.ends_at), old.ends_at)

    async def _fetch_token(self, now: float) -> _Token:
        """A missing or zero expireIn means 7200 s (reference/dingtalk.md 5.1)."""
        body = {"appKey": self._settings.client_id, "appSecret": self._settings.client_secret}
        try:
            answer = await self._http.call(
                "POST", f"{self._base}/v1.0/oauth2/accessToken", json=body
            )
        except Uncertain as error:
            raise Transient(f"token: {error.cause}") from None
        text = text_at(answer.body, "accessToken")
        if answer.status < 300 and text:
            life = number_at(answer.body, "expireIn")
            life = life if life > 0 else 7200.0
            return _Token(text, now + life - min(EARLY, life / 2), now + life)
        raise of_token(self._clean(error_of(answer, "token")))

    def drop_token(self, text: str) -> None:
        """Forget `text` if it is still the token in use."""
        if self._token is not None and self._token.text == text:
            self._token = None

    # ------------------------------------------------------------ calls

    async def call(self, method: str, path: str, body: Json, *, api: str) -> Any:
        """One call of the new API; the whole answer body. A dead token is replaced and the
        call repeated once."""
        token = await self.token()
        answer = await self._send(method, path, body, token, api)
        if answer.status == 401 or code_of(answer) in STALE_TOKEN:
            self.drop_token(token)
            answer = await self._send(method, path, body, await self.token(), api)
        good = isinstance(answer.body, dict) and answer.body.get("success") is not False
        if answer.status < 300 and good and code_of(answer) in ("", "0"):
            return answer.body
        raise self._refused(error_of(answer, api, self.bucket(api)), "api")

    async def _send(self, method: str, path: str, body: Json, token: str, api: str) -> Answer:
        headers = {"x-acs-dingtalk-access-token": token}
        return await self._counted(method, f"{self._base}{path}", body, headers, api, "api")

    async def _counted(
        self,
        method: str,
        url: str,
        body: Json,
        headers: Mapping[str, str] | None,
        api: str,
        kind: CallKind,
    ) -> Answer:
        """One request, counted unless it certainly never left or was refused for its haste
        (reference/dingtalk.md 5.7)."""
        billed = True
        try:
            answer = await self._http.call(method, url, json=body, headers=headers)
            billed = code_of(answer) not in FREE
            return answer
        except (Transient, Bug):
            billed = False
            raise
        finally:
            if billed:
                self._meter.count(api, kind)

    def _refused(self, error: BorderError, kind: CallKind) -> BorderError:
        if isinstance(error, QuotaExhausted):
            self._meter.used_up(kind)
        return self._clean(error)

    def _clean(self, error: BorderError) -> BorderError:
        """The error without our secrets, should the service have echoed one (law 10)."""
        secrets = [self._settings.client_secret, self._token.text if self._token else ""]
        for secret in filter(None, secrets):
            error.cause = error.cause.replace(secret, "***")
        error.args = (error.cause,)
        return error

    # ------------------------------------------------------------ messages

    def may_post(self, url: str) -> bool:
        """Whether a session webhook may be posted to: its host is one of the configured
        ones, or under dingtalk.com when those are (law 9; reference/dingtalk.md 12.5)."""
        try:
            origin = _origin(url)
        except ValueError:
            return False
        if not origin[1] or URL(url).user is not None:
            return False
        known = origin[0] == "https" and _under_dingtalk(origin[1])
        return origin in self._hosts or (known and any(_under_dingtalk(h[1]) for h in self._hosts))

    async def webhook(self, url: str, place: str, title: str, text: str) -> None:
        """A Markdown message into the conversation that asked; `place` is its budget. Zero
        `errcode` is the only proof there is (reference/dingtalk.md 5.2)."""
        if not self.may_post(url):
            raise Bug("webhook: its host is none of DingTalk's")
        body = {"msgtype": "markdown", "markdown": {"title": title, "text": text}}
        answer = await self._counted("POST", url, body, None, "webhook", "message")
        if answer.status < 300 and code_of(answer) == "0":
            return
        raise self._refused(error_of(answer, "webhook", place), "message")

    async def send_group(self, conversation: str, robot: str, title: str, text: str) -> str:
        """A Markdown message to a group; its processQueryKey (reference/dingtalk.md 5.3)."""
        body = {**_message(robot, title, text), "openConversationId": conversation}
        answer = await self.call("POST", "/v1.0/robot/groupMessages/send", body, api="group")
        return _key(answer, "group")

    async def send_person(self, staff: str, robot: str, title: str, text: str) -> str:
        """A Markdown message to one person; its processQueryKey. A 200 that lists the person
        is a refusal (reference/dingtalk.md 5.3)."""
        body = {**_message(robot, title, text), "userIds": [staff]}
        answer = await self.call("POST", "/v1.0/robot/oToMessages/batchSend", body, api="oto")
        if staff in items_at(answer, "flowControlledStaffIdList"):
            raise RateLimited("oto: flow controlled", retry_after=1.0, bucket=self.bucket("oto"))
        for name in ("invalidStaffIdList", "filteredStaffIdList"):
            if staff in items_at(answer, name):
                raise Gone(f"oto: {name}", code=name)
        return _key(answer, "oto")

    # ------------------------------------------------------------ cards

    async def create_card(self, card: Json) -> str:
        """Create and deliver; the carrierId. Raises Gone when it was created but not
        delivered (reference/dingtalk.md 6.3)."""
        path = "/v1.0/card/instances/createAndDeliver"
        answer = await self.call("POST", path, card, api="create")
        results = items_at(answer, "result", "deliverResults")
        if not results:
            raise Uncertain("create: no deliverResults")
        for result in results:
            if at(result, "success") is not True:
                raise Gone(f"create: not delivered: {text_at(result, 'errorMsg')[:100]}")
        return text_at(results[0], "carrierId")

    async def stream_card(
        self, track: str, key: str, content: str, guid: str, *, final: bool, failed: bool
    ) -> None:
        """The whole text so far of one variable; not empty. `guid` is the frame's
        idempotency key (reference/dingtalk.md 6.4)."""
        body = {
            "outTrackId": track,
            "guid": guid,
            "key": key,
            "content": content,
            "isFull": True,
            "isFinalize": final,
            "isError": failed,
        }
        await self.call("PUT", "/v1.0/card/streaming", body, api="stream")

    async def update_card(self, track: str, params: Mapping[str, str]) -> None:
        """Change these variables and no others (reference/dingtalk.md 6.5)."""
        body = {
            "outTrackId": track,
            "cardData": {"cardParamMap": dict(params)},
            "cardUpdateOptions": {"updateCardDataByKey": True, "updatePrivateDataByKey": True},
        }
        await self.call("PUT", "/v1.0/card/instances", body, api="update")

    # ------------------------------------------------------------ emotions

    async def emotion(self, robot: str, conversation: str, message: str, name: str) -> None:
        """Put a mark on a person's message (reference/dingtalk.md 7)."""
        body = _emotion(robot, conversation, message, name)
        async with self.room(self.charge("emotion")):
            await self.call("POST", "/v1.0/robot/emotion/reply", body, api="emotion")

    async def recall_emotion(self, robot: str, conversation: str, message: str, name: str) -> None:
        """Take the mark `name` back."""
        body = _emotion(robot, conversation, message, name)
        async with self.room(self.charge("unemotion")):
            await self.call("POST", "/v1.0/robot/emotion/recall", body, api="unemotion")


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port. Raises ValueError."""
    parsed = URL(url)
    return parsed.scheme, parsed.host or "", parsed.port


def _under_dingtalk(host: str) -> bool:
    return host == DINGTALK or host.endswith(f".{DINGTALK}")


def _message(robot: str, title: str, text: str) -> dict[str, object]:
    param = dumps({"title": title, "text": text})
    return {"robotCode": robot, "msgKey": "sampleMarkdown", "msgParam": param}


def _key(answer: object, what: str) -> str:
    """Proof that a message exists (law 6); a 200 without a key is a lost answer."""
    key = text_at(answer, "processQueryKey")
    if not key:
        raise Uncertain(f"{what}: no processQueryKey")
    return key


def _emotion(robot: str, conversation: str, message: str, name: str) -> dict[str, object]:
    return {
        "robotCode": robot,
        "openMsgId": message,
        "openConversationId": conversation,
        "emotionType": 2,
        "emotionName": name,
        "textEmotion": {
            "emotionId": "2659900",
            "emotionName": name,
            "text": name,
            "backgroundId": "im_bg_1",
        },
    }
