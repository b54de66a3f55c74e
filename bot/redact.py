"""Keeps secrets out of the log (law 10): the formatter is the border, so that tracebacks
and other libraries' records pass it too."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "***"

SHORTEST = 6
"""A shorter value is not hidden by its text: it would blank out ordinary words."""

_START = r"(?<![A-Za-z0-9])"
_SEPARATOR = r"\\*[\"']?[ \t]*[=:][ \t]*"
_VALUE = r"""("(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|\\+".*?\\+"|[^\s"'\\&,;)}\]]+)"""

_MARK = re.compile(r"\\*[\"']?")

_NAMED = re.compile(
    rf"{_START}((?:[a-z0-9]+[_-](?:secret|token|ticket|session|sign|signature)"
    r"|(?-i:[a-z0-9]+(?:Secret|Token|Ticket|Session|Sign|Signature))"
    r"|(?:api|access|encrypt|private)[_-]?key|(?:app|client)secret|accesstoken|password|passwd)"
    rf"{_SEPARATOR}){_VALUE}",
    re.I,
)
_WORD = re.compile(
    rf"{_START}((?:secret|token|ticket|session|sign|signature)"
    rf"(?:\\*[\"']?[ \t]*=[ \t]*|\\*[\"'][ \t]*:[ \t]*|[ \t]*:[ \t]*(?=\S*\d))){_VALUE}",
    re.I,
)
"""Ordinary words as well: after a colon in running text only what has a digit is hidden."""

_AUTHORIZATION = re.compile(
    rf"{_START}(authorization{_SEPARATOR}[\"']?(?:[a-z]+\s+)?)[^\s\"',]+", re.I
)
_BEARER = re.compile(r"\b(bearer\s+)(?=[\w.~+/=-]*\d|[\w.~+/=-]{20})[\w.~+/=-]+", re.I)
_USERINFO = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_KEY = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")


class Redactor:
    """Hides the known secrets, as they are and as they stand in a URL, and what looks
    like one by its name."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        long_enough = {s for s in secrets if len(s) >= SHORTEST}
        forms = long_enough | {quote(s, safe="") for s in long_enough}
        known = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        text = _KEY.sub(HIDDEN, text)
        for pattern in (_AUTHORIZATION, _BEARER, _USERINFO):
            text = pattern.sub(rf"\1{HIDDEN}", text)
        return _WORD.sub(_hide_value, _NAMED.sub(_hide_value, text))


def _hide_value(match: re.Match[str]) -> str:
    """The value alone goes; its quotation marks stay."""
    mark = _MARK.match(match[2])
    opening = mark[0] if mark else ""
    closed = len(match[2]) > len(opening) and match[2].endswith(opening)
    return f"{match[1]}{opening}{HIDDEN}{opening if closed else ''}"


class Formatter(logging.Formatter):
    """A record as text, redacted, with its traceback when it has one."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Never raises: the handler would print the bare arguments."""
        try:
            text = super().format(record)
        except Exception as error:
            text = f"{record.levelname} {record.name}: {record.msg!r} ({type(error).__name__})"
        return self._redact(text)


def set_up_logging(level: str, secrets: Iterable[str]) -> None:
    """Send the log to standard error, redacted; quiet the libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(Redactor(secrets)))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("aiohttp.access", "asyncio", "websockets", "sqlalchemy"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
