"""The escape hatch: frames received through the official dingtalk-stream client.

Its loop blocks in HTTP calls and swallows the first cancellation (reference/dingtalk.md
1.2, 1.3), so it lives in a thread and a loop of its own; only decoded payloads cross.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import platform
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from adapters.supervisor import Connection
from bot.contract import Clock, LinkStatus

log = logging.getLogger(__name__)

MESSAGES = "/v1.0/im/bot/messages/get"
CARD_CALLBACK = "/v1.0/card/instances/callback"
TOPICS = (MESSAGES, CARD_CALLBACK)

OPEN_SECONDS = 10.0
"""For connections/open; the client's own call would wait for ever."""

STOP_SECONDS = 1.0
"""For the thread to end. One that is inside the blocking call is left behind: it is a
daemon, and ends when the call does."""

OnFrame = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]
Process = Callable[[str, dict[str, Any]], Coroutine[Any, Any, tuple[int, dict[str, Any] | None]]]


class SdkSettings(Protocol):
    """`base_url` stands for `https://api.dingtalk.com`."""

    @property
    def client_id(self) -> str: ...

    @property
    def client_secret(self) -> str: ...

    @property
    def base_url(self) -> str: ...


async def run_sdk(
    settings: SdkSettings, on_frame: OnFrame, status: LinkStatus, clock: Clock
) -> None:
    """Receive robot messages and card callbacks until cancelled.

    `on_frame(topic, data)` runs on this loop with the decoded data; the frame is
    acknowledged with its result as `response` when it returns, and not at all when it
    raises. The client reconnects by itself, for ever.
    """
    main = asyncio.get_running_loop()

    async def process(topic: str, data: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        async def hand_over() -> dict[str, Any] | None:
            return await on_frame(topic, data)

        handed = asyncio.run_coroutine_threadsafe(hand_over(), main)
        return 200, await asyncio.wrap_future(handed)

    over = asyncio.Event()
    thread = _SdkThread(settings, process, status, clock)
    thread.start(lambda: main.call_soon_threadsafe(over.set))
    try:
        await over.wait()
        if thread.error is not None:
            raise thread.error
    finally:
        thread.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), STOP_SECONDS)
        status.connected, status.cause = False, "stopped"


class _SdkThread:
    """The client in its daemon thread; stop() asks it to end and does not wait."""

    def __init__(
        self, settings: SdkSettings, process: Process, status: LinkStatus, clock: Clock
    ) -> None:
        self._settings, self._process = settings, process
        self._status, self._clock = status, clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event
        self._stopping = threading.Event()
        self.error: BaseException | None = None

    def start(self, over: Callable[[], object]) -> None:
        threading.Thread(
            target=self._live, args=(over,), name="dingtalk-stream", daemon=True
        ).start()

    def stop(self) -> None:
        self._stopping.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._woken.set)

    def _live(self, over: Callable[[], object]) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            self.error = error
        with contextlib.suppress(RuntimeError):  # the main loop may be gone already
            over()

    async def _main(self) -> None:
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        client = _client(self._settings, self._process, _Report(self._status, self._clock))
        running = asyncio.create_task(client.start())
        waking = asyncio.create_task(self._woken.wait())
        if not self._stopping.is_set():
            await asyncio.wait({running, waking}, return_when=asyncio.FIRST_COMPLETED)
        while not running.done():
            # The client swallows a cancellation and sleeps 10 s; the next one ends that.
            running.cancel()
            await asyncio.wait({running}, timeout=0.05)
        if not running.cancelled():
            running.result()


class _Report:
    """Writes the link's status from the client's thread; plain attributes, one writer."""

    def __init__(self, status: LinkStatus, clock: Clock) -> None:
        self._status, self._clock = status, clock
        self._connection = Connection(status, clock)

    def up(self) -> None:
        self._connection = Connection(self._status, self._clock)
        self._connection.up()

    def frame(self, event: bool) -> None:
        if event:
            self._connection.event()
        else:
            self._connection.frame()

    def down(self, cause: str) -> None:
        self._status.connected, self._status.cause = False, cause


class _Quiet:
    """The client's logger: its own lines hold tickets and whole messages."""

    def info(self, *_: object) -> None: ...

    def warning(self, *_: object) -> None: ...

    def error(self, message: str, *_: object) -> None:
        log.warning("dingtalk-stream: %s", message.partition(",")[0].partition(":")[0])

    def exception(self, *_: object) -> None:
        log.warning("dingtalk-stream: connection failed")


class _Hooks:
    """What our client does otherwise than the official one, whose endpoint is fixed at
    import time and whose opening call has no timeout."""

    _settings: SdkSettings
    _report: _Report
    _socket: Any = None
    _watch: asyncio.Task[None] | None = None

    def aim(self, settings: SdkSettings, report: _Report) -> None:
        self._settings, self._report = settings, report

    @property
    def websocket(self) -> Any:
        return self._socket

    @websocket.setter
    def websocket(self, socket: Any) -> None:
        self._socket = socket
        if socket is not None:
            self._report.up()
            self._watch = asyncio.create_task(self._watched(socket))

    async def _watched(self, socket: Any) -> None:
        await socket.wait_closed()
        if socket is self._socket:
            self._report.down("closed")

    async def route_message(self, json_message: Any) -> Any:
        self._report.frame(json_message.get("type") != "SYSTEM")
        return await super().route_message(json_message)  # type: ignore[misc]

    def open_connection(self) -> dict[str, str] | None:
        return _open(self._settings, self._report)


def _client(settings: SdkSettings, process: Process, report: _Report) -> Any:
    """The official client, aimed at `base_url`, with both topics registered."""
    from dingtalk_stream import CallbackHandler, Credential, DingTalkStreamClient

    class Handler(CallbackHandler):  # type: ignore[misc]
        async def process(self, message: Any) -> tuple[int, dict[str, Any] | None]:
            return await process(message.headers.topic, message.data)

    class Client(_Hooks, DingTalkStreamClient):  # type: ignore[misc]
        """The hooks come first, so the parent's loop calls them."""

    logging.getLogger("websockets").setLevel(logging.INFO)  # its debug lines hold the ticket
    client = Client(Credential(settings.client_id, settings.client_secret), logger=_Quiet())
    client.aim(settings, report)
    for topic in TOPICS:
        client.register_callback_handler(topic, Handler())
    return client


def _open(settings: SdkSettings, report: _Report) -> dict[str, str] | None:
    """POST connections/open (reference/dingtalk.md 2.1); None when refused."""
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
        error.close()
        report.down(f"connections/open: HTTP {error.code}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.down(f"connections/open: {type(error).__name__}")
    return None
