"""The road on real files: the same stages, on what others wrote and on pairs that people decided.

    documents -> tokenizer -> shards -> pretrain -> continue -> reward -> SFT -> DPO, measured

`walk` reads as the recipe does. A set whose file is not there is left out, and said to be.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field

from flywright.ask import Sampling
from flywright.data.examples import comparison_examples, ranking_examples
from flywright.data.formats import Reading
from flywright.errors import UserError
from flywright.evals.datafiles import NotThere
from flywright.evals.items import Item, mean_by
from flywright.evals.likelihood import CHOICES, bits_per_byte, chance, choose
from flywright.evals.run import ITEMS, RESULTS, evaluate
from flywright.evals.tasks import benchmark_texts, task_named
from flywright.files import digest, file_hash, write_json
from flywright.model import load_decoder, read_spec
from flywright.recipe import files, stages
from flywright.recipe import settings as s
from flywright.recipe.answerers import engine
from flywright.recipe.loop import pretrained
from flywright.recipe.overlap import apart
from flywright.recipe.sources import TextSource
from flywright.recipe.step import Artifact, Road, Work, stage
from flywright.recipe.training import open_tokenizer, rank, regress, supervise
from flywright.records import Comparison, Dialogue, Document, Rating, read_jsonl, write_jsonl
from flywright.settings import Settings
from flywright.stats import bootstrap_mean
from flywright.tokenizer import chat
from flywright.train.passes import Passes
from flywright.train.reference import pair_reference

AnyItem = TypeVar("AnyItem")
TASKS = ("gsm8k", "ifeval")  # answered in words, beside the CHOICES
_METRICS = {"accuracy": "accuracy", "prompt_strict": "instruction_following"}  # the stage table's


class HeldOut(Settings):
    """What is kept from training: by hash, so the same for every seed."""

    texts: float = Field(default=0.02, gt=0, lt=1, description="share of each set's texts")
    kilobytes: int = Field(default=100, gt=0, description="most that is scored of a language")
    pairs: float = Field(default=0.2, gt=0, lt=1, description="share of the first questions")


class DialogueSets(Settings):
    """Dialogues for SFT."""

    sets: dict[files.DialogueForm, str] = Field(description="form -> file")
    most: int = Field(default=2000, gt=0, description="most dialogues of a set")


class Benchmarks(Settings):
    """What every stage is measured on; the first `items` of each, in the order of the files."""

    items: int = Field(default=200, gt=0)
    max_tokens: int = Field(default=128, gt=0)


class FilesSettings(s.RunSettings, s.BaseFromScratch):
    """A recipe with road = "files": which sets, and every stage's settings."""

    road: Literal["files"]
    data: Path = Field(description="the folder that all paths of sets start from")
    texts: dict[str, files.TextSet]
    quizzes: dict[str, str] = Field(description="question-answer rows, for continued training")
    pairs: dict[files.PairForm, str] = Field(description="form -> file; people decided")
    dialogues: DialogueSets
    ratings: str = Field(default="", description="HelpSteer2's rows: regression, not ranking")
    heldout: HeldOut = HeldOut()
    reward: s.Training
    sft: s.Training
    dpo: s.DpoSettings
    benchmarks: Benchmarks = Benchmarks()


class Sets:
    """The files of one table of the recipe, by name; `missing` are those that are not there."""

    def __init__(self, table: str, data: Path, paths: Mapping[Any, str]):
        self._table, self._data = table, data
        self._files = {name: data / path for name, path in paths.items() if (data / path).is_file()}
        self.missing = sorted(f"{table}.{name}" for name in paths if name not in self._files)

    @cached_property
    def fingerprint(self) -> str:
        """Of all files that are there."""
        return digest({name: file_hash(path) for name, path in self._files.items()})

    def items(self) -> Iterable[tuple[str, Path]]:
        """(name, path) of each. Raises UserError where there is none."""
        if not self._files:
            raise UserError(f"{self._data}: no file of [{self._table}] is there; set data=FOLDER")
        return self._files.items()

    def read(self, dropped: Counter[str]) -> Iterator[Reading]:
        """The records of each file, by its form; once read, `dropped` tells what was left out."""
        for form, path in self.items():
            reading = files.read(path, form=form)
            yield reading
            dropped.update({f"{form}: {why}": n for why, n in reading.dropped.items()})


class Files(TextSource):
    """The texts and quizzes of a recipe; texts are split by hash."""

    patterned = True  # training parts of benchmarks

    def __init__(self, recipe: FilesSettings):
        self._recipe = recipe
        paths = {name: of.path for name, of in recipe.texts.items()}
        self._texts = Sets("texts", recipe.data, paths)
        self._quizzes = Sets("quizzes", recipe.data, recipe.quizzes)
        self.missing = [*self._quizzes.missing, *self._texts.missing]
        self.notes = tuple(f"Not there: {name}." for name in self.missing)

    @cached_property
    def fingerprint(self) -> str:
        """Of the files, and of what is taken from them."""
        taken = self._recipe.model_dump(mode="json", include={"texts", "heldout"})
        return digest("files/2", self._texts.fingerprint, self._quizzes.fingerprint, taken)

    @cached_property
    def _split(self) -> tuple[list[Document], list[Document]]:
        """(held-out, training) pieces; no piece of the second is, word for word, in the first."""
        held: list[Document] = []
        rest: list[Document] = []
        for name, path in self._texts.items():
            of = self._recipe.texts[name]
            whole = sorted(files.texts(path, of, name), key=lambda text: text.id)
            count = max(1, round(self._recipe.heldout.texts * len(whole)))
            held += chain.from_iterable(map(files.pieces, whole[:count]))
            size = 0
            for piece in chain.from_iterable(map(files.pieces, whole[count:])):
                size += len(piece.text.encode())
                if size > of.megabytes * 1e6:
                    break
                rest.append(piece)
        keys = {files.key(piece.text) for piece in held}
        return held, [piece for piece in rest if files.key(piece.text) not in keys]

    def documents(self) -> Iterator[Document]:
        """Texts to pretrain on."""
        yield from self._split[1]

    def heldout_texts(self) -> dict[str, list[str]]:
        """Language -> texts, of the languages that the recipe names; the others together."""
        named = {of.language for of in self._recipe.texts.values()}
        pieces = list(self._split[0])
        random.Random(0).shuffle(pieces)  # else a long text would crowd out the others
        found: dict[str, list[str]] = {}
        sizes: Counter[str] = Counter()
        for piece in pieces:
            language = piece.language if piece.language in named else "others"
            if sizes[language] < self._recipe.heldout.kilobytes * 1000 and piece.text.strip():
                sizes[language] += len(piece.text.encode())
                found.setdefault(language, []).append(piece.text)
        return dict(sorted(found.items()))

    def questions(self) -> list[Document]:
        """Question-answer texts of the training parts of benchmarks."""
        sets = self._quizzes.items()
        return [text for name, path in sets for text in files.quizzes(path, name)]

    def measured(self, load: Callable[[Path], Iterator[AnyItem]]) -> list[AnyItem]:
        """A benchmark's first items; none where its file is not there."""
        try:
            return list(islice(load(self._recipe.data), self._recipe.benchmarks.items))
        except NotThere:
            return []

    def benchmark_texts(self) -> Iterator[tuple[str, str]]:
        """(benchmark, text) of all that is measured."""
        yield from benchmark_texts(self._recipe.data)


@stage(version=1)
def gather_pairs(work: Work, settings: HeldOut, people: Sets) -> None:
    """Pairs that people decided, split so that no first question is on both sides."""
    dropped: Counter[str] = Counter()
    sides: tuple[list[Comparison], list[Comparison]] = ([], [])
    for found in people.read(dropped):
        for pair in {pair.id: pair for pair in found}.values():
            sides[files.place(pair.conversation.turns[0].content) < settings.pairs].append(pair)
    for name, pairs in zip(("dpo.jsonl", "heldout.jsonl"), sides, strict=True):
        if not pairs:
            raise UserError(f"{work.name}: no pair for {name}: the sets of [pairs] are too small")
        write_jsonl(work / name, pairs)
    work.items = len(sides[0])
    work.facts = {"dropped": dropped, "heldout": len(sides[1]), "missing": people.missing}


@stage(version=1)
def gather_dialogues(
    work: Work, settings: DialogueSets, talks: Sets, source: Files, pairs: Artifact
) -> None:
    """Dialogues that open with no held-out pair's question and repeat no benchmark item."""
    dropped: Counter[str] = Counter()
    some = (islice(found, settings.most) for found in talks.read(dropped))
    found: list[Dialogue] = list(chain.from_iterable(some))
    heldout = read_jsonl(pairs / "heldout.jsonl", Comparison)
    held = {files.opening(pair.conversation) for pair in heldout}
    others = [talk for talk in found if files.opening(talk.conversation) not in held]
    kept = apart(work, others, source)
    work.items = write_jsonl(work / "dialogues.jsonl", kept)
    dropped["opens as a held-out pair"] = len(found) - len(others)
    work.facts |= {"dropped": dropped, "missing": talks.missing}


@stage(version=2, trains=True)
def train_reward(
    work: Work, settings: s.Training, base: Artifact, pairs: Artifact, ratings: dict[str, str]
) -> None:
    """A reward model on people's pairs (Bradley-Terry), or on ratings; judged on held-out pairs.

    ratings: {path: hash} of a file of ratings, or empty. Pairs that do not fit are left out.
    """
    for path in ratings:
        regress(work, settings, base.weights, files.read(Path(path), Rating))
    if not ratings:
        rank(work, settings, base.weights, read_jsonl(pairs / "dpo.jsonl", Comparison))
    if work.ranks.first:
        tokenizer, longest = open_tokenizer(base.weights), read_spec(base.weights).context_length
        heldout = read_jsonl(pairs / "heldout.jsonl", Comparison)
        fitting = [pair for pair in heldout if ranking_examples([pair], tokenizer, longest).samples]
        work.facts["intervals"] = stages.weigh_reward(work, fitting)


@stage(version=1, trains=True)
def tune(work: Work, settings: s.Training, base: Artifact, talks: Artifact) -> None:
    """SFT on real dialogues."""
    supervise(work, settings, base.weights, read_jsonl(talks / "dialogues.jsonl", Dialogue))


@stage(version=1)
def measure(work: Work, settings: Benchmarks, label: dict, source: Files, policy: Artifact) -> None:
    """One row of the stage table; items that do not fit the context are left out of every row."""
    completer = engine(policy.weights, policy.name)
    room = read_spec(policy.weights).context_length - settings.max_tokens
    items: list[Item] = []
    guessed: dict[str, float] = {}
    for name, load in CHOICES.items():
        if choices := source.measured(load):
            items += asyncio.run(choose(completer, name, choices, work.tick))
            guessed[name] = chance(choices)
    for task in map(task_named, TASKS):
        known = source.measured(task.load)
        sizes = [len(chat.prompt_ids(completer.tokenizer, one.conversation)) for one in known]
        if asked := [one for one, size in zip(known, sizes, strict=True) if size <= room]:
            sampling = Sampling(max_tokens=settings.max_tokens)
            common = {"out": work / task.name, "task": task, "sampling": sampling}
            asyncio.run(evaluate(completer, asked, tick=work.tick, **common))
            for item in read_jsonl(work / task.name / ITEMS, Item):
                if metric := _METRICS.get(item.metric):
                    items.append(item.model_copy(update={"metric": metric}))
    if not items:
        raise UserError(f"{work.name}: no benchmark's file is there, or no item fits")
    metrics = mean_by(items, lambda item: item.metric)
    write_jsonl(work / ITEMS, items)
    write_json(work / RESULTS, {**label, "model": completer.model, "metrics": metrics})
    work.items, work.facts = len(items), {"metrics": metrics, "chance": guessed}


@stage(version=1)
def tabulate(work: Work, settings: Benchmarks, *rows: Artifact) -> None:
    """The benchmarks of all stages beside what guessing scores."""
    said = {row.name.removeprefix("eval-"): row.manifest()["facts"] for row in rows}
    found = {name: facts["metrics"] for name, facts in said.items()}
    work.facts = {**found, "guessing": next(iter(said.values()))["chance"]}


@stage(version=1)
def measure_bits(work: Work, settings: HeldOut, source: Files, *policies: Artifact) -> None:
    """Bits per byte of held-out texts, by language, under every model."""
    texts = source.heldout_texts()
    table: dict[str, dict[str, float]] = {
        name: {"bytes": sum(len(text.encode()) for text in found)} for name, found in texts.items()
    }
    for done, policy in enumerate(policies):
        completer = engine(policy.weights, policy.name)
        for name, found in texts.items():
            table[name][policy.name] = asyncio.run(bits_per_byte(completer, found))
            work.tick(done, len(policies), f"{policy.name}, {name}")
    work.items = sum(map(len, texts.values()))
    work.facts = table


@stage(version=1)
def measure_pairs(
    work: Work, settings: s.Training,
    pairs: Artifact, reward: Artifact, first: Artifact, last: Artifact,
) -> None:  # fmt: skip
    """Held-out pairs: the reward model, the longer answer, and the policy against its reference."""
    heldout = list(read_jsonl(pairs / "heldout.jsonl", Comparison))
    tokenizer, longest = open_tokenizer(last.weights), read_spec(last.weights).context_length
    samples = comparison_examples(heldout, tokenizer, longest, needs_rewards=False).samples
    tokens = settings.train.micro_batch_tokens

    def likelihoods(of: Artifact) -> np.ndarray:
        model = load_decoder(of.weights, torch.float32)
        return pair_reference(Passes([model], tokens), samples, work.tick)

    before, after = likelihoods(first), likelihoods(last)
    gained = (after - before)[:, 0] > (after - before)[:, 1]
    likelier = before[:, 0] > before[:, 1]
    known = reward.manifest()["facts"]["intervals"]
    work.items = len(samples)
    work.facts = {
        "reward model": known["pair_accuracy"],
        "the longer answer": known["length_only"],
        "reward model - the longer": known["gain"],
        "the reference holds it likelier": bootstrap_mean(likelier.tolist()).as_dict(),
        "DPO's margin": bootstrap_mean(gained.tolist()).as_dict(),
        "by set": known["by_kind"],
    }


def walk(road: Road, recipe: FilesSettings) -> Artifact:
    """The whole road; returns the last model."""
    source = Files(recipe)
    people = Sets("pairs", recipe.data, recipe.pairs)
    talks = Sets("dialogues", recipe.data, recipe.dialogues.sets)
    if recipe.ratings and not Path(recipe.ratings).is_file():
        raise UserError(f"ratings = {recipe.ratings}: no such file")
    ratings = {recipe.ratings: file_hash(Path(recipe.ratings))} if recipe.ratings else {}

    def measured(name: str, policy: Artifact) -> Artifact:
        """The policy becomes DIR/policy and gets its row."""
        road.link("policy", policy)
        label = {"turn": 1, "stage": name}
        return road.do(measure, f"eval-{name}", recipe.benchmarks, label, source, policy)

    _, _, first, base = pretrained(road, recipe, source)
    rows = [measured("base", base)]
    pairs = road.do(gather_pairs, "preferences", recipe.heldout, people)
    reward = road.do(train_reward, "reward", recipe.reward, base, pairs, ratings)
    road.link("reward", reward)
    dialogues = road.do(gather_dialogues, "dialogues", recipe.dialogues, talks, source, pairs)
    tuned = road.do(tune, "sft", recipe.sft, base, dialogues)
    rows.append(measured("sft", tuned))
    last = road.do(stages.optimize, "dpo", recipe.dpo, tuned, pairs)
    rows.append(measured("dpo", last))
    road.do(measure_pairs, "pairs", recipe.reward, pairs, reward, tuned, last)
    road.do(measure_bits, "bits", recipe.heldout, source, first, base, tuned, last)
    road.do(tabulate, "benchmarks", recipe.benchmarks, *rows)
    return last
