"""What a model says of texts that exist: five attributes of an answer, log-probabilities of tokens.

Sequences are put into batches by length, padded on the right, and read at their own last token;
nothing is generated and nothing cached.

Shapes: B rows, T tokens, D hidden, N scored tokens.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flywright.ask.protocol import TooLong
from flywright.errors import UserError
from flywright.generate.cache import TOKENS, pad_rows, round_up
from flywright.generate.worker import Gathering
from flywright.model import Decoder, RewardModel
from flywright.model.logprobs import token_logprobs
from flywright.records import ATTRIBUTES, Conversation
from flywright.tokenizer import Tokenizer, chat

BATCH_TOKENS = 4096  # padded tokens that one forward pass may hold


def batches(lengths: Sequence[int], max_rows: int) -> Iterator[list[int]]:
    """Indices grouped by padded width, short ones first: at most `max_rows` rows and BATCH_TOKENS
    tokens a group (one row where it alone is longer).

    Rows of one group have the same width, so that the last bits of a row's result do not depend on
    which others came at the same time.
    """
    group: list[int] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        needed = round_up(lengths[index], TOKENS)
        rows = len(group) + 1
        if group and (needed != width or rows > max_rows or rows * needed > BATCH_TOKENS):
            yield group
            group = []
        width = needed
        group.append(index)
    if group:
        yield group


def pad_right(rows: Sequence[Sequence[int]], context_length: int, device: torch.device) -> Tensor:
    """ids_BT padded with 0 to a multiple of TOKENS, never beyond the context."""
    width = min(round_up(max(len(row) for row in rows), TOKENS), context_length)
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)


@torch.inference_mode()
def continuation_logprobs(
    model: Decoder, sequences: Sequence[tuple[list[int], list[int]]], max_rows: int = 32
) -> list[float]:
    """For each (context ids, continuation ids): sum of natural log p of the continuation's tokens.

    A context holds at least one token; an empty continuation gives 0.
    """
    sums = [0.0] * len(sequences)
    rows = [[*context, *continuation] for context, continuation in sequences]
    device = model.lm_head.weight.device
    for group in batches([len(row) for row in rows], max_rows):
        ids_BT = pad_right([rows[i] for i in group], model.spec.context_length, device)
        hidden_BTD = model.hidden(ids_BT)
        spans = [(len(sequences[i][0]), len(rows[i])) for i in group]
        row_N = torch.tensor([b for b, (a, z) in enumerate(spans) for _ in range(a, z)]).to(device)
        at_N = torch.tensor([t for a, z in spans for t in range(a, z)]).to(device)
        if not len(at_N):
            continue
        hidden_ND, targets_N = hidden_BTD[row_N, at_N - 1], ids_BT[row_N, at_N]
        padded_ND = pad_rows(hidden_ND)
        targets = torch.zeros(len(padded_ND), dtype=torch.long, device=device)
        targets[: len(targets_N)] = targets_N
        logprob_N = token_logprobs(padded_ND, model.lm_head.weight, targets)[: len(targets_N)]
        pieces = logprob_N.double().split([z - a for a, z in spans])
        for i, piece in zip(group, pieces, strict=True):
            sums[i] = float(piece.sum())
    return sums


class RewardScorer:
    """A Scorer over a reward model in this process. `model` names it for ledgers and lineage.

    Concurrent awaits are scored together; a score does not depend on what else is in the batch.
    """

    def __init__(
        self, model: RewardModel, tokenizer: Tokenizer, model_name: str = "", max_batch: int = 32
    ):
        missing = set(ATTRIBUTES) - set(model.labels)
        if missing:
            raise UserError(f"a scorer needs the output {min(missing)!r}; this model has none")
        self.model = model_name
        self._weights = model
        self._tokenizer = tokenizer
        self._max_batch = max_batch
        self._gathering = Gathering(self._scores)

    async def score(self, conversation: Conversation) -> dict[str, float]:
        """The five attributes of the last answer, by name.

        Raises TooLong where the conversation is longer than the model's context.
        """
        return await self._gathering.ask(self._ids(conversation))

    def score_many(self, conversations: Sequence[Conversation]) -> list[dict[str, float]]:
        """The same for many at once, in order, in the calling thread."""
        return self._scores([self._ids(conversation) for conversation in conversations])

    def _ids(self, conversation: Conversation) -> list[int]:
        ids = chat.reward_ids(self._tokenizer, conversation)
        longest = self._weights.spec.context_length
        if len(ids) > longest:
            raise TooLong(f"cannot score {len(ids)} tokens: the model reads at most {longest}")
        return ids

    @torch.inference_mode()
    def _scores(self, sequences: list[list[int]]) -> list[dict[str, float]]:
        scores: list[dict[str, float]] = [{}] * len(sequences)
        device = self._weights.score.weight.device
        for group in batches([len(ids) for ids in sequences], self._max_batch):
            rows = [sequences[i] for i in group]
            ids_BT = pad_right(rows, self._weights.spec.context_length, device)
            last_B = torch.tensor([len(ids) - 1 for ids in rows], device=device)
            hidden_BTD = self._weights.hidden(ids_BT)
            hidden_BD = hidden_BTD[torch.arange(len(rows), device=device), last_B]
            values = self._weights.attributes(pad_rows(hidden_BD)).tolist()
            for i, row in zip(group, values, strict=False):  # rows of padding come last
                named = dict(zip(self._weights.labels, row, strict=True))
                scores[i] = {name: named[name] for name in ATTRIBUTES}
        return scores
