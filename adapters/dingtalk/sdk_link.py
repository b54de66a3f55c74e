"""The escape hatch: frames received through the official dingtalk-stream client.

Its loop blocks in HTTP calls, swallows the first cancellation and never tells that it is
deaf (reference/dingtalk.md 1.2, 1.3). So each connection is a client of its own in a thread
of its own, and the supervisor, not the client, connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import platform
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from adapters.connection import Connection, Gap
from adapters.dingtalk.link import BEATS, LEAVING_SECONDS, Beats, refused
from adapters.hearing import IDLE
from adapters.sdk_session import SdkSession
from adapters.supervisor import Backoff, supervise
from bot.contract import Clock, LinkStatus
from bot.errors import Transient

log = logging.getLogger(__name__)

MESSAGES = "/v1.0/im/bot/messages/get"
CARD_CALLBACK = "/v1.0/card/instances/callback"
TOPICS = (MESSAGES, CARD_CALLBACK)

OPEN_SECONDS = 10.0
"""For connections/open; the client's own call would wait for ever."""

OnFrame = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]
Process = Callable[[str, dict[str, Any]], Coroutine[Any, Any, tuple[int, dict[str, Any] | None]]]


class SdkSettings(Protocol):
    """`base_url` stands for `https://api.dingtalk.com`; `deaf_after` as in
    DingTalkSettings."""

    @property
    def client_id(self) -> str: ...

    @property
    def client_secret(self) -> str: ...

    @property
    def base_url(self) -> str: ...

    @property
    def deaf_after(self) -> float: ...


async def run_sdk(
    settings: SdkSettings,
    on_frame: OnFrame,
    status: LinkStatus,
    clock: Clock,
    backoff: Backoff | None = None,
    *,
    gap: Gap | None = None,
    idle: float = IDLE,
) -> None:
    """Receive robot messages and card callbacks until cancelled.

    `on_frame(topic, data)` runs on this loop with the decoded data; the frame is
    acknowledged with its result as `response` when it returns, and not at all when it
    raises. `gap`, `idle`: as in supervise.
    """

    async def session(connection: Connection) -> None:
        await _Session(settings, on_frame, clock, connection).run()

    await supervise(session, status, clock, backoff, gap=gap, idle=idle)


class _Session:
    """One connection, seen from the main loop."""

    def __init__(
        self, settings: SdkSettings, on_frame: OnFrame, clock: Clock, connection: Connection
    ) -> None:
        self._settings, self._on_frame = settings, on_frame
        self._clock, self._connection = clock, connection
        self._session = SdkSession(f"dingtalk-stream {settings.client_id}", connection)
        self._tell = self._session.thread.tell
        self._main = asyncio.get_running_loop()
        self._beats = Beats(settings.deaf_after, clock.monotonic())
        connection.patience = math.inf  # the client hides its pongs, but leaves a dead socket

    async def run(self) -> None:
        """Raises of the QueqiaoError family when the connection ends."""
        await self._session.run(self._live)

    def _heard(self, kind: str, topic: str) -> None:
        """One frame (reference/dingtalk.md 2.3)."""
        connection = self._connection
        if kind != "SYSTEM":
            connection.event()
            return
        connection.frame()
        if topic in BEATS:
            connection.sign(self._beats.beat(self._clock.monotonic()))
        elif topic == "disconnect":
            connection.leaving(LEAVING_SECONDS, deaf=True)

    # in the thread --------------------------------------------------------

    async def _live(self) -> None:
        """One connection from dial to death. Raises of the QueqiaoError family."""
        address = _open(self._settings)
        client = _client(self._settings, self._process)
        client.aim(address, self)
        running = asyncio.create_task(client.start())
        closing = asyncio.create_task(client.over.wait())
        try:
            await asyncio.wait({running, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            await _ended(running)
        raise Transient(f"socket closed, code {client.close_code}", note="link.closed")

    def up(self) -> None:
        self._tell(self._connection.up)

    def heard(self, frame: Any) -> None:
        headers = frame.get("headers")
        topic = headers.get("topic") if isinstance(headers, dict) else ""
        self._tell(self._heard, str(frame.get("type")), str(topic))

    async def _process(self, topic: str, data: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        async def hand_over() -> dict[str, Any] | None:
            return await self._on_frame(topic, data)

        work = hand_over()
        try:
            handed = asyncio.run_coroutine_threadsafe(work, self._main)
        except RuntimeError:  # the main loop has ended
            work.close()
            raise
        return 200, await asyncio.wrap_future(handed)


async def _ended(running: asyncio.Task[None]) -> None:
    """The client swallows a cancellation and sleeps 10 s; the next one ends that."""
    while not running.done():
        running.cancel()
        await asyncio.wait({running}, timeout=0.05)
    with contextlib.suppress(asyncio.CancelledError):
        running.exception()


class _Quiet:
    """The client's logger: its own lines hold tickets and whole messages."""

    def info(self, *_: object) -> None: ...

    def warning(self, *_: object) -> None: ...

    def error(self, message: str, *_: object) -> None:
        log.warning("dingtalk-stream: %s", message.partition(",")[0].partition(":")[0])

    def exception(self, *_: object) -> None:
        log.warning("dingtalk-stream: connection failed")


class _Hooks:
    """What our client does otherwise than the official one: it connects once, reads on
    after `disconnect`, reports, and tells when it is over."""

    over: asyncio.Event
    close_code: int | None = None
    _address: dict[str, str] | None
    _session: _Session
    _socket: Any = None
    _watch: asyncio.Task[None] | None = None

    def aim(self, address: dict[str, str], session: _Session) -> None:
        self._address, self._session = address, session
        self.over = asyncio.Event()

    @property
    def websocket(self) -> Any:
        return self._socket

    @websocket.setter
    def websocket(self, socket: Any) -> None:
        self._socket = socket
        if socket is not None:
            self._session.up()
            self._watch = asyncio.create_task(self._watched(socket))

    async def _watched(self, socket: Any) -> None:
        await socket.wait_closed()
        self.close_code = socket.close_code
        self.over.set()

    async def route_message(self, json_message: Any) -> Any:
        self._session.heard(json_message)
        await super().route_message(json_message)  # type: ignore[misc]
        return ""  # the parent would close the socket at `disconnect`

    def open_connection(self) -> dict[str, str]:
        """The address, once; then what makes the parent's start() return (1.3)."""
        address, self._address = self._address, None
        if address is None:
            raise KeyboardInterrupt
        return address


def _client(settings: SdkSettings, process: Process) -> Any:
    """The official client, with both topics registered."""
    from dingtalk_stream import CallbackHandler, Credential, DingTalkStreamClient

    class Handler(CallbackHandler):  # type: ignore[misc]
        async def process(self, message: Any) -> tuple[int, dict[str, Any] | None]:
            return await process(message.headers.topic, message.data)

    class Client(_Hooks, DingTalkStreamClient):  # type: ignore[misc]
        """The hooks come first, so the parent's loop calls them."""

    logging.getLogger("websockets").setLevel(logging.INFO)  # its debug lines hold the ticket
    client = Client(Credential(settings.client_id, settings.client_secret), logger=_Quiet())
    for topic in TOPICS:
        client.register_callback_handler(topic, Handler())
    return client


def _open(settings: SdkSettings) -> dict[str, str]:
    """POST connections/open (reference/dingtalk.md 2.1). Raises of the QueqiaoError
    family."""
    body = {
        "clientId": settings.client_id,
        "clientSecret": settings.client_secret,
        "subscriptions": [{"type": "CALLBACK", "topic": topic} for topic in TOPICS],
        "ua": f"queqiao/sdk Python/{platform.python_version()}-union",
    }
    request = urllib.request.Request(
        settings.base_url.rstrip("/") + "/v1.0/gateway/connections/open",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=OPEN_SECONDS) as response:
            opened = json.loads(response.read(1 << 20))
        return {"endpoint": str(opened["endpoint"]), "ticket": str(opened["ticket"])}
    except urllib.error.HTTPError as error:
        with error:
            raise refused(error.code, _code(error)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"connections/open: {type(error).__name__}"
        raise Transient(cause, note="link.unreachable") from None


def _code(error: urllib.error.HTTPError) -> str:
    """The `code` of a refusal's body; empty when it has none."""
    try:
        value = json.loads(error.read(1 << 16))
        return str(value["code"])[:80]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
