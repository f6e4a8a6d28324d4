"""Records to samples: dialogues for SFT, ratings for the reward model, comparisons for DPO and RPO.

Over-length records are left out and counted, never cut: `Examples.over_length` says how many.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from flywright.data.batch import Sample
from flywright.errors import UserError
from flywright.records import Comparison, Dialogue, Rating
from flywright.tokenizer import Tokenizer, chat

AnyRecord = TypeVar("AnyRecord", Dialogue, Rating, Comparison)


@dataclass(frozen=True)
class Examples:
    """Samples of a dataset, and how many records were too long for the context."""

    samples: list[Sample]
    over_length: int

    @property
    def over_length_share(self) -> float:
        total = len(self.samples) + self.over_length
        return self.over_length / total if total else 0.0


def _fitting(
    records: Iterable[AnyRecord], sample_of: Callable[[AnyRecord], Sample], context_length: int
) -> Examples:
    kept, dropped = [], 0
    for record in records:
        try:
            sample = sample_of(record)
        except UserError as error:  # a chat template of another family refuses it
            raise UserError(f"record {record.id}: {error}") from None
        if all(len(document) <= context_length for document in sample.documents):
            kept.append(sample)
        else:
            dropped += 1
    return Examples(kept, dropped)


def dialogue_examples(
    dialogues: Iterable[Dialogue], tokenizer: Tokenizer, context_length: int
) -> Examples:
    """SFT samples: loss on the assistant's words and end of turn in every turn."""

    def sample(dialogue: Dialogue) -> Sample:
        rendered = chat.render(tokenizer, dialogue.conversation)
        return Sample((np.array(rendered.ids),), (np.array(rendered.mask),))

    return _fitting(dialogues, sample, context_length)


def rating_examples(
    ratings: Iterable[Rating], tokenizer: Tokenizer, context_length: int
) -> Examples:
    """Reward samples: labels "attributes" [5] with NaN where a rating is missing (masked)."""

    def sample(rating: Rating) -> Sample:
        ids = np.array(chat.reward_ids(tokenizer, rating.conversation))
        values = [np.nan if value is None else value for value in rating.attributes]
        mask = np.zeros(len(ids), dtype=bool)
        return Sample((ids,), (mask,), {"attributes": np.array(values, dtype=np.float32)})

    return _fitting(ratings, sample, context_length)


def comparison_examples(
    comparisons: Sequence[Comparison],
    tokenizer: Tokenizer,
    context_length: int,
    needs_rewards: bool,
    share_prefix: bool = True,
) -> Examples:
    """Pair samples: documents (chosen, rejected), label "rewards" [2] where they are needed.

    share_prefix: what both begin with is computed once. Raises UserError for a comparison without
    rewards when `needs_rewards` (RPO has no default).
    """

    def sample(pair: Comparison) -> Sample:
        prompt = chat.prompt_ids(tokenizer, pair.conversation)
        answers = (chat.answer_ids(tokenizer, pair.conversation, text) for text in _texts(pair))
        documents = tuple(np.array(prompt + ids) for ids in answers)
        masks = tuple(np.arange(len(ids)) >= len(prompt) for ids in documents)
        rewards, why = (
            (pair.chosen_reward, pair.rejected_reward),
            "RPO needs chosen_reward and rejected_reward",
        )
        labels = _label("rewards", rewards, why) if needs_rewards else {}
        return Sample(documents, masks, labels, len(prompt) if share_prefix else 0)

    return _fitting(comparisons, sample, context_length)


def ranking_examples(
    comparisons: Iterable[Comparison],
    tokenizer: Tokenizer,
    context_length: int,
    needs_strength: bool = False,
    share_prefix: bool = True,
) -> Examples:
    """Pair samples as a reward model reads them: documents (chosen, rejected), nothing trained.

    Label "strength" where it is needed. Raises UserError for a comparison without it.
    """

    def sample(pair: Comparison) -> Sample:
        answered = map(pair.conversation.answered, _texts(pair))
        documents = tuple(np.array(chat.reward_ids(tokenizer, each)) for each in answered)
        nothing = tuple(np.zeros(len(ids), dtype=bool) for ids in documents)
        why = "ranking by strength needs `strength`: how much better the chosen answer is"
        labels = _label("strength", pair.strength, why) if needs_strength else {}
        return Sample(documents, nothing, labels, _common(*documents) if share_prefix else 0)

    return _fitting(comparisons, sample, context_length)


def _texts(pair: Comparison) -> tuple[str, str]:
    return pair.chosen, pair.rejected


def _label(name: str, value: Any, lack: str) -> dict[str, np.ndarray]:
    if None in (value if isinstance(value, tuple) else (value,)):
        raise UserError(lack)
    return {name: np.array(value, dtype=np.float32)}


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """How many leading tokens are the same; at least one of each is left."""
    most = min(len(first), len(second)) - 1
    differing = np.flatnonzero(first[:most] != second[:most])
    return int(differing[0]) if differing.size else most
