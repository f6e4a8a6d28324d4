"""What a person brings to align a base of their own: ratings, prompts and documents in files.

A Source like any other (sources.py); the base folder and the endpoint that answers stand beside it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from flywright.ask import Completer
from flywright.data.formats import open_records
from flywright.data.prepare import INPUTS
from flywright.errors import UserError
from flywright.evals.tasks import benchmark_texts
from flywright.files import digest, file_hash, folder_hash
from flywright.recipe import files
from flywright.recipe.settings import BroughtSettings
from flywright.recipe.sources import Source
from flywright.records import Document, Prompt, Rating

_HELD_RATINGS = 0.05  # share of the rated prompts where no file of held-out ones is named


class Brought(Source):
    """Files named under [files]. `fingerprint` is of their bytes."""

    notes: tuple[str, ...] = ("Ratings, prompts and documents are the user's own files.",)

    def __init__(self, own: BroughtSettings):
        self._own = own
        paths = [Path(path) for path in (*own.model_dump().values(), own.benchmarks) if path]
        missing = ", ".join(str(path) for path in paths if not path.exists())
        if missing:
            raise UserError(f"[files]: {missing}: no such file")
        self.fingerprint = digest("brought/2", own.model_dump(), [bytes_of(path) for path in paths])

    def documents(self) -> Iterator[Document]:
        """Documents for closed Q&A."""
        yield from open_records(Path(self._own.documents), Document) if self._own.documents else ()

    def _rated(self, held: bool) -> Iterator[Rating]:
        own = self._own
        if own.heldout_ratings:
            yield from open_records(Path(own.heldout_ratings if held else own.ratings), Rating)
            return
        for rating in open_records(Path(own.ratings), Rating):
            place = files.place(rating.conversation.without_answer().last)
            if (place < _HELD_RATINGS) == held:
                yield rating

    def ratings(self, count: int) -> list[Rating]:
        """The first `count` ratings."""
        return list(islice(self._rated(False), count))

    def rated_heldout(self, split: str, count: int) -> list[Rating]:
        """Ratings of prompts that are not trained on."""
        found = list(islice(self._rated(True), count))
        pairs = zip(found[::2], found[1::2], strict=False)
        gaps = [abs((a.helpfulness or 0.0) - (b.helpfulness or 0.0)) for a, b in pairs]
        if not any(gap >= 1 for gap in gaps):
            raise UserError(f"{self._own.ratings}: no held-out pair differs in helpfulness by 1")
        return found

    def prompts(self, count: int) -> list[Prompt]:
        """The first `count` prompts that are not held out."""
        held = {files.key(prompt.conversation.last) for prompt in prompts(self._own.heldout)}
        some = prompts(self._own.prompts)
        return list(islice((p for p in some if files.key(p.conversation.last) not in held), count))

    def code_seeds(self) -> list[Prompt]:
        """Coding prompts that Genetic Instruct starts from."""
        return list(prompts(self._own.code))

    def heldout(self, split: str, count: int) -> list[Prompt]:
        """Held-out prompts with checks; those that name another split than "near" are of that."""
        found = [prompt for prompt in prompts(self._own.heldout) if prompt.checks]
        here = [prompt for prompt in found if (prompt.split or "near") == split][:count]
        if split == "near" and not here:
            raise UserError(f"{self._own.heldout}: no prompt with checks to measure with")
        return here

    def benchmark_texts(self) -> Iterator[tuple[str, str]]:
        """The held-out prompts, and the public benchmarks whose files are named."""
        yield from benchmark_texts(Path(self._own.benchmarks)) if self._own.benchmarks else ()
        for prompt in prompts(self._own.heldout):
            yield "heldout", "\n".join(turn.content for turn in prompt.conversation.turns)

    def generator(self) -> Completer:
        """There is none of its own."""
        raise UserError("generator.model: name the URL of an endpoint, or a weights folder")


@dataclass(frozen=True)
class OwnShards:
    """Token shards and their tokenizer: known by what they hold, wherever they lie."""

    folder: Path
    tokenizer: Path

    @cached_property
    def fingerprint(self) -> str:
        """Of both."""
        return digest("shards/1", bytes_of(self.folder), bytes_of(self.tokenizer))


def bytes_of(path: Path) -> str:
    """What a file or folder holds; shards are known by what they were made of, not read again."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    made_of = path / INPUTS
    if path.is_dir() and not made_of.exists():
        return folder_hash(path)
    return file_hash(made_of if made_of.exists() else path)


def prompts(path: str) -> Iterable[Prompt]:
    """Prompt records, or rows of {"prompt"}. Raises UserError with file:line."""
    return open_records(Path(path), Prompt)
