"""A long text on demand, as a long answer to watch growing. Pure."""

from __future__ import annotations

import itertools

_HEADS = {
    "zh": ("缘起", "路上的人", "桥怎样搭起来", "风雨", "灯火", "回望"),
    "en": ("A beginning", "Travellers", "Building", "Weather", "Lanterns", "Looking back"),
}
_SENTENCES = {
    "zh": (
        "每年七夕，喜鹊飞上银河，一只挨着一只，用翅膀铺出一座桥。",
        "桥不说话，它只负责让两岸的话准时到达。",
        "有人在这一岸发问，有人在那一岸作答，中间隔着的不过是几百毫秒。",
        "河水有时很急，浪头会打湿羽毛，但桥面一直是平的。",
        "搭桥的手艺并不神秘：先看清两岸，再决定从哪里落下第一根木头。",
        "过桥的人很多，谁先来谁先走，后来的人在桥头等一小会儿。",
        "如果一块桥板坏了，就换上一块新的，过桥的人不必知道。",
        "夜里有灯，灯光不亮，刚好照见脚下的一步。",
        "说过的话会被记住，想忘的时候，也可以从头再来。",
        "走到桥中间停一停，能看见两边的灯火连成一片。",
    ),
    "en": (
        "Once a year the magpies fly up to the river of stars and close their ranks.",
        "A bridge does not talk; it only sees to it that words arrive on time.",
        "Somebody asks on this bank, somebody answers on the other.",
        "The water is fast at times, and yet the planks stay level.",
        "There is no secret in the craft: look at both banks before the first beam falls.",
        "Many people cross; whoever comes first goes first, and the next one waits a little.",
        "A broken plank is replaced by a new one, and nobody on the bridge needs to know.",
        "There are lanterns at night, just bright enough for the next step.",
        "What was said is remembered, and one may always begin again.",
        "Halfway across, the lights of both banks run together.",
    ),
}
_PER_PARAGRAPH = 4
_PARAGRAPHS_PER_HEAD = 2
MOST = 20_000


def write(lang: str, size: int) -> str:
    """About `size` characters (zh) or words (en), at most MOST, under headings."""
    size = max(50, min(size, MOST))
    written, parts = 0, list[str]()
    sentences, heads = itertools.cycle(_SENTENCES[lang]), itertools.cycle(_HEADS[lang])
    while written < size:
        if len(parts) % (_PARAGRAPHS_PER_HEAD + 1) == 0:
            parts.append(f"## {next(heads)}")
        chosen = list(itertools.islice(sentences, _PER_PARAGRAPH))
        parts.append("".join(chosen) if lang == "zh" else " ".join(chosen))
        written += len(parts[-1]) if lang == "zh" else len(parts[-1].split())
    return "\n\n".join(parts)
