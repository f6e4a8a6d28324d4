"""One training step on the user's own files: `flywright sft SETTINGS.toml` and its siblings.

The same stages' cores as on the road, in a folder of its own; a killed run goes on where it was.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from flywright.data.documents import DocumentFiles
from flywright.data.formats import Reading
from flywright.data.prepare import prepare, refuse_other_tokenizer
from flywright.data.quality import Quality
from flywright.errors import UserError
from flywright.files import digest, locked, write_json
from flywright.model import read_spec
from flywright.parallel import Ranks, joined
from flywright.progress import silent
from flywright.recipe import files, training
from flywright.recipe.brought import bytes_of
from flywright.recipe.console import Teller
from flywright.recipe.measuring import Measuring
from flywright.recipe.settings import DpoSettings, PretrainSettings, RankLoss, RpoLoss, Training
from flywright.recipe.step import Work
from flywright.records import Comparison, Dialogue, Document, Rating, Record
from flywright.settings import Settings, load_settings
from flywright.spec import MeshSpec, ModelSpec
from flywright.tokenizer import Tokenizer, train_tokenizer


class OwnFolder(Settings):
    """Where one step writes. Paths are relative to where the command runs."""

    out: Path
    seed: int = 1
    mesh: MeshSpec = Field(default=MeshSpec(), exclude=True, description="ranks; any other resumes")


class OwnFiles(OwnFolder):
    """Where one step reads and writes."""

    data: Path = Field(description="records of the step, in any form of docs/formats.md")


class DataFile(OwnFolder):
    """`flywright data`: files of documents into token shards."""

    tokenizer: Path
    collections: list[DocumentFiles] = Field(min_length=1)
    quality: Quality = Quality()
    near: bool = Field(default=True, description="near copies are left out, too")
    workers: int = Field(default=0, ge=0, exclude=True, description="processes; 0 = one a core")


class TokenizerFile(OwnFiles):
    """`flywright tokenizer`: data = documents."""

    vocab_size: int = Field(gt=0)


class Measured(OwnFiles):
    """What is evaluated while it trains."""

    evaluate: Measuring | None = Field(default=None, exclude=True, description="while it trains")


class PretrainFile(Measured, PretrainSettings):
    """`flywright pretrain`: data = documents, or `flywright data`'s folder; a new [model]."""

    tokenizer: Path
    model: ModelSpec


class TuneFile(Measured, Training):
    """`flywright sft`: data = dialogues."""

    model: Path


class RewardFile(TuneFile, RankLoss):
    """`flywright reward`: data = ratings or comparisons."""


class DpoFile(TuneFile, DpoSettings):
    """`flywright dpo`: data = comparisons."""


class RpoFile(TuneFile, RpoLoss):
    """`flywright rpo`: data = comparisons with both rewards."""


def _data(work: Work, own: DataFile, _records: Iterator[Any]) -> None:
    one = own.collections, own.tokenizer, own.out, own.quality, own.near, own.workers
    for shard, found in prepare(*one, work.tick).items():
        print(f"{shard}: " + ", ".join(f"{count:,} {what}" for what, count in found.items()))


def _tokenizer(work: Work, own: TokenizerFile, documents: Iterator[Document]) -> None:
    texts = (document.text for document in documents)
    train_tokenizer(texts, own.vocab_size).save(work.folder)


def _pretrain(work: Work, own: PretrainFile, documents: Iterator[Document]) -> None:
    tokenizer = Tokenizer.load(own.tokenizer)
    if tokenizer.vocab_size > own.model.vocab_size:
        raise UserError(f"model.vocab_size: the tokenizer has {tokenizer.vocab_size} pieces")
    shards = own.data if own.data.is_dir() else work / "shards"
    refuse_other_tokenizer(shards, tokenizer)
    placed = ((document.group, document) for document in documents)
    work.ranks.by_first(lambda: training.write_shards(shards, placed, tokenizer, work.tick))
    start = partial(training.new_decoder, own.model, own.seed)
    context = own.model.context_length
    training.train_on_blend(work, own, shards, start, context, tokenizer, ramped=True)


def _reward(work: Work, own: RewardFile, records: Iterator[Any]) -> None:
    """Regression on ratings, Bradley-Terry on pairs."""
    if own.evaluate is not None:
        raise UserError("evaluate: a reward model answers nothing; `flywright eval` measures it")
    found = list(records)
    train = training.regress if isinstance(found[0], Rating) else training.rank
    train(work, own, own.model, found)


def _tune(train: Callable, work: Work, own: TuneFile, records: Iterator[Any]) -> None:
    train(work, own, own.model, list(records))


_VERBS: dict[str, tuple[type[OwnFolder], tuple[type[Record], ...], Callable]] = {
    "data": (DataFile, (), _data),
    "tokenizer": (TokenizerFile, (Document,), _tokenizer),
    "pretrain": (PretrainFile, (Document,), _pretrain),
    "reward": (RewardFile, (Rating, Comparison), _reward),
    "sft": (TuneFile, (Dialogue,), partial(_tune, training.supervise)),
    "dpo": (DpoFile, (Comparison,), partial(_tune, training.optimize_preference)),
    "rpo": (RpoFile, (Comparison,), partial(_tune, training.optimize_preference)),
}
_NO_WEIGHTS = ("data", "tokenizer")  # what they make; one rank makes it


def _records(verb: str, own: OwnFolder, teller: Teller | None) -> Iterator[Any]:
    """The records; then a line that says of which form they were, and what was left out."""
    reading = _reading(verb, own)
    needs_rewards = isinstance(own, RpoLoss) and own.loss.startswith("rpo")
    for where, record in reading.placed() if reading else ():
        if needs_rewards and None in (record.chosen_reward, record.rejected_reward):
            raise UserError(f"{where}: RPO needs both rewards of a pair (DPO needs none)")
        yield record
    if reading and teller:
        teller.say(reading.line)


def train_one(verb: str, path: Path, overrides: list[str]) -> str:
    """Run one training verb; returns a line that says where the weights are, of the first rank.

    Raises UserError where `data` is of no form that the verb reads, or `out` holds another step's
    work, FlywrightError where another is at work there: nothing is overwritten.
    """
    own = load_settings(_VERBS[verb][0], path, overrides)
    with joined(own.mesh) as ranks, ExitStack() as stack:
        teller, trains = ranks.by_first(lambda: _claim(verb, own, stack)), verb not in _NO_WEIGHTS
        if trains or ranks.first:
            tick = teller.begin(verb) if teller else silent
            work = Work(verb, own.out, own.seed, tick, ranks if trains else Ranks())
            work.measuring = getattr(own, "evaluate", None)
            _VERBS[verb][2](work, own, _records(verb, own, teller))
    return f"{verb}: done, {own.out / 'weights' if trains else own.out}" if teller else ""


def _reading(verb: str, own: OwnFolder) -> Reading | None:
    if not isinstance(own, OwnFiles) or (verb == "pretrain" and own.data.is_dir()):
        return None
    return files.read(own.data, *_VERBS[verb][1])


def _claim(verb: str, own: OwnFolder, stack: ExitStack) -> Teller:
    """The folder is this step's, as long as `stack` is open; another's work is not written over."""
    _reading(verb, own)  # of a form that the verb reads, before anything is written
    if isinstance(base := getattr(own, "model", None), Path):
        read_spec(base)
    stack.enter_context(locked(own.out))
    inputs = [getattr(own, name, None) for name in ("data", "model", "tokenizer")]
    read = [bytes_of(path) for path in inputs if isinstance(path, Path)]
    said = {"verb": verb, "fingerprint": digest(verb, own.model_dump(mode="json"), read)}
    begun = own.out / "settings.json"
    if begun.exists() and json.loads(begun.read_text())["fingerprint"] != said["fingerprint"]:
        why = "holds another step's work, or its files have changed since"
        raise UserError(f"{own.out}: {why}; choose another `out` or remove it")
    write_json(begun, {**said, "settings": own.model_dump(mode="json")})
    return stack.enter_context(Teller(own.out / "log.txt"))
