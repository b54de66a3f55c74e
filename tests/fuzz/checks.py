"""What must be true once everything has come to rest: the store's rows against what people
see, message by message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import voice
from town import Spoken, Town

from adapters.playground.view import Bubble
from bot.contract import Account, Ending, Handle, Turn, TurnStore
from bot.endings import CONTENT
from bot.late import notice_of
from bot.texts import both, say

BOTS = ("feishu", "dingtalk")
UNSEEN = ("unneeded", "retracted")
"""Proofs of a turn that ended without anything to be seen of it."""

OPEN_SECONDS = 30.0


@dataclass
class Truth:
    """Everything that is known at the end. `claimed` maps a bubble's id to the turn whose
    reply it is."""

    town: Town
    turns: dict[str, Turn] = field(default_factory=dict)
    accounts: dict[str, tuple[Account, ...]] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    claimed: dict[str, str] = field(default_factory=dict)

    def bubbles(self) -> Iterator[tuple[str, Bubble]]:
        """What the bots said and did not take back."""
        for platform in BOTS:
            for bubble in self.town.sim(platform).world.bubbles.values():
                if bubble.author.startswith("bot:") and not bubble.recalled:
                    yield platform, bubble


async def truth_of(town: Town) -> Truth:
    """Read from the running bot's store."""
    truth = Truth(town)
    ids = [row[0] for row in town.query("SELECT id FROM turn ORDER BY no")]

    async def read(store: TurnStore) -> None:
        for id_ in ids:
            turn = await store.turn(id_)
            assert turn is not None
            truth.turns[id_] = turn
        for said in town.said:
            truth.accounts[said.id] = await store.accounts(said.id, BOTS)
        truth.listed = {turn.id for turn in await store.undelivered(1000)}

    await town.read(read)
    return truth


def check(truth: Truth) -> Iterator[str]:
    """A sentence about each thing that is wrong."""
    yield from _admitted(truth)
    for turn in truth.turns.values():
        yield from _turn(truth, turn)
    yield from _nobodys(truth)
    yield from _open(truth)
    yield from _order(truth)
    yield from _rules(truth)


# ---------------------------------------------------------------- messages


def _admitted(truth: Truth) -> Iterator[str]:
    """Every message that the platform delivered has its account and one turn."""
    for said in truth.town.said:
        accounts = [a for a in truth.accounts[said.id] if a.key.endswith(said.id)]
        if not accounts:
            if not _lost(truth.town, said):
                yield f"{said.name} was never admitted, and the platform did not lose it"
            continue
        if len(accounts) > 1:
            yield f"{said.name} has {len(accounts)} accounts"
        turn, reason = accounts[0].turn, accounts[0].reason
        if turn is None and reason != "recalled":
            yield f"{said.name} has no turn: {reason!r}"


def _lost(town: Town, said: Spoken) -> bool:
    """Whether the platform gave the message up, or took it back before it was heard."""
    if said.message.platform == "dingtalk":
        return said.id in town.dingtalk.lost
    return said.id in town.recalled or bool(town.feishu.lost)


# ---------------------------------------------------------------- turns


def _turn(truth: Truth, turn: Turn) -> Iterator[str]:
    ending, label = turn.ending, label_of(turn)
    if ending is None or not turn.ended:
        yield f"{label} has not ended"
        return
    if ending.delivery == "open":
        yield f"{label} ended without a word about its delivery"
    on_list = turn.id in truth.listed
    if on_list != (ending.delivery in ("undelivered", "unconfirmed")):
        yield f"{label} is {ending.delivery}, and {'on' if on_list else 'not on'} the list"
    yield from _text(truth, turn, ending)
    yield from _seen(truth, turn, ending)


def _text(truth: Truth, turn: Turn, ending: Ending) -> Iterator[str]:
    """The answer is the model's text, or its beginning."""
    if turn.new.kind != "chat" or notice_of(turn) or ending.state == "refused":
        return
    label = label_of(turn)
    said = [text for nonce in _nonces(turn) for text in truth.town.texts(nonce)]
    if ending.text and not any(text.startswith(ending.text) for text in said):
        yield f"{label} holds what the model did not say: {ending.text[:60]}…{ending.text[-60:]}"
    elif ending.state == "answered" and ending.finish == "stop" and ending.text not in said:
        yield f"{label} is answered with a part of what the model said: …{ending.text[-60:]}"


def _nonces(turn: Turn) -> list[str]:
    """More than one where lines beside a picture became one question."""
    words = " ".join(getattr(part, "text", "") for part in turn.new.parts)
    return sorted(voice.nonces(words))


def _nonce(turn: Turn) -> str:
    return next(iter(_nonces(turn)), "")


def label_of(turn: Turn) -> str:
    what = _nonce(turn) or turn.new.notice or turn.new.kind
    return f"turn {turn.id[:8]} ({what})"


# ---------------------------------------------------------------- what is seen of a turn


def _seen(truth: Truth, turn: Turn, ending: Ending) -> Iterator[str]:
    """What is stored is what is shown."""
    label = label_of(turn)
    if ending.proof in UNSEEN or notice_of(turn):
        if ending.proof == "unneeded" and any(h.message_id or h.card_id for h in turn.handles):
            yield f"{label} needs nothing, and has a card"
        return
    wanted, found = _wanted(truth, turn, ending), _shown(truth, turn)
    refused = wanted[1] in found
    if refused and ending.state in ("answered", "stopped"):
        yield f"{label} counts as {ending.state}, and a content filter refused it"
    if ending.error == CONTENT and ending.delivery == "delivered" and not refused:
        yield f"{label} counts as refused by a content filter, and shows {found[:40]}"
    # a card may have taken its text and not its note
    excused = refused or (found == wanted[2] and bool(found))
    whole = excused or found == wanted[0]
    if ending.state == "recalled" and not found:
        return
    if ending.delivery == "delivered" and not whole:
        yield f"{label} counts as delivered and shows {_diff(found, wanted[0])}"
    if ending.delivery == "undelivered" and whole and wanted[0]:
        yield f"{label} counts as undelivered and is shown"
    yield from _place(truth, turn)


def _wanted(truth: Truth, turn: Turn, ending: Ending) -> tuple[str, ...]:
    """What is to be seen of the ending; what stands for a part that a content filter refused;
    and the text alone."""
    ref = turn.handles[0].key[:8] if turn.handles else turn.id[:8]
    lang, over = turn.new.lang, ending.state in ("stopped", "recalled")
    note = ending.note or (say(f"card.{ending.state}", lang) if over else "")
    text = voice.letters(ending.text) + voice.letters(note) + voice.letters(ending.footer)
    return text, voice.letters(both("error.content", ref=ref)), voice.letters(ending.text)


def _diff(found: str, wanted: str) -> str:
    if not found:
        return "nothing"
    at = _first_difference(found, wanted)
    return (
        f"{len(found)} letters instead of {len(wanted)}, other from {at} on: {found[at : at + 40]}"
    )


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _shown(truth: Truth, turn: Turn) -> str:
    """All parts of the reply, without the lines that join them."""
    left = _wanted(truth, turn, turn.ending or Ending("failed"))
    pieces: list[str] = []
    for handle in turn.handles:
        bubble = _bubble(truth, turn, handle, left, "".join(pieces))
        _claim_left(truth, turn, handle)
        if bubble is not None:
            truth.claimed[bubble.id] = turn.id
            pieces.append(_body(turn, bubble))
    return "".join(pieces)


def _body(turn: Turn, bubble: Bubble) -> str:
    body = voice.letters(f"{bubble.text}\n{bubble.small}")
    thoughts = [voice.letters(voice.thoughts_of(nonce)) for nonce in _nonces(turn)]
    while said := max((_first_difference(body, thought) for thought in thoughts), default=0):
        body = body[said:]
    for key in ("card.continues", "card.superseded"):
        body = body.removesuffix(voice.letters(say(key, turn.new.lang)))
    return body


def _bubble(
    truth: Truth, turn: Turn, handle: Handle, wanted: tuple[str, ...], before: str
) -> Bubble | None:
    """The bubble of one part: by its id, else (a webhook tells none) by what it says."""
    world = truth.town.sim(turn.new.platform).world
    for id_ in (handle.message_id, handle.card_id, str(handle.extra.get("sent", ""))):
        if id_ and id_ in world.bubbles:
            found: Bubble = world.bubbles[id_]
            return None if found.recalled else found
    if "sending_at" in handle.extra:
        return _stray(truth, turn)
    if handle.rung not in ("webhook", "openapi"):
        return None
    found = []
    delivered = turn.ending is not None and turn.ending.delivery == "delivered"
    sure = delivered and wanted[1] not in before
    for bubble in world.in_chat(_chat_of(truth, turn)):
        free = bubble.id not in truth.claimed and bubble.author.startswith("bot:")
        body = _body(turn, bubble)
        fits = body == wanted[1] or any(_fits(w, before, body, sure) for w in wanted)
        if free and bubble.kind == "text" and fits and body:
            found.append(bubble)
    nonces = _nonces(turn)
    mine = [b for b in found if any(n in b.text for n in nonces) or (nonces and _thinks(turn, b))]
    return next(iter(mine or found), None)


def _thinks(turn: Turn, bubble: Bubble) -> bool:
    """It begins with a thought of this turn, though perhaps without its whole nonce."""
    return not voice.letters(bubble.text).startswith(_body(turn, bubble))


def _stray(truth: Truth, turn: Turn) -> Bubble | None:
    """A reply on Feishu that may have arrived."""
    for bubble in truth.town.feishu.bot_bubbles(_chat_of(truth, turn)):
        if bubble.id not in truth.claimed and bubble.reply_to == turn.new.message_id:
            return bubble
    return None


def _fits(wanted: str, before: str, body: str, sure: bool) -> bool:
    """Whether it says what comes next; a part of unknown fate, or one that a content
    filter refused, may be missing."""
    return wanted.startswith(before + body) if sure else body in wanted


def _claim_left(truth: Truth, turn: Turn, handle: Handle) -> None:
    """Messages of rungs that were given up."""
    left = handle.extra.get("left") or []
    for id_ in [left] if isinstance(left, str) else left:
        truth.claimed.setdefault(str(id_), turn.id)


def _chat_of(truth: Truth, turn: Turn) -> str:
    """The simulator's own id of the chat in which this was asked."""
    for said in truth.town.said:
        for account in truth.accounts[said.id]:
            if account.turn and account.turn.new.conversation == turn.new.conversation:
                return said.chat
    return ""


def _place(truth: Truth, turn: Turn) -> Iterator[str]:
    """In the chat, topic and beside the message that asked."""
    world = truth.town.sim(turn.new.platform).world
    for id_, owner in truth.claimed.items():
        bubble = world.bubbles.get(id_) if owner == turn.id else None
        if bubble is None:
            continue
        if bubble.chat != _chat_of(truth, turn):
            yield f"{label_of(turn)} is answered in another chat"
        question = world.bubbles.get(turn.new.message_id)
        beside = {"", turn.new.message_id, question.reply_to if question else ""}
        if bubble.reply_to not in beside and turn.new.message_id:
            yield f"{label_of(turn)} is answered beside another question"
        if question is not None and not question.recalled and bubble.thread != question.thread:
            yield f"{label_of(turn)} is answered in another topic"


# ---------------------------------------------------------------- the other way round


def _nobodys(truth: Truth) -> Iterator[str]:
    """Each bubble is one turn's."""
    for platform, bubble in truth.bubbles():
        if bubble.id not in truth.claimed and not _follows(bubble):
            words = f"{bubble.text} {bubble.small}"[:80].replace("\n", " ")
            yield f"{platform} {bubble.id[:12]} is no turn's reply: {words}"


def _follows(bubble: Bubble) -> bool:
    """A card whose send was of unknown fate, and whose answer stands below it."""
    seen = voice.letters(f"{bubble.text}\n{bubble.small}")
    return seen == voice.letters(both("card.continues")) and not bubble.buttons()


def _open(truth: Truth) -> Iterator[str]:
    for platform, bubble in truth.bubbles():
        if bubble.streaming and not truth.town.given_up:
            owner = truth.turns.get(truth.claimed.get(bubble.id, ""))
            whose = label_of(owner) if owner else "nobody"
            yield f"the card {platform} {bubble.id[:12]} of {whose} is still open"


def _order(truth: Truth) -> Iterator[str]:
    """Each lane was worked off in order."""
    lanes: dict[str, list[tuple[float, Turn]]] = defaultdict(list)
    rows = truth.town.query(
        "SELECT id, ended_at, lane FROM turn WHERE attempt > 0 AND ended_at IS NOT NULL ORDER BY no"
    )
    for id_, ended_at, lane in rows:
        if lanes[lane] and lanes[lane][-1][0] > ended_at:
            before = lanes[lane][-1][1]
            yield f"{label_of(truth.turns[id_])} ended before {label_of(before)}"
        lanes[lane].append((ended_at, truth.turns[id_]))


FORCED = "a frame after the last one"
"""A rule that one breaks who does not know that the card has ended: by a predecessor that
was killed, or by a call whose answer was lost."""

HASTY = "too close together"
"""A rule that is broken when the network holds back one frame and not the next."""

LOST = ("lose", "truncate", "drop", "html")
HELD = ("delay", "hang")


def _rules(truth: Truth) -> Iterator[str]:
    """What the platforms forbid was not done."""
    plan = truth.town.plan.actions
    kinds = {action.args[2].kind for action in plan if action.do == "fault"}
    blind = truth.town.restarts or kinds & {*LOST, *HELD}
    for platform in BOTS:
        for words in truth.town.sim(platform).violations:
            forced, hasty = FORCED in words and blind, HASTY in words and kinds & {*HELD}
            if not (forced or hasty):
                yield f"{platform}: {words}"


# ---------------------------------------------------------------- for the trace


def fates(truth: Truth) -> Iterator[str]:
    """What became of each message, a line each and one for its path."""
    for said in truth.town.said:
        accounts = truth.accounts[said.id]
        yield f"{said.name} in {said.message.platform} {said.message.place}:"
        if not accounts:
            yield "    never admitted"
        for account in accounts:
            yield f"    {account.key.partition(':')[2][-24:]}, {account.repeats} repeats"
            yield from _fate(account)


def _fate(account: Account) -> Iterator[str]:
    turn = account.turn
    if turn is None:
        yield f"      not answered: {account.reason}"
        return
    ending = turn.ending or Ending("running")
    what = f"{ending.state}, {ending.delivery} {ending.proof} {ending.error}".rstrip()
    yield f"      {label_of(turn)}: {what}, runs {turn.attempt}, deaths {turn.deaths}"
    for part, handle in enumerate(turn.handles):
        ids = f"{handle.card_id} {handle.message_id} {handle.extra}"
        yield f"      part {part}: {handle.rung} {ids}"
    path = ", ".join(f"{moment.what} {moment.detail}".strip() for moment in ending.trail)
    yield f"      {path}"
