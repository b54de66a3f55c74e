"""Robot messages by OpenAPI: send, recall, react, download (reference/dingtalk.md 4.5, 5.3, 7)."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.pings import live_links
from adapters.playground.dingtalk.wire import Refused, need_str
from adapters.playground.dingtalk.world import SimChat
from adapters.playground.view import Block, Bubble

PARAM_LIMIT = 15_000
"""Bytes of msgParam."""

RECALL_SECONDS = 24 * 3600.0
DOWNLOAD_SECONDS = 600.0

_KEYS: dict[str, tuple[str, ...]] = {
    "sampleText": ("content",),
    "sampleMarkdown": ("title", "text"),
    "sampleImageMsg": ("photoURL",),
    "sampleLink": ("title", "text", "picUrl", "messageUrl"),
    "sampleActionCard": ("title", "text", "singleTitle", "singleURL"),
    "sampleAudio": ("mediaId", "duration"),
    "sampleFile": ("mediaId", "fileName", "fileType"),
}


@dataclass(frozen=True, slots=True)
class HoldBack:
    """The next 1:1 send lists this user in `field` (`flowControlledStaffIdList`,
    `invalidStaffIdList` or `filteredStaffIdList`) and shows them nothing."""

    user: str
    field: str


class Robot:
    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self.held: deque[HoldBack] = deque()

    # sending ------------------------------------------------------------

    def group_send(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/robot/groupMessages/send."""
        self._code(body)
        block = self._message(body)
        cid = need_str(body, "openConversationId", "miss.openConversationId")
        chat = self._b.world.chats.get(cid)
        if chat is None:
            raise Refused(400, "invalid.openConversationId")
        if chat.kind != "2":
            raise Refused(400, "resource.not.found", "robot 不存在；请确认 robotCode 是否正确")
        if chat.disbanded:
            raise Refused(400, "group.disbanded", "群已解散")
        return {"processQueryKey": self._put(self._b.world.new_id(), chat, block)}

    def oto_send(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/robot/oToMessages/batchSend: 200 also for users not reached."""
        self._code(body)
        block = self._message(body)
        users = self._users(body.get("userIds"))
        key = self._b.world.new_id()
        held = self._held(users)
        people = self._b.world.people
        for index, user in enumerate(user for user in users if user not in held):
            bubble = f"{key}#{index}" if index else key
            self._put(bubble, self._b.world.p2p(people[user]), block)
        lists = ("invalidStaffIdList", "flowControlledStaffIdList", "filteredStaffIdList")
        answer: dict[str, Any] = {"processQueryKey": key}
        return answer | {name: [u for u, f in held.items() if f == name] for name in lists}

    def _users(self, users: Any) -> list[str]:
        if not isinstance(users, list) or not users:
            raise Refused(400, "invalidParameter.userIds.empty")
        if len(users) > 20:
            raise Refused(400, "invalidParameter.userIds.overMax")
        if any(not isinstance(user, str) or user.startswith("$:LWCP") for user in users):
            raise Refused(400, "staffId.notExisted", "staffId 不存在")
        return users

    def _held(self, users: list[str]) -> dict[str, str]:
        people = self._b.world.people
        held = {user: "invalidStaffIdList" for user in users if user not in people}
        while self.held and self.held[0].user in users:
            order = self.held.popleft()
            held.setdefault(order.user, order.field)
        return held

    def _code(self, body: dict[str, Any]) -> None:
        code = need_str(body, "robotCode", "invalidParameter.robotCode.empty")
        if code != self._b.world.robot_code:
            raise Refused(400, "invalidParameter.robotCode.notExsit")

    def _message(self, body: dict[str, Any]) -> Block:
        key = need_str(body, "msgKey", "invalidParameter.msgKey.empty")
        if key not in _KEYS:
            raise Refused(400, "invalidParameter.msgKey.invalid")
        text = body.get("msgParam")
        if not isinstance(text, str):
            raise Refused(400, "invalidParameter.msgParam.invalid", "msgParam is a JSON string")
        if len(text.encode()) > PARAM_LIMIT:
            raise Refused(400, "invalidParameter.msgParam.tooLong")
        values = _values(text, _KEYS[key])
        if self._b.policy.unsafe(text) or any(map(self._b.policy.unsafe, values.values())):
            raise Refused(400, "contain.notAllowed.text")
        shown = values.get("content") or values.get("text") or f"[{key}]"
        return Block("markdown", shown, title=values.get("title", ""))

    def _put(self, key: str, chat: SimChat, block: Block) -> str:
        copy = Block(block.kind, block.text, title=block.title)
        self._b.world.put(key, chat.id, None, [copy], pings=live_links(block.text))
        return key

    # recall ---------------------------------------------------------------

    def oto_recall(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/robot/otoMessages/batchRecall."""
        return self._recall(body, None)

    def group_recall(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/robot/groupMessages/recall."""
        return self._recall(body, need_str(body, "openConversationId", "miss.openConversationId"))

    def _recall(self, body: dict[str, Any], chat: str | None) -> dict[str, Any]:
        self._code(body)
        keys = body.get("processQueryKeys")
        if not isinstance(keys, list) or not 1 <= len(keys) <= 20:
            raise Refused(400, "invalidParameter.processQueryKeys")
        good, bad = [], {}
        for key in keys:
            bubble = self._b.world.bubbles.get(key)
            if bubble is None or (chat and bubble.chat != chat) or self._too_old(bubble):
                bad[key] = "message not found"
                continue
            self._b.world.change(bubble, taken_back)
            good.append(key)
        return {"successResult": good, "failedResult": bad}

    def _too_old(self, bubble: Bubble) -> bool:
        return self._b.clock.time() - bubble.at > RECALL_SECONDS

    # reactions --------------------------------------------------------------

    def react(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/robot/emotion/reply; only on messages of people."""
        bubble, name = self._emotion(body)
        self._b.world.change(bubble, lambda b: b.reactions.append(name))
        return {"success": True}

    def unreact(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/robot/emotion/recall; needs the name that was given."""
        bubble, name = self._emotion(body)
        if name not in bubble.reactions:
            raise Refused(500, "unknownError", "未知错误")
        self._b.world.change(bubble, lambda b: b.reactions.remove(name))
        return {"success": True}

    def _emotion(self, body: dict[str, Any]) -> tuple[Bubble, str]:
        self._code(body)
        message = need_str(body, "openMsgId", "miss.param.openMsgId")
        chat = need_str(body, "openConversationId", "miss.openConversationId")
        name = need_str(body, "emotionName", "miss.param.emotionName")
        bubble = self._b.world.bubbles.get(message)
        if bubble is None or bubble.chat != chat or message not in self._b.world.inbound:
            raise Refused(500, "unknownError", "未知错误")
        return bubble, name

    # files --------------------------------------------------------------------

    def download(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/robot/messageFiles/download: a temporary plain URL."""
        self._code(body)
        code = need_str(body, "downloadCode", "invalidParameter.robotCode.downloadCode")
        file = self._b.world.files.get(code)
        if file is None or file.until < self._b.clock.time():
            raise Refused(400, "invalidParameter.robotCode.downloadCode")
        token = self._b.world.new_id().encode().hex()
        self._b.world.files[token] = type(file)(
            file.name, file.data, self._b.clock.time() + DOWNLOAD_SECONDS
        )
        return {"downloadUrl": f"{self._b.base_url}/files/{token}.file?Signature=playground"}

    def user(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /topapi/v2/user/get."""
        person = self._b.world.people.get(str(body.get("userid", "")))
        if person is None or not person.staff_id:
            return {"errcode": 60121, "errmsg": "找不到该用户"}
        result = {"userid": person.staff_id, "unionid": person.union_id, "name": person.name}
        return {"errcode": 0, "errmsg": "ok", "result": result}


def taken_back(bubble: Bubble) -> None:
    """Nobody sees it any more."""
    bubble.recalled = True


def _values(text: str, names: tuple[str, ...]) -> dict[str, str]:
    try:
        values = json.loads(text)
    except ValueError:
        raise Refused(400, "invalidParameter.msgParam.invalid", "not JSON") from None
    if not isinstance(values, dict):
        raise Refused(400, "invalidParameter.msgParam.invalid", "not an object")
    for name in names:
        if not isinstance(values.get(name), str) or not values[name]:
            raise Refused(400, "invalidParameter.msgParam.invalid", name)
    return values
