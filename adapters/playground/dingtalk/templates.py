"""Card templates this platform knows, and how a card of each looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adapters.playground.view import Block

Params = Mapping[str, str]

PLAYGROUND = "7d0f3c52-5b1e-4b6e-9a41-3f6c2d81e0aa.schema"
"""Markdown that streams into `content`, and state, turn, reasoning, note, footer, status."""

PLAIN = "8aebdfb9-28f4-4a98-98f5-396c3dde41a0.schema"
"""Only `content`, no buttons (the tutorial's template, reference/dingtalk.md 6.1)."""

SDK_MARKDOWN = "382e4302-551d-4880-bf29-a30acfab2e71.schema"
"""The official client's AIMarkdownCardInstance; finished by flowStatus 3."""

UNPUBLISHED = "00000000-0000-4000-8000-000000000001.schema"

STOP, RETRY = "stop", "retry"


@dataclass(frozen=True, slots=True)
class Template:
    """`streaming` are the variables that may be streamed; `failure` says whether the
    failure state is enabled."""

    id: str
    streaming: frozenset[str]
    draw: Callable[[Params], list[Block]]
    failure: bool = True
    published: bool = True


def _full(params: Params) -> list[Block]:
    content = params.get("content", "")
    blocks = []
    if not content and params.get("status"):
        blocks.append(Block("small", params["status"]))
    if params.get("reasoning"):
        blocks.append(Block("panel", params["reasoning"], title="思考过程"))
    if content:
        blocks.append(Block("markdown", content))
    blocks += [Block("small", params[name]) for name in ("note", "footer") if params.get(name)]
    return blocks + _buttons(params.get("state", ""))


def _buttons(state: str) -> list[Block]:
    if state == "running":
        return [Block("button", "停止", id=STOP)]
    if state in ("answered", "failed", "stopped"):
        return [Block("button", "重新生成", id=RETRY)]
    return []


def _plain(params: Params) -> list[Block]:
    return [Block("markdown", params["content"])] if params.get("content") else []


def _sdk(params: Params) -> list[Block]:
    texts = [params.get("msgContent", ""), params.get("staticMsgContent", "")]
    return [Block("markdown", text) for text in texts if text]


def known() -> dict[str, Template]:
    """The registry of a fresh simulator."""
    templates = (
        Template(PLAYGROUND, frozenset({"content"}), _full),
        Template(PLAIN, frozenset({"content"}), _plain, failure=False),
        Template(SDK_MARKDOWN, frozenset({"msgContent"}), _sdk),
        Template(UNPUBLISHED, frozenset({"content"}), _plain, published=False),
    )
    return {template.id: template for template in templates}
