"""The refusals of the service, with the texts of reference/models.md 1.3 and 1.7."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

INVALID = "invalid_request_error"
WINDOW = 1_048_576
"""Tokens of the context window."""


class Refused(Exception):
    """The service says no, with this HTTP status and error object."""

    def __init__(
        self, status: int, message: str, *, type: str = INVALID, code: str = INVALID
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.code = status, message, type, code

    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return {"error": error}


def bad_shape(what: str) -> Refused:
    """422: JSON of another shape than the service's types."""
    lead = "Failed to deserialize the JSON body into the target type: "
    return Refused(422, lead + what)


def unknown_variant(where: str, value: Any, known: Iterable[str]) -> Refused:
    names = ", ".join(f"`{name}`" for name in known)
    return bad_shape(f"{where}: unknown variant `{value}`, expected one of {names}")


def wrong_type(where: str, value: Any, expected: str) -> Refused:
    return bad_shape(f"{where}: invalid type: {_kind(value)}, expected {expected}")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value).__name__, "map")


_KINDS = {
    "NoneType": "null",
    "bool": "boolean",
    "int": "integer",
    "float": "floating point",
    "str": "string",
    "list": "sequence",
}


def wrong_key(key: str, trace: str) -> Refused:
    """401; like the service it quotes the last four characters of the key."""
    return Refused(
        401,
        f"Authentication Fails, Your api key: ****{key[-4:]} is invalid (request_id: {trace})",
        type="authentication_error",
    )


def too_long(prompt: int, completion: int) -> Refused:
    """400: over the context window; both in tokens."""
    return Refused(
        400,
        f"This model's maximum context length is {WINDOW} tokens. However, you requested "
        f"{prompt + completion} tokens ({prompt} in the messages, {completion} in the "
        "completion). Please reduce the length of the messages or completion.",
    )


_ON_ORDER: dict[int, tuple[str, str]] = {
    400: ("Invalid request", INVALID),
    401: ("Authentication Fails (governor)", "authentication_error"),
    402: ("Insufficient Balance", "unknown_error"),
    422: ("Failed to deserialize the JSON body into the target type: on order", INVALID),
    429: (
        "Your current concurrency is 40, which exceeds your concurrency limit of 39 based on "
        "your remaining balance. Please top up your balance to restore your concurrency.",
        "rate_limit_error",
    ),
    500: ("Internal server error", "internal_error"),
    503: ("The service is too busy. Please try again later.", "service_unavailable_error"),
}


def on_order(status: int) -> Refused:
    """The refusal that a test or the fault panel asked for."""
    message, kind = _ON_ORDER.get(status, ("on order", INVALID))
    return Refused(status, message, type=kind, code=kind if status >= 429 else INVALID)
