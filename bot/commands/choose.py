"""Commands that show or change a choice of this chat: model, persona, reasoning."""

from __future__ import annotations

from bot.commands.desk import Call, Desk, denied, may_steer

REASONING = {
    "off": ("off", "关闭", "关"),
    "hidden": ("hidden", "隐藏", "on", "开"),
    "folded": ("folded", "折叠", "显示", "show"),
}


async def model(desk: Desk, call: Call) -> str:
    now = call.choice("model", desk.model.model)
    names = call.say("list.comma").join(f"`{name}`" for name in desk.model.models)
    wanted = call.command.argument
    if not wanted:
        return call.say("model.now", model=now, names=names)
    if not may_steer(desk, call):
        return denied(desk, call)
    if wanted not in desk.model.models:
        return call.say("model.none", name=wanted[:60], names=names)
    if wanted == now:
        return call.say("model.same", model=wanted)
    await desk.store.choose(call.conversation.key, "model", wanted)
    return call.say("model.set", model=wanted)


async def persona(desk: Desk, call: Call) -> str:
    lang = call.turn.lang
    now = desk.personas.label(call.choice("persona", desk.chat.persona), lang)
    names = call.say("list.comma").join(desk.personas.label(n, lang) for n in desk.personas.names)
    if not call.command.argument:
        return call.say("persona.now", persona=now, names=names)
    if not may_steer(desk, call):
        return denied(desk, call)
    found = desk.personas.find(call.command.argument)
    if not found:
        return call.say("persona.none", name=call.command.argument[:60], names=names)
    await desk.store.choose(call.conversation.key, "persona", found)
    return call.say("persona.set", persona=desk.personas.label(found, lang))


async def reasoning(desk: Desk, call: Call) -> str:
    wanted = call.command.argument.casefold()
    now = call.say(f"reasoning.{call.choice('reasoning', desk.chat.reasoning)}")
    if not wanted:
        return call.say("reasoning.now", value=now)
    if not may_steer(desk, call):
        return denied(desk, call)
    for value, words in REASONING.items():
        if wanted in words:
            await desk.store.choose(call.conversation.key, "reasoning", value)
            return call.say("reasoning.set", value=call.say(f"reasoning.{value}"))
    return call.say("reasoning.none", name=call.command.argument[:60])
