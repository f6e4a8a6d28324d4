"""The road on real files: the same stages, on what others wrote and on pairs that people decided.

    documents -> tokenizer -> shards -> pretrain -> continue -> reward -> SFT -> DPO, measured

`walk` reads as the recipe does. A set whose file is not there is left out, and said to be.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field

from flywright.ask import Sampling
from flywright.data.examples import comparison_examples
from flywright.errors import UserError
from flywright.evals.items import Item, mean_by
from flywright.evals.likelihood import CHOICES, bits_per_byte, chance, choose
from flywright.evals.pairs import pair_accuracy
from flywright.evals.run import ITEMS, RESULTS, evaluate
from flywright.evals.tasks import benchmark_texts, task_named
from flywright.files import digest, file_hash, write_json
from flywright.model import read_spec
from flywright.recipe import files, stages
from flywright.recipe import settings as s
from flywright.recipe.answerers import engine, load_decoder, reward_scorer
from flywright.recipe.step import Artifact, Road, Work, stage
from flywright.recipe.training import open_tokenizer, rank, regress, supervise
from flywright.records import Comparison, Dialogue, Document, read_jsonl, write_jsonl
from flywright.settings import Settings
from flywright.spec import ModelSpec
from flywright.stats import bootstrap_mean
from flywright.synth.filters import decontaminate
from flywright.tokenizer import chat
from flywright.train.reference import pair_reference
from flywright.train.settings import TrainSettings

AnyItem = TypeVar("AnyItem")
ChoiceName = Literal["arc_easy", "hellaswag", "piqa"]
_METRICS = {"accuracy": "accuracy", "prompt_strict": "instruction_following"}  # the stage table's


class HeldOut(Settings):
    """What is kept from training: by hash, so the same for every seed."""

    texts: float = Field(default=0.02, gt=0, lt=1, description="share of each set's texts")
    kilobytes: int = Field(default=100, gt=0, description="most that is scored of a language")
    pairs: float = Field(default=0.2, gt=0, lt=1, description="share of the first questions")


class Training(Settings):
    """A stage that has nothing to set but its training."""

    train: TrainSettings


class DialogueSets(Settings):
    """Dialogues for SFT."""

    sets: dict[files.DialogueForm, str] = Field(description="form -> file")
    most: int = Field(default=2000, gt=0, description="most dialogues of a set")


class Benchmarks(Settings):
    """What every stage is measured on; the first `items` of each, in the order of the files."""

    choices: tuple[ChoiceName, ...] = ("arc_easy", "hellaswag", "piqa")
    tasks: tuple[str, ...] = ("gsm8k", "ifeval")
    items: int = Field(default=200, gt=0)
    max_tokens: int = Field(default=128, gt=0)


class FilesSettings(Settings):
    """A recipe with road = "files": which sets, and every stage's settings."""

    road: Literal["files"]
    name: str
    seed: int = 1
    data: Path = Field(description="the folder that all paths of sets start from")
    notes: list[str] = Field(default=[], description="what the report has to say of this run")
    texts: dict[str, files.TextSet]
    quizzes: dict[str, str] = Field(description="question-answer rows, for continued training")
    pairs: dict[files.PairForm, str] = Field(description="form -> file; people decided")
    dialogues: DialogueSets
    ratings: str = Field(default="", description="HelpSteer2's rows: regression, not ranking")
    heldout: HeldOut = HeldOut()
    model: ModelSpec
    documents: s.DocumentSettings
    pretrain: s.PretrainSettings
    continued: s.PretrainSettings
    reward: Training
    sft: Training
    dpo: s.DpoSettings
    benchmarks: Benchmarks = Benchmarks()


class Files:
    """The sets of a recipe as the records of the first stages; each is split by hash."""

    def __init__(self, recipe: FilesSettings, *only: str):
        self._recipe = recipe
        tables: dict[str, Mapping[Any, str]] = {
            "texts": {name: of.path for name, of in recipe.texts.items()},
            "quizzes": recipe.quizzes,
            "pairs": recipe.pairs,
            "dialogues": recipe.dialogues.sets,
        }
        self.paths = {
            f"{table}.{name}": recipe.data / path
            for table in only or tables
            for name, path in tables[table].items()
        }
        self.missing = sorted(name for name, path in self.paths.items() if not path.is_file())
        self.notes = (*recipe.notes, *(f"Not there: {name}." for name in self.missing))

    @cached_property
    def fingerprint(self) -> str:
        """Of all files that are there, and of what is taken from them."""
        present = {n: file_hash(p) for n, p in self.paths.items() if n not in self.missing}
        taken = self._recipe.model_dump(mode="json", include={"texts", "heldout", "notes"})
        return digest("files/1", present, taken)

    def present(self, table: str) -> dict[str, Path]:
        """Name -> path of a table's sets that are there. Raises UserError where there is none."""
        found = {
            name.removeprefix(f"{table}."): path
            for name, path in self.paths.items()
            if name.startswith(f"{table}.") and name not in self.missing
        }
        if not found:
            raise UserError(f"{self._recipe.data}: no file of [{table}] is there; set data=FOLDER")
        return found

    @cached_property
    def _split(self) -> tuple[list[Document], list[Document]]:
        """(held-out, training) pieces; no piece of the second is, word for word, in the first."""
        held: list[Document] = []
        rest: list[Document] = []
        for name, path in self.present("texts").items():
            of = self._recipe.texts[name]
            whole = sorted(files.texts(path, of, name), key=lambda text: text.id)
            count = max(1, round(self._recipe.heldout.texts * len(whole)))
            held += chain.from_iterable(map(_cut, whole[:count]))
            size = 0
            for piece in chain.from_iterable(map(_cut, whole[count:])):
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
        sets = self.present("quizzes").items()
        return [text for name, path in sets for text in files.quizzes(path, name)]

    def measured(self, load: Callable[[Path], Iterator[AnyItem]]) -> list[AnyItem]:
        """A benchmark's first items; none where its file is not there."""
        try:
            return list(islice(load(self._recipe.data), self._recipe.benchmarks.items))
        except UserError as error:
            if "found neither" in str(error):
                return []
            raise

    def benchmark_texts(self) -> Iterator[tuple[str, str]]:
        """(benchmark, text) of all that is measured."""
        yield from benchmark_texts(self._recipe.data)
        for name in self._recipe.benchmarks.choices:
            for item in self.measured(CHOICES[name]):
                yield name, item.context.removeprefix("Question: ").removesuffix("\nAnswer:")


def _cut(document: Document) -> Iterator[Document]:
    for text in files.pieces(document.text):
        yield document.model_copy(update={"text": text})


@stage(version=1)
def gather_pairs(work: Work, settings: HeldOut, source: Files) -> None:
    """Pairs that people decided, split so that no first question is on both sides."""
    dropped: Counter[str] = Counter()
    sides: tuple[list[Comparison], list[Comparison]] = ([], [])
    for form, path in source.present("pairs").items():
        for pair in {pair.id: pair for pair in files.pairs(form, path, dropped)}.values():
            place = int(files.opening(pair.conversation)[:8], 16) / 16**8
            sides[place < settings.pairs].append(pair)
    for name, pairs in zip(("dpo.jsonl", "heldout.jsonl"), sides, strict=True):
        if not pairs:
            raise UserError(f"{work.name}: no pair for {name}: the sets of [pairs] are too small")
        write_jsonl(work / name, pairs)
    work.items = len(sides[0])
    work.facts = {"dropped": dropped, "heldout": len(sides[1]), "missing": source.missing}


@stage(version=1)
def gather_dialogues(work: Work, settings: DialogueSets, source: Files, pairs: Artifact) -> None:
    """Dialogues that open with no held-out pair's question and repeat no benchmark item."""
    dropped: Counter[str] = Counter()
    found: list[Dialogue] = []
    for form, path in source.present("dialogues").items():
        found += islice(files.dialogues(form, path, dropped), settings.most)
    held = {
        files.opening(pair.conversation) for pair in read_jsonl(pairs / "heldout.jsonl", Comparison)
    }
    apart = [talk for talk in found if files.opening(talk.conversation) not in held]
    kept, hits = decontaminate(apart, source.benchmark_texts())
    work.items = write_jsonl(work / "dialogues.jsonl", kept)
    dropped["opens as a held-out pair"] = len(found) - len(apart)
    work.facts = {"dropped": dropped, "contaminated": len(hits), "missing": source.missing}


def fitting(policy: Artifact, pairs: Artifact) -> list[Comparison]:
    """The held-out pairs that fit the policy's context."""
    tokenizer, longest = open_tokenizer(policy.weights), read_spec(policy.weights).context_length

    def length(pair: Comparison) -> int:
        answered = (pair.conversation.answered(text) for text in (pair.chosen, pair.rejected))
        return max(len(chat.reward_ids(tokenizer, each)) for each in answered)

    heldout = read_jsonl(pairs / "heldout.jsonl", Comparison)
    return [pair for pair in heldout if length(pair) <= longest]


@stage(version=1)
def train_reward(
    work: Work, settings: Training, base: Artifact, pairs: Artifact, ratings: dict[str, str]
) -> None:
    """A reward model on people's pairs (Bradley-Terry), or on ratings; judged on held-out pairs.

    ratings: {path: hash} of a file of ratings, or empty.
    """
    for path in ratings:
        regress(work, settings.train, base.weights, files.ratings(Path(path)))
    if not ratings:
        rank(work, settings.train, base.weights, read_jsonl(pairs / "dpo.jsonl", Comparison))
    heldout = fitting(base, pairs)
    found = asyncio.run(pair_accuracy(reward_scorer(work / "weights"), heldout, work.tick))
    means = {name: found[name]["mean"] for name in ("pair_accuracy", "length_only")}
    work.facts |= {**found, "intervals": found, **means, "pairs": len(heldout)}


@stage(version=1)
def tune(work: Work, settings: Training, base: Artifact, talks: Artifact) -> None:
    """SFT on real dialogues."""
    records = read_jsonl(talks / "dialogues.jsonl", Dialogue)
    supervise(work, settings.train, base.weights, records)


@stage(version=1)
def measure(work: Work, settings: Benchmarks, label: dict, source: Files, policy: Artifact) -> None:
    """One row of the stage table; items that do not fit the context are left out of every row."""
    completer = engine(policy.weights, policy.name)
    room = read_spec(policy.weights).context_length - settings.max_tokens
    items: list[Item] = []
    guessed: dict[str, float] = {}
    for name in settings.choices:
        if choices := source.measured(CHOICES[name]):
            items += asyncio.run(choose(completer, name, choices, work.tick))
            guessed[name] = chance(choices)
    for task in map(task_named, settings.tasks):
        known = source.measured(task.load)
        sizes = [len(chat.prompt_ids(completer.tokenizer, one.conversation)) for one in known]
        if asked := [one for one, size in zip(known, sizes, strict=True) if size <= room]:
            sampling = Sampling(max_tokens=settings.max_tokens)
            common = {"out": work / task.name, "task": task, "sampling": sampling}
            asyncio.run(evaluate(completer, asked, tick=work.tick, **common))
            found = read_jsonl(work / task.name / ITEMS, Item)
            items += [
                item.model_copy(update={"metric": _METRICS[item.metric]})
                for item in found
                if item.metric in _METRICS
            ]
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
    sizes = {name: sum(len(text.encode()) for text in found) for name, found in texts.items()}
    table: dict[str, dict[str, float]] = {name: {"bytes": sizes[name]} for name in texts}
    for done, policy in enumerate(policies):
        completer = engine(policy.weights, policy.name)
        for name, found in texts.items():
            table[name][policy.name] = asyncio.run(bits_per_byte(completer, found))
            work.tick(done, len(policies), f"{policy.name}, {name}")
    work.items = sum(map(len, texts.values()))
    work.facts = table


@stage(version=1)
def measure_pairs(
    work: Work,
    settings: Training,
    pairs: Artifact,
    reward: Artifact,
    first: Artifact,
    last: Artifact,
) -> None:
    """Held-out pairs: the reward model, the longer answer, and the policy against its reference."""
    heldout = fitting(last, pairs)
    tokenizer, longest = open_tokenizer(last.weights), read_spec(last.weights).context_length
    samples = comparison_examples(heldout, tokenizer, longest, needs_rewards=False).samples
    tokens = settings.train.micro_batch_tokens
    before, after = (
        pair_reference(load_decoder(each.weights, torch.float32), samples, tokens, work.tick)
        for each in (first, last)
    )
    gained = (after - before)[:, 0] > (after - before)[:, 1]
    likelier = before[:, 0] > before[:, 1]
    table = {"the reference holds it likelier": likelier, "DPO's margin": gained}
    known = reward.manifest()["facts"]["intervals"]
    work.items = len(heldout)
    work.facts = {
        "reward model": known["pair_accuracy"],
        "the longer answer": known["length_only"],
        "reward model - the longer": known["gain"],
        **{
            name: bootstrap_mean(right.astype(float).tolist()).as_dict()
            for name, right in table.items()
        },
        "by set": known["by_kind"],
    }


def walk(road: Road, recipe: FilesSettings) -> Artifact:
    """The whole road; returns the last model."""
    texts, talks = Files(recipe, "texts", "quizzes"), Files(recipe, "pairs", "dialogues")
    documents = road.do(stages.gather_documents, "documents", recipe.documents, texts)
    tokenizer = road.do(stages.make_tokenizer, "tokenizer", recipe.documents, documents)
    shards = road.do(stages.make_shards, "shards", recipe.documents, documents, tokenizer)
    shape = recipe.model.model_dump(mode="json")
    first = road.do(stages.pretrain, "pretrain", recipe.pretrain, shape, tokenizer, shards)
    base = road.do(stages.continue_pretraining, "continue", recipe.continued, first, shards)
    rows = [measured(road, recipe, "base", base)]
    pairs = road.do(gather_pairs, "preferences", recipe.heldout, talks)
    if recipe.ratings and not Path(recipe.ratings).is_file():
        raise UserError(f"ratings = {recipe.ratings}: no such file")
    ratings = {recipe.ratings: file_hash(Path(recipe.ratings))} if recipe.ratings else {}
    reward = road.do(train_reward, "reward", recipe.reward, base, pairs, ratings)
    road.link("reward", reward)
    dialogues = road.do(gather_dialogues, "dialogues", recipe.dialogues, talks, pairs)
    tuned = road.do(tune, "sft", recipe.sft, base, dialogues)
    rows.append(measured(road, recipe, "sft", tuned))
    last = road.do(stages.optimize_directly, "dpo", recipe.dpo, tuned, pairs)
    rows.append(measured(road, recipe, "dpo", last))
    road.do(measure_pairs, "pairs", recipe.reward, pairs, reward, tuned, last)
    road.do(measure_bits, "bits", recipe.heldout, texts, first, base, tuned, last)
    road.do(tabulate, "benchmarks", recipe.benchmarks, *rows)
    return last


def measured(road: Road, recipe: FilesSettings, name: str, policy: Artifact) -> Artifact:
    """The policy becomes DIR/policy and gets its row."""
    road.link("policy", policy)
    label = {"turn": 1, "stage": name}
    source = Files(recipe, "texts")
    return road.do(measure, f"eval-{name}", recipe.benchmarks, label, source, policy)
