"""The escape hatch: events received through the official lark-oapi client.

Its loop is a global of its module, it blocks in HTTP calls without a timeout and in its
handlers, and it stays deaf after some refusals (reference/feishu.md 1.4). So each
connection is a client of its own in a thread of its own, and the supervisor, not the
client, connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from adapters.connection import Connection, Gap
from adapters.feishu.link import by_code
from adapters.hearing import IDLE
from adapters.sdk_session import SdkSession
from adapters.sdk_thread import SdkThread
from adapters.supervisor import Backoff, supervise
from bot.contract import Clock, LinkStatus
from bot.errors import QueqiaoError, Transient

log = logging.getLogger(__name__)

WANTED = frozenset({"im.message.receive_v1", "im.message.recalled_v1", "card.action.trigger"})
"""Event types that are handed over; the others are acknowledged and forgotten."""

HAND_OVER_SECONDS = 2.8
"""Feishu waits 3 s for an acknowledgement (reference/feishu.md 2.7)."""

CLOSE_SECONDS = 1.0
PONG_SLACK = 30.0
"""Seconds without any frame, beyond the ping interval, that prove a socket dead (2.9)."""

OnPayload = Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]


class SdkSettings(Protocol):
    """`base_url` stands for `https://open.feishu.cn`."""

    @property
    def app_id(self) -> str: ...

    @property
    def app_secret(self) -> str: ...

    @property
    def base_url(self) -> str: ...


async def run_sdk(
    settings: SdkSettings,
    on_payload: OnPayload,
    status: LinkStatus,
    clock: Clock,
    backoff: Backoff | None = None,
    *,
    gap: Gap | None = None,
    up: Callable[[], object] | None = None,
    idle: float = IDLE,
) -> None:
    """Receive messages, recalls and button presses until cancelled.

    `on_payload` runs on this loop; the event is acknowledged when it returns, with its
    result as the answer of a card action, and refused (it comes again) when it raises or
    takes longer than HAND_OVER_SECONDS. `gap`, `up`, `idle`: as in supervise.
    """

    async def session(connection: Connection) -> None:
        await _Session(settings, on_payload, connection).run()

    await supervise(session, status, clock, backoff, gap=gap, up=up, idle=idle)


class _Session:
    """One connection, seen from the main loop."""

    def __init__(
        self, settings: SdkSettings, on_payload: OnPayload, connection: Connection
    ) -> None:
        self._settings, self._on_payload = settings, on_payload
        self._connection = connection
        self._session = SdkSession(f"lark-oapi {settings.app_id}", connection)
        self._thread = self._session.thread
        connection.patience = 120.0 + PONG_SLACK

    async def run(self) -> None:
        """Raises of the QueqiaoError family when the connection ends."""
        await self._session.run(self._live)

    # what the thread tells ------------------------------------------------

    def up(self) -> None:
        self._connection.up()

    def frame(self, interval: float) -> None:
        """The client's own pings are answered once an interval."""
        self._connection.patience = interval + PONG_SLACK
        self._connection.frame()

    def event(self) -> None:
        self._connection.event()

    # in the thread --------------------------------------------------------

    async def _live(self) -> None:
        """One connection from dial to death. Raises of the QueqiaoError family."""
        client, forbidden, failed = _client(self._settings, self._thread, self)
        try:
            await client._connect()
            pinging = asyncio.create_task(client._ping_loop())
            try:
                await client.over.wait()
            finally:
                pinging.cancel()
        except forbidden as error:
            raise _by_code(getattr(error, "code", None)) from None
        except failed as error:
            cause = f"lark-oapi: code {getattr(error, 'code', None)}"
            raise Transient(cause, note="link.busy") from None
        except Exception as error:
            # never its text: it may hold the URL with the ticket
            raise Transient(f"lark-oapi: {type(error).__name__}") from None
        finally:
            await _hang_up(client)
        raise Transient("socket closed", note="link.closed")

    def handle(self, raw: bytes) -> dict[str, Any] | None:
        """What the client calls for each event, and waits for. Raises what must not be
        acknowledged as handled."""
        payload = json.loads(raw)
        self._thread.tell(self.event)
        if _event_type(payload) not in WANTED:
            return None

        async def work() -> dict[str, Any] | None:
            return await self._on_payload(payload)

        try:
            return self._thread.hand_over(work, HAND_OVER_SECONDS)
        except Exception as error:
            known = isinstance(error, QueqiaoError)
            log.warning(
                "event refused, it will come again: %s",
                error if known else type(error).__name__,
                exc_info=None if known else error,
            )
            raise


def _event_type(payload: Any) -> str:
    header = payload.get("header") if isinstance(payload, dict) else None
    return str(header.get("event_type", "")) if isinstance(header, dict) else ""


def _by_code(code: Any) -> QueqiaoError:
    return by_code(f"lark-oapi: code {code}", code if isinstance(code, int) else None)


class _RunningLoop:
    """Stands for the client module's one global loop: each thread sees its own."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)


class _Hooks:
    """What our client does beside its work: it reports, and it tells when it is over."""

    over: asyncio.Event
    _thread: SdkThread
    _session: _Session
    _ping_interval: int

    def aim(self, thread: SdkThread, session: _Session) -> None:
        self._thread, self._session = thread, session
        self.over = asyncio.Event()

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[misc]
        self._thread.tell(self._session.up)

    async def _handle_message(self, message: bytes) -> None:
        self._thread.tell(self._session.frame, float(self._ping_interval))
        await super()._handle_message(message)  # type: ignore[misc]

    async def _receive_message_loop(self) -> None:
        try:
            with contextlib.suppress(Exception):
                await super()._receive_message_loop()  # type: ignore[misc]
        finally:
            self.over.set()


class _Handler:
    """In place of the SDK's dispatcher, which refuses event types and shapes that it does
    not know (reference/feishu.md 1.3)."""

    def __init__(self, handle: Callable[[bytes], Any]) -> None:
        self._do_without_validation = handle


def _client(
    settings: SdkSettings, thread: SdkThread, session: _Session
) -> tuple[Any, type[Exception], type[Exception]]:
    """The official client, and its exceptions with a code: for what the app may not, and
    for what the server could not. Belongs to the thread: the import takes seconds, and the
    client's locks belong to the loop that runs."""
    import lark_oapi
    from lark_oapi.ws import client as module
    from lark_oapi.ws.exception import ClientException, ServerException

    class Client(_Hooks, lark_oapi.ws.Client):  # type: ignore[misc]
        """The hooks come first, so the parent's own calls reach them."""

    module.loop = _RunningLoop()
    logging.getLogger("websockets").setLevel(logging.INFO)  # its debug lines hold the ticket
    client = Client(
        settings.app_id,
        settings.app_secret,
        log_level=lark_oapi.LogLevel.CRITICAL,  # its other lines hold tickets and messages
        event_handler=_Handler(session.handle),
        domain=settings.base_url.rstrip("/"),
        auto_reconnect=False,
    )
    client.aim(thread, session)
    return client, ClientException, ServerException


async def _hang_up(client: Any) -> None:
    """Say goodbye, for a moment; then pull the plug."""
    connection = client._conn
    if connection is None:
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
    except Exception:
        connection.transport.abort()
        await asyncio.sleep(0)
