"""How much data the flows make, and how they ask. The defaults are a small run's."""

from typing import Literal

from pydantic import Field

from flywright.settings import Settings
from flywright.synth.arguments import SHORT_KINDS


class SynthSettings(Settings):
    """Counts, sampling and thresholds of the prompt, dialogue and comparison flows."""

    macro_topics: int = Field(default=4, ge=1, description="broad topics asked for in one call")
    subtopics: int = Field(
        default=3, ge=0, description="narrower topics for each broad one; 0 = none"
    )
    questions: int = Field(default=2, ge=1, description="prompts asked for at each topic")
    revisions: int = Field(
        default=1, ge=0, description="richer versions of each prompt; 0 = keep it"
    )
    materials: tuple[str, ...] = ("newsletter", "essay", "email", "poem")
    school_levels: tuple[str, ...] = ("elementary school", "middle school")
    difficulties: tuple[str, ...] = ("beginner", "intermediate", "advanced")
    document_characters: int = Field(
        default=600, ge=50, description="closed Q&A: a document's longest cut"
    )
    list_tokens: int = Field(default=256, ge=8, description="longest reply that holds a list")
    answer_tokens: int = Field(default=192, ge=8, description="longest answer or user turn")
    temperature: float = Field(default=0.7, ge=0, description="for prompts and comparison answers")
    top_p: float = Field(default=0.95, gt=0, le=1)
    concurrency: int = Field(default=64, ge=1, description="records in work at once")
    instruction_kinds: tuple[str, ...] = SHORT_KINDS
    instruction_size: Literal["small", "full"] = "small"
    instructions_each: int = Field(
        default=2, ge=1, le=3, description="most instructions on one prompt"
    )
    user_turns: int = Field(default=3, ge=1, description="user turns of a role-played dialogue")
    verify: bool = Field(default=True, description="drop answers that break their instruction")
    dialogue_reward: float = Field(default=-1e9, description="dialogues scored below are dropped")
    samples: int = Field(
        default=2, ge=1, description="answers of each model to a comparison's prompt"
    )
    judges: tuple[Literal["truth", "llm", "reward"], ...] = Field(
        default=("truth", "llm", "reward"), description="who decides between answers"
    )
    dpo_quality: float = Field(default=-1e9, description="least chosen reward for DPO (strict)")
    rpo_quality: float = Field(default=-1e9, description="least chosen reward for RPO (looser)")
    near_duplicate: float = Field(
        default=0.8, ge=0, le=1, description="Jaccard of 3-word shingles; 0 = near copies stay"
    )
    overlap_share: float = Field(
        default=0.5, ge=0, le=1, description="share of a benchmark text's 8-grams; 0 = hits stay"
    )


class GeneticSettings(Settings):
    """Size and chances of Genetic Instruct (SPEC 7)."""

    colonies: int = Field(default=2, ge=1)
    generations: int = Field(default=2, ge=1)
    target: int = Field(default=20, ge=1, description="new samples for each colony and generation")
    rounds: int = Field(default=6, ge=1, description="most rounds a colony tries for its target")
    brood: int = Field(default=8, ge=1, description="instructor calls a colony makes at once")
    crossover_share: float = Field(default=0.5, ge=0, le=1, description="the rest are mutations")
    examples: int = Field(default=3, ge=1, description="tasks shown to a crossover")
    offspring: int = Field(default=2, ge=1, description="tasks asked for by a crossover")
    tests: int = Field(
        default=2, ge=0, description="assert lines asked for; 0 = the code only has to run"
    )
