"""A recipe's settings: one table for each stage of the road, read from TOML.

`flywright run recipe.toml --set sft.train.learning_rate=1e-4` changes one of them for a run.
"""

from typing import Any, Literal

from pydantic import Field, field_validator

from flywright.errors import UserError
from flywright.sandbox import SandboxSettings
from flywright.settings import Settings
from flywright.spec import MeshSpec, ModelSpec, preset
from flywright.synth import GeneticSettings, SynthSettings
from flywright.train.settings import TrainSettings


class DocumentSettings(Settings):
    """Which documents are pretrained on, and how they are made into tokens."""

    vocab_size: int = Field(gt=0)
    tokenizer_documents: int = Field(default=5000, gt=0, description="sample the tokenizer sees")


class Training(Settings):
    """A stage with nothing to set but its training."""

    train: TrainSettings


class PretrainSettings(Training):
    """One pretraining phase: the blend by group of documents, and the training itself.

    Groups are "en", "other" (languages), "code" and "questions". Within a group, sources have the
    share of their tokens, times their factor in `upweight`; a factor of 0 leaves a source out.
    A source can also have a share of its own, beside its group's: "other.de".
    """

    blend: dict[str, float]
    blend_from: list[tuple[int, dict[str, float]]] = Field(
        default=[], description="[samples consumed, another blend from there on], in order"
    )
    upweight: dict[str, float] = Field(default={})
    window: int = Field(default=0, ge=0, description="tokens a sample; 0 = the context length")

    def phases(self, tokens: dict[str, int]) -> list[tuple[int, dict[str, float]]]:
        """From which sample on each shard ("group.source") has which weight, by its tokens.

        Raises UserError on a bad name.
        """
        blends = [(0, self.blend), *self.blend_from]
        return [(start, self._shard_weights(blend, tokens)) for start, blend in blends]

    def _shard_weights(self, blend: dict[str, float], tokens: dict[str, int]) -> dict[str, float]:
        weights: dict[str, float] = {}
        sources = {name.partition(".")[2] for name in tokens}
        for name in self.upweight:
            if name not in sources:
                known = ", ".join(sorted(sources))
                raise UserError(f"upweight: no source {name!r}; there are: {known}")
        for group, share in blend.items():
            scaled = {
                name: count * factor
                for name, count in tokens.items()
                if (name == group or (name.partition(".")[0] == group and name not in blend))
                and (factor := self.upweight.get(name.partition(".")[2], 1.0))
            }
            if not scaled:
                known = ", ".join(sorted({name.partition(".")[0] for name in tokens}))
                raise UserError(f"blend: no group {group!r} of any weight; there are: {known}")
            total = sum(scaled.values())
            weights |= {name: share * value / total for name, value in scaled.items()}
        return weights


class RankLoss(Training):
    """A reward model from pairs: Bradley-Terry, and what is made of how much better one was."""

    ranking: Literal["plain", "scaled", "margin"] = "plain"


class RewardSettings(RankLoss):
    """The reward model: how many ratings (two answers a prompt), and the training."""

    ratings: int = Field(gt=0)
    heldout_ratings: int = Field(gt=0)


class GeneratorSettings(Settings):
    """Who writes the first turn's data: "" = the source's own, a weights folder, or a URL."""

    model: str = ""
    name: str = "generator"
    model_at_endpoint: str = ""
    api_key_variable: str = Field(default="", description="environment variable with the API key")


class PromptSettings(Settings):
    """How many prompts, and how they are shared out."""

    sft: int = Field(gt=0, description="most synthetic prompts for SFT")
    preference: int = Field(gt=0, description="most synthetic prompts for comparisons")
    truth: int = Field(gt=0, description="training prompts with ground truth, for comparisons")
    documents: int = Field(default=40, description="documents for closed Q&A")
    preference_share: float = Field(default=0.4, gt=0, lt=1)


class SftSettings(Training):
    """General SFT; `code_share` of it are samples of the code stage (SPEC 8.1: 2 %)."""

    staged: bool = Field(default=True, description="false: no code SFT before, all code in here")
    code_share: float = Field(default=0.02, ge=0, lt=1)


class DpoSettings(Training):
    """DPO with its SFT term (SPEC 8.2)."""

    beta: float = Field(gt=0)
    sft_weight: float = Field(ge=0)


class RpoLoss(DpoSettings):
    """RPO: beta is the KL coefficient, eta the scale of the reward gap (SPEC 8.2)."""

    eta: float = Field(default=1.0, gt=0)
    loss: Literal["rpo", "rpo_forward", "rpo_squared", "dpo", "ipo"] = Field(
        default="rpo", description="rpo is the report's; the others to compare with (SPEC 8.3)"
    )


class RpoSettings(RpoLoss):
    """RPO over and over, each iteration from the one before."""

    iterations: int = Field(default=3, gt=0)


class EvaluateSettings(Settings):
    """The held-out items, the same in every row of the stage table."""

    split: Literal["near", "tuning"] = Field(default="near", description="tuning: choose by it")
    near: int = Field(gt=0, description="items in every row")
    far: int = Field(default=0, ge=0)
    whole: int = Field(default=1, ge=1, description="so many times more in the rows that count")
    max_tokens: int = Field(default=96, gt=0)


class RunSettings(Settings):
    """What every run has."""

    name: str
    seed: int = 1
    notes: list[str] = Field(default=[], description="what the report has to say of this run")
    # where it runs is no part of what is made: it goes into no fingerprint
    mesh: MeshSpec = Field(default=MeshSpec(), exclude=True)


class BaseFromScratch(Settings):
    """A base that is trained here, in two phases; `model` may be a preset's name."""

    documents: DocumentSettings
    model: ModelSpec
    pretrain: PretrainSettings
    continued: PretrainSettings

    @field_validator("model", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return preset(value) if isinstance(value, str) else value


class RoadSettings(RunSettings):
    """The road from the reward model on: what a base of any origin goes through."""

    turns: int = Field(default=1, ge=1)
    reward: RewardSettings
    generator: GeneratorSettings = GeneratorSettings()
    prompts: PromptSettings
    synth: SynthSettings = SynthSettings()
    genetic: GeneticSettings = GeneticSettings()
    sandbox: SandboxSettings = SandboxSettings()
    code_sft: Training
    sft: SftSettings
    dpo: DpoSettings
    rpo: RpoSettings
    evaluate: EvaluateSettings


class RecipeSettings(RoadSettings, BaseFromScratch):
    """The whole road, from the first document on."""

    source: str = Field(description="package.module:Class that gives documents, prompts, ratings")
    later: PretrainSettings = Field(description="what each further turn's base is trained on more")


class BaseSettings(Settings):
    """A base that others trained: a folder that transformers reads, and its tokenizer's."""

    folder: str
    later: str = Field(default="", description="the base of later turns; the same where empty")
    tokenizer: str = Field(default="", description="holds tokenizer.model; the folder where empty")


class BroughtSettings(Settings):
    """The user's own files."""

    ratings: str = Field(description="JSONL as HelpSteer2's: prompt, response, five attributes")
    heldout_ratings: str = Field(default="", description="empty: 5 % of the rated prompts")
    prompts: str = Field(description='JSONL: Prompt records or {"prompt": "..."}')
    heldout: str = Field(description="JSONL of Prompt records with checks: what is measured")
    code: str = Field(description="JSONL of coding prompts that Genetic Instruct starts from")
    documents: str = Field(default="", description='JSONL {"text": "..."} for closed Q&A')
    benchmarks: str = Field(default="", exclude=True, description="as `flywright eval --data`")


class AlignSettings(RoadSettings):
    """A recipe with road = "align": a base, an endpoint and files of one's own."""

    road: Literal["align"]
    base: BaseSettings
    files: BroughtSettings
    documents: DocumentSettings = DocumentSettings(vocab_size=1)


class WholeFiles(BroughtSettings):
    """The user's own files, and what a base is pretrained on: `documents`, or shards of them."""

    shards: str = Field(default="", description="the folder that `flywright data` made")
    tokenizer: str = Field(default="", description="the folder that the shards were made with")


class WholeSettings(RecipeSettings):
    """A recipe with road = "whole": every stage, on files of one's own."""

    road: Literal["whole"]
    source: Literal[""] = ""
    files: WholeFiles
