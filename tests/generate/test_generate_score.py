"""The scorer says what one plain forward pass says, in order, however requests are batched."""

import asyncio
import random

import pytest
import torch

from flywright.ask import AskError
from flywright.generate import RewardScorer
from flywright.generate.runner import Local
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
    asked, rows, real = conversations(10), [], Local.__call__
    monkeypatch.setattr(
        Local, "__call__", lambda self, step: rows.append(len(step.table)) or real(self, step)
    )
    scorer = RewardScorer(reward_model, tokenizer)

    async def ask():
        return await asyncio.gather(*(scorer.score(one) for one in asked))

    got = asyncio.run(ask())
    assert sum(rows) == 10 and len(rows) < 6
    assert got == scorer.score_many(asked)


def test_a_prompt_is_computed_once_for_its_answers(reward_model, tokenizer, monkeypatch):
    prompt = "ban bel cut " * 6
    asked = [Conversation.of(prompt, answer) for answer in ("nut", "dob", "cut bel", "ban")]
    tokens, real = [], Local.__call__
    monkeypatch.setattr(
        Local, "__call__", lambda self, step: tokens.append(len(step.ids)) or real(self, step)
    )
    scorer = RewardScorer(reward_model, tokenizer)
    got = scorer.score_many(asked)
    assert sum(tokens) < sum(len(chat.reward_ids(tokenizer, one)) for one in asked) * 0.6
    for one, scores in zip(asked, got, strict=True):
        assert scores == pytest.approx(plain(reward_model, tokenizer, one), abs=1e-5)


def test_a_conversation_beyond_the_context_is_refused(reward_model, tokenizer):
    scorer = RewardScorer(reward_model, tokenizer)
    with pytest.raises(AskError, match=r"cannot score \d+ tokens.*at most 64"):
        scorer.score_many([Conversation.of("ban", "bel " * 100)])
