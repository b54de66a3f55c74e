"""What each model service wants on the wire: facts only, no traffic.

Source: reference/models.md 1.2-1.4, 1.6 (DeepSeek) and 3 (the look-alikes). A field that a
service does not list is never sent to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

ThinkingSwitch = Literal["none", "object", "flag", "effort"]
"""How thinking is switched: not at all; `thinking: {"type": …}`; `enable_thinking`;
`reasoning_effort`."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One service, or one family of its models.

    `echo_reasoning`: earlier thinking is sent back while thinking is on. `prefix`: an
    assistant message can be continued. `user_field` carries the isolation id.
    `usage_option`: usage must be asked for. `fixed_sampling`: a temperature is an error;
    otherwise `max_temperature` bounds it. `thinking_tokens`: thinking counts inside the
    token limit, so that many are added to it while thinking is on.
    """

    name: str
    thinking: ThinkingSwitch = "none"
    echo_reasoning: bool = False
    prefix: bool = False
    tokens_field: str = "max_tokens"
    most_tokens: int = 1 << 31
    thinking_tokens: int = 0
    user_field: str = ""
    usage_option: bool = True
    fixed_sampling: bool = False
    max_temperature: float = 2.0


DEEPSEEK = Profile(
    "deepseek",
    thinking="object",
    echo_reasoning=True,
    prefix=True,
    most_tokens=393_216,
    thinking_tokens=65_536 - 8_192,  # the service's own defaults with and without thinking
    user_field="user_id",
)
GENERIC = Profile("openai")
OLLAMA = Profile("ollama", thinking="effort")
KIMI = Profile(
    "kimi", echo_reasoning=True, tokens_field="max_completion_tokens", fixed_sampling=True
)
KIMI_SWITCHED = Profile(
    "kimi-k2.6",
    thinking="object",
    echo_reasoning=True,
    tokens_field="max_completion_tokens",
    fixed_sampling=True,
)

_HOSTS: tuple[tuple[str, Profile], ...] = (
    ("deepseek.com", DEEPSEEK),
    ("aliyuncs.com", Profile("dashscope", thinking="flag")),
    ("baidubce.com", Profile("qianfan")),
    ("baichuan-ai.com", Profile("baichuan")),
    ("moonshot.cn", KIMI),
    ("moonshot.ai", KIMI),
    ("bigmodel.cn", Profile("glm", thinking="object", usage_option=False, max_temperature=1.0)),
    ("z.ai", Profile("glm", thinking="object", usage_option=False, max_temperature=1.0)),
    ("volces.com", Profile("ark", thinking="object")),
    ("siliconflow.cn", Profile("siliconflow", thinking="flag")),
    ("siliconflow.com", Profile("siliconflow", thinking="flag")),
    ("api.openai.com", Profile("openai", tokens_field="max_completion_tokens")),
)
_OLLAMA_PORT = 11434
_DEEPSEEK_NAME = re.compile(r"deepseek-(flash|chat|reasoner|v\d[\w.-]*)")

RETIRED: dict[str, tuple[str, bool]] = {
    "deepseek-chat": ("deepseek-flash", False),
    "deepseek-reasoner": ("deepseek-flash", True),
}
"""Names that DeepSeek refuses since 2026-07-24 (reference/models.md 0.1): today's name,
and whether the old one always thought."""


@lru_cache(maxsize=64)
def profile_of(base_url: str, model: str) -> Profile:
    """By the host; on a host nobody knows (a relay, a simulator) by the model's name."""
    host, port = _place(base_url)
    for suffix, profile in _HOSTS:
        if host == suffix or host.endswith("." + suffix):
            return KIMI_SWITCHED if profile is KIMI and model == "kimi-k2.6" else profile
    if port == _OLLAMA_PORT:
        return OLLAMA
    return DEEPSEEK if _DEEPSEEK_NAME.fullmatch(model) else GENERIC


def _place(base_url: str) -> tuple[str, int | None]:
    """Host and port; empty for an address that is none, which is told when it is used."""
    try:
        parts = urlsplit(base_url)
        return (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", None


def resolve(name: str) -> tuple[str, str]:
    """Today's name of a model, and what to tell the operator when the name was
    retired (empty otherwise)."""
    if name not in RETIRED:
        return name, ""
    new, thinks = RETIRED[name]
    zh = f"模型名 {name} 已停用，改用 {new}（思考{'开启' if thinks else '关闭'}）"
    en = f"model name {name} is retired; using {new} (thinking {'on' if thinks else 'off'})"
    return new, f"{zh} / {en}"


def always_thinks(name: str) -> bool:
    """True for a retired name that stood for a model with thinking on."""
    return RETIRED.get(name, ("", False))[1]
