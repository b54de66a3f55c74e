"""What the simulated person sees: the same picture for every platform.

The simulators render what they were sent into bubbles; the page shows bubbles, and the
tests compare them with what the model said and what the store holds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

BlockKind = Literal["markdown", "small", "panel", "button", "divider"]


@dataclass(slots=True)
class Block:
    """One piece of a message. `text` is what is visible (entities decoded); `title` is
    a panel's heading; `id` names a button for press()."""

    kind: BlockKind
    text: str = ""
    title: str = ""
    id: str = ""


@dataclass(slots=True)
class Bubble:
    """One message as the person in the chat sees it at this moment.

    `author` is a person id, or `bot:<app id>`. `streaming` is true while the card shows
    that more will come. `pings` holds the ids notified by it (`all` for everybody).
    `frames` counts the visible changes; `at` is seconds since the epoch.
    """

    id: str
    chat: str
    author: str
    name: str
    at: float
    kind: Literal["text", "card"] = "text"
    blocks: list[Block] = field(default_factory=list)
    streaming: bool = False
    thread: str = ""
    reply_to: str = ""
    reactions: list[str] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    recalled: bool = False
    frames: int = 1

    @property
    def text(self) -> str:
        """The main text: every Markdown block, without small print and panels."""
        return "".join(block.text for block in self.blocks if block.kind == "markdown")

    @property
    def small(self) -> str:
        """Notes, status lines and footers."""
        return "\n".join(block.text for block in self.blocks if block.kind == "small")

    def buttons(self) -> list[Block]:
        return [block for block in self.blocks if block.kind == "button"]

    def as_json(self) -> dict[str, Any]:
        """For the page; every field plus `text`."""
        return asdict(self) | {"text": self.text}
