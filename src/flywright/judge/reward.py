"""A reward model as judge: both answers are scored, the greater weighted reward is preferred."""

import asyncio

from flywright.ask import Scorer
from flywright.records import Conversation, Verdict, weighted_reward


async def reward_of(scorer: Scorer, conversation: Conversation, answer: str) -> float:
    """The card's weighted sum for an answer to a conversation that awaits one (SPEC 5.4)."""
    return weighted_reward(await scorer.score(conversation.answered(answer)))


async def prefer(scorer: Scorer, conversation: Conversation, first: str, second: str) -> Verdict:
    """The answer with the greater reward; `score` is reward(first) - reward(second)."""
    rewards = await asyncio.gather(
        reward_of(scorer, conversation, first), reward_of(scorer, conversation, second)
    )
    difference = rewards[0] - rewards[1]
    preference = (difference > 0) - (difference < 0)
    detail = f"{rewards[0]:.4f}/{rewards[1]:.4f}"
    return Verdict(judge=scorer.model, preference=preference, score=difference, detail=detail)
