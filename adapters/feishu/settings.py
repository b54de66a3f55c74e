"""What the operator says about one Feishu or Lark app, and what Feishu says about its bot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class FeishuSettings:
    """One custom app. `bot` is its name in this program, `base_url` the REST origin
    (https://open.feishu.cn, https://open.larksuite.com or a simulator), `pace` the
    seconds between the first two texts of a card; the gaps after it grow; `rotate`
    the seconds of silence after which a fresh connection is opened, 0 for never."""

    bot: str
    app_id: str
    app_secret: str = field(repr=False)
    base_url: str = "https://open.feishu.cn"
    transport: Literal["native", "sdk"] = "native"
    pace: float = 0.4
    rotate: float = 1800.0


@dataclass(frozen=True, slots=True)
class BotIdentity:
    """The bot as Feishu knows it (reference/feishu.md 5.2); `open_id` is what mentions
    carry."""

    open_id: str
    name: str = ""
