"""A ModelRequest as the JSON and the address that its service wants. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.models.profiles import DEEPSEEK, Profile, always_thinks, profile_of, resolve
from bot.contract import ModelRequest
from bot.errors import Bug


@dataclass(frozen=True, slots=True)
class WireRequest:
    """What goes over the wire: `raw` is `body` as JSON. `flipped`: the rule for earlier
    thinking was turned round for it."""

    url: str
    body: dict[str, Any]
    raw: bytes
    flipped: bool


def wire_request(
    request: ModelRequest, base_url: str, model: str, max_tokens: int, *, flipped: bool = False
) -> WireRequest:
    """The request for `model` (used when the request names none). `flipped` turns the
    rule for earlier thinking round, for a service that has changed its mind.

    Raises Bug when the request wants a prefix continued by a service that cannot.
    """
    name = request.model or model
    profile = profile_of(base_url, name)
    if request.prefix and not profile.prefix:
        raise Bug(f"{profile.name} continues no prefix", note="model.bad_request")
    thinking = request.thinking
    if profile is DEEPSEEK:
        thinking = thinking or always_thinks(name)
        name, _ = resolve(name)
    echo = (profile.echo_reasoning and thinking) != flipped
    body: dict[str, Any] = {
        "model": name,
        "messages": _messages(request, echo),
        "stream": request.stream,
        profile.tokens_field: _tokens(request, profile, thinking, max_tokens),
        **_thinking(profile, thinking),
        **_sampling(profile, thinking, request.temperature),
    }
    if request.stream and profile.usage_option:
        body["stream_options"] = {"include_usage": True}
    if profile.user_field and request.user:
        body[profile.user_field] = _isolation_id(request.user)
    return WireRequest(_url(base_url, request.prefix), *_sendable(body), flipped)


def _url(base_url: str, prefix: bool) -> str:
    """Prefix completion lives below /beta instead of the root (reference/models.md 1.6)."""
    base = base_url.rstrip("/").removesuffix("/chat/completions")
    if prefix and not base.endswith("/beta"):
        base = base.removesuffix("/v1") + "/beta"
    return base + "/chat/completions"


def _messages(request: ModelRequest, echo: bool) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [
        {"role": role, "content": text} for role, text, _ in request.prompts
    ]
    if echo:
        for prompt, message in zip(request.prompts, messages, strict=True):
            if prompt.role == "assistant":
                message["reasoning_content"] = prompt.reasoning or ""
    if request.prefix and messages:
        messages[-1]["prefix"] = True
    return messages


def _sendable(body: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The body without lone surrogates, which no UTF-8 can carry, and its bytes."""
    try:
        return body, orjson.dumps(body)
    except orjson.JSONEncodeError:
        sound = {**body, "messages": [_sound(message) for message in body["messages"]]}
        return sound, orjson.dumps(sound)


def _sound(message: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in message.items()
    }


def _tokens(request: ModelRequest, profile: Profile, thinking: bool, usual: int) -> int:
    tokens = request.max_tokens
    if tokens is None:
        tokens = usual + (profile.thinking_tokens if thinking else 0)
    return max(1, min(tokens, profile.most_tokens))


def _thinking(profile: Profile, thinking: bool) -> dict[str, Any]:
    if profile.thinking == "object":
        return {"thinking": {"type": "enabled" if thinking else "disabled"}}
    if profile.thinking == "flag":
        return {"enable_thinking": thinking}
    if profile.thinking == "effort":
        return {"reasoning_effort": "medium" if thinking else "none"}
    return {}


def _sampling(profile: Profile, thinking: bool, temperature: float | None) -> dict[str, Any]:
    """DeepSeek ignores a temperature while it thinks (reference/models.md 1.3)."""
    if temperature is None or profile.fixed_sampling or (profile is DEEPSEEK and thinking):
        return {}
    return {"temperature": max(0.0, min(temperature, profile.max_temperature))}


def _isolation_id(user: str) -> str:
    """A stable id without personal data, of letters and digits (reference/models.md 1.3)."""
    return hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()[:32]
