"""What a client asked: its JSON body, checked as the service checks it. Pure.

Source of the rules and texts: reference/models.md 1.2-1.4 and 1.7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.deepseek.refused import Refused, bad_shape, unknown_variant, wrong_type
from adapters.playground.deepseek.thread import Message, check_order, check_shapes

LIVE = ("deepseek-flash", "deepseek-v4-pro")
ALIASES = {
    "deepseek-v4-flash": "deepseek-flash",
    "deepseek-v4-flash-vision-exp": "deepseek-flash",
}
MOST_TOKENS = 393_216

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One accepted request. `model` is today's name; `max_tokens` counts thinking and
    text; `prefix` is the assistant text to be continued, None without one."""

    model: str
    messages: tuple[Message, ...]
    thinking: bool
    max_tokens: int
    stream: bool = False
    include_usage: bool = False
    prefix: str | None = None
    user_id: str = ""
    stops: tuple[str, ...] = ()
    body: Body = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The text of the last user message."""
        return next(reversed(self.said("user")), "")

    def said(self, role: str) -> list[str]:
        """The texts of every message of this role, oldest first."""
        return [text_of(m) for m in self.messages if m["role"] == role]


def text_of(message: Message) -> str:
    """The text of a message, its parts joined."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)


def read_request(body: Any, headers: Mapping[str, str], *, beta: bool = False) -> Asked:
    """Raises Refused with the status and text of the service."""
    _check_types(body)
    model = _model(body["model"])
    messages = body["messages"]
    thinking = _thinks(body)
    check_order(messages, thinking=thinking, beta=beta)
    _check_rules(body, thinking)
    stop = body.get("stop") or ()
    return Asked(
        model=model,
        messages=tuple(messages),
        thinking=thinking,
        max_tokens=body.get("max_tokens") or (65_536 if thinking else 8_192),
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        prefix=text_of(messages[-1]) if messages[-1].get("prefix") else None,
        user_id=body.get("user_id") or "",
        stops=(stop,) if isinstance(stop, str) else tuple(stop),
        body=body,
        headers=headers,
    )


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "model": ((str,), "a string"),
    "messages": ((list,), "a sequence"),
    "thinking": ((dict,), "struct ThinkingOptions"),
    "reasoning_effort": ((str,), "a string"),
    "max_tokens": ((int,), "u32"),
    "temperature": ((int, float), "f32"),
    "top_p": ((int, float), "f32"),
    "presence_penalty": ((int, float), "f32"),
    "frequency_penalty": ((int, float), "f32"),
    "n": ((int,), "u32"),
    "stop": ((str, list), "a string or a sequence"),
    "stream": ((bool,), "a boolean"),
    "stream_options": ((dict,), "struct StreamOptions"),
    "response_format": ((dict,), "struct ResponseFormat"),
    "tools": ((list,), "a sequence"),
    "user_id": ((str,), "a string"),
}
_SWITCHES: dict[str, tuple[str, ...]] = {
    "thinking": ("enabled", "disabled", "adaptive"),
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"),
    "response_format": ("text", "json_object"),
}


def _check_types(body: Any) -> None:
    if not isinstance(body, dict):
        raise wrong_type("body", body, "struct ChatCompletionRequest")
    for name in ("model", "messages"):
        if body.get(name) is None:
            raise bad_shape(f"missing field `{name}`")
    for name, (kinds, expected) in _TYPES.items():
        value = body.get(name)
        if value is not None and not _is(value, kinds):
            raise wrong_type(name, value, expected)
    check_shapes(body["messages"])
    for name, known in _SWITCHES.items():
        value = body.get(name)
        chosen = value.get("type") if isinstance(value, dict) else value
        if value is not None and chosen not in known:
            raise unknown_variant(name, chosen, known)


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    """JSON's true is no number."""
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _model(name: str) -> str:
    model = ALIASES.get(name, name)
    if model not in LIVE:
        names = ", ".join(LIVE)
        raise Refused(400, f"The supported API model names are {names}, but you passed {name}.")
    return model


def _thinks(body: Body) -> bool:
    """On unless switched off (reference/models.md 0.2)."""
    switch = (body.get("thinking") or {}).get("type", "enabled")
    return bool(switch != "disabled" and body.get("reasoning_effort") != "none")


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0, 2),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("max_tokens", 1, MOST_TOKENS),
    ("n", 1, 1),
)


def _check_rules(body: Body, thinking: bool) -> None:
    for name, low, high in _RANGES:
        value = body.get(name)
        if value is not None and not low <= value <= high:
            raise Refused(
                400, f"Invalid {name} value, the valid range of {name} is [{low}, {high}]"
            )
    top_p = body.get("top_p")
    if top_p is not None and not 0 < top_p <= 1:
        raise Refused(400, "Invalid top_p value, the valid range of top_p is (0, 1.0]")
    if body.get("stream_options") and not body.get("stream"):
        raise Refused(400, "stream_options should be set along with stream = true")
    if isinstance(body.get("stop"), list) and len(body["stop"]) > 16:
        raise Refused(400, "Invalid stop: at most 16 stop sequences are supported")
    _check_tools(body, thinking)
    _check_json_word(body)


def _check_tools(body: Body, thinking: bool) -> None:
    functions = [tool.get("function") or {} for tool in body.get("tools") or []]
    names = [str(function.get("name", "")) for function in functions]
    for name in names:
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", name) or names.count(name) > 1:
            raise Refused(400, f"Invalid tool name {name!r}: must match ^[a-zA-Z0-9_-]+$, unique")
    if thinking and body.get("tool_choice") not in (None, "auto", "none"):
        raise Refused(400, "Thinking mode does not support this tool_choice")


def _check_json_word(body: Body) -> None:
    if (body.get("response_format") or {}).get("type") != "json_object":
        return
    if not any("json" in text_of(message).lower() for message in body["messages"]):
        raise Refused(
            400,
            "Prompt must contain the word 'json' in some form to use 'response_format' "
            "of type 'json_object'.",
        )
