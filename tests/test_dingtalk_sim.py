"""The rules of the DingTalk simulator, against reference/dingtalk.md."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import DingTalkSim, templates, wire
from adapters.playground.dingtalk.fences import open_fence
from adapters.playground.dingtalk.link import CARD_CALLBACK, MESSAGES
from adapters.playground.faults import Fault
from adapters.playground.view import Bubble

TOPICS = [
    {"type": "EVENT", "topic": "*"},
    {"type": "CALLBACK", "topic": MESSAGES},
    {"type": "CALLBACK", "topic": CARD_CALLBACK},
]


class Client:
    """A plain client: REST with a token, and links that acknowledge on order."""

    def __init__(self, sim: DingTalkSim) -> None:
        self.sim, self.token = sim, ""
        self.http = aiohttp.ClientSession()
        self.links: list[Socket] = []

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if not self.token:
            self.token = await self.new_token()
        headers = {"x-acs-dingtalk-access-token": self.token}
        url = path if path.startswith("http") else self.sim.base_url + path
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, json.loads(await answer.text())

    async def new_token(self) -> str:
        login = {"appKey": self.sim.client_id, "appSecret": self.sim.client_secret}
        url = self.sim.base_url + "/v1.0/oauth2/accessToken"
        async with self.http.post(url, json=login) as answer:
            return str((await answer.json())["accessToken"])

    async def ticket(self, **changes: Any) -> tuple[int, Any]:
        body = {
            "clientId": self.sim.client_id,
            "clientSecret": self.sim.client_secret,
            "subscriptions": TOPICS,
        }
        url = self.sim.base_url + "/v1.0/gateway/connections/open"
        accept = {"Accept": "application/json"}
        async with self.http.post(url, json=body | changes, headers=accept) as answer:
            return answer.status, await answer.json()

    async def link(self) -> Socket:
        _, opened = await self.ticket()
        socket = Socket(await self.dial(opened))
        self.links.append(socket)
        await self.sim.wait_for(lambda: len(self.sim.links) >= 1)
        return socket

    async def dial(self, opened: Any) -> aiohttp.ClientWebSocketResponse:
        url = f"{opened['endpoint']}?ticket={quote(opened['ticket'], safe='')}"
        return await self.http.ws_connect(url)

    async def close(self) -> None:
        for link in self.links:
            link.task.cancel()
        await asyncio.gather(*(link.task for link in self.links), return_exceptions=True)
        for link in self.links:
            await link.ws.close()
        await self.http.close()


class Socket:
    """Collects frames; acknowledges application frames with `answers`, or when it is
    None not at all. SYSTEM frames are echoed."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[dict[str, Any]] = []
        self.system: list[str] = []
        self.answer: dict[str, Any] | None = {"response": None}
        self.code = 200
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            frame = json.loads(message.data)
            headers = frame["headers"]
            if frame["type"] == "SYSTEM":
                self.system.append(headers["topic"])
                if "messageId" in headers:
                    await self.ack(frame, frame["data"])
                continue
            self.frames.append(frame)
            if self.answer is not None:
                await self.ack(frame, json.dumps(self.answer))

    async def ack(self, frame: dict[str, Any], data: str) -> None:
        headers = {"messageId": frame["headers"]["messageId"], "contentType": "application/json"}
        await self.ws.send_json(
            {"code": self.code, "message": "OK", "headers": headers, "data": data}
        )

    def data(self, index: int = -1) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.frames[index]["data"])
        return value


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def sim(clock: VirtualClock) -> AsyncIterator[DingTalkSim]:
    async with DingTalkSim(clock, seed=7) as sim:
        yield sim


@pytest.fixture
async def client(sim: DingTalkSim) -> AsyncIterator[Client]:
    client = Client(sim)
    yield client
    await client.close()


def card(sim: DingTalkSim, chat: str, track: str = "card-1", **params: str) -> dict[str, Any]:
    return {
        "cardTemplateId": sim.card_template_id,
        "outTrackId": track,
        "callbackType": "STREAM",
        "cardData": {"cardParamMap": {"state": "running", "turn": "t1"} | params},
        "openSpaceId": f"dtv1.card//IM_GROUP.{chat}",
        "imGroupOpenSpaceModel": {"supportForward": True},
        "imGroupOpenDeliverModel": {"robotCode": sim.robot_code},
    }


def frame(content: str, track: str = "card-1", **changes: Any) -> dict[str, Any]:
    return {
        "outTrackId": track,
        "guid": uuid.uuid4().hex,
        "key": "content",
        "content": content,
        "isFull": True,
        "isFinalize": False,
        "isError": False,
    } | changes


CREATE = ("POST", "/v1.0/card/instances/createAndDeliver")
STREAM = ("PUT", "/v1.0/card/streaming")
UPDATE = ("PUT", "/v1.0/card/instances")
GROUP = ("POST", "/v1.0/robot/groupMessages/send")
OTO = ("POST", "/v1.0/robot/oToMessages/batchSend")


def markdown_param(text: str = "hello") -> str:
    return json.dumps({"title": "t", "text": text})


# ---------------------------------------------------------------- the gateway


async def test_a_ticket_serves_one_connection_for_90_seconds(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    _, opened = await client.ticket()
    ws = await client.dial(opened)
    with pytest.raises(aiohttp.WSServerHandshakeError) as used:
        await client.dial(opened)
    assert used.value.status == 401
    _, opened = await client.ticket()
    await clock.advance(91)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await client.dial(opened)
    await ws.close()


async def test_opening_checks_credentials_and_subscriptions(client: Client) -> None:
    status, body = await client.ticket(clientSecret=client.sim.client_secret + " ")
    assert (status, body["code"]) == (401, "authFailed")
    assert set(body) == {"code", "message", "requestid"}
    assert (await client.ticket(subscriptions=[]))[0] == 400
    assert (await client.ticket(subscriptions=[{"type": "EVENT", "topic": "x"}]))[0] == 400


async def test_without_accept_the_gateway_answers_xml(sim: DingTalkSim, client: Client) -> None:
    async with client.http.post(sim.base_url + "/v1.0/gateway/connections/open", json={}) as answer:
        assert answer.content_type == "text/xml"
    assert sim.violations


async def test_refused_links(sim: DingTalkSim, client: Client) -> None:
    sim.refuse_links(503, "system.busy")
    assert (await client.ticket())[0] == 503
    sim.accept_links()
    assert (await client.ticket())[0] == 200


async def test_pings_must_be_echoed(sim: DingTalkSim, client: Client, clock: VirtualClock) -> None:
    link = await client.link()
    await clock.advance(30)
    await sim.wait_for(lambda: "ping" in link.system)
    assert link.system[:2] == ["CONNECTED", "REGISTERED"]
    await link.ws.send_str("not json")
    await sim.wait_for(lambda: sim.violations)
    assert sim.violations == ["link: an ack that cannot be read"]


# ---------------------------------------------------------------- messages


async def test_a_group_message_reaches_the_bot_only_when_it_names_it(
    sim: DingTalkSim, client: Client
) -> None:
    link = await client.link()
    ann, bob = sim.add_person("Ann"), sim.add_person("Bob", staff=False)
    group = sim.add_group("Team", [ann, bob])
    await sim.say(group, ann, "nobody asked")
    await sim.say(group, ann, "everybody", mention_all=True)
    await sim.say(group, ann, "a.pdf", kind="file", mention_bot=True)
    asked = await sim.say(group.id, ann.id, "hello", mention_bot=True, mentions=(bob,))
    await sim.wait_for(lambda: sim.acks)
    assert len(link.frames) == 1
    data = link.data()
    assert (data["msgId"], data["conversationType"], data["conversationId"]) == (
        asked,
        "2",
        group.id,
    )
    assert data["text"] == {"content": " hello"}
    assert data["senderStaffId"] == ann.staff_id
    assert data["atUsers"] == [{"dingtalkId": data["chatbotUserId"]}, {"dingtalkId": bob.sender_id}]
    assert data["sessionWebhookExpiredTime"] - data["createAt"] == 5_400_000
    assert group.id.startswith("cid") and group.id.endswith("==") and "/+" in group.id
    assert [bubble.text for bubble in sim.bubbles(group)][-1] == "@鹊桥 @Bob hello"


async def test_a_private_message_always_arrives(sim: DingTalkSim, client: Client) -> None:
    link = await client.link()
    eve = sim.add_person("Eve", staff=False)
    await sim.say(sim.p2p(eve), eve, "a.pdf", kind="file")
    await sim.wait_for(lambda: sim.acks)
    data = link.data()
    assert data["conversationType"] == "1"
    assert "senderStaffId" not in data and "conversationTitle" not in data
    body = {"robotCode": sim.robot_code, "downloadCode": data["content"]["downloadCode"]}
    status, answer = await client.call("POST", "/v1.0/robot/messageFiles/download", body)
    assert status == 200
    async with client.http.get(answer["downloadUrl"]) as file:
        assert await file.read() == b"file"


async def test_an_unacknowledged_message_comes_again_with_a_new_message_id(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    link = await client.link()
    link.answer = None
    ann = sim.add_person("Ann")
    asked = await sim.say(sim.p2p(ann), ann, "hello")
    await clock.advance(15)
    assert len(link.frames) == 1
    await clock.advance(2)
    assert len(link.frames) == 2
    link.answer = {"response": None}
    await clock.advance(60)
    await sim.wait_for(lambda: sim.acks)
    ids = [found["headers"]["messageId"] for found in link.frames]
    assert len(set(ids)) == 3
    assert [link.data(index)["msgId"] for index in range(3)] == [asked] * 3
    assert sim.lost == []


async def test_fire_and_forget_loses_what_nobody_acknowledges(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    sim.policy.redeliver_after = ()
    link = await client.link()
    link.code = 500
    ann = sim.add_person("Ann")
    asked = await sim.say(sim.p2p(ann), ann, "hello")
    await sim.wait_for(lambda: sim.lost)
    assert (sim.lost, len(link.frames)) == ([asked], 1)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_message_while_nobody_listens(
    sim: DingTalkSim, client: Client, clock: VirtualClock, kept: bool
) -> None:
    sim.policy.keep_without_link = kept
    ann = sim.add_person("Ann")
    asked = await sim.say(sim.p2p(ann), ann, "hello")
    link = await client.link()
    await clock.advance(17)
    assert [len(link.frames), sim.lost] == ([1, []] if kept else [0, [asked]])


async def test_a_late_ack_is_a_violation(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    link = await client.link()
    link.answer = None
    ann = sim.add_person("Ann")
    await sim.say(sim.p2p(ann), ann, "hello")
    await clock.advance(4)
    await link.ack(link.frames[0], "{}")
    await sim.wait_for(lambda: sim.violations)
    assert "late ack" in sim.violations[0]


async def test_several_links_share_the_load_and_a_leaving_one_gets_nothing(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    first, second = await client.link(), await client.link()
    await sim.wait_for(lambda: len(sim.links) == 2)
    ann = sim.add_person("Ann")
    for number in range(20):
        await sim.say(sim.p2p(ann), ann, str(number))
    await sim.wait_for(lambda: len(sim.acks) == 20)
    assert len(first.frames) + len(second.frames) == 20
    assert first.frames and second.frames
    await sim.leave_links()
    third = await client.link()
    await sim.wait_for(lambda: len(sim.links) == 3)
    for number in range(8):
        await sim.say(sim.p2p(ann), ann, str(number))
    await sim.wait_for(lambda: len(third.frames) == 8)
    assert first.system[-1] == "disconnect"
    await clock.advance(11)
    await sim.wait_for(lambda: first.ws.closed and second.ws.closed)
    assert [link.muted for link in sim.links] == [False]


async def test_duplicates_and_the_quota_message(sim: DingTalkSim, client: Client) -> None:
    link = await client.link()
    ann = sim.add_person("Ann")
    await sim.say(sim.p2p(ann), ann, "hello", times=2)
    await sim.wait_for(lambda: len(sim.acks) == 2)
    assert link.data(0)["msgId"] == link.data(1)["msgId"]
    sim.quota.hook_limit = 0
    await sim.say(sim.p2p(ann), ann, "hello")
    await sim.wait_for(lambda: len(sim.acks) == 3)
    assert "text" not in link.data() and link.data()["errorCode"] == 20001


async def test_links_that_are_cut_or_muted(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    link = await client.link()
    ann = sim.add_person("Ann")
    sim.mute_links()
    await sim.say(sim.p2p(ann), ann, "into the void")
    await clock.advance(3)
    assert link.frames == [] and not link.ws.closed
    assert sim.cut_links() == 1
    await sim.wait_for(lambda: link.ws.closed and not sim.links)
    fresh = await client.link()
    await clock.advance(20)
    await sim.wait_for(lambda: fresh.frames)


async def test_clean_closes_keepalives_and_garbage(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    sim.policy.keepalive_every, sim.policy.greet = 20.0, False
    link = await client.link()
    await clock.advance(21)
    await sim.wait_for(lambda: link.system == ["KEEPALIVE"])
    await sim.close_links(1001)
    await sim.wait_for(lambda: link.ws.closed and not sim.links)
    assert link.ws.close_code == 1001
    _, opened = await client.ticket()
    ws = await client.dial(opened)
    await sim.wait_for(lambda: sim.links)
    await sim.send_garbage("{not json")
    assert (await ws.receive()).data == "{not json"
    await ws.close()


async def test_a_half_open_link_answers_no_ping(sim: DingTalkSim, client: Client) -> None:
    _, opened = await client.ticket()
    url = f"{opened['endpoint']}?ticket={quote(opened['ticket'], safe='')}"
    async with asyncio.timeout(20), client.http.ws_connect(url, heartbeat=0.1) as ws:
        await sim.wait_for(lambda: sim.links)
        sim.mute_links(half_open=True)
        async for _ in ws:
            pass  # ends when the client gives up: its ping met silence
    assert len(sim.links) == 1


async def test_events_that_answer_later_come_again(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    link = await client.link()
    link.answer = {"status": "LATER"}
    event = await sim.deliver_event("robot_msg_recall", {"processQueryKey": "k"})
    await sim.wait_for(lambda: sim.acks)
    link.answer = {"status": "SUCCESS"}
    await clock.advance(17)
    await sim.wait_for(lambda: len(sim.acks) == 2)
    assert {found["headers"]["eventId"] for found in link.frames} == {event}
    assert sim.acks[1].good and not sim.acks[0].good


async def test_quotes_carry_text_of_people_but_not_of_cards(
    sim: DingTalkSim, client: Client
) -> None:
    link = await client.link()
    ann = sim.add_person("Ann")
    group = sim.add_group("Team", [ann])
    first = await sim.say(group, ann, "what is it?")
    await sim.say(group, ann, "this", mention_bot=True, quote=first)
    await sim.wait_for(lambda: len(sim.acks) == 1)
    assert link.data()["text"]["repliedMsg"]["content"] == {"text": "what is it?"}
    _, made = await client.call(*CREATE, card(sim, group.id, content="an answer"))
    await sim.say(group, ann, "that", mention_bot=True, quote="card-1")
    await sim.wait_for(lambda: len(sim.acks) == 2)
    replied = link.data()["text"]["repliedMsg"]
    assert replied["msgType"] == "interactiveCard" and "content" not in replied
    carrier = made["result"]["deliverResults"][0]["carrierId"]
    assert link.data()["originalProcessQueryKey"] == carrier


# ---------------------------------------------------------------- tokens and limits


async def test_a_token_stays_the_same_until_it_expires(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    client.token = first = await client.new_token()
    assert await client.new_token() == first
    ann = sim.add_person("Ann")
    body = {"robotCode": sim.robot_code, "userIds": [ann.id], "msgKey": "sampleMarkdown"}
    body["msgParam"] = markdown_param()
    assert (await client.call(*OTO, body))[0] == 200
    await clock.advance(7201)
    status, answer = await client.call(*OTO, body)
    assert (status, answer["code"]) == (400, "InvalidAuthentication")
    client.token = await client.new_token()
    assert client.token != first
    assert (await client.call(*OTO, body))[0] == 200
    sim.revoke_tokens()
    url = f"/topapi/v2/user/get?access_token={client.token}"
    assert (await client.call("POST", url, {"userid": ann.id}))[1]["errcode"] == 40014


async def test_both_token_doors_refuse_wrong_credentials(sim: DingTalkSim, client: Client) -> None:
    url = sim.base_url + "/v1.0/oauth2/accessToken"
    async with client.http.post(url, json={"appKey": "a", "appSecret": "b"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "invalidClientIdOrSecret")
    query = {"appkey": sim.client_id, "appsecret": sim.client_secret}
    async with client.http.get(sim.base_url + "/gettoken", params=query) as answer:
        assert (await answer.json())["errcode"] == 0
    async with client.http.get(sim.base_url + "/gettoken") as answer:
        assert (await answer.json())["errcode"] != 0


async def test_twenty_calls_a_second_and_a_month_that_ends(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    ann = sim.add_person("Ann")
    group = sim.add_group("Team", [ann])
    body = {
        "robotCode": sim.robot_code,
        "openConversationId": group.id,
        "msgKey": "sampleText",
        "msgParam": '{"content":"hi"}',
    }
    for _ in range(20):
        assert (await client.call(*GROUP, body))[0] == 200
    status, answer = await client.call(*GROUP, body)
    assert (status, answer["code"]) == (403, wire.QPS_CODE)
    assert sim.quota.api == 20
    await clock.advance(1)
    sim.quota.api_limit = 20
    status, answer = await client.call(*GROUP, body)
    assert (status, answer["code"]) == (403, wire.COUNT_CODE)
    assert sim.calls[-1].code == wire.COUNT_CODE


async def test_names_of_people(sim: DingTalkSim, client: Client) -> None:
    ann = sim.add_person("Ann")
    url = f"/topapi/v2/user/get?access_token={await client.new_token()}"
    _, answer = await client.call("POST", url, {"userid": ann.id})
    assert answer["result"]["name"] == "Ann"
    assert (await client.call("POST", url, {"userid": ann.sender_id}))[1]["errcode"] != 0
    sim.policy.missing_scopes.add("qyapi_get_member")
    assert (await client.call("POST", url, {"userid": ann.id}))[1]["errcode"] != 0


async def test_a_missing_permission_names_its_scope(sim: DingTalkSim, client: Client) -> None:
    sim.policy.missing_scopes.add("Card.Streaming.Write")
    status, answer = await client.call(*STREAM, frame("x"))
    assert (status, answer["code"]) == (403, wire.PERMISSION_CODE)
    assert answer["accessdenieddetail"] == {"requiredScopes": ["Card.Streaming.Write"]}


async def test_faults_on_order(sim: DingTalkSim, client: Client) -> None:
    group = sim.add_group("Team", [])
    sim.faults.order(wire.CARD_CREATE_DELIVER, Fault("lose"))
    client.token = await client.new_token()
    with pytest.raises(aiohttp.ClientError):
        await client.call(*CREATE, card(sim, group.id))
    status, answer = await client.call(*CREATE, card(sim, group.id))
    assert (status, answer["code"]) == (400, "param.cardAlreadyExist")
    assert [call.status for call in sim.calls_of(wire.CARD_CREATE_DELIVER)][1:] == [400]


# ---------------------------------------------------------------- plain messages


async def webhook_of(sim: DingTalkSim, client: Client) -> tuple[str, str, Any]:
    ann = sim.add_person("Ann")
    group = sim.add_group("Team", [ann])
    message = await sim.say(group, ann, "hello", mention_bot=True)
    return sim.world.inbound[message]["sessionWebhook"], ann.staff_id, group


async def test_the_session_webhook(sim: DingTalkSim, client: Client, clock: VirtualClock) -> None:
    url, ann, group = await webhook_of(sim, client)
    text = {"msgtype": "text", "text": {"content": f"@{ann} hi"}, "at": {"atUserIds": [ann]}}
    assert await client.call("POST", url, text) == (200, {"errcode": 0, "errmsg": "ok"})
    silent = {"msgtype": "markdown", "markdown": {"title": "t", "text": "hi @all"}}
    silent["at"] = {"atUserIds": [ann], "isAtAll": False}
    assert (await client.call("POST", url, silent))[1]["errcode"] == 0
    assert [bubble.pings for bubble in sim.bot_bubbles(group)] == [[ann], []]
    wrong: list[tuple[Any, int]] = [
        ({"msgtype": "markdown", "markdown": {"title": "", "text": "x"}}, 40035),
        ({"msgtype": "voice", "voice": {}}, 400105),
        ({"msgtype": "text", "text": {"content": "长" * 7000}}, 460101),
    ]
    for body, code in wrong:
        status, answer = await client.call("POST", url, body)
        assert (status, answer["errcode"]) == (200, code)
    await clock.advance(5401)
    assert (await client.call("POST", url, text))[1]["errcode"] == 300001
    assert len(sim.bot_bubbles(group)) == 2


async def test_twenty_webhook_messages_a_minute(
    sim: DingTalkSim, client: Client, clock: VirtualClock
) -> None:
    url, _, _ = await webhook_of(sim, client)
    text = {"msgtype": "text", "text": {"content": "hi"}}
    codes = [(await client.call("POST", url, text))[1]["errcode"] for _ in range(21)]
    assert codes == [0] * 20 + [130101]
    await clock.advance(120)
    assert (await client.call("POST", url, text))[1]["errcode"] == 130101
    await clock.advance(600)
    assert (await client.call("POST", url, text))[1]["errcode"] == 0


async def test_hostile_text_is_seen_as_what_it_would_do(sim: DingTalkSim, client: Client) -> None:
    url, ann, group = await webhook_of(sim, client)
    link = "[x](dtmd://dingtalkclient/sendMessage?content=%2Fnew)"
    for text in (link, f"`{link}`", f"<a atId={ann}>x</a>"):
        body = {"msgtype": "markdown", "markdown": {"title": "t", "text": text}}
        assert (await client.call("POST", url, body))[1]["errcode"] == 0
    assert [bubble.pings for bubble in sim.bot_bubbles(group)] == [["dtmd"], [], []]
    hostile = card(sim, group.id, content=f"<a atId='{ann}'>x</a> {link}")
    await client.call(*CREATE, hostile)
    assert sim.bot_bubbles(group)[-1].pings == [ann, "dtmd"]


async def test_openapi_sends(sim: DingTalkSim, client: Client) -> None:
    ann, bob = sim.add_person("Ann"), sim.add_person("Bob")
    group = sim.add_group("Team", [ann])
    good = {
        "robotCode": sim.robot_code,
        "openConversationId": group.id,
        "msgKey": "sampleMarkdown",
        "msgParam": markdown_param(),
    }
    status, answer = await client.call(*GROUP, good)
    assert status == 200 and sim.bubbles(group)[0].id == answer["processQueryKey"]
    wrong = [
        ({"robotCode": "other"}, "invalidParameter.robotCode.notExsit"),
        ({"msgParam": {"text": "x"}}, "invalidParameter.msgParam.invalid"),
        ({"msgParam": markdown_param("长" * 6000)}, "invalidParameter.msgParam.tooLong"),
        ({"msgKey": "markdown"}, "invalidParameter.msgKey.invalid"),
        ({"openConversationId": sim.p2p(ann).id}, "resource.not.found"),
        ({"openConversationId": ""}, "miss.openConversationId"),
    ]
    for change, code in wrong:
        status, answer = await client.call(*GROUP, good | change)
        assert (status, answer["code"]) == (400, code)
    to_bob = good | {"userIds": [ann.id, bob.id, "404"]}
    sim.hold_back(bob)
    status, answer = await client.call(*OTO, to_bob)
    assert status == 200
    assert answer["flowControlledStaffIdList"] == [bob.id]
    assert answer["invalidStaffIdList"] == ["404"]
    assert len(sim.bubbles(sim.p2p(ann))) == 1 and not sim.bubbles(sim.p2p(bob))
    status, answer = await client.call(*OTO, good | {"userIds": [ann.sender_id]})
    assert (status, answer["code"]) == (400, "staffId.notExisted")


async def test_a_disbanded_group_refuses_everything(sim: DingTalkSim, client: Client) -> None:
    url, _, group = await webhook_of(sim, client)
    sim.disband(group)
    text = {"msgtype": "text", "text": {"content": "hi"}}
    assert (await client.call("POST", url, text))[1]["errcode"] == 400013
    send = {
        "robotCode": sim.robot_code,
        "openConversationId": group.id,
        "msgKey": "sampleText",
        "msgParam": '{"content":"hi"}',
    }
    assert (await client.call(*GROUP, send))[1]["code"] == "group.disbanded"
    _, answer = await client.call(*CREATE, card(sim, group.id))
    assert answer["result"]["deliverResults"][0]["success"] is False
    assert sim.bot_bubbles(group) == []


async def test_reactions_and_recalls(sim: DingTalkSim, client: Client) -> None:
    ann = sim.add_person("Ann")
    group = sim.add_group("Team", [ann])
    message = await sim.say(group, ann, "hello", mention_bot=True)
    body = {
        "robotCode": sim.robot_code,
        "openMsgId": message,
        "openConversationId": group.id,
        "emotionType": 2,
        "emotionName": "🤔思考中",
    }
    assert (await client.call("POST", "/v1.0/robot/emotion/reply", body))[0] == 200
    assert sim.bubbles(group)[0].reactions == ["🤔思考中"]
    wrong = body | {"emotionName": "别的"}
    assert (await client.call("POST", "/v1.0/robot/emotion/recall", wrong))[0] == 500
    assert (await client.call("POST", "/v1.0/robot/emotion/recall", body))[0] == 200
    assert sim.bubbles(group)[0].reactions == []
    send = {
        "robotCode": sim.robot_code,
        "openConversationId": group.id,
        "msgKey": "sampleText",
        "msgParam": '{"content":"hi"}',
    }
    _, sent = await client.call(*GROUP, send)
    recall = send | {"processQueryKeys": [sent["processQueryKey"], "unknown"]}
    _, answer = await client.call("POST", "/v1.0/robot/groupMessages/recall", recall)
    assert answer["successResult"] == [sent["processQueryKey"]]
    assert list(answer["failedResult"]) == ["unknown"]
    assert sim.bot_bubbles(group)[0].recalled


# ---------------------------------------------------------------- cards


@pytest.fixture
async def group(sim: DingTalkSim) -> str:
    return sim.add_group("Team", [sim.add_person("Ann")]).id


def only(sim: DingTalkSim, group: str) -> Bubble:
    [bubble] = sim.bot_bubbles(group)
    return bubble


async def test_a_card_from_first_to_last_frame(
    sim: DingTalkSim, client: Client, clock: VirtualClock, group: str
) -> None:
    changes = sim.subscribe()
    made = await client.call(*CREATE, card(sim, group, status="正在思考…", reasoning="hm"))
    assert made[1]["result"]["deliverResults"][0]["success"] is True
    bubble = only(sim, group)
    assert (bubble.text, bubble.small, bubble.streaming) == ("", "正在思考…", True)
    assert [block.text for block in bubble.blocks if block.kind == "panel"] == ["hm"]
    assert [(block.id, block.text) for block in bubble.buttons()] == [("stop", "停止")]
    for content in ("Hel", "Hello"):
        await clock.advance(1)
        assert (await client.call(*STREAM, frame(content)))[0] == 200
    assert (bubble.text, bubble.small) == ("Hello", "")
    assert sim.open_cards() == [bubble]
    await clock.advance(1)
    await client.call(*STREAM, frame("Hello!", isFinalize=True))
    update = {"outTrackId": "card-1", "cardUpdateOptions": {"updateCardDataByKey": True}}
    update["cardData"] = {"cardParamMap": {"state": "answered", "footer": "1 s"}}
    assert (await client.call(*UPDATE, update))[0] == 200
    assert (bubble.text, bubble.small, bubble.streaming) == ("Hello!", "1 s", False)
    assert [block.id for block in bubble.buttons()] == ["retry"]
    assert changes.qsize() == bubble.frames == 5
    assert sim.violations == [] and sim.open_cards() == []


async def test_a_frame_is_repeated_by_its_guid_alone(
    sim: DingTalkSim, client: Client, clock: VirtualClock, group: str
) -> None:
    await client.call(*CREATE, card(sim, group))
    last = frame("all", isFinalize=True)
    assert (await client.call(*STREAM, last))[0] == 200
    assert (await client.call(*STREAM, last))[0] == 200
    assert sim.violations == []
    await clock.advance(1)
    status, answer = await client.call(*STREAM, frame("more"))
    assert (status, answer["code"]) == (400, "param.stream.outTrackId")
    assert only(sim, group).text == "all"
    assert "after the last one" in sim.violations[0]
    sim.policy.after_finalize = "swallow"
    assert (await client.call(*STREAM, frame("more")))[0] == 200
    assert only(sim, group).text == "all"


async def test_streaming_is_strict(
    sim: DingTalkSim, client: Client, clock: VirtualClock, group: str
) -> None:
    await client.call(*CREATE, card(sim, group))
    wrong = [
        ({"outTrackId": "other"}, 400, "param.stream.outTrackId"),
        ({"guid": ""}, 400, "param.stream.guidEmpty"),
        ({"key": ""}, 400, "param.stream.keyEmpty"),
        ({"content": ""}, 400, "param.stream.contentEmpty"),
        ({"isFull": False}, 400, "param.stream.isFull"),
        ({"content": "长" * 7000}, 400, "param.stream.content"),
        ({"key": "note"}, 500, "unknownError"),
    ]
    for change, expected, code in wrong:
        status, answer = await client.call(*STREAM, frame("x") | change)
        assert (status, answer["code"]) == (expected, code)
    assert (await client.call(*STREAM, frame("a")))[0] == 200
    status, answer = await client.call(*STREAM, frame("ab"))
    assert (status, answer["code"]) == (403, wire.QPS_CODE)
    await clock.advance(1)
    assert (await client.call(*STREAM, frame("```py\nx")))[0] == 200
    assert any("open code fence" in words for words in sim.violations)
    await clock.advance(1)
    await client.call(*STREAM, frame("x" * 9001, isFinalize=True))
    assert (only(sim, group).text, only(sim, group).small) == ("", "内容加载失败")


async def test_two_frames_of_a_card_at_once_are_refused(
    sim: DingTalkSim, client: Client, clock: VirtualClock, group: str
) -> None:
    await client.call(*CREATE, card(sim, group))
    sim.faults.order(wire.CARD_STREAM, Fault("delay", seconds=5))
    slow = asyncio.create_task(client.call(*STREAM, frame("a")))
    await sim.wait_for(lambda: sim.calls_of(wire.CARD_STREAM))
    assert (await client.call(*STREAM, frame("ab")))[1]["code"] == wire.QPS_CODE
    await clock.advance(5)
    assert (await slow)[0] == 200
    assert sim.violations == ["streaming: two frames of card-1 at the same time"]


async def test_a_frame_whose_caller_hung_up_is_not_in_flight(
    sim: DingTalkSim, client: Client, clock: VirtualClock, group: str
) -> None:
    await client.call(*CREATE, card(sim, group))
    sim.faults.order(wire.CARD_STREAM, Fault("hang", seconds=3600))
    slow = asyncio.create_task(client.call(*STREAM, frame("a")))
    await sim.wait_for(lambda: sim.calls_of(wire.CARD_STREAM))
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)

    async def again() -> bool:
        return (await client.call(*STREAM, frame("ab")))[0] == 200

    for _ in range(100):  # until the server sees the closed socket
        if await again():
            break
    assert only(sim, group).text == "ab"


async def test_creating_is_strict(sim: DingTalkSim, client: Client, group: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"cardTemplateId": templates.UNPUBLISHED}, "param.templateUnpublished"),
        ({"outTrackId": ""}, "param.outTrackIdEmpty"),
        ({"openSpaceId": group}, "param.openSpaceIdInvalid"),
        ({"cardData": {"cardParamMap": {"state": True}}}, "InvalidParameter"),
    ]
    for change, code in wrong:
        status, answer = await client.call(*CREATE, card(sim, group) | change)
        assert (status, answer["code"]) == (400, code)
    assert sim.bot_bubbles(group) == []


async def test_a_good_answer_may_hide_that_nothing_was_delivered(
    sim: DingTalkSim, client: Client, group: str
) -> None:
    ann = next(iter(sim.world.people.values()))
    private = card(sim, group) | {
        "openSpaceId": f"dtv1.card//IM_ROBOT.{sim.p2p(ann).id}",
        "imRobotOpenSpaceModel": {},
        "imRobotOpenDeliverModel": {"spaceType": "IM_ROBOT"},
    }
    status, answer = await client.call(*CREATE, private)
    [result] = answer["result"]["deliverResults"]
    assert (status, result["success"], result["errorMsg"]) == (200, False, "spaceId is illegal")
    right = private | {"openSpaceId": f"dtv1.card//IM_ROBOT.{ann.id}", "outTrackId": "card-2"}
    _, answer = await client.call(*CREATE, right)
    assert answer["result"]["deliverResults"][0]["success"]
    assert only(sim, sim.p2p(ann).id).id == "card-2"
    sim.refuse_deliveries(reason="robot is not in the group")
    _, answer = await client.call(*CREATE, card(sim, group, track="card-3"))
    assert answer["result"]["deliverResults"][0]["errorMsg"] == "robot is not in the group"


async def test_an_update_overwrites_unless_told_by_key(
    sim: DingTalkSim, client: Client, group: str
) -> None:
    await client.call(*CREATE, card(sim, group, content="text"))
    update = {"outTrackId": "card-1", "cardData": {"cardParamMap": {"note": "n"}}}
    assert (await client.call(*UPDATE, update))[0] == 200
    assert only(sim, group).text == ""
    assert "lost its text" in sim.violations[0]
    status, answer = await client.call(*UPDATE, update | {"outTrackId": "other"})
    assert (status, answer["code"]) == (400, "param.cardNotExist")
    status, answer = await client.call(*UPDATE, {"outTrackId": "card-1"})
    assert answer["code"] == "param.cardDataAndPrivateDataBothEmpty"


async def test_the_plain_template_has_no_failure_state(
    sim: DingTalkSim, client: Client, clock: VirtualClock, group: str
) -> None:
    await client.call(*CREATE, card(sim, group) | {"cardTemplateId": sim.plain_template_id})
    status, answer = await client.call(*STREAM, frame("x", isError=True))
    assert (status, answer["code"]) == (500, "unknownError")
    assert only(sim, group).buttons() == []


async def test_content_filters(sim: DingTalkSim, client: Client, group: str) -> None:
    sim.policy.unsafe_words.add("禁")
    await client.call(*CREATE, card(sim, group))
    status, answer = await client.call(*STREAM, frame("禁词"))
    assert (status, answer["code"]) == (400, "param.contentUnsafe")


# ---------------------------------------------------------------- buttons


async def test_pressing_a_button(sim: DingTalkSim, client: Client, group: str) -> None:
    link = await client.link()
    ann = next(iter(sim.world.people.values()))
    await client.call(*CREATE, card(sim, group, content="text"))
    link.answer = {
        "response": {
            "cardUpdateOptions": {"updateCardDataByKey": True},
            "cardData": {"cardParamMap": {"state": "stopped", "note": "已停止"}},
        }
    }
    assert await sim.press("card-1", "stop", ann) == link.answer["response"]
    data = link.data()
    assert (data["outTrackId"], data["userId"], data["spaceId"]) == ("card-1", ann.id, group)
    assert json.loads(data["content"]) == {
        "cardPrivateData": {"actionIds": ["stop"], "params": {"action": "stop", "turn": "t1"}}
    }
    assert (only(sim, group).text, only(sim, group).small) == ("text", "已停止")
    with pytest.raises(ValueError, match="no button"):
        await sim.press("card-1", "stop", ann)


async def test_a_button_of_a_private_card(sim: DingTalkSim, client: Client, group: str) -> None:
    link = await client.link()
    ann = next(iter(sim.world.people.values()))
    private = card(sim, group) | {
        "openSpaceId": f"dtv1.card//IM_ROBOT.{ann.id}",
        "imRobotOpenSpaceModel": {},
        "imRobotOpenDeliverModel": {"spaceType": "IM_ROBOT"},
    }
    await client.call(*CREATE, private)
    forms: list[tuple[Any, str]] = [("user", ann.id), ("chat", sim.p2p(ann).id), ("none", "")]
    for form, expected in forms:
        sim.policy.private_space = form
        assert await sim.press("card-1", "stop", ann) == {}
        assert (link.data()["spaceType"], link.data()["spaceId"]) == ("IM_ROBOT", expected)


async def test_a_button_nobody_answers(
    sim: DingTalkSim, client: Client, clock: VirtualClock, group: str
) -> None:
    ann = next(iter(sim.world.people.values()))
    await client.call(*CREATE, card(sim, group))
    assert await sim.press("card-1", "stop", ann) == {"error": "timeout"}
    link = await client.link()
    link.answer = None
    pressed = asyncio.create_task(sim.press("card-1", "stop", ann))
    await sim.wait_for(lambda: link.frames)
    await clock.advance(2.1)
    assert await pressed == {"error": "timeout"}
    assert len(link.frames) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", False),
        ("```\na", True),
        ("```\na\n```", False),
        ("````\n```\n", True),
        ("````\n```\n````", False),
        ("~~~\n```\n", True),
        ("``` x ` y", False),
        ("```py\na\n``` b", True),
    ],
)
def test_open_fences(text: str, expected: bool) -> None:
    assert open_fence(text) is expected
