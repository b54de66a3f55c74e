"""What a refused token means: it concerns the whole app, never one message, card or rung."""

from __future__ import annotations

from bot.errors import (
    AuthError,
    BorderError,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    Transient,
)


def of_token(error: BorderError) -> BorderError:
    """The error to raise where a token was asked for. Asking twice does no harm, and what is
    said of a message's size, place or words cannot be meant."""
    if isinstance(error, PermissionDenied):
        return AuthError(error.cause, note=error.note, code=error.code)
    if isinstance(error, AuthError | RateLimited | QuotaExhausted | Transient):
        return error
    return Transient(error.cause, code=error.code)
