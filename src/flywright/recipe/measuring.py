"""Benchmarks while a model trains: a hook that evaluates it every so many steps or tokens.

    [evaluate]                       # in the settings of pretrain, sft, dpo or rpo
    tasks = ["hellaswag@0", "gsm8k"]
    data = "data"
    every_steps = 500

OUT/evals/step-000500/TASK holds items and results, OUT/evals/step-000500.json each metric with its
interval. What is trained, and whether it can be resumed bit for bit, does not depend on it.
"""

import asyncio
import json
from pathlib import Path

import torch
from pydantic import Field, model_validator

from flywright.errors import UserError
from flywright.evals.run import evaluate
from flywright.evals.tasks import load_prompts, task_named
from flywright.files import write_json
from flywright.generate import Engine
from flywright.generate.asking import Cutting
from flywright.model import Decoder
from flywright.recipe.step import Work
from flywright.sandbox import Sandbox, SandboxSettings
from flywright.settings import Settings
from flywright.tokenizer import Tokenizer
from flywright.train.loop import Hook
from flywright.train.objectives.base import Model


class Measuring(Settings):
    """Which benchmarks, on how much of them, and how often."""

    tasks: list[str] = Field(min_length=1, description="names as of `flywright eval`")
    data: Path = Field(description="folder of the tasks' files")
    limit: int = Field(default=100, ge=0, description="first N problems of each subject; 0 for all")
    every_steps: int = Field(default=0, ge=0)
    every_tokens: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_rhythm(self) -> "Measuring":
        if bool(self.every_steps) == bool(self.every_tokens):
            raise ValueError("give every_steps or every_tokens, one of the two")
        return self


def hook(own: Measuring, work: Work, tokenizer: Tokenizer) -> Hook:
    """As train.loop.fit takes it. Raises UserError over a mesh, and for unknown tasks or data."""
    if work.ranks.mesh is not None:
        raise UserError("evaluate: a model over a mesh is measured by `flywright eval`, once saved")
    tasks = [task_named(name) for name in own.tasks]
    prompts = [load_prompts(task, own.data, own.limit) for task in tasks]

    def when(step: int) -> bool:
        if own.every_steps:
            return step % own.every_steps == 0
        before, now = _tokens(work / "metrics.jsonl")
        return now // own.every_tokens > before // own.every_tokens

    def call(model: Model, step: int) -> None:
        assert isinstance(model, Decoder)
        engine = Engine(model, tokenizer, model_name=f"{work.name}@{step}", dtype=torch.float32)
        folder, found = work / "evals" / f"step-{step:06d}", {}
        with torch.random.fork_rng():
            for task, asked in zip(tasks, prompts, strict=True):
                common = {"out": folder / task.name, "task": task}
                sandbox = Sandbox(SandboxSettings())
                results = evaluate(Cutting(engine), asked, sandbox=sandbox, **common)
                found[task.name] = asyncio.run(results).metrics
        _, tokens = _tokens(work / "metrics.jsonl")
        write_json(folder.with_suffix(".json"), {"step": step, "tokens": tokens, "tasks": found})

    return when, call


def _tokens(path: Path) -> tuple[int, int]:
    """Tokens trained on before the last step, and after it, as the metrics tell."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 8192))
        lines = stream.read().splitlines()[-2:]
    counts = [json.loads(line)["tokens"] for line in lines]
    return (counts[-2] if len(counts) > 1 else 0), counts[-1]
