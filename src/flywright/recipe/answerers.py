"""Who answers: a weights folder by the engine in this process, a URL by its client, or the source.

The top floor hands these in; synth, judge and evals only know the protocols of `ask`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flywright.ask import Completer, Limited, Patience, Scorer
from flywright.errors import UserError
from flywright.files import folder_hash
from flywright.generate import Engine, RewardScorer
from flywright.generate.ranks import OverRanks, Part
from flywright.generate.vllm import VllmEngine
from flywright.model import Decoder, load, load_decoder
from flywright.model.export import DTYPES
from flywright.parallel import Preemption, joined, started_ranks
from flywright.recipe.settings import GeneratorSettings
from flywright.recipe.sources import Source
from flywright.recipe.step import Artifact
from flywright.spec import MeshSpec
from flywright.tokenizer import Tokenizer

REVISION = "*.safetensors"  # a folder's revision is the hash of its weights (HOUSE 8)
STEP_SECONDS = 300  # of an answer's step over ranks: where it takes longer one of them is lost
TRY_SECONDS, DEADLINE_SECONDS = 300.0, 900.0  # one call to an endpoint, and with its retries


def engine(
    folder: Path,
    name: str = "",
    dtype: torch.dtype | None = torch.float32,
    part: Part | None = None,
    **options: Any,
) -> Engine:
    """An engine on a weights folder, in fp32 unless told, where sameness is promised (law 3)."""
    name = f"{name or folder.name}@{folder_hash(folder, REVISION)}"
    model = part or load_decoder(folder, dtype)
    if isinstance(model, Part) and model.labels:
        raise UserError(f"{folder}: a reward model rates answers, it cannot write them")
    return Engine(model, Tokenizer.load(folder), model_name=name, **options)


Answerer = Completer | Artifact  # an artifact answers with its weights


def opened(who: Answerer) -> Completer:
    """Who answers: an engine on a step's weights, or the completer itself."""
    return engine(who.weights, who.name) if isinstance(who, Artifact) else who


def reward_scorer(
    folder: Path, dtype: torch.dtype | None = torch.float32, part: Part | None = None
) -> RewardScorer:
    """A scorer on a reward folder. Raises UserError for a language model's."""
    model = part or load(folder, dtype)
    if isinstance(model, Decoder) or not model.labels:
        raise UserError(f"{folder}: not a reward model (config.json names no score head)")
    name = f"reward@{folder_hash(folder, REVISION)}"
    return RewardScorer(model, Tokenizer.load(folder), model_name=name)


@contextmanager
def answering(
    policy: Path | None,
    reward: Path | None,
    cache_bytes: int,
    dtype: str = "",
    int8: bool = False,
    guesses: int = 0,
    vllm: bool = False,
    tp: int = 1,
    pp: int = 1,
) -> Iterator[tuple[Engine | VllmEngine | None, RewardScorer | None] | None]:
    """An engine and a scorer on the folders there are, over tp x pp ranks; dtype "" is as stored.

    The first rank alone is given them, the others nothing once it is done: they compute with it.
    Raises UserError where torchrun or Slurm has not started as many.
    """
    if dtype not in ("", *DTYPES):
        raise UserError(f"--dtype {dtype}: {', '.join(DTYPES)}, or none for what is stored")
    kind = DTYPES.get(dtype)
    if int8 and tp * pp > 1:
        raise UserError("--int8 is for one process: leave out --tp and --pp")
    if vllm and policy:  # which starts its own processes
        sizes = {"tensor_parallel_size": tp, "pipeline_parallel_size": pp}
        asked = {"dtype": str(kind)[6:]} if kind else {}
        opened = VllmEngine(policy, policy.name, **sizes, **asked)
        yield opened, reward_scorer(reward, kind) if reward else None
        return
    mesh = MeshSpec(tp=tp, pp=pp, timeout_seconds=STEP_SECONDS)
    started = started_ranks()
    if started != mesh.ranks:
        command = f"torchrun --standalone --nproc-per-node {mesh.ranks} -m flywright.cli serve ..."
        told = f"--tp {tp} --pp {pp} takes {mesh.ranks} processes, {started} started"
        raise UserError(f"{told}: {command} (docs/clusters.md)")
    if started == 1:
        options = {"cache_bytes": cache_bytes, "int8": int8, "guesses": guesses}
        opened = engine(policy, dtype=kind, **options) if policy else None
        yield opened, reward_scorer(reward, kind) if reward else None
        return
    with joined(mesh) as ranks:
        over = OverRanks(ranks)
        folders = [folder for folder in (policy, reward) if folder]
        parts = {each: over.open(each, kind, cache_bytes=cache_bytes) for each in folders}
        if not ranks.first:
            over.follow()
            yield None
            return
        with over.leading(), Preemption():  # a server that has drained may raise SIGTERM again
            opened = engine(policy, part=parts[policy], guesses=guesses) if policy else None
            yield opened, reward_scorer(reward, part=parts[reward]) if reward else None


def scorer_of(reward: str, model: str = "", api_key_variable: str = "") -> Scorer:
    """A reward folder's scorer, or a server's: ours, or any that speaks the hosted format."""
    if not reward.startswith(("http://", "https://")):
        return reward_scorer(Path(reward))
    from flywright.serve.client import HttpScorer

    return HttpScorer(reward, model, os.environ.get(api_key_variable, ""))


def generator(settings: GeneratorSettings, source: Source | None = None) -> Completer:
    """The first turn's generator, by one line of settings; an endpoint is asked within limits."""
    if not settings.model:
        if source is None:
            raise UserError("generator.model: name a URL or a weights folder")
        return source.generator()
    if settings.model.startswith(("http://", "https://")):
        from flywright.serve.client import HttpCompleter

        key, name = os.environ.get(settings.api_key_variable, ""), settings.model_at_endpoint
        patience = Patience(DEADLINE_SECONDS, TRY_SECONDS)
        return Limited(HttpCompleter(settings.model, name, key, TRY_SECONDS), patience)
    return engine(Path(settings.model), settings.name)
