"""What every training stage does around the loop: load, guard, fit, save the weights folder."""

import gc
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from flywright.data import examples
from flywright.data.batch import Sample
from flywright.data.blend import BlendedWindows
from flywright.data.loader import Loader, Shuffled
from flywright.data.shards import open_shard, write_shard
from flywright.errors import UserError
from flywright.files import atomic_folder, folder_hash, seed_from, write_json
from flywright.model import Decoder, InitialTensors, RewardModel, read_spec, save
from flywright.model.sharding import DECODER, REWARD
from flywright.model.shards import join_parts, write_parts
from flywright.model.weights import materialise, open_decoder, write_config
from flywright.parallel import Ranks, apply_pipeline, compute_in, fill, save_sharded
from flywright.progress import Tick
from flywright.recipe import measuring
from flywright.recipe.answerers import REVISION
from flywright.recipe.settings import DpoSettings, PretrainSettings, RankLoss, RpoLoss, Training
from flywright.recipe.step import Work
from flywright.records import ATTRIBUTES, Comparison, Dialogue, Document, Rating
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, chat
from flywright.train import guards, lora, objectives
from flywright.train.loop import fit
from flywright.train.objectives.base import Model
from flywright.train.passes import Passes
from flywright.train.reference import with_reference
from flywright.train.state import remove_state

# a model on the meta device, and its tensors: each rank takes what it holds
Begun = tuple[Model, Mapping[str, torch.Tensor]]
Start = Callable[[], Begun]


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
    work: Work, found: examples.Examples, settings: Training, tokenizer: Tokenizer | None = None
) -> list[Sample]:
    """The samples, after every guard; with a tokenizer, also that the end of turn is trained."""
    guards.refuse_over_length(found, settings.train.max_over_length_share, work.name)
    guards.refuse_empty(found, work.name, masked=tokenizer is not None)
    if tokenizer is not None:
        guards.refuse_untrained_end(found.samples, tokenizer, work.name)
    work.facts["samples"] = len(found.samples)
    work.facts["over_length"] = found.over_length
    return found.samples


def _fit(
    work: Work,
    start: Start,
    loader: Loader,
    objective: objectives.Objective,
    settings: Training,
    tokenizer: Tokenizer,
    validation: Sequence[Sample] = (),
    ramped: bool = False,
) -> None:
    """Fit and save weights/ with the tokenizer; a step killed after saving is not trained again.

    With adapters, adapter/ holds them as peft reads them, and weights/ the base that they were
    merged into.
    """
    done, ranks, train = work / "trained.json", work.ranks, settings.train
    if not ranks.agreed(done.exists()):
        parts = _parts(start, ranks, train.precision == "bf16")
        if train.lora:
            if ranks.mesh is not None:
                raise UserError("train.lora: adapters are trained by one process, without a mesh")
            lora.put_on(parts[0], train.lora, work.seed)
        held = {"ranks": ranks, "ramped": ramped, "validation": validation, "tick": work.tick}
        if work.measuring is not None:
            held["hooks"] = [measuring.hook(work.measuring, work, tokenizer)]
        fitted = fit(parts, loader, objective, train, work.folder, **held)
        if train.lora:
            with atomic_folder(work / "adapter") as folder:
                lora.save_adapter(parts[0], train.lora, folder)
            parts = [materialise(*start()).float()]
            lora.merge(parts[0], work / "adapter")
        _save(parts, ranks, work / "weights", tokenizer)
        said = {"tokens": fitted.tokens, "items": fitted.samples, "last": fitted.last}
        ranks.by_first(lambda: write_json(done, said | {"alarms": list(fitted.alarms)}))
    ranks.by_first(lambda: remove_state(work / "state"))
    said = json.loads(done.read_text())
    work.tokens, work.items = said["tokens"], said["items"]
    work.facts |= {"last": said["last"], "alarms": said["alarms"]}


def _parts(start: Start, ranks: Ranks, bf16: bool) -> list[Model]:
    """A model on one process; or this rank's chunks of it, fp32 shards of their own slices."""
    model, tensors = start()
    if ranks.mesh is None:
        return [materialise(model, tensors).to("cuda" if torch.cuda.is_available() else "cpu")]
    placements = REWARD if isinstance(model, RewardModel) else DECODER
    policy, spec = compute_in(torch.bfloat16 if bf16 else torch.float32), ranks.spec
    parts = apply_pipeline(model.float(), ranks.mesh, placements, spec.virtual, policy, spec.zero)
    for part in parts:
        fill(part, tensors, ranks.mesh.device_type)
    return cast("list[Model]", parts)


def _save(parts: Sequence[Model], ranks: Ranks, out: Path, tokenizer: Tokenizer) -> None:
    """The weights folder; over a mesh each pipeline stage writes its own files of it."""
    ends, pad_id = chat.end_ids(tokenizer), tokenizer.pad_id

    def finish(folder: Path, files: list[Any]) -> None:
        join_parts(folder, files)
        write_config(parts[0], folder, ends, pad_id)
        tokenizer.save(folder)

    if ranks.mesh is not None:
        save_sharded(parts, ranks.mesh, out, write_parts, finish)
        return
    with atomic_folder(out) as folder:
        save(parts[0].cpu(), folder, ends, pad_id=pad_id)
        tokenizer.save(folder)


def _train(
    work: Work, start: Start, samples: list[Sample], objective: objectives.Objective,
    settings: Training, tokenizer: Tokenizer,
) -> None:  # fmt: skip
    """Fit on samples in shuffled order, after a share of them is put aside for validation."""
    share = settings.train.validation_share
    aside = max(1, round(share * len(samples))) if share else 0
    if aside >= len(samples):
        raise UserError(f"validation_share: of {len(samples)} samples none is left to train on")
    order = np.random.default_rng(seed_from(work.seed, "validation")).permutation(len(samples))
    kept = [samples[n] for n in sorted(order[aside:])]
    loader, validation = Shuffled(kept, work.seed), [samples[n] for n in order[:aside]]
    _fit(work, start, loader, objective, settings, tokenizer, validation)


def write_shards(
    folder: Path, placed: Iterable[tuple[str, Document]], tokenizer: Tokenizer, tick: Tick
) -> dict[str, int]:
    """Token shards of documents and their groups, one a group and source; returns their sizes."""
    texts: dict[str, list[str]] = {}
    for group, document in placed:
        texts.setdefault(f"{group}.{document.source}", []).append(document.text)
    sizes = {}
    for done, (name, lines) in enumerate(sorted(texts.items()), start=1):
        sizes[name] = write_shard(folder / f"{name}.npy", lines, tokenizer)
        tick(done, len(texts), name)
    return sizes


def train_on_blend(
    work: Work,
    settings: PretrainSettings,
    shards: Path,
    start: Start,
    context: int,
    tokenizer: Tokenizer,
    ramped: bool = False,
) -> None:
    """Language modelling on a folder of token shards ("group.source.npy"); `context` in tokens.

    ramped: the number of ranks follows mesh.dp_ramp.
    """
    if settings.train.validation_share:
        raise UserError("train.validation_share: pretraining has none; measure by `flywright eval`")
    arrays = {path.stem: open_shard(path) for path in sorted(shards.glob("*.npy"))}
    phases = settings.phases({name: len(array) for name, array in arrays.items()})
    window = settings.window or context
    if window > context:
        raise UserError(f"window: {window} tokens, the model's context has {context}")
    loader = BlendedWindows(arrays, phases, window, work.seed)
    _fit(work, start, loader, objectives.language_model(), settings, tokenizer, ramped=ramped)


def regress(work: Work, settings: Training, base: Path, ratings: Iterable[Rating]) -> None:
    """A five-attribute reward model on a base; attributes start at the ratings' means."""
    tokenizer, context = open_tokenizer(base), read_spec(base).context_length
    samples = _guarded(work, examples.rating_examples(ratings, tokenizer, context), settings)
    given = np.stack([sample.labels["attributes"] for sample in samples])
    rated = ~np.isnan(given)
    means = (np.where(rated, given, 0).sum(0) / np.maximum(rated.sum(0), 1)).tolist()
    start = partial(_reward_model, work.seed, base, rated.sum(0) > 0, means)
    _train(work, start, samples, objectives.reward(), settings, tokenizer)


def rank(work: Work, settings: Training, base: Path, comparisons: Iterable[Comparison]) -> None:
    """A Bradley-Terry reward model on a base: helpfulness alone, the other attributes are 0."""
    tokenizer, context = open_tokenizer(base), read_spec(base).context_length
    by = settings.ranking if isinstance(settings, RankLoss) else "plain"
    pairs = examples.ranking_examples(comparisons, tokenizer, context, needs_strength=by != "plain")
    samples = _guarded(work, pairs, settings)
    first = np.arange(len(ATTRIBUTES)) == 0  # so that the weighted sum ranks as helpfulness does
    start = partial(_reward_model, work.seed, base, first, [0.0] * len(ATTRIBUTES))
    _train(work, start, samples, objectives.ranking(by), settings, tokenizer)


def _reward_model(seed: int, base: Path, trained: np.ndarray, means: Sequence[float]) -> Begun:
    """A new head on a base. An attribute that nothing is known of is 0, and stays it."""
    decoder, stored = open_decoder(base)
    model, tensors = RewardModel.start(decoder.spec, stored, seed, means)
    tensors["score.weight"][torch.from_numpy(~trained)] = 0
    return model, tensors


def new_decoder(spec: ModelSpec, seed: int) -> Begun:
    """A model before its first step."""
    with torch.device("meta"):
        model = Decoder(spec)
    return model, InitialTensors(model, spec, seed)


def supervise(work: Work, settings: Training, policy: Path, dialogues: Iterable[Dialogue]) -> None:
    """SFT on dialogues, loss on the assistant only."""
    tokenizer, context = open_tokenizer(policy), read_spec(policy).context_length
    talks = examples.dialogue_examples(dialogues, tokenizer, context)
    samples = _guarded(work, talks, settings, tokenizer)
    _train(work, partial(open_decoder, policy), samples, objectives.sft(), settings, tokenizer)


def optimize_preference(
    work: Work, settings: DpoSettings, policy: Path, comparisons: Iterable[Comparison]
) -> None:
    """DPO or RPO; the reference is the policy as it starts, its log-probabilities computed once."""
    tokenizer, context = open_tokenizer(policy), read_spec(policy).context_length
    objective, train, pairs = _preference(settings), settings.train, list(comparisons)
    found = examples.comparison_examples(pairs, tokenizer, context, objective.name == "rpo")
    samples = _guarded(work, found, settings, tokenizer)
    bf16 = train.precision == "bf16"
    computes_in = torch.bfloat16 if bf16 else torch.float32
    reference = _parts(partial(open_decoder, policy, computes_in), work.ranks, bf16)
    passes = Passes(reference, train.micro_batch_tokens, work.ranks, bf16)
    cache = work / f"reference-{folder_hash(policy, REVISION)}-{train.precision}.npy"
    samples = with_reference(passes, samples, cache, work.tick)
    del reference, passes
    gc.collect()  # of FSDP's circles: not a second copy of the weights while training goes on
    start = partial(open_decoder, policy)  # fp32 masters, not the rounded weights
    _train(work, start, samples, objective, settings, tokenizer)


def _preference(settings: DpoSettings) -> objectives.Objective:
    """What the settings name; "rpo" for the report's distance, "rpo_forward" for another."""
    terms = settings.beta, settings.sft_weight
    if not isinstance(settings, RpoLoss) or settings.loss == "dpo":
        return objectives.dpo(*terms)
    if settings.loss == "ipo":
        return objectives.ipo(*terms)
    distance = "backward" if settings.loss == "rpo" else settings.loss.removeprefix("rpo_")
    eta, weight = settings.eta, settings.sft_weight
    return objectives.rpo(settings.beta, eta, weight, distance)  # type: ignore[arg-type]
