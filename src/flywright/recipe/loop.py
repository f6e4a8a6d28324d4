"""The order of the stages, and the flywheel: each turn's model writes the next turn's data.

    pretrain -> continue -> reward
    turn: prompts -> code, dialogues -> code SFT -> SFT -> comparisons -> DPO -> RPO x 3, measured
    next turn: the generator is the model that the turn ended with, the student a later base

`prepare` and `turn` read as the recipe does; every line is a step that is skipped when done.
"""

from dataclasses import dataclass
from typing import Any

from flywright.ask import Completer
from flywright.recipe import stages
from flywright.recipe.answerers import Lazy, generator
from flywright.recipe.settings import RecipeSettings
from flywright.recipe.sources import Source
from flywright.recipe.step import Artifact, Road, Stage
from flywright.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """What all turns share."""

    documents: Artifact
    shards: Artifact
    base: Artifact
    reward: Artifact


def prepare(road: Road, recipe: RecipeSettings, source: Source) -> Prepared:
    """Pretraining in two phases and the reward model."""
    documents = road.do(stages.gather_documents, "documents", recipe.documents, source)
    tokenizer = road.do(stages.make_tokenizer, "tokenizer", recipe.documents, documents)
    shards = road.do(stages.make_shards, "shards", recipe.documents, documents, tokenizer)
    shape = recipe.model.model_dump(mode="json")
    first = road.do(stages.pretrain, "pretrain", recipe.pretrain, shape, tokenizer, shards)
    base = road.do(stages.continue_pretraining, "continue", recipe.continued, first, shards)
    ratings = road.do(
        stages.gather_ratings, "ratings", recipe.reward, recipe.evaluate.split, source
    )
    reward = road.do(stages.train_reward, "reward", recipe.reward, base, ratings)
    road.link("policy", base)
    road.link("reward", reward)
    return Prepared(documents, shards, base, reward)


@dataclass(frozen=True)
class Turn:
    """One turn of the flywheel: its number, its base, and who writes its answers."""

    road: Road
    recipe: RecipeSettings
    source: Source
    shared: Prepared
    number: int
    base: Artifact
    answerer: Completer
    writer: Completer

    def do(self, function: Stage, name: str, settings: Settings, *inputs: Any) -> Artifact:
        """A step of this turn."""
        return self.road.do(function, f"{self.number}-{name}", settings, *inputs)

    def measure(self, stage_name: str, who: Artifact | Completer) -> None:
        """A row of the stage table."""
        label = {"turn": self.number, "stage": stage_name}
        inputs = (label, self.recipe.sandbox, self.source, self.shared.reward, who)
        self.do(stages.measure, f"eval-{stage_name}", self.recipe.evaluate, *inputs)

    def trained(self, stage_name: str, policy: Artifact) -> Artifact:
        """A trained stage: it becomes DIR/policy and is measured."""
        self.road.link("policy", policy)
        self.measure(stage_name, policy)
        return policy

    def run(self) -> Artifact:
        """Data, alignment and evaluation of this turn; returns its last model."""
        recipe, reward = self.recipe, self.shared.reward
        if self.number == 1:
            self.measure(recipe.generator.name, self.answerer)
        self.measure("base", self.base)
        asked = self.do(
            stages.write_prompts, "prompts", recipe.prompts,
            recipe.synth, self.shared.documents, self.source, self.writer,
        )  # fmt: skip
        code = self.do(
            stages.breed_code, "code", recipe.genetic,
            recipe.synth, recipe.sandbox, self.source, self.writer,
        )  # fmt: skip
        talks = self.do(
            stages.hold_dialogues, "dialogues", recipe.synth,
            asked, reward, self.answerer, self.writer,
        )  # fmt: skip
        policy = self.do(stages.tune_on_code, "code-sft", recipe.code_sft, self.base, code)
        policy = self.trained("code_sft", policy)
        policy = self.do(stages.tune, "sft", recipe.sft, policy, talks, code)
        policy = self.trained("sft", policy)
        pairs = self.do(
            stages.compare_answers, "comparisons", recipe.synth,
            recipe.sandbox, asked, reward, policy, self.answerer, self.writer,
        )  # fmt: skip
        policy = self.do(stages.optimize_directly, "dpo", recipe.dpo, policy, pairs)
        policy = self.trained("dpo", policy)
        for iteration in range(1, recipe.rpo.iterations + 1):
            name = f"rpo{iteration}"
            policy = self.do(stages.optimize_by_reward, name, recipe.rpo, policy, pairs)
            policy = self.trained(name, policy)
        return policy


def weak_to_strong(road: Road, recipe: RecipeSettings, source: Source) -> Artifact:
    """All turns (SPEC 9). Returns the last model.

    From the second turn on the answers come from the turn before; the prompts are still written by
    the first generator, with other seeds.
    """
    shared = prepare(road, recipe, source)
    writer = answerer = generator(recipe.generator, source)
    base, policy = shared.base, shared.base
    for number in range(1, recipe.turns + 1):
        if number > 1:
            inputs = (base, shared.shards)
            base = road.do(stages.continue_pretraining, f"{number}-base", recipe.later, *inputs)
            answerer = Lazy(policy)
        policy = Turn(road, recipe, source, shared, number, base, answerer, writer).run()
    return policy
