"""One training step on the user's own files: `flywright sft SETTINGS.toml` and its siblings.

The same stages' cores as on the road, in a folder of its own; a killed run goes on where it was.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import Field

from flywright.data.shards import write_shard
from flywright.errors import UserError
from flywright.files import digest, write_json
from flywright.model import Decoder
from flywright.recipe import training
from flywright.recipe.console import Teller
from flywright.recipe.settings import DpoSettings, PretrainSettings, RpoLoss, Training
from flywright.recipe.step import Work
from flywright.records import Comparison, Dialogue, Document, Rating, Record, read_jsonl
from flywright.settings import Settings, load_settings
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, train_tokenizer


class OwnFiles(Settings):
    """Where one step reads and writes. Paths are relative to where the command runs."""

    data: Path = Field(description="JSONL of the step's records")
    out: Path
    seed: int = 1


class TokenizerFile(OwnFiles):
    """`flywright tokenizer`: data = documents."""

    vocab_size: int = Field(gt=0)


class PretrainFile(OwnFiles, PretrainSettings):
    """`flywright pretrain`: data = documents; a new model of the [model] shape."""

    tokenizer: Path
    model: ModelSpec


class TuneFile(OwnFiles, Training):
    """`flywright sft` (data = dialogues) and `flywright reward` (data = ratings)."""

    model: Path


class DpoFile(TuneFile, DpoSettings):
    """`flywright dpo`: data = comparisons."""


class RpoFile(TuneFile, RpoLoss):
    """`flywright rpo`: data = comparisons with both rewards."""


def _tokenizer(work: Work, own: TokenizerFile) -> None:
    texts = (document.text for document in read_jsonl(own.data, Document))
    train_tokenizer(texts, own.vocab_size).save(work.folder)


def _pretrain(work: Work, own: PretrainFile) -> None:
    tokenizer = Tokenizer.load(own.tokenizer)
    texts: dict[str, list[str]] = {}
    for document in read_jsonl(own.data, Document):
        texts.setdefault(f"{document.group}.{document.source}", []).append(document.text)
    for name, lines in texts.items():
        write_shard(work / "shards" / f"{name}.npy", lines, tokenizer)
    start = lambda: Decoder(own.model, own.seed)  # noqa: E731
    training.train_on_blend(work, own, work / "shards", start, tokenizer)


def _tune(train: Callable, kind: type[Record], work: Work, own: TuneFile) -> None:
    train(work, own, own.model, read_jsonl(own.data, kind))


_VERBS: dict[str, tuple[type[OwnFiles], Callable]] = {
    "tokenizer": (TokenizerFile, _tokenizer),
    "pretrain": (PretrainFile, _pretrain),
    "reward": (TuneFile, partial(_tune, training.regress, Rating)),
    "sft": (TuneFile, partial(_tune, training.supervise, Dialogue)),
    "dpo": (DpoFile, partial(_tune, training.optimize_preference, Comparison)),
    "rpo": (RpoFile, partial(_tune, training.optimize_preference, Comparison)),
}


def train_one(verb: str, path: Path, overrides: list[str]) -> str:
    """Run one training verb; returns a line that says where the weights are.

    Raises UserError where `out` holds another step's work: nothing is overwritten.
    """
    kind, function = _VERBS[verb]
    own = load_settings(kind, path, overrides)
    said = {"verb": verb, "fingerprint": digest(verb, own.model_dump(mode="json"))}
    begun = own.out / "settings.json"
    if begun.exists() and json.loads(begun.read_text())["fingerprint"] != said["fingerprint"]:
        raise UserError(f"{own.out}: holds another step's work; choose another `out` or remove it")
    write_json(begun, {**said, "settings": own.model_dump(mode="json")})
    with Teller(own.out / "log.txt") as teller:
        work = Work(verb, own.out, own.seed, teller.begin(verb))
        function(work, own)
    where = own.out if verb == "tokenizer" else work / "weights"
    return f"{verb}: done, {where}"
