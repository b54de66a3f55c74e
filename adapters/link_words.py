"""Why a link is down: in words for a person, and in the terms of the wire for the log."""

from __future__ import annotations

import logging

from bot.contract import LinkStatus
from bot.errors import AuthError, PermissionDenied, QueqiaoError
from bot.texts import beside

log = logging.getLogger(__name__)

Outcome = BaseException | None
"""How a session ended: None for a clean close."""


def report(status: LinkStatus, error: Outcome) -> None:
    """Note that the platform could not be reached. A link that still hears keeps its
    green light, and shows only that its credentials are refused."""
    status.detail = detail_of(error)
    status.auth_failed = status.auth_failed or isinstance(error, AuthError)
    if not status.hearing:
        status.cause = beside(key_of(error, "link.unreachable"))


def key_of(error: Outcome, otherwise: str) -> str:
    """The sentence of bot.texts for why a connection failed or ended."""
    note = error.note if isinstance(error, QueqiaoError) else ""
    if note.startswith("link."):
        return note
    if isinstance(error, AuthError):
        return "link.refused"
    if isinstance(error, PermissionDenied):
        return "link.forbidden"
    expected = error is None or isinstance(error, QueqiaoError | OSError)
    return otherwise if expected else "link.broken"


def detail_of(error: Outcome) -> str:
    """One line; type and cause, never a payload."""
    if error is None:
        return "closed"
    return str(error) if isinstance(error, QueqiaoError) else type(error).__name__


def log_end(name: str, error: Outcome) -> None:
    """How a session ended; a bug leaves its traceback."""
    if error is None:
        log.info("link %s ended", name)
        return
    level = logging.ERROR if isinstance(error, AuthError) else logging.WARNING
    bug = None if isinstance(error, QueqiaoError | OSError) else error
    log.log(level, "link %s ended: %s", name, detail_of(error), exc_info=bug)
