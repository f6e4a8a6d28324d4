"""What every training stage does around the loop: load, guard, fit, save the weights folder."""

import json
from collections.abc import Callable, Iterable, Sequence
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
from flywright.files import atomic_folder, folder_hash, seed_from, write_json
from flywright.model import Decoder, RewardModel, load_decoder, read_spec, save
from flywright.recipe.answerers import REVISION
from flywright.recipe.settings import (
    DpoSettings,
    PretrainSettings,
    RankLoss,
    RpoLoss,
    Training,
)
from flywright.recipe.step import Work
from flywright.records import ATTRIBUTES, Comparison, Dialogue, Rating
from flywright.tokenizer import Tokenizer, chat
from flywright.train import guards, lora
from flywright.train.loop import fit
from flywright.train.objectives import (
    Objective,
    dpo,
    ipo,
    language_model,
    ranking,
    reward,
    rpo,
    sft,
)
from flywright.train.objectives.base import Model
from flywright.train.reference import with_reference
from flywright.train.state import remove_state


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


def _fit(
    work: Work,
    open_model: Callable[[], Model],
    loader: Loader,
    objective: Objective,
    settings: Training,
    tokenizer: Tokenizer,
    validation: Sequence[Sample] = (),
) -> None:
    """Fit and save weights/ with the tokenizer; a step killed after saving is not trained again.

    With adapters, adapter/ holds them as peft reads them, and weights/ the base that they were
    merged into.
    """
    done = work / "trained.json"
    if not done.exists():
        train, model = settings.train, open_model().to(_device())
        if train.lora:
            lora.put_on(model, train.lora, work.seed)
        fitted = fit(
            model, loader, objective, train, work.folder, validation=validation, tick=work.tick
        )
        if train.lora:
            with atomic_folder(work / "adapter") as folder:
                lora.save_adapter(model, train.lora, folder)
            model = open_model().float()
            lora.merge(model, work / "adapter")
        with atomic_folder(work / "weights") as folder:
            save(model.cpu(), folder, chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
            tokenizer.save(folder)
        said = {"tokens": fitted.tokens, "items": fitted.samples, "last": fitted.last}
        write_json(done, said | {"alarms": list(fitted.alarms)})
    remove_state(work / "state")
    said = json.loads(done.read_text())
    work.tokens, work.items = said["tokens"], said["items"]
    work.facts |= {"last": said["last"], "alarms": said["alarms"]}


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _train(
    work: Work,
    open_model: Callable[[], Model],
    samples: list[Sample],
    objective: Objective,
    settings: Training,
    tokenizer: Tokenizer,
) -> None:
    """Fit on samples in shuffled order, after a share of them is put aside for validation."""
    share = settings.train.validation_share
    aside = max(1, round(share * len(samples))) if share else 0
    if aside >= len(samples):
        raise UserError(f"validation_share: of {len(samples)} samples none is left to train on")
    order = np.random.default_rng(seed_from(work.seed, "validation")).permutation(len(samples))
    kept = [samples[n] for n in sorted(order[aside:])]
    loader, validation = Shuffled(kept, work.seed), [samples[n] for n in order[:aside]]
    _fit(work, open_model, loader, objective, settings, tokenizer, validation)


def train_on_blend(
    work: Work,
    settings: PretrainSettings,
    shards: Path,
    open_model: Callable[[], Decoder],
    context: int,
    tokenizer: Tokenizer,
) -> None:
    """Language modelling on a folder of token shards ("group.source.npy"); `context` in tokens."""
    if settings.train.validation_share:
        raise UserError("train.validation_share: pretraining has none; measure by `flywright eval`")
    arrays = {path.stem: open_shard(path) for path in sorted(shards.glob("*.npy"))}
    phases = settings.phases({name: len(array) for name, array in arrays.items()})
    window = settings.window or context
    if window > context:
        raise UserError(f"window: {window} tokens, the model's context has {context}")
    loader = BlendedWindows(arrays, phases, window, work.seed)
    _fit(work, open_model, loader, language_model(), settings, tokenizer)


def regress(work: Work, settings: Training, base: Path, ratings: Iterable[Rating]) -> None:
    """A five-attribute reward model on a base; attributes start at the ratings' means."""
    tokenizer, context = open_tokenizer(base), read_spec(base).context_length
    samples = _guarded(work, rating_examples(ratings, tokenizer, context), settings)
    given = np.stack([sample.labels["attributes"] for sample in samples])
    rated = ~np.isnan(given)
    means = (np.where(rated, given, 0).sum(0) / np.maximum(rated.sum(0), 1)).tolist()
    start = lambda: _reward_model(work, base, rated.sum(0) > 0, means)  # noqa: E731
    _train(work, start, samples, reward(), settings, tokenizer)


def rank(work: Work, settings: Training, base: Path, comparisons: Iterable[Comparison]) -> None:
    """A Bradley-Terry reward model on a base: helpfulness alone, the other attributes are 0."""
    tokenizer, context = open_tokenizer(base), read_spec(base).context_length
    by = settings.ranking if isinstance(settings, RankLoss) else "plain"
    examples = ranking_examples(comparisons, tokenizer, context, needs_strength=by != "plain")
    samples = _guarded(work, examples, settings)
    first = np.arange(len(ATTRIBUTES)) == 0  # so that the weighted sum ranks as helpfulness does
    start = lambda: _reward_model(work, base, first)  # noqa: E731
    _train(work, start, samples, ranking(by), settings, tokenizer)


def _reward_model(
    work: Work, base: Path, trained: np.ndarray, means: Sequence[float] = (0.0,) * len(ATTRIBUTES)
) -> RewardModel:
    """A new head on a base. An attribute that nothing is known of is 0, and stays it."""
    model = RewardModel.from_decoder(load_decoder(base), work.seed, means)
    with torch.no_grad():
        model.score.weight[torch.from_numpy(~trained)] = 0
    return model


def supervise(work: Work, settings: Training, policy: Path, dialogues: Iterable[Dialogue]) -> None:
    """SFT on dialogues, loss on the assistant only."""
    tokenizer, context = open_tokenizer(policy), read_spec(policy).context_length
    examples = dialogue_examples(dialogues, tokenizer, context)
    samples = _guarded(work, examples, settings, tokenizer)
    _train(work, lambda: load_decoder(policy), samples, sft(), settings, tokenizer)


def optimize_preference(
    work: Work, settings: DpoSettings, policy: Path, comparisons: Iterable[Comparison]
) -> None:
    """DPO or RPO; the reference is the policy as it starts, its log-probabilities computed once."""
    tokenizer, context = open_tokenizer(policy), read_spec(policy).context_length
    objective, train = _preference(settings), settings.train
    needs_rewards = objective.name == "rpo"
    examples = comparison_examples(list(comparisons), tokenizer, context, needs_rewards)
    samples = _guarded(work, examples, settings, tokenizer)
    computes_in = torch.bfloat16 if train.precision == "bf16" else torch.float32
    reference = load_decoder(policy, computes_in).to(_device())
    cache = work / f"reference-{folder_hash(policy, REVISION)}-{train.precision}.npy"
    samples = with_reference(reference, samples, cache, train.micro_batch_tokens, work.tick)
    del reference  # not a second copy of the weights while training goes on
    start = lambda: load_decoder(policy)  # noqa: E731 - fp32 masters, not the rounded weights
    _train(work, start, samples, objective, settings, tokenizer)


def _preference(settings: DpoSettings) -> Objective:
    """What the settings name; "rpo" for the report's distance, "rpo_forward" for another."""
    name = settings.loss if isinstance(settings, RpoLoss) else "dpo"
    if name in ("dpo", "ipo"):
        return {"dpo": dpo, "ipo": ipo}[name](settings.beta, settings.sft_weight)
    assert isinstance(settings, RpoLoss)
    distance = "backward" if name == "rpo" else name.removeprefix("rpo_")
    return rpo(settings.beta, settings.eta, settings.sft_weight, distance)  # type: ignore[arg-type]
