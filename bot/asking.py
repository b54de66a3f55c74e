"""What is asked of the model: the prompts, the chat's choices, and how an answer that broke
off goes on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bot.contract import ChatModel, ContinuesPrefix, ModelRequest, Prompt, Started, Turn
from bot.model_health import ModelHealth
from bot.personas import Personas
from bot.prompts import Composer
from bot.settings import Chat, ModelService


@dataclass(frozen=True)
class Asking:
    """The model service and what is set for it."""

    model: ChatModel
    personas: Personas
    chat: Chat
    service: ModelService
    health: ModelHealth = field(default_factory=ModelHealth)
    composer: Composer = field(default_factory=Composer)

    def request(self, started: Started) -> ModelRequest:
        new = started.turn.new
        persona = str(started.conversation.choices.get("persona") or self.chat.persona)
        text = self.personas.text(persona)
        return ModelRequest(
            model=self.model_of(started),
            prompts=self.composer.compose(started, text, max_tokens=self.chat.history_tokens),
            thinking=self.reasoning(started) != "off",
            max_tokens=self.service.max_tokens,
            user=f"{new.platform}:{new.sender.id}",
            stream=self.service.stream,
        )

    def model_of(self, started: Started) -> str:
        """The model that this chat has chosen, or the default."""
        return str(started.conversation.choices.get("model") or self.service.model)

    def reasoning(self, started: Started) -> str:
        """off, hidden or folded."""
        return str(started.conversation.choices.get("reasoning") or self.chat.reasoning)

    def continues(self, model: str) -> bool:
        """Whether an answer of this model that broke off can be continued."""
        return isinstance(self.model, ContinuesPrefix) and self.model.continues_prefix(model)


def continued(request: ModelRequest, turn: Turn) -> ModelRequest:
    """The request for the rest of the answer whose beginning the checkpoint holds."""
    begun = Prompt("assistant", turn.checkpoint, turn.thoughts or None)
    return replace(request, prompts=(*request.prompts, begun), prefix=True)
