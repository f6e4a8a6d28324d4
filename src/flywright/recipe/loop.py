"""The order of the stages, and the flywheel: each turn's model writes the next turn's data.

    pretrain -> continue -> reward
    turn: prompts -> code, dialogues -> code SFT -> SFT -> comparisons -> DPO -> RPO x 3, measured
    next turn: the generator is the model that the turn ended with, the student a later base

`prepare` and `turn` read as the recipe does; every line is a step that is skipped when done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywright.files import folder_hash
from flywright.recipe import settings as s
from flywright.recipe import stages
from flywright.recipe.answerers import REVISION, Answerer, generator
from flywright.recipe.brought import OwnShards
from flywright.recipe.sources import Source, TextSource
from flywright.recipe.step import Artifact, Road, Stage
from flywright.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """What all turns share."""

    documents: Artifact
    shards: Artifact | None  # None where the base was brought
    base: Artifact
    ratings: Artifact
    reward: Artifact


def pretrained(
    road: Road, recipe: s.BaseFromScratch, source: TextSource
) -> tuple[Artifact, Artifact, Artifact, Artifact]:
    """Documents, shards, the base after the first phase, and the base."""
    documents = road.do(stages.gather_documents, "documents", recipe.documents, source)
    if isinstance(recipe, s.WholeSettings) and recipe.files.shards:
        own = OwnShards(Path(recipe.files.shards), Path(recipe.files.tokenizer))
        tokenizer = shards = road.do(stages.adopt_shards, "shards", recipe.documents, own)
    else:
        tokenizer = road.do(stages.make_tokenizer, "tokenizer", recipe.documents, documents)
        shards = road.do(stages.make_shards, "shards", recipe.documents, documents, tokenizer)
    shape = recipe.model.model_dump(mode="json")
    first = road.do(stages.pretrain, "pretrain", recipe.pretrain, shape, tokenizer, shards)
    base = road.do(stages.continue_pretraining, "continue", recipe.continued, first, shards)
    return documents, shards, first, base


def prepare(road: Road, recipe: s.RoadSettings, source: Source) -> Prepared:
    """Pretraining in two phases, or a base that was brought; and the reward model."""
    if isinstance(recipe, s.RecipeSettings):
        documents, shards, _, base = pretrained(road, recipe, source)
    else:
        assert isinstance(recipe, s.AlignSettings)
        documents = road.do(stages.gather_documents, "documents", recipe.documents, source)
        shards, base = None, adopted(road, "base", recipe.base)
    ratings = road.do(
        stages.gather_ratings, "ratings", recipe.reward, recipe.evaluate.split, source
    )
    reward = road.do(stages.train_reward, "reward", recipe.reward, base, ratings)
    road.link("policy", base)
    road.link("reward", reward)
    return Prepared(documents, shards, base, ratings, reward)


def adopted(road: Road, name: str, base: s.BaseSettings) -> Artifact:
    """A base that others trained; another folder's bytes are another base."""
    return road.do(stages.adopt, name, base, folder_hash(Path(base.folder), REVISION))


def later_base(
    road: Road, recipe: s.RoadSettings, shared: Prepared, base: Artifact, number: int
) -> Artifact:
    """The base of a later turn: trained on, or the later one that was brought, or the same."""
    name = f"{number}-base"
    if isinstance(recipe, s.RecipeSettings):
        return road.do(stages.continue_pretraining, name, recipe.later, base, shared.shards)
    assert isinstance(recipe, s.AlignSettings)
    if not recipe.base.later:
        return base
    later = recipe.base.model_copy(update={"folder": recipe.base.later})
    return adopted(road, name, later)


@dataclass(frozen=True)
class Turn:
    """One turn of the flywheel: its number, its base, and who writes its answers."""

    road: Road
    recipe: s.RoadSettings
    source: Source
    shared: Prepared
    number: int
    base: Artifact
    answerer: Answerer
    writer: Answerer

    def do(self, function: Stage, name: str, settings: Settings, *inputs: Any) -> Artifact:
        """A step of this turn."""
        return self.road.do(function, f"{self.number}-{name}", settings, *inputs)

    def measure(self, stage_name: str, who: Answerer, whole: bool = False) -> Artifact:
        """A row of the stage table, on all held-out items where it is `whole`."""
        label = {"turn": self.number, "stage": stage_name, "whole": whole}
        inputs = (label, self.recipe.sandbox, self.source, self.shared.reward, who)
        return self.do(stages.measure, f"eval-{stage_name}", self.recipe.evaluate, *inputs)

    def trained(self, stage_name: str, policy: Artifact, whole: bool = False) -> Artifact:
        """A trained stage: it becomes DIR/policy and is measured. Returns its row."""
        self.road.link("policy", policy)
        return self.measure(stage_name, policy, whole)

    def run(self, rows: dict[str, Artifact]) -> tuple[Artifact, dict[str, Artifact]]:
        """Data, alignment and evaluation of this turn; returns its last model and its rows.

        rows: those of the turn before that this one is held against; none for the first.
        """
        recipe, reward, rows = self.recipe, self.shared.reward, dict(rows)
        if self.number == 1:
            rows["generator"] = self.measure(recipe.generator.name, self.answerer, whole=True)
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
        policy = self.base
        if recipe.sft.staged:
            policy = self.do(stages.tune_on_code, "code-sft", recipe.code_sft, policy, code)
            self.trained("code_sft", policy)
        policy = self.do(stages.tune, "sft", recipe.sft, policy, talks, code)
        rows["sft"] = self.trained("sft", policy, whole=True)
        pairs = self.do(
            stages.compare_answers, "comparisons", recipe.synth,
            recipe.sandbox, asked, reward, policy, self.answerer, self.writer,
        )  # fmt: skip
        policy = self.do(stages.optimize, "dpo", recipe.dpo, policy, pairs)
        self.trained("dpo", policy)
        for iteration in range(1, recipe.rpo.iterations + 1):
            name, last = f"rpo{iteration}", iteration == recipe.rpo.iterations
            policy = self.do(stages.optimize, name, recipe.rpo, policy, pairs)
            rows["last"] = self.trained(name, policy, whole=last)
        trained_on = [self.shared.documents, self.shared.ratings, asked, code, talks, pairs]
        self.do(stages.draw_conclusions, "verdict", recipe.evaluate, self.source, rows, trained_on)
        return policy, {"generator": rows["generator"], "before": rows["last"]}


def weak_to_strong(road: Road, recipe: s.RoadSettings, source: Source) -> Artifact:
    """All turns (SPEC 9). Returns the last model.

    From the second turn on the answers come from the turn before; the prompts are still written by
    the first generator, with other seeds.
    """
    shared = prepare(road, recipe, source)
    writer = answerer = generator(recipe.generator, source)
    base, policy, rows = shared.base, shared.base, {}
    for number in range(1, recipe.turns + 1):
        if number > 1:
            base = later_base(road, recipe, shared, base, number)
            answerer = policy
        turn = Turn(road, recipe, source, shared, number, base, answerer, writer)
        policy, rows = turn.run(rows)
    judges = {"model": policy, "generator": writer}
    road.do(stages.judge_judges, "judges", recipe.evaluate, shared.ratings, judges)
    return policy
