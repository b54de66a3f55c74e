"""adapters/http.py against servers on loopback, with the faults of the playground."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from adapters.http import BODY_LIMIT, Http
from adapters.playground.clock import VirtualClock
from adapters.playground.faults import Fault, Faults
from bot.errors import Bug, Transient, Uncertain

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers every path with `handler`, under the faults ordered for `call`."""

    def __init__(self) -> None:
        self.clock = VirtualClock(settle=0.002)
        self.faults = Faults(self.clock)
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.connections: set[Any] = set()
        self.effects = 0
        self.handler: Handler = self.echo
        self.url = ""

    async def echo(self, request: web.Request) -> web.StreamResponse:
        self.effects += 1
        return web.json_response({"ok": True, "path": request.path_qs})

    async def meet(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.connections.add(request.transport)
        self.bodies.append(await request.read())
        return await self.faults.around("call", request, lambda: self.handler(request))


async def until(true: Callable[[], bool]) -> None:
    """A transport and a list have no event to wait for."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.meet)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http()
    yield http
    await http.close()


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# ---------------------------------------------------------------- answers


async def test_a_call_carries_all_it_was_given(server: Server, http: Http) -> None:
    answer = await http.call(
        "PUT",
        f"{server.url}/open-apis/x",
        json={"text": "你好 <&>", "n": 1},
        headers={"Authorization": "Bearer t"},
        params={"uuid": "a b/+&"},
    )
    assert (answer.status, answer.body["ok"]) == (200, True)
    (request,) = server.requests
    assert (request.method, request.path) == ("PUT", "/open-apis/x")
    assert request.query == {"uuid": "a b/+&"}
    assert request.headers["Authorization"] == "Bearer t"
    assert request.content_type == "application/json"
    assert server.bodies == ['{"text":"你好 <&>","n":1}'.encode()]


async def test_without_json_there_is_no_body(server: Server, http: Http) -> None:
    await http.call("GET", server.url)
    assert server.bodies == [b""]


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 429, 500, 502, 503])
async def test_every_status_is_an_answer(server: Server, http: Http, status: int) -> None:
    server.faults.order("call", Fault("status", status=status, body={"code": 7}))
    answer = await http.call("POST", server.url, json={})
    assert answer.status == status
    assert answer.body == ({"code": 7} if status != 204 else None)


async def test_headers_are_found_in_any_case(server: Server, http: Http) -> None:
    fault = Fault("status", status=429, body={}, headers={"X-Ogw-RateLimit-Reset": "3"})
    server.faults.order("call", fault)
    answer = await http.call("POST", server.url, json={})
    assert answer.headers["x-ogw-ratelimit-reset"] == "3"


@pytest.mark.parametrize(
    ("body", "kind", "parsed"),
    [
        (b'{"code":0}', "text/html", {"code": 0}),
        (b"[1]", "text/plain", [1]),
        (b"null", "application/json", None),
        (b"<html>", "application/json", None),
        (b'{"code":0', "application/json", None),
        (b"", "application/json", None),
        (b"\xff\xfe", "application/json", None),
    ],
)
async def test_json_is_known_by_its_content(
    server: Server, http: Http, body: bytes, kind: str, parsed: object
) -> None:
    async def answers(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind)

    server.handler = answers
    answer = await http.call("GET", server.url)
    assert answer.body == parsed
    assert answer.text == body.decode("utf-8", "replace")


async def test_the_text_of_an_answer_is_short(server: Server, http: Http) -> None:
    async def answers(request: web.Request) -> web.Response:
        return web.Response(text="<html>" + "x" * 100_000)

    server.handler = answers
    answer = await http.call("GET", server.url)
    assert len(answer.text) == 2_000 and answer.text.startswith("<html>")


async def test_redirects_are_not_followed(server: Server, http: Http) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{server.url}/stolen"})

    server.handler = elsewhere
    answer = await http.call("POST", f"{server.url}/a", json={"secret": 1})
    assert answer.status == 307
    assert [request.path for request in server.requests] == ["/a"]


# ---------------------------------------------------------------- never left


async def test_nobody_listens(http: Http, closed_port: int) -> None:
    with pytest.raises(Transient) as caught:
        await http.call("POST", f"http://127.0.0.1:{closed_port}/", json={})
    assert "ClientConnectorError" in str(caught.value)
    assert str(closed_port) not in str(caught.value), "a cause without addresses"


async def test_a_handshake_that_fails(server: Server, http: Http) -> None:
    with pytest.raises(Transient):
        await http.call("POST", server.url.replace("http:", "https:"), json={})
    assert server.requests == []


async def test_a_full_pool_is_no_lost_answer(server: Server) -> None:
    go, http = asyncio.Event(), Http(connections=1)

    async def slow(request: web.Request) -> web.Response:
        await go.wait()
        return web.json_response({})

    server.handler = slow
    first = asyncio.create_task(http.call("POST", server.url, json={"n": 1}, timeout=60))
    await until(lambda: len(server.requests) == 1)
    with pytest.raises(Transient, match="ConnectionTimeoutError"):
        await http.call("POST", server.url, json={"n": 2}, timeout=2)
    go.set()
    assert (await first).status == 200
    assert server.bodies == [b'{"n":1}'], "the second was never sent"
    await http.close()


# ---------------------------------------------------------------- sent, fate unknown


async def uncertain(http: Http, url: str, timeout: float = 30.0) -> str:
    with pytest.raises(Uncertain) as caught:
        await http.call("POST", url, json={"text": "canary"}, timeout=timeout)
    assert "canary" not in str(caught.value)
    return str(caught.value)


async def test_cut_before_and_after_the_effect_look_the_same(server: Server, http: Http) -> None:
    for kind, effects in (("drop", 0), ("lose", 1)):
        server.faults.order("call", Fault(kind))  # type: ignore[arg-type]
        assert "answer lost" in await uncertain(http, server.url)
        assert server.effects == effects
    assert len(server.requests) == 2, "never repeated by itself"


async def test_silence_ends_at_the_timeout(server: Server, http: Http) -> None:
    server.faults.order("call", Fault("hang", seconds=3_600))
    await uncertain(http, server.url, timeout=0.2)
    assert len(server.requests) == 1
    await server.clock.advance(3_600)


async def test_an_answer_that_never_ends_meets_the_same_timeout(server: Server, http: Http) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def drips(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        begun.set()
        try:
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.02)
        finally:
            gone.set()

    server.handler = drips
    for _ in range(20):  # a machine that stands still lets the first times pass unserved
        if not begun.is_set():
            await uncertain(http, server.url, timeout=0.3)
    await asyncio.wait_for(gone.wait(), 30)


async def test_cut_in_the_middle_of_the_body(server: Server, http: Http) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"code":')
        assert request.transport is not None
        request.transport.close()
        return response

    server.handler = half
    await uncertain(http, server.url)


async def test_a_body_over_the_limit_is_not_read_to_its_end(server: Server, http: Http) -> None:
    sent = 0

    async def floods(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 64 * BODY_LIMIT:
            await response.write(b"x" * (1 << 20))
            sent += 1 << 20
        return response

    server.handler = floods
    await uncertain(http, server.url, timeout=60)
    assert sent < 4 * BODY_LIMIT


async def test_a_small_body_that_unpacks_beyond_the_limit(server: Server, http: Http) -> None:
    bomb = gzip.compress(b"\0" * (4 * BODY_LIMIT))
    assert len(bomb) < BODY_LIMIT // 50

    async def answers(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    server.handler = answers
    await uncertain(http, server.url, timeout=60)


async def test_a_body_just_within_the_limit(server: Server, http: Http) -> None:
    async def answers(request: web.Request) -> web.Response:
        return web.Response(body=b'"' + b"x" * (BODY_LIMIT - 2) + b'"')

    server.handler = answers
    answer = await http.call("GET", server.url, timeout=60)
    assert len(answer.body) == BODY_LIMIT - 2


async def test_what_is_no_http_is_uncertain(http: Http) -> None:
    async def babbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(babbles, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    await uncertain(http, f"http://127.0.0.1:{port}/")
    listener.close()
    await listener.wait_closed()


# ---------------------------------------------------------------- cannot be written


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("no address", {}),
        ("", {}),
        ("ftp://127.0.0.1/", {}),
        ("http://[::1", {}),
        ("http://127.0.0.1:99999/", {}),
        (None, {"headers": {"Authorization": "Bearer a\r\nX-Evil: 1"}}),
        (None, {"json": {"text": "\ud83d"}}),
        (None, {"json": object()}),
    ],
)
async def test_a_request_that_cannot_be_written_is_our_bug(
    server: Server, http: Http, url: str | None, extra: dict[str, Any]
) -> None:
    with pytest.raises(Bug) as caught:
        await http.call("POST", server.url if url is None else url, **({"json": {}} | extra))
    assert "Evil" not in str(caught.value)
    assert server.effects == 0


async def test_a_cancelled_call_is_a_cancellation(server: Server, http: Http) -> None:
    server.faults.order("call", Fault("hang", seconds=3_600))
    task = asyncio.create_task(http.call("POST", server.url, json={}, timeout=60))
    await until(lambda: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.clock.advance(3_600)
    assert (await http.call("POST", server.url, json={})).status == 200


# ---------------------------------------------------------------- the pool


async def test_calls_one_after_the_other_share_a_connection(server: Server, http: Http) -> None:
    for _ in range(10):
        await http.call("POST", server.url, json={})
    server.faults.order("call", Fault("status", status=400, body={"code": 1}))
    await http.call("GET", server.url)
    await http.call("GET", server.url)
    assert len(server.requests) == 12 and len(server.connections) == 1


async def test_calls_side_by_side_do_not_wait_for_each_other(server: Server, http: Http) -> None:
    together = asyncio.Barrier(20)

    async def waits(request: web.Request) -> web.Response:
        await together.wait()
        return web.json_response({})

    server.handler = waits
    answers = await asyncio.gather(
        *(http.call("POST", server.url, json={}, timeout=60) for _ in range(20))
    )
    assert [answer.status for answer in answers] == [200] * 20


async def test_a_cut_connection_is_not_used_again(server: Server, http: Http) -> None:
    await http.call("POST", server.url, json={})
    server.faults.order("call", Fault("drop"))
    await uncertain(http, server.url)
    assert (await http.call("POST", server.url, json={})).status == 200
    assert len(server.connections) == 2


async def test_proxies_of_the_environment_are_not_used(
    server: Server, http: Http, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
        monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{closed_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert os.environ["HTTP_PROXY"]
    assert (await http.call("GET", server.url)).status == 200


async def test_closing_ends_every_connection_and_may_be_repeated(server: Server) -> None:
    http = Http()
    await http.close()
    await http.call("GET", server.url)
    await http.close()
    await http.close()
    await until(lambda: all(transport.is_closing() for transport in server.connections))
    assert (await http.call("GET", server.url)).status == 200, "and it opens anew"
    await http.close()


# ---------------------------------------------------------------- faults on order


async def test_faults_come_in_order_each_once(server: Server, http: Http) -> None:
    server.faults.order("other", Fault("drop"))
    server.faults.order("call", Fault("status", status=418, body={}), times=2)
    server.faults.order("call", Fault("html"))
    server.faults.order("call", Fault("truncate"))
    seen = [await http.call("POST", server.url, json={}) for _ in range(5)]
    assert [answer.status for answer in seen] == [418, 418, 502, 200, 200]
    assert seen[2].body is None and "<html>" in seen[2].text
    assert seen[3].body is None and seen[4].text.startswith(seen[3].text)
    assert len(seen[3].text) == len(seen[4].text) // 2
    assert server.effects == 2, "a truncated answer had its effect, the others none"


async def test_a_delay_lasts_as_long_as_it_says(server: Server, http: Http) -> None:
    server.faults.order("call", Fault("delay", seconds=7))
    task = asyncio.create_task(http.call("POST", server.url, json={}, timeout=60))
    await until(lambda: len(server.requests) == 1)
    await server.clock.advance(6.9)
    assert not task.done() and server.effects == 0
    await server.clock.advance(0.2)
    assert (await task).status == 200 and server.effects == 1


async def test_faults_can_be_taken_back(server: Server, http: Http) -> None:
    server.faults.order("call", Fault("drop"), times=9)
    server.faults.clear()
    assert (await http.call("POST", server.url, json={})).status == 200
