"""Keeps secrets out of the log (law 10): the formatter is the border, so that tracebacks
and other libraries' records pass it too."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

HIDDEN = "***"

SHORTEST = 6
"""A shorter value is not hidden by its text: it would blank out ordinary words."""

_NAMED = re.compile(
    r"(?i)\b(bearer|(?:app_?secret|client_?secret|api_?key|secret|access_key|ticket|token|"
    r"access_?token|tenant_access_token|session|sign|password)[\"']?\s*[=:])(\s*[\"']?)"
    r"([^\s\"'&,;)}\]]+)"
)
_BEARER = re.compile(r"(?i)\bbearer\s+[\w.~+/=-]+")
_KEY = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")


class Redactor:
    """Hides the known secrets, and what looks like one by its name."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        text = _KEY.sub(HIDDEN, _BEARER.sub(f"Bearer {HIDDEN}", text))
        return _NAMED.sub(_hide_value, text)


def _hide_value(match: re.Match[str]) -> str:
    return match[0] if match[1].casefold() == "bearer" else f"{match[1]}{match[2]}{HIDDEN}"


class Formatter(logging.Formatter):
    """One line a record, redacted."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def set_up_logging(level: str, secrets: Iterable[str]) -> None:
    """Send the log to standard error, redacted; quiet the libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(Redactor(secrets)))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("aiohttp.access", "asyncio", "websockets", "sqlalchemy"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
