"""The messages of a request: their shape (422) and their order (400). Pure.

Source: reference/models.md 1.3 and 1.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.playground.deepseek.refused import Refused, bad_shape, unknown_variant, wrong_type

ROLES = ("system", "user", "assistant", "tool", "latest_reminder")
PASS_BACK = "The `reasoning_content` in the thinking mode must be passed back to the API."

Message = Mapping[str, Any]


def check_shapes(messages: Sequence[Any]) -> None:
    """Raises Refused(422) for what is no list of messages."""
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise wrong_type(where, message, "struct ChatMessage")
        if "role" not in message:
            raise bad_shape(f"{where}: missing field `role`")
        if message["role"] not in ROLES:
            raise unknown_variant(where, message["role"], ROLES)
        _content(where, message)
        _reasoning(where, message)


def _content(where: str, message: Message) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if isinstance(content, list):
        for part in content:
            _part(where, part)
    elif content is not None:
        raise wrong_type(where, content, "a string or a sequence")
    elif message["role"] != "assistant" or not message.get("tool_calls"):
        raise bad_shape(f"{where}: missing field `content`")


def _part(where: str, part: Any) -> None:
    if not isinstance(part, dict):
        raise wrong_type(where, part, "struct ContentPart")
    if part.get("type") not in ("text", "image_url", "file"):
        raise unknown_variant(where, part.get("type"), ("text", "image_url", "file"))


def _reasoning(where: str, message: Message) -> None:
    reasoning = message.get("reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise wrong_type(f"{where}.reasoning_content", reasoning, "a string")


def check_order(messages: Sequence[Message], *, thinking: bool, beta: bool) -> None:
    """Raises Refused(400) for what the service does not take in this order."""
    if not messages:
        raise Refused(400, "Empty input messages")
    _prefix(messages, beta)
    open_calls: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            _answered(open_calls, str(message.get("tool_call_id", "")))
            continue
        if open_calls:
            raise Refused(
                400,
                "An assistant message with 'tool_calls' must be followed by tool messages "
                "responding to each 'tool_call_id'.",
            )
        open_calls = [str(call.get("id", "")) for call in message.get("tool_calls") or []]
        if open_calls and thinking and message.get("reasoning_content") is None:
            raise Refused(400, PASS_BACK)


def _answered(open_calls: list[str], call: str) -> None:
    if call not in open_calls:
        raise Refused(
            400, "Messages with role 'tool' must be a response to a preceding 'tool_calls' message."
        )
    open_calls.remove(call)


def _prefix(messages: Sequence[Message], beta: bool) -> None:
    """`prefix: true` stands on the last assistant message, below /beta alone."""
    marked = [number for number, message in enumerate(messages) if message.get("prefix")]
    if not marked:
        return
    last = messages[-1]
    if marked != [len(messages) - 1] or last["role"] != "assistant":
        raise Refused(400, "The prefix must be on the last message, which must be an assistant's.")
    if not beta:
        raise Refused(400, "Prefix completion is only available below /beta")
