"""What every training stage does around the loop: load, guard, fit, save the weights folder."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from flywright.data.batch import Sample
from flywright.data.blend import BlendedWindows
from flywright.data.examples import (
    Examples,
    comparison_examples,
    dialogue_examples,
    ranking_examples,
    rating_examples,
)
from flywright.data.loader import Loader, Shuffled
from flywright.data.shards import open_shard
from flywright.errors import UserError
from flywright.files import atomic_folder, write_json
from flywright.model import Decoder, RewardModel, save
from flywright.recipe.answerers import load_decoder
from flywright.recipe.settings import PretrainSettings
from flywright.recipe.step import Work
from flywright.records import Comparison, Dialogue, Rating
from flywright.tokenizer import Tokenizer, chat
from flywright.train.guards import (
    refuse_empty,
    refuse_other_format,
    refuse_over_length,
    refuse_untrained_end,
)
from flywright.train.loop import finish, fit
from flywright.train.objectives import Objective, language_model, ranking, reward, sft
from flywright.train.objectives.base import Model
from flywright.train.reference import with_reference
from flywright.train.settings import TrainSettings


def training_dtype(settings: TrainSettings) -> torch.dtype:
    """The dtype that the loop computes in."""
    return torch.bfloat16 if settings.precision == "bf16" else torch.float32


def open_tokenizer(folder: Path) -> Tokenizer:
    """A weights folder's tokenizer. Raises GuardError if its chat format is not this code's."""
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text()).get("chat_format_hash", "") if path.exists() else ""
    refuse_other_format(found, chat.CHAT_HASH, str(folder))
    return Tokenizer.load(folder)


def _guarded(
    work: Work, examples: Examples, settings: TrainSettings, tokenizer: Tokenizer | None = None
) -> list[Sample]:
    """The samples, after every guard; with a tokenizer, also that the end of turn is trained."""
    refuse_over_length(examples, settings.max_over_length_share, work.name)
    refuse_empty(examples, work.name, masked=tokenizer is not None)
    if tokenizer is not None:
        refuse_untrained_end(examples.samples, tokenizer, work.name)
    work.facts["samples"] = len(examples.samples)
    work.facts["over_length"] = examples.over_length
    return examples.samples


def _train(
    work: Work,
    open_model: Callable[[], Model],
    loader: Loader,
    objective: Objective,
    settings: TrainSettings,
    tokenizer: Tokenizer,
) -> None:
    """Fit and save weights/ with the tokenizer; a step killed after saving is not trained again."""
    done = work / "trained.json"
    if not done.exists():
        model = open_model()
        fitted = fit(model, loader, objective, settings, work.folder, tick=work.tick)
        with atomic_folder(work / "weights") as folder:
            save(model, folder, chat.end_ids(tokenizer))
            tokenizer.save(folder)
        write_json(done, {"tokens": fitted.tokens, "items": fitted.samples, "last": fitted.last})
    finish(work.folder)
    said = json.loads(done.read_text())
    work.tokens, work.items = said["tokens"], said["items"]
    work.facts["last"] = said["last"]


def adopt(work: Work, folder: Path, tokenizer_folder: Path) -> None:
    """Weights that others trained, saved in our form with the tokenizer and THE chat format."""
    tokenizer, model = open_tokenizer(tokenizer_folder), load_decoder(folder)
    if tokenizer.vocab_size > model.spec.vocab_size:
        sizes = f"{tokenizer.vocab_size} pieces, the model {model.spec.vocab_size}"
        raise UserError(f"{tokenizer_folder}: the tokenizer has {sizes}: it belongs to another")
    with atomic_folder(work / "weights") as target:
        save(model, target, chat.end_ids(tokenizer))
        tokenizer.save(target)


def train_on_blend(
    work: Work,
    settings: PretrainSettings,
    shards: Path,
    open_model: Callable[[], Decoder],
    tokenizer: Tokenizer,
) -> None:
    """Language modelling on a folder of token shards ("group.source.npy")."""
    arrays = {path.stem: open_shard(path) for path in sorted(shards.glob("*.npy"))}
    weights = settings.shard_weights({name: len(array) for name, array in arrays.items()})
    model = open_model()
    window = settings.window or model.spec.context_length
    loader = BlendedWindows(arrays, weights, window, work.seed)
    _train(work, lambda: model, loader, language_model(), settings.train, tokenizer)


def regress(work: Work, settings: TrainSettings, base: Path, ratings: Iterable[Rating]) -> None:
    """A five-attribute reward model on a base; attributes start at the ratings' means."""
    tokenizer, decoder = open_tokenizer(base), load_decoder(base)
    examples = rating_examples(ratings, tokenizer, decoder.spec.context_length)
    samples = _guarded(work, examples, settings)
    means = np.nanmean([sample.labels["attributes"] for sample in samples], axis=0)
    start = lambda: RewardModel.from_decoder(decoder, work.seed, means.tolist())  # noqa: E731
    _train(work, start, Shuffled(samples, work.seed), reward(), settings, tokenizer)


def rank(
    work: Work, settings: TrainSettings, base: Path, comparisons: Iterable[Comparison]
) -> None:
    """A Bradley-Terry reward model on a base: helpfulness alone, the other attributes are 0."""
    tokenizer, decoder = open_tokenizer(base), load_decoder(base)
    examples = ranking_examples(comparisons, tokenizer, decoder.spec.context_length)
    samples = _guarded(work, examples, settings)
    model = RewardModel.from_decoder(decoder, work.seed)
    with torch.no_grad():
        model.score.weight[1:] = 0  # so that the weighted sum ranks as helpfulness does
    _train(work, lambda: model, Shuffled(samples, work.seed), ranking(), settings, tokenizer)


def supervise(
    work: Work, settings: TrainSettings, policy: Path, dialogues: Iterable[Dialogue]
) -> None:
    """SFT on dialogues, loss on the assistant only."""
    tokenizer, model = open_tokenizer(policy), load_decoder(policy)
    examples = dialogue_examples(dialogues, tokenizer, model.spec.context_length)
    samples = _guarded(work, examples, settings, tokenizer)
    _train(work, lambda: model, Shuffled(samples, work.seed), sft(), settings, tokenizer)


def optimize_preference(
    work: Work,
    settings: TrainSettings,
    objective: Objective,
    policy: Path,
    comparisons: Iterable[Comparison],
) -> None:
    """DPO or RPO; the reference is the policy as it starts, its log-probabilities computed once."""
    tokenizer, model = open_tokenizer(policy), load_decoder(policy, training_dtype(settings))
    context, needs_rewards = model.spec.context_length, objective.name == "rpo"
    examples = comparison_examples(list(comparisons), tokenizer, context, needs_rewards)
    samples = _guarded(work, examples, settings, tokenizer)
    cache, tokens = work / "reference.npy", settings.micro_batch_tokens
    samples = with_reference(model, samples, cache, tokens, work.tick)
    start = lambda: load_decoder(policy)  # noqa: E731 - fp32 masters, not the rounded weights
    _train(work, start, Shuffled(samples, work.seed), objective, settings, tokenizer)
