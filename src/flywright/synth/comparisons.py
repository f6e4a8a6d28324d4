"""Comparisons (SPEC 6.7): answers of several models to one prompt, and who decides between them.

    prompts with checks   -> the ground truth: a right answer over a wrong one
    the others, by turns  -> an LLM asked in both orders, kept only if it stays with its answer;
                             the reward model: its best answer over its worst

All judges that are handed in vote, whoever decides; their votes stay in the lineage, where they can
be compared (judge.agreement). Both rewards go into the record, because RPO needs them later.
`ComparisonSettings` draws a few of many models for each prompt, and makes harder pairs for a share
of the prompts: several samples of the best model alone.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from flywright.ask.limits import gather
from flywright.ask.protocol import Completer, Sampling, Scorer
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.judge import pairwise, truth
from flywright.records import Comparison, Prompt, Verdict, record_id, weighted_reward
from flywright.settings import Settings
from flywright.synth.filters import normal
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker


class ComparisonSettings(Settings):
    """Which models answer which prompts, by name (SPEC 6.7)."""

    models_each: int = Field(default=0, ge=0, description="models drawn for a prompt; 0 = all")
    best: str = Field(default="", description="the best model by MT-Bench, for harder pairs")
    harder: float = Field(
        default=0.0, ge=0, le=1, description="share of prompts for the best alone"
    )
    best_samples: int = Field(default=4, ge=2, description="its answers to each of them")
    people: Path | None = Field(default=None, description="the pairs as people judged them")

    def who(
        self, answerers: Mapping[str, Completer], seed: int, prompt: Prompt
    ) -> tuple[list[Completer], int]:
        """Who answers a prompt, and how often each (0 = as the maker's settings say).

        Raises UserError if the best model is none of the answerers.
        """
        if self.best and self.best not in answerers:
            raise UserError(f"best = {self.best!r}: the models are {', '.join(answerers)}")
        rng = random.Random(seed_from(seed, "answerers", prompt.id))
        if self.best and rng.random() < self.harder:
            return [answerers[self.best]], self.best_samples
        names = rng.sample(list(answerers), min(self.models_each or len(answerers), len(answerers)))
        return [answerers[name] for name in answerers if name in names], 0


@dataclass(frozen=True)
class Answer:
    """One answer, who gave it and how, and its weighted reward where there is a scorer."""

    text: str
    model: str
    sampling: Sampling
    reward: float | None = None


@dataclass(frozen=True)
class Judges:
    """Who judges: the sandbox for ground truth in code, an LLM, a reward model; any may lack."""

    sandbox: Any = None
    llm: Completer | None = None
    scorer: Scorer | None = None


async def answers(
    maker: Maker,
    prompt: Prompt,
    answerers: Sequence[Completer],
    scorer: Scorer | None,
    samples: int = 0,
) -> list[Answer]:
    """The different answers of all answerers, `samples` each, scored; cut ones left out.

    samples: 0 = settings.samples.
    """
    samples = samples or maker.settings.samples

    async def one(place: tuple[Completer, int]) -> Answer | None:
        who, index = place
        try:
            text, sampling = await maker.say(who, prompt.conversation, prompt.id, who.model, index)
        except Dropped:
            return None
        if scorer is None:
            return Answer(text, who.model, sampling)
        attributes = await scorer.score(prompt.conversation.answered(text))
        return Answer(text, who.model, sampling, weighted_reward(attributes))

    places = [(who, index) for who in answerers for index in range(samples)]
    different: dict[str, Answer] = {}
    for answer in await gather(one, places):
        if answer is not None:
            different.setdefault(normal(answer.text), answer)
    return list(different.values())


async def by_truth(
    prompt: Prompt, found: Sequence[Answer], judges: Judges, rng: random.Random
) -> tuple[Answer, Answer]:
    """A right and a wrong answer. Raises Dropped if all are of one kind."""
    right, wrong = [], []
    for answer in found:
        is_right = await truth.is_right(prompt, answer.text, judges.sandbox)
        (right if is_right else wrong).append(answer)
    if not wrong:
        raise Dropped("all answers right")
    if not right:
        raise Dropped("all answers wrong")
    return rng.choice(right), rng.choice(wrong)


async def by_llm(
    prompt: Prompt, found: Sequence[Answer], judges: Judges, rng: random.Random
) -> tuple[Answer, Answer]:
    """Two answers in the order of the LLM's preference. `judges.llm` must be there.

    Raises Dropped if it does not keep to one, with its labels: "A/A" is the first place twice. The
    judge is deterministic and its replies are in the ledger: its vote asked for again is free.
    """
    assert judges.llm is not None
    first, second = rng.sample(list(found), 2)
    verdict = await pairwise.prefer(judges.llm, prompt.conversation, first.text, second.text)
    if verdict.preference == 0:
        raise Dropped(f"LLM judge undecided: {verdict.detail}")
    return (first, second) if verdict.preference > 0 else (second, first)


async def by_reward(
    _prompt: Prompt, found: Sequence[Answer], _judges: Judges, _rng: random.Random
) -> tuple[Answer, Answer]:
    """The answers of highest and lowest reward. Raises Dropped on a tie."""
    ranked = sorted(found, key=lambda answer: answer.reward or 0.0, reverse=True)
    if ranked[0].reward == ranked[-1].reward:
        raise Dropped("equal rewards")
    return ranked[0], ranked[-1]


DECIDE = {"truth": by_truth, "llm": by_llm, "reward": by_reward}


async def votes(
    chosen: Answer, rejected: Answer, prompt: Prompt, judges: Judges, decider: str
) -> tuple[Verdict, ...]:
    """What every judge says of (chosen, rejected): 1 = agrees, -1 = the other, 0 = neither.

    Judges are named "truth", "llm:MODEL" and "reward:MODEL".
    """
    cast = [Verdict(judge="truth", preference=1)] if decider == "truth" else []
    if judges.llm is not None:
        asked = (prompt.conversation, chosen.text, rejected.text)
        vote = await pairwise.prefer(judges.llm, *asked)
        cast.append(vote.model_copy(update={"judge": f"llm:{vote.judge}"}))
    if judges.scorer is not None and chosen.reward is not None and rejected.reward is not None:
        margin = chosen.reward - rejected.reward
        preference = (margin > 0) - (margin < 0)
        name = f"reward:{judges.scorer.model}"
        cast.append(Verdict(judge=name, preference=preference, score=margin))
    return tuple(cast)


async def comparisons(
    maker: Maker,
    prompts: Sequence[Prompt],
    answerers: Mapping[str, Completer],
    judges: Judges,
    settings: ComparisonSettings | None = None,
) -> list[Comparison]:
    """At most one pair a prompt, those of the ground truth first. answerers: by name.

    Of settings.judges the truth decides where there is one, else LLM and reward model by turns;
    where one is left out or lacking, its prompts go to the others, and with nobody left they are
    counted as "dropped: no judge". A pair is dropped too where no two answers differ, the truth
    finds no right or no wrong one, the LLM does not keep to its choice in both orders, or rewards
    are equal. Rewards are recorded in any case.
    """
    settings, names = settings or ComparisonSettings(), maker.settings.judges
    judges = replace(judges, llm=judges.llm if "llm" in names else None)

    async def pair(decider: str, prompt: Prompt, _ask: Completer) -> list[Comparison]:
        who, samples = settings.who(answerers, maker.seed, prompt)
        found = await answers(maker, prompt, who, judges.scorer, samples)
        if len(found) < 2:
            raise Dropped("answers all alike")
        rng = random.Random(seed_from(maker.seed, "pair", prompt.id))
        chosen, rejected = await DECIDE[decider](prompt, found, judges, rng)
        lineage = maker.lineage(
            "comparisons",
            None,
            chosen.sampling,
            (prompt.id,),
            model=chosen.model,
            answer_by="model",
            verdicts=await votes(chosen, rejected, prompt, judges, decider),
            filters=("samples of the best model",) * bool(samples),
        )
        return [
            Comparison(
                id=record_id("comparison", prompt.id, chosen.text, rejected.text),
                conversation=prompt.conversation,
                chosen=chosen.text,
                rejected=rejected.text,
                chosen_reward=chosen.reward,
                rejected_reward=rejected.reward,
                judge=decider,
                task=prompt.task,
                rejected_model=rejected.model,
                lineage=lineage,
            )
        ]

    checked = [prompt for prompt in prompts if prompt.checks and "truth" in names]
    others = [prompt for prompt in prompts if not (prompt.checks and "truth" in names)]
    there = {"llm": judges.llm, "reward": judges.scorer}
    turns = [name for name, who in there.items() if who is not None and name in names]
    shares = {"truth": checked, **{name: others[n :: len(turns)] for n, name in enumerate(turns)}}
    pairs: list[Comparison] = []
    for decider, some in shares.items():
        pairs += await maker.run("comparisons", partial(pair, decider), some)
    if others and not turns:
        maker.counts["comparisons"]["dropped: no judge"] = len(others)
    return pairs
