"""What the operator says about one DingTalk app."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

PUBLIC_TEMPLATE = "02fcf2f4-5e02-4a85-b672-46d1f715543e.schema"
"""DingTalk's own AI card, for apps without a template (reference/dingtalk.md 6.1)."""

FLOW_TEMPLATES = frozenset({PUBLIC_TEMPLATE, "382e4302-551d-4880-bf29-a30acfab2e71.schema"})
"""Templates whose variable flowStatus leads from spinner to end (reference/dingtalk.md 6.5)."""


@dataclass(frozen=True, slots=True)
class Template:
    """A card template: its id, its streaming variable, its state variable (may be empty),
    and whether it follows flowStatus. `unmoved`: a state variable that is set once, to
    the state without buttons, and left alone."""

    id: str
    content_key: str
    state_key: str = ""
    flow: bool = False
    unmoved: str = ""

    @property
    def still(self) -> Template:
        """The same card where moving its state would be a call too many."""
        return replace(self, state_key="", unmoved=self.state_key or self.unmoved)


@dataclass(frozen=True, slots=True)
class DingTalkSettings:
    """One internal app. `bot` is its name in this program; `client_id` is also the robot
    code (reference/dingtalk.md 4.2). `base_url` and `oapi_base_url` stand for
    https://api.dingtalk.com and https://oapi.dingtalk.com; `pace` is the seconds
    between the first two texts of a card, and the gaps after it grow; `deaf_after` the
    seconds without a SYSTEM ping, on a connection that used to get them, after which it
    counts as deaf (2.7), and more where they are rare; `recall_events` subscribes to
    events, for recalls of people's messages (3, unsure); `rotate` the seconds of
    silence after which a fresh connection is opened, 0 for never."""

    bot: str
    client_id: str
    client_secret: str = field(repr=False)
    base_url: str = "https://api.dingtalk.com"
    oapi_base_url: str = "https://oapi.dingtalk.com"
    card_template_id: str = ""
    card_content_key: str = "content"
    card_state_key: str = ""
    public_template: bool = False
    receipts: bool = False
    recall_events: bool = False
    transport: Literal["native", "sdk"] = "native"
    pace: float = 1.0
    deaf_after: float = 90.0
    rotate: float = 1800.0

    @property
    def template(self) -> Template | None:
        """The template to use: the operator's own, the public one if allowed, or none."""
        own = self.card_template_id
        if own:
            flow = own in FLOW_TEMPLATES
            return Template(own, self.card_content_key, self.card_state_key, flow)
        return Template(PUBLIC_TEMPLATE, "msgContent", flow=True) if self.public_template else None
