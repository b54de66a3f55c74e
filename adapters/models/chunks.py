"""A parsed JSON chunk, or a whole answer, as what it says. Pure; junk says nothing.

Source: reference/models.md 1.5 (DeepSeek) and 3 (where the look-alikes put things).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bot.contract import Usage


class Chunk(NamedTuple):
    """`finish` is the service's own word; `usage` is None where there was none."""

    text: str = ""
    reasoning: str = ""
    finish: str = ""
    usage: Usage | None = None
    model: str = ""


def read_chunk(value: dict[str, Any]) -> Chunk:
    """A stream chunk (`delta`) or a whole answer (`message`)."""
    choice = _first_choice(value)
    said = choice.get("delta")
    if not isinstance(said, dict):
        said = choice.get("message")
    if not isinstance(said, dict):
        said = {}
    usage = value.get("usage") or choice.get("usage")
    return Chunk(
        _string(said.get("content")),
        _string(said.get("reasoning_content") or said.get("reasoning")),
        _string(choice.get("finish_reason")),
        None if usage is None else _usage(value.get("usage")) or _usage(choice.get("usage")),
        _string(value.get("model")),
    )


def _first_choice(value: dict[str, Any]) -> dict[str, Any]:
    choices = value.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
                return choice
    return {}


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or not value:
        return None
    prompt = _count(value.get("prompt_tokens"))
    cached = _count(value.get("prompt_cache_hit_tokens")) or _detail(
        value, "prompt_tokens_details", "cached_tokens"
    )
    completion = _count(value.get("completion_tokens"))
    reasoning = _detail(value, "completion_tokens_details", "reasoning_tokens")
    return Usage(prompt, completion, min(cached, prompt), min(reasoning, completion))


def _detail(value: dict[str, Any], group: str, name: str) -> int:
    details = value.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
