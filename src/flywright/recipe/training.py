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
from flywright.model import Decoder, RewardModel, load_decoder, read_spec, save
from flywright.recipe.settings import DpoSettings, PretrainSettings, RpoLoss, Training
from flywright.recipe.step import Work
from flywright.records import Comparison, Dialogue, Rating
from flywright.tokenizer import Tokenizer, chat
from flywright.train import guards
from flywright.train.loop import finish, fit
from flywright.train.objectives import Objective, dpo, language_model, ranking, reward, rpo, sft
from flywright.train.objectives.base import Model
from flywright.train.reference import with_reference


def open_tokenizer(folder: Path) -> Tokenizer:
    """A weights folder's tokenizer. Raises GuardError if its chat format is not this code's."""
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text()).get("chat_format_hash", "") if path.exists() else ""
    guards.refuse_other_format(found, chat.CHAT_HASH, str(folder))
    tokenizer = Tokenizer.load(folder)
    rows = read_spec(folder).vocab_size if (folder / "config.json").exists() else None
    if rows is not None and tokenizer.vocab_size > rows:
        raise UserError(f"{folder}: tokenizer of {tokenizer.vocab_size} pieces, model of {rows}")
    return tokenizer


def _guarded(
    work: Work, examples: Examples, settings: Training, tokenizer: Tokenizer | None = None
) -> list[Sample]:
    """The samples, after every guard; with a tokenizer, also that the end of turn is trained."""
    guards.refuse_over_length(examples, settings.train.max_over_length_share, work.name)
    guards.refuse_empty(examples, work.name, masked=tokenizer is not None)
    if tokenizer is not None:
        guards.refuse_untrained_end(examples.samples, tokenizer, work.name)
    work.facts["samples"] = len(examples.samples)
    work.facts["over_length"] = examples.over_length
    return examples.samples


def _train(
    work: Work,
    open_model: Callable[[], Model],
    loader: Loader,
    objective: Objective,
    settings: Training,
    tokenizer: Tokenizer,
) -> None:
    """Fit and save weights/ with the tokenizer; a step killed after saving is not trained again."""
    done = work / "trained.json"
    if not done.exists():
        model = open_model()
        fitted = fit(model, loader, objective, settings.train, work.folder, tick=work.tick)
        with atomic_folder(work / "weights") as folder:
            save(model, folder, chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
            tokenizer.save(folder)
        write_json(done, {"tokens": fitted.tokens, "items": fitted.samples, "last": fitted.last})
    finish(work.folder)
    said = json.loads(done.read_text())
    work.tokens, work.items = said["tokens"], said["items"]
    work.facts["last"] = said["last"]


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
    _train(work, lambda: model, loader, language_model(), settings, tokenizer)


def regress(work: Work, settings: Training, base: Path, ratings: Iterable[Rating]) -> None:
    """A five-attribute reward model on a base; attributes start at the ratings' means."""
    tokenizer, decoder = open_tokenizer(base), load_decoder(base)
    examples = rating_examples(ratings, tokenizer, decoder.spec.context_length)
    samples = _guarded(work, examples, settings)
    means = np.nanmean([sample.labels["attributes"] for sample in samples], axis=0)
    start = lambda: RewardModel.from_decoder(decoder, work.seed, means.tolist())  # noqa: E731
    _train(work, start, Shuffled(samples, work.seed), reward(), settings, tokenizer)


def rank(work: Work, settings: Training, base: Path, comparisons: Iterable[Comparison]) -> None:
    """A Bradley-Terry reward model on a base: helpfulness alone, the other attributes are 0."""
    tokenizer, decoder = open_tokenizer(base), load_decoder(base)
    examples = ranking_examples(comparisons, tokenizer, decoder.spec.context_length)
    samples = _guarded(work, examples, settings)
    model = RewardModel.from_decoder(decoder, work.seed)
    with torch.no_grad():
        model.score.weight[1:] = 0  # so that the weighted sum ranks as helpfulness does
    _train(work, lambda: model, Shuffled(samples, work.seed), ranking(), settings, tokenizer)


def supervise(work: Work, settings: Training, policy: Path, dialogues: Iterable[Dialogue]) -> None:
    """SFT on dialogues, loss on the assistant only."""
    tokenizer, model = open_tokenizer(policy), load_decoder(policy)
    examples = dialogue_examples(dialogues, tokenizer, model.spec.context_length)
    samples = _guarded(work, examples, settings, tokenizer)
    _train(work, lambda: model, Shuffled(samples, work.seed), sft(), settings, tokenizer)


def optimize_preference(
    work: Work, settings: DpoSettings, policy: Path, comparisons: Iterable[Comparison]
) -> None:
    """DPO or RPO; the reference is the policy as it starts, its log-probabilities computed once."""
    tokenizer, train = open_tokenizer(policy), settings.train
    computes_in = torch.bfloat16 if train.precision == "bf16" else torch.float32
    reference = load_decoder(policy, computes_in)
    objective = dpo(settings.beta, settings.sft_weight)
    if isinstance(settings, RpoLoss) and settings.loss == "rpo":
        objective = rpo(settings.beta, settings.eta, settings.sft_weight)
    context, needs_rewards = reference.spec.context_length, objective.name == "rpo"
    examples = comparison_examples(list(comparisons), tokenizer, context, needs_rewards)
    samples = _guarded(work, examples, settings, tokenizer)
    cache, tokens = work / "reference.npy", train.micro_batch_tokens
    samples = with_reference(reference, samples, cache, tokens, work.tick)
    start = lambda: load_decoder(policy)  # noqa: E731 - fp32 masters, not the rounded weights
    _train(work, start, Shuffled(samples, work.seed), objective, settings, tokenizer)
