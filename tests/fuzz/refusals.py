"""Every refusal that the platforms are known for, as a fault that one call meets."""

from __future__ import annotations

from random import Random

from adapters.dingtalk import codes as dingtalk_codes
from adapters.feishu import codes as feishu_codes
from adapters.playground.dingtalk import wire as dingtalk
from adapters.playground.faults import Fault
from adapters.playground.feishu import wire as feishu

FEISHU_SENDING = (feishu.SEND, feishu.REPLY)
FEISHU_CARDS = (feishu.CARD_CREATE, feishu.CARD_CONTENT, feishu.CARD_SETTINGS, feishu.CARD_UPDATE)
FEISHU = (
    *FEISHU_SENDING,
    *FEISHU_CARDS,
    *(feishu.PATCH, feishu.RECALL, feishu.TOKEN, feishu.BOT_INFO, feishu.ID_CONVERT),
    *(feishu.REACT, feishu.LIST_MESSAGES, feishu.GET_MESSAGE),
)
DINGTALK_CARDS = (dingtalk.CARD_CREATE_DELIVER, dingtalk.CARD_STREAM, dingtalk.CARD_UPDATE)
DINGTALK_SENDING = (dingtalk.WEBHOOK, dingtalk.OTO_SEND, dingtalk.GROUP_SEND)
DINGTALK = (*DINGTALK_CARDS, *DINGTALK_SENDING, dingtalk.TOKEN)

_MESSAGES = (
    "Failed to create card content, ext=ErrCode: 11310; ErrMsg: cardid is invalid;",
    "Failed to create card content, ext=ErrCode: 11310; ErrMsg: card table number over limit;",
    "Failed to create card content, ext=ErrCode: 11310; ErrMsg: element exceeds the limit;",
    "Failed to create card content, ext=ErrCode: 11246; ErrMsg: element is not supported;",
    "Failed to create card content, ext=ErrCode: 300249; ErrMsg: action is lock;",
)
"""What 230099 hides (reference/feishu.md 5.10)."""


def of_feishu(rng: Random) -> tuple[str, Fault]:
    """A refusal and its name for the trace."""
    code = rng.choice([*feishu_codes._TABLE, 230099, 230099, 99999, 300317, 300309, 200850])
    message = rng.choice(_MESSAGES) if code == 230099 else f"fuzz {code}"
    kind = feishu_codes._TABLE.get(code)
    status, headers = 400, {}
    if kind is feishu_codes.RateLimited:
        status, headers = 429, {"x-ogw-ratelimit-reset": str(rng.randint(1, 5))}
    elif kind is feishu_codes.Transient or rng.random() < 0.1:
        status = 500
    name = f"{code}" + (f" ({message.rpartition('ErrMsg: ')[2]})" if code == 230099 else "")
    return name, Fault(
        "status", status=status, body={"code": code, "msg": message}, headers=headers
    )


def of_dingtalk(rng: Random, route: str) -> tuple[str, Fault]:
    """The same; the webhook speaks the old API's envelope (reference/dingtalk.md 5.2)."""
    table = dingtalk_codes._TABLE
    if route == dingtalk.WEBHOOK:
        old = [code for code in table if code.lstrip("-").isdigit()]
        code = rng.choice([*old, "99999"])
        body = {"errcode": int(code), "errmsg": f"fuzz {code}"}
        return f"errcode {code}", Fault("status", status=200, body=body)
    new = [code for code in table if not code.lstrip("-").isdigit()]
    code = rng.choice([*new, "some.new.code"])
    body = {"code": code, "message": f"fuzz {code}", "requestid": "fuzz"}
    status = 403 if code.startswith("Forbidden") else 500 if "rror" in code else 400
    return code, Fault("status", status=status, body=body)


def of_the_wire(rng: Random) -> tuple[str, Fault]:
    """What any HTTP call may meet; `lose` is what keeps one awake."""
    kind = rng.choices(
        ("lose", "drop", "html", "truncate", "hang", "delay", "500", "429"),
        (6, 2, 1, 2, 2, 2, 1, 1),
    )[0]
    if kind in ("hang", "delay"):
        seconds = round(rng.choice((0.5, 2.0, 9.0, 20.0)) * rng.uniform(0.7, 1.3), 2)
        return f"{kind} {seconds} s", Fault(kind, seconds=seconds)
    if kind in ("500", "429"):
        return kind, Fault("status", status=int(kind), body=None)
    return kind, Fault(kind)
