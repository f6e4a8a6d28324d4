"""The scorer says what one plain forward pass says, in order, however requests are batched."""

import asyncio
import random

import pytest
import torch

from flywright.ask import AskError
from flywright.generate import RewardScorer
from flywright.generate.score import batches
from flywright.records import ATTRIBUTES, Conversation
from flywright.tokenizer import chat


def conversations(count: int) -> list[Conversation]:
    chance = random.Random(2)
    made = []
    for _ in range(count):
        words = chance.choices(["ban", "bel", "cut", "dob", "nut"], k=chance.randint(2, 24))
        split = chance.randint(1, len(words) - 1)
        made.append(Conversation.of(" ".join(words[:split]), " ".join(words[split:])))
    return made


def plain(model, tokenizer, conversation) -> dict[str, float]:
    ids = chat.reward_ids(tokenizer, conversation)
    return dict(zip(ATTRIBUTES, model(torch.tensor([ids]))[0].tolist(), strict=True))


def test_scores_equal_one_forward_each(reward_model, tokenizer):
    asked = conversations(13)
    expected = [plain(reward_model, tokenizer, one) for one in asked]
    assert len({round(scores["helpfulness"], 3) for scores in expected}) > 5
    for max_batch in (1, 4, 32):
        scorer = RewardScorer(reward_model, tokenizer, "reward", max_batch)
        for got, wanted in zip(scorer.score_many(asked), expected, strict=True):
            assert got == pytest.approx(wanted, abs=1e-5)


def test_concurrent_awaits_are_scored_together(reward_model, tokenizer, monkeypatch):
    asked, calls, real = conversations(10), [], reward_model.hidden

    def counted(ids_BT):
        calls.append(len(ids_BT))
        return real(ids_BT)

    monkeypatch.setattr(reward_model, "hidden", counted)
    scorer = RewardScorer(reward_model, tokenizer)

    async def ask():
        return await asyncio.gather(*(scorer.score(one) for one in asked))

    got = asyncio.run(ask())
    assert sum(calls) == 10 and len(calls) < 6  # one group for each padded width
    assert got == scorer.score_many(asked)


def test_a_conversation_beyond_the_context_is_refused(reward_model, tokenizer):
    scorer = RewardScorer(reward_model, tokenizer)
    with pytest.raises(AskError, match=r"cannot score \d+ tokens.*at most 64"):
        scorer.score_many([Conversation.of("ban", "bel " * 100)])


def test_batches_hold_every_index_once_and_keep_their_limits():
    lengths = random.Random(0).choices(range(1, 3000), k=100)
    groups = list(batches(lengths, 7))
    assert sorted(index for group in groups for index in group) == list(range(100))
    assert all(len(group) <= 7 for group in groups)
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= 4096 for g in groups)
    assert list(batches([], 4)) == []


def test_groups_hold_one_padded_width_so_that_no_bit_depends_on_the_others():
    """A killed flow asks again in other company; its records have to be the same bytes."""
    lengths = [random.Random(n).randint(1, 200) for n in range(80)]
    for group in batches(lengths, max_rows=8):
        assert len({-(-lengths[index] // 16) for index in group}) == 1
