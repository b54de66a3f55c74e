"""The least that any program would have to do: take the frame, commit one row, acknowledge,
open one HTTP request; at the first chunk one HTTP call, at the end one row and one call.

Bare aiohttp, sqlite3 and uvloop, no more checks than it takes to run:
`floor.py PLATFORM BASE_URL ID SECRET MODEL_URL DATABASE`.
"""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import sys
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import orjson
import uvloop

from adapters.feishu.frames import DATA, ack, decode, encode, ping


class Floor:
    def __init__(self, base: str, name: str, secret: str, model: str, path: str) -> None:
        self.base, self.name, self.secret = base, name, secret
        self.model = f"{model}/chat/completions"
        self.database = sqlite3.connect(path, isolation_level=None)
        for words in ("journal_mode=WAL", "synchronous=FULL"):
            self.database.execute(f"PRAGMA {words}")
        self.database.execute("CREATE TABLE IF NOT EXISTS row (id TEXT PRIMARY KEY, data TEXT)")
        self.tasks: set[asyncio.Task[None]] = set()
        self.headers: dict[str, str] = {}

    def commit(self, key: str, data: str) -> None:
        self.database.execute("BEGIN IMMEDIATE")
        self.database.execute("INSERT OR IGNORE INTO row VALUES (?, ?)", (key, data))
        self.database.execute("COMMIT")

    def spawn(self, key: str, text: str) -> None:
        task = asyncio.create_task(self.answer(key, text))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, key: str, text: str) -> None:
        body = {"model": "deepseek-flash", "stream": True, "max_tokens": 8192}
        prompts = [{"role": "user", "content": text}]
        async with self.session.post(
            self.model,
            data=orjson.dumps({**body, "messages": prompts}),
            headers={"Authorization": "Bearer sk-bench", "Content-Type": "application/json"},
        ) as response:
            said = ""
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                choice = orjson.loads(line[6:])["choices"][0]
                piece = choice["delta"].get("content") or ""
                first, said = not said and piece, said + piece
                if choice["finish_reason"]:
                    break
                if first:
                    await self.show(said, 1)
        self.commit(f"{key}-end", said)
        await self.show(said, 2)

    async def show(self, text: str, number: int) -> None:
        raise NotImplementedError

    async def put(self, path: str, body: dict[str, Any]) -> None:
        async with self.session.put(
            self.base + path, data=orjson.dumps(body), headers=self.headers
        ) as response:
            await response.read()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        async with self.session.post(
            self.base + path, data=orjson.dumps(body), headers=headers
        ) as response:
            return orjson.loads(await response.read())

    async def run(self) -> None:
        async with aiohttp.ClientSession() as self.session:
            await self.listen()

    async def listen(self) -> None:
        raise NotImplementedError


class FeishuFloor(Floor):
    async def listen(self) -> None:
        path = "/open-apis/auth/v3/tenant_access_token/internal"
        token = await self.post(path, {"app_id": self.name, "app_secret": self.secret})
        self.headers = {
            "Authorization": f"Bearer {token['tenant_access_token']}",
            "Content-Type": "application/json; charset=utf-8",
        }
        found = await self.post(
            "/callback/ws/endpoint", {"AppID": self.name, "AppSecret": self.secret}
        )
        async with self.session.ws_connect(found["data"]["URL"]) as socket:
            await socket.send_bytes(encode(ping(1)))
            async for message in socket:
                frame = decode(message.data)
                if frame.method != DATA:
                    continue
                event = orjson.loads(frame.payload)["event"]["message"]
                text = orjson.loads(event["content"])["text"]
                self.commit(event["message_id"], text)
                await socket.send_bytes(encode(ack(frame, b'{"code":200}', 1)))
                if text.startswith("问"):
                    self.spawn(event["message_id"], text)

    async def show(self, text: str, number: int) -> None:
        body = {"content": text, "sequence": number, "uuid": str(number)}
        await self.put("/open-apis/cardkit/v1/cards/1/elements/answer/content", body)


class DingTalkFloor(Floor):
    async def listen(self) -> None:
        token = await self.post(
            "/v1.0/oauth2/accessToken", {"appKey": self.name, "appSecret": self.secret}
        )
        self.headers = {
            "x-acs-dingtalk-access-token": token["accessToken"],
            "Content-Type": "application/json",
        }
        topic = "/v1.0/im/bot/messages/get"
        found = await self.post(
            "/v1.0/gateway/connections/open",
            {
                "clientId": self.name,
                "clientSecret": self.secret,
                "subscriptions": [{"type": "CALLBACK", "topic": topic}],
                "ua": "floor",
                "localIp": "127.0.0.1",
            },
        )
        async with self.session.ws_connect(
            f"{found['endpoint']}?ticket={quote_plus(found['ticket'])}"
        ) as socket:
            async for message in socket:
                frame = orjson.loads(message.data)
                headers = frame["headers"]
                data = frame["data"] if headers["topic"] == "ping" else '{"response":null}'
                if headers["topic"] == topic:
                    event = orjson.loads(frame["data"])
                    text = event["text"]["content"].strip()
                    self.commit(event["msgId"], text)
                reply = {
                    "code": 200,
                    "headers": {
                        "messageId": headers["messageId"],
                        "contentType": "application/json",
                    },
                    "message": "OK",
                    "data": data,
                }
                await socket.send_str(orjson.dumps(reply).decode())
                if headers["topic"] == topic and text.startswith("问"):
                    self.spawn(event["msgId"], text)

    async def show(self, text: str, number: int) -> None:
        guid = base64.b64encode(str(number).encode()).decode()
        body = {"outTrackId": "1", "guid": guid, "key": "content", "content": text}
        rest = {"isFull": True, "isFinalize": number > 1, "isError": False}
        await self.put("/v1.0/card/streaming", {**body, **rest})


def main() -> None:
    kinds = {"feishu": FeishuFloor, "dingtalk": DingTalkFloor}
    platform, *rest = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(kinds[platform](*rest).run())


if __name__ == "__main__":
    main()
