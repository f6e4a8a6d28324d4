"""Who answers: a weights folder by the engine in this process, a URL by its client, or the source.

The top floor hands these in; synth, judge and evals only know the protocols of `ask`.
"""

import os
from pathlib import Path

import torch

from flywright.ask import Completer, Limited
from flywright.errors import UserError
from flywright.files import folder_hash
from flywright.generate import Engine, RewardScorer
from flywright.model import RewardModel, load, load_decoder
from flywright.recipe.settings import GeneratorSettings
from flywright.recipe.sources import Source
from flywright.recipe.step import Artifact
from flywright.tokenizer import Tokenizer

REVISION = "*.safetensors"  # a folder's revision is the hash of its weights (HOUSE 8)
TRY_SECONDS, DEADLINE_SECONDS = 300.0, 900.0  # one call to an endpoint, and with its retries


def engine(folder: Path, name: str = "", cache_bytes: int = 1 << 31) -> Engine:
    """An engine on a weights folder, in fp32, where sameness is promised (HOUSE law 3)."""
    name = f"{name or folder.name}@{folder_hash(folder, REVISION)}"
    model = load_decoder(folder, torch.float32)
    return Engine(model, Tokenizer.load(folder), model_name=name, cache_bytes=cache_bytes)


Answerer = Completer | Artifact  # an artifact answers with its weights


def opened(who: Answerer) -> Completer:
    """Who answers: an engine on a step's weights, or the completer itself."""
    return engine(who.weights, who.name) if isinstance(who, Artifact) else who


def reward_scorer(folder: Path) -> RewardScorer:
    """A scorer on a reward folder. Raises UserError for a language model's."""
    model = load(folder, torch.float32)
    if not isinstance(model, RewardModel):
        raise UserError(f"{folder}: not a reward model (config.json names no score head)")
    name = f"reward@{folder_hash(folder, REVISION)}"
    return RewardScorer(model, Tokenizer.load(folder), model_name=name)


def generator(settings: GeneratorSettings, source: Source | None = None) -> Completer:
    """The first turn's generator, by one line of settings; an endpoint is asked within limits."""
    if not settings.model:
        if source is None:
            raise UserError("generator.model: name a URL or a weights folder")
        return source.generator()
    if settings.model.startswith(("http://", "https://")):
        from flywright.serve.client import HttpCompleter

        key = os.environ.get(settings.api_key_variable, "") if settings.api_key_variable else ""
        name = settings.model_at_endpoint
        return Limited(HttpCompleter(settings.model, name, key, TRY_SECONDS), DEADLINE_SECONDS)
    return engine(Path(settings.model), settings.name)
