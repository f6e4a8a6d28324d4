"""What a reward model says of answers: five attributes, by the engine's own steps.

Answers to one prompt share the pages of the prompt: it is computed once for all of them.

Shapes: M answers of a step, L labels of the model.
"""

from collections.abc import Sequence

from torch import Tensor

from flywright.ask.protocol import TooLong
from flywright.errors import UserError
from flywright.generate.cache import PagedCache
from flywright.generate.runner import Heard, Local, Runner
from flywright.generate.scheduler import Request
from flywright.generate.worker import settle
from flywright.model import RewardModel
from flywright.records import ATTRIBUTES, Conversation
from flywright.tokenizer import Tokenizer, chat


class RewardScorer:
    """A Scorer over a reward model in this process. `model` names it for ledgers and lineage.

    Give a reward model, or a Local, or one over ranks (ranks.py), with its cache. Concurrent awaits
    are scored together; a score does not depend on what else is in the batch.
    """

    def __init__(
        self,
        model: RewardModel | Local,
        tokenizer: Tokenizer,
        model_name: str = "",
        max_batch: int = 64,
        cache_bytes: int = 1 << 30,
    ):
        missing = set(ATTRIBUTES) - set(model.labels)
        if missing:
            raise UserError(f"a scorer needs the output {min(missing)!r}; this model has none")
        self.model = model_name
        self._labels, self._tokenizer = model.labels, tokenizer
        if isinstance(model, RewardModel):
            weight = model.model.embed_tokens.weight
            cache = PagedCache(model.spec, max_batch, weight.dtype, weight.device, cache_bytes)
            model = Local(model, cache)
        self.context_tokens = model.context_tokens
        self._runner = Runner(model, max_batch, self._heard)

    async def score(self, conversation: Conversation) -> dict[str, float]:
        """The five attributes of the last answer, by name.

        Raises TooLong where the conversation is longer than the model's context.
        """
        return await self._runner.wait(self._request(conversation))

    def score_many(self, conversations: Sequence[Conversation]) -> list[dict[str, float]]:
        """The same without an event loop."""
        requests = [self._request(conversation) for conversation in conversations]
        self._runner.ask(requests)
        return [request.future.result() for request in requests]

    def _request(self, conversation: Conversation) -> Request:
        ids = chat.reward_ids(self._tokenizer, conversation)
        if len(ids) > self.context_tokens:
            longest = self.context_tokens
            raise TooLong(f"cannot score {len(ids)} tokens: the model reads at most {longest}")
        return Request(ids, len(ids) - 1)

    def _heard(self, rows: Heard, outputs_ML: Tensor) -> None:
        for (request, _), values in zip(rows, outputs_ML.tolist(), strict=True):
            named = dict(zip(self._labels, values, strict=True))
            settle(request.future, {name: named[name] for name in ATTRIBUTES})
