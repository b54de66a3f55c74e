"""The faults of the playground's panel: each has its effect on the simulators, and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from adapters.playground.clock import VirtualClock
from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.deepseek.asked import Asked
from adapters.playground.deepseek.plan import plan
from adapters.playground.deepseek.voice import answer
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from adapters.playground.scene import Mistake, Scene

PLATFORMS = ("feishu", "dingtalk")


@dataclass
class FakeBot:
    """A process that does what it is told, and how often it was told."""

    socket: Path = Path("/nowhere/queqiao.sock")
    running: bool = True
    told: list[str] = field(default_factory=list)

    def kill(self) -> None:
        self.told.append("kill")
        self.running = False

    def start(self) -> None:
        self.told.append("start")
        self.running = True


@dataclass
class World:
    """Real simulators on a clock that stands still, and a client of them."""

    clock: VirtualClock
    feishu: FeishuSim
    dingtalk: DingTalkSim
    model: DeepSeekSim
    scene: Scene
    http: aiohttp.ClientSession
    sockets: list[aiohttp.ClientWebSocketResponse] = field(default_factory=list)

    def sim(self, platform: str) -> Any:
        return {"feishu": self.feishu, "dingtalk": self.dingtalk}[platform]

    @property
    def faults(self) -> dict[str, Any]:
        return self.scene.view()["faults"]

    @property
    def links(self) -> dict[str, str]:
        return self.scene.view()["links"]

    async def call(
        self, platform: str, method: str, path: str, body: Any = None
    ) -> tuple[int, Any, Any]:
        """(status, JSON, headers) of one authorised call."""
        sim = self.sim(platform)
        headers = await (self._feishu_key() if platform == "feishu" else self._dingtalk_key())
        async with self.http.request(
            method, sim.base_url + path, json=body, headers=headers
        ) as reply:
            return reply.status, await reply.json(), reply.headers

    async def _feishu_key(self) -> dict[str, str]:
        body = {"app_id": self.feishu.app_id, "app_secret": self.feishu.app_secret}
        url = self.feishu.base_url + "/open-apis/auth/v3/tenant_access_token/internal"
        async with self.http.post(url, json=body) as reply:
            return {"Authorization": f"Bearer {(await reply.json())['tenant_access_token']}"}

    async def _dingtalk_key(self) -> dict[str, str]:
        body = {"appKey": self.dingtalk.client_id, "appSecret": self.dingtalk.client_secret}
        url = self.dingtalk.base_url + "/v1.0/oauth2/accessToken"
        async with self.http.post(url, json=body) as reply:
            token = (await reply.json())["accessToken"]
        return {"x-acs-dingtalk-access-token": token}

    async def dial(self, platform: str) -> aiohttp.ClientWebSocketResponse:
        """One more long connection of a client."""
        before = self.sim(platform).opened
        url = await (self._feishu_url() if platform == "feishu" else self._dingtalk_url())
        socket = await self.http.ws_connect(url)
        self.sockets.append(socket)
        await self.sim(platform).wait_for(lambda: self.sim(platform).opened > before)
        return socket

    async def _feishu_url(self) -> str:
        body = {"AppID": self.feishu.app_id, "AppSecret": self.feishu.app_secret}
        url = self.feishu.base_url + "/callback/ws/endpoint"
        async with self.http.post(url, json=body) as reply:
            return str((await reply.json())["data"]["URL"])

    async def _dingtalk_url(self) -> str:
        body = {
            "clientId": self.dingtalk.client_id,
            "clientSecret": self.dingtalk.client_secret,
            "subscriptions": [{"type": "CALLBACK", "topic": "/v1.0/im/bot/messages/get"}],
        }
        url = self.dingtalk.base_url + "/v1.0/gateway/connections/open"
        async with self.http.post(url, json=body, headers={"Accept": "application/json"}) as reply:
            opened = await reply.json()
        return f"{opened['endpoint']}?ticket={quote(opened['ticket'], safe='')}"

    async def ask(self) -> int:
        """One question to the model; the status of the answer."""
        body = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "数到 3"}]}
        headers = {"Authorization": f"Bearer {self.model.api_key}"}
        url = f"{self.model.base_url}/chat/completions"
        async with self.http.post(url, json=body, headers=headers) as reply:
            return reply.status


@asynccontextmanager
async def made() -> AsyncIterator[World]:
    clock = VirtualClock()
    feishu, dingtalk, model = FeishuSim(clock), DingTalkSim(clock), DeepSeekSim(clock)
    dingtalk.policy.greet = False
    async with feishu, dingtalk, model, aiohttp.ClientSession() as http:
        scene = Scene(feishu, dingtalk, clock, model)
        yield World(clock, feishu, dingtalk, model, scene, http)
        await scene.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with made() as world:
        yield world


# links ----------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_link_is_cut(world: World, platform: str) -> None:
    socket = await world.dial(platform)
    assert world.links[platform] == "up"
    await world.scene.fault(f"cut-{platform}")
    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSED
    await world.sim(platform).wait_for(lambda: world.links[platform] == "down")


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_half_open_link_is_not_read_and_goes_when_the_client_is_back(
    world: World, platform: str
) -> None:
    await world.dial(platform)
    world.scene.start()
    await world.scene.fault(f"half-{platform}")
    old = world.sim(platform).links[0]
    assert world.links[platform] == "deaf"
    assert old.muted and not old.transport.is_reading()
    await world.clock.advance(2)
    assert world.sim(platform).links == [old]
    await world.dial(platform)
    await world.clock.advance(2)
    await world.sim(platform).wait_for(lambda: old not in world.sim(platform).links)
    assert world.links[platform] == "up"


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_deaf_link_still_answers_pings(world: World, platform: str) -> None:
    socket = await world.dial(platform)
    await world.scene.fault(f"deaf-{platform}")
    link = world.sim(platform).links[0]
    assert link.muted and link.transport.is_reading() and world.links[platform] == "deaf"
    assert getattr(link, "pongs", True)
    await socket.ping()
    await socket.close()


@pytest.mark.parametrize("kind", ["half", "deaf"])
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_clear_heals_the_links(world: World, platform: str, kind: str) -> None:
    await world.dial(platform)
    await world.scene.fault(f"{kind}-{platform}")
    await world.scene.fault("clear")
    link = world.sim(platform).links[0]
    assert not link.muted and link.transport.is_reading() and world.links[platform] == "up"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_links_and_their_faults_on_the_loop_of_the_demo(platform: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scene() -> None:
        async with made() as world:
            await world.dial(platform)
            await asyncio.sleep(0.05)
            assert world.links[platform] == "up"
            await world.scene.fault(f"half-{platform}")
            [link] = world.sim(platform).links
            assert not link.transport.is_reading()
            await world.scene.fault("clear")
            assert link.transport.is_reading() and world.links[platform] == "up"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


async def test_dingtalk_asks_to_leave(world: World) -> None:
    socket = await world.dial("dingtalk")
    await world.scene.fault("leave-dingtalk")
    told = await socket.receive_json()
    assert told["headers"]["topic"] == "disconnect"
    assert world.dingtalk.links[0].leaving


# calls ----------------------------------------------------------------------------

CONTENT = "/open-apis/cardkit/v1/cards/c/elements/e/content"
CARD_WRITES: dict[str, tuple[str, str]] = {
    "feishu": ("PUT", CONTENT),
    "dingtalk": ("PUT", "/v1.0/card/streaming"),
}


async def write(world: World, platform: str) -> tuple[int, Any, Any]:
    """An update of a card that is not there."""
    method, path = CARD_WRITES[platform]
    return await world.call(platform, method, path, {})


@pytest.mark.parametrize(("platform", "times"), [("feishu", 3), ("dingtalk", 2)])
async def test_card_updates_are_refused_for_good(world: World, platform: str, times: int) -> None:
    name = f"refuse-{platform}"
    await world.scene.fault(name)
    for left in range(times, 0, -1):
        assert world.faults["left"] == {name: left}
        status, body, _ = await write(world, platform)
        assert status == 400 and body["code"] in (300313, "param.cardNotExist")
    assert world.faults["left"] == {}
    assert (await write(world, platform))[1]["code"] not in (300313, "param.cardNotExist")


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_burst_of_rate_limits(world: World, platform: str) -> None:
    await world.scene.fault(f"burst-{platform}")
    for _ in range(8):
        status, body, headers = await write(world, platform)
        if platform == "feishu":
            assert (status, body["code"]) == (429, 99991400)
            assert headers["x-ogw-ratelimit-reset"] == "1"
        else:
            assert status == 403 and "QpsLimit" in body["code"]
    assert (await write(world, platform))[0] not in (403, 429)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_pulled_again_it_begins_anew_and_clear_ends_it(world: World, platform: str) -> None:
    name = f"burst-{platform}"
    for _ in range(2):
        await world.scene.fault(name)
        assert world.faults["left"] == {name: 8}
    await world.scene.fault("clear")
    assert world.faults["left"] == {}
    assert (await write(world, platform))[0] not in (403, 429)


async def test_the_right_to_make_cards_is_missing_until_it_is_given_back(world: World) -> None:
    create = ("feishu", "POST", "/open-apis/cardkit/v1/cards", {})
    await world.scene.fault("scope-feishu")
    assert world.faults["on"]["scope-feishu"] is True
    _, body, _ = await world.call(*create)
    assert body["code"] == 99991672
    await world.scene.fault("scope-feishu")
    assert world.faults["on"]["scope-feishu"] is False
    _, body, _ = await world.call(*create)
    assert body["code"] != 99991672


async def test_dingtalk_cards_without_their_right(world: World) -> None:
    create = ("dingtalk", "POST", "/v1.0/card/instances/createAndDeliver", {})
    await world.scene.fault("scope-dingtalk")
    status, body, _ = await world.call(*create)
    assert status == 403 and "PermissionDenied" in body["code"]
    await world.scene.fault("clear")
    status, body, _ = await world.call(*create)
    assert "PermissionDenied" not in body["code"]


async def test_the_message_is_there_and_its_response_is_lost(world: World) -> None:
    chat = world.feishu.p2p(world.feishu.add_person("甲"))
    path = "/open-apis/im/v1/messages?receive_id_type=chat_id"
    body = {"receive_id": chat.id, "msg_type": "text", "content": '{"text":"在"}', "uuid": "u1"}
    await world.scene.fault("lose-feishu")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await world.call("feishu", "POST", path, body)
    assert [b.text for b in world.feishu.bot_bubbles(chat)] == ["在"]
    status, _, _ = await world.call("feishu", "POST", path, body)
    assert status == 200 and len(world.feishu.bot_bubbles(chat)) == 1


async def test_the_card_is_there_and_its_response_is_lost(world: World) -> None:
    group = world.dingtalk.add_group("群", [world.dingtalk.add_person("甲")])
    body = {
        "outTrackId": "t1",
        "cardTemplateId": world.dingtalk.card_template_id,
        "cardData": {"cardParamMap": {"content": ""}},
        "openSpaceId": f"dtv1.card//IM_GROUP.{group.id}",
        "imGroupOpenSpaceModel": {"supportForward": True},
        "imGroupOpenDeliverModel": {"robotCode": world.dingtalk.robot_code},
        "callbackType": "STREAM",
    }
    call = ("dingtalk", "POST", "/v1.0/card/instances/createAndDeliver", body)
    await world.scene.fault("lose-dingtalk")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await world.call(*call)
    assert len(world.dingtalk.bot_bubbles(group)) == 1
    assert (await world.call(*call))[1]["code"] == "param.cardAlreadyExist"


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_slow_platform_answers_when_time_has_passed(world: World, platform: str) -> None:
    await world.scene.fault(f"late-{platform}")
    assert world.faults["on"][f"late-{platform}"] is True
    for _ in range(2):
        sim = world.sim(platform)
        before = len(sim.calls)
        task = asyncio.create_task(write(world, platform))
        await sim.wait_for(lambda sim=sim, before=before: len(sim.calls) > before + 1)
        await world.clock.advance(1.4)
        assert not task.done()
        while not task.done():
            await world.clock.advance(0.2)
    await world.scene.fault(f"late-{platform}")
    assert world.faults["on"][f"late-{platform}"] is False
    assert (await write(world, platform))[0] == 400


# the model --------------------------------------------------------------------------


async def test_an_overloaded_model_stays_so(world: World) -> None:
    await world.scene.fault("model-503")
    assert [await world.ask(), await world.ask()] == [503, 503]
    await world.scene.fault("model-503")
    assert world.model.standing is None and world.faults["on"]["model-503"] is False


async def test_no_balance_meets_one_question(world: World) -> None:
    await world.scene.fault("model-402")
    assert world.faults["left"] == {"model-402": 1}
    assert await world.ask() == 402
    assert world.faults["left"] == {}


@pytest.mark.parametrize(
    ("name", "kind", "times"),
    [("model-cut", "cut", 1), ("model-stall", "stall", 1), ("model-empty", "empty", 2)],
)
async def test_answers_that_break(world: World, name: str, kind: str, times: int) -> None:
    await world.scene.fault(name)
    assert [trouble.kind for trouble in world.model.ordered] == [kind] * times
    assert world.faults["left"] == {name: times}


async def test_a_slow_model(world: World) -> None:
    await world.scene.fault("slow")
    assert world.model.slowness > 1
    await world.scene.fault("slow")
    assert world.model.slowness == 1


def test_the_stand_in_goes_on_with_an_answer_that_broke_off() -> None:
    question = {"role": "user", "content": "写 300 字长文"}
    asked = Asked("deepseek-flash", (question,), False, 8000)
    whole = plan(asked, answer(asked), None).text
    begun = whole[: len(whole) // 2]
    begins = {"role": "assistant", "content": begun, "prefix": True}
    again = Asked("deepseek-flash", (question, begins), False, 8000, prefix=begun)
    assert begun + plan(again, answer(again), None).text == whole


# the bot ------------------------------------------------------------------------------


async def test_the_bot_is_killed_and_comes_back_in_three_seconds(world: World) -> None:
    bot = FakeBot()
    world.scene.employ(bot)
    await world.scene.fault("kill-back")
    await world.clock.advance(2.9)
    assert bot.told == ["kill"]
    await world.clock.advance(0.2)
    assert bot.told == ["kill", "start"]


async def test_a_bot_that_was_killed_for_good_stays_down(world: World) -> None:
    bot = FakeBot()
    world.scene.employ(bot)
    await world.scene.fault("kill-back")
    await world.scene.fault("kill")
    await world.clock.advance(60)
    assert bot.told == ["kill", "kill"]
    await world.scene.fault("start")
    assert bot.told[2:] == ["start"] and bot.running


@pytest.mark.parametrize("name", ["start", "clear"])
async def test_a_bot_that_is_started_before_is_not_started_again(world: World, name: str) -> None:
    bot = FakeBot()
    world.scene.employ(bot)
    await world.scene.fault("kill-back")
    await world.scene.fault(name)
    await world.clock.advance(60)
    assert bot.told == ["kill", "start"]


# all of them ----------------------------------------------------------------------------


async def test_clear_ends_everything(world: World) -> None:
    bot = FakeBot()
    world.scene.employ(bot)
    for platform in PLATFORMS:
        await world.dial(platform)
    before = world.faults
    for name in before["offered"]:
        if name != "clear" and not name.startswith(("cut", "leave", "start", "kill-back")):
            await world.scene.fault(name)
    assert world.faults != before and not bot.running
    await world.scene.fault("clear")
    assert world.faults == before and bot.running
    assert world.links == {"feishu": "up", "dingtalk": "up"}
    assert not world.feishu.policy.missing_scopes and not world.dingtalk.policy.missing_scopes
    assert world.model.slowness == 1 and world.model.standing is None and not world.model.ordered
    for platform in PLATFORMS:
        assert (await write(world, platform))[0] == 400


async def test_every_platform_has_every_fault(world: World) -> None:
    offered = set(world.faults["offered"])
    kinds = {name.removesuffix("-feishu") for name in offered if name.endswith("-feishu")}
    assert kinds == {"cut", "half", "deaf", "refuse", "burst", "lose", "late", "scope"}
    assert {f"{kind}-dingtalk" for kind in kinds} | {"leave-dingtalk"} <= offered
    assert not {"kill", "kill-back", "start"} & offered


@pytest.mark.parametrize("name", ["", "leave-feishu", "kill", "clear ", "__class__"])
async def test_other_names_are_a_mistake(world: World, name: str) -> None:
    with pytest.raises(Mistake):
        await world.scene.fault(name)


async def test_what_is_due_soon_goes_before_what_stands(world: World) -> None:
    await world.scene.fault("late-dingtalk")
    await world.scene.fault("refuse-dingtalk")
    for _ in range(2):
        assert (await write(world, "dingtalk"))[1]["code"] == "param.cardNotExist"
    task = asyncio.create_task(write(world, "dingtalk"))
    while not task.done():
        await world.clock.advance(0.5)
    assert world.clock.monotonic() > 1
    world.dingtalk.faults.clear()
    assert (await write(world, "dingtalk"))[0] == 400
