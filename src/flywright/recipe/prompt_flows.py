"""The flows that make prompts, each alone: `flywright synth open_qa SETTINGS.toml` (SPEC 6.2-6.5).

With a folder for `out`, a flow reads what the others left there: topics.jsonl, open_qa.jsonl ...
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flywright.ask import Scorer
from flywright.data.rows import read_lines, read_rows
from flywright.errors import UserError
from flywright.files import seed_from, write_json
from flywright.records import Dialogue, Document, Prompt, read_jsonl, write_jsonl
from flywright.settings import Settings
from flywright.synth import Maker, filters, keywords, prompts, real, topics
from flywright.synth.dialogues import two_turn
from flywright.synth.diversity import Novelty
from flywright.synth.instructions import instructed, revised

PLAIN = ("open_qa", "writing", "closed_qa", "math", "coding")
ALL = (*PLAIN, "instructions", "two_turn", "real")
_NAMED = ("text", "code", "content", "name", "title")  # the field of a row that is read


class PromptFlowSettings(Settings):
    """What the prompt flows read, and how many prompts they stop at; 0 = no limit."""

    topic_file: Path | None = Field(default=None, description="more topics: lines, or JSONL")
    documents: Path | None = Field(default=None, description="closed Q&A: JSONL with text")
    math_names: Path | None = Field(default=None, description="names to sort into mathematics")
    python_names: Path | None = Field(default=None, description="names to sort into programming")
    code: Path | None = Field(default=None, description="Python to mine: a folder, or JSONL")
    code_files: int = Field(default=2, ge=1, description="least texts that a mined name is in")
    chats: Path | None = Field(default=None, description="two_turn: ShareGPT-like rows")
    logs: Path | None = Field(default=None, description="real: LMSYS-like rows, with moderation")
    most_topics: int = Field(default=0, ge=0)
    most_math: int = Field(default=0, ge=0, description="topics of all school levels together")
    most_python: int = Field(default=0, ge=0, description="topics of programming")
    most: int = Field(default=0, ge=0, description="documents, rows or prompts read")
    rounds: int = Field(default=3, ge=1, description="times a list is asked for, copies put aside")
    instruction_forms: tuple[Literal["single", "lasting", "revise"], ...] = (
        "single",
        "lasting",
        "revise",
    )
    preference_share: float = Field(default=0.5, gt=0, lt=1)
    balanced: int = Field(default=0, ge=0, description="split: prompts a side, sources in turn")
    rated: int = Field(default=200, ge=1, description="difficulty: prompts of each source")


@dataclass(frozen=True)
class Given:
    """What a flow works with: the folder of `out`, `data`, `topics`, and who rates answers."""

    folder: Path
    data: Path | None
    topics: Sequence[str]
    scorer: Callable[[], Scorer | None]
    own: PromptFlowSettings

    def prompts(self, *names: str) -> list[Prompt]:
        """Of `data`, or of the flows `names`. Raises UserError where there are none."""
        made = [self.folder / f"{name}.jsonl" for name in names]
        files = [self.data] if self.data else [path for path in made if path.exists()]
        if not files:
            needed = f"data = FILE, or {' or '.join(names)} run into the same folder before it"
            raise UserError(f"{self.folder}: this flow needs {needed}")
        found = (prompt for path in files for prompt in read_jsonl(path, Prompt))
        return list(islice(found, self.own.most or None))


def _texts(path: Path | None) -> Iterator[str]:
    """The lines of a text file, or a text of each row; of a folder its Python files."""
    if path is None:
        return
    if path.is_dir():
        yield from (each.read_text(errors="replace") for each in sorted(path.rglob("*.py")))
    elif not {".json", ".jsonl"} & set(path.suffixes):
        yield from (line.strip() for line in read_lines(path) if line.strip())
    else:
        rows = (
            next((row[name] for name in _NAMED if row.get(name)), "") for row in read_rows(path)
        )
        yield from (text for text in rows if text)


def _novelty(maker: Maker, given: Given) -> Novelty:
    return Novelty(maker.settings.near_duplicate, given.own.rounds)


async def make_topics(maker: Maker, given: Given) -> list[Document]:
    """Topics, the given ones among them."""
    found = await topics.topics(maker, [*given.topics, *_texts(given.own.topic_file)])
    named = topics.merged(given.topics, found)[: given.own.most_topics or None]
    return [Document(text=topic, source="topics") for topic in named]


async def _subjects(maker: Maker, given: Given) -> list[str]:
    """The topics that were made before, or new ones."""
    path = given.folder / "topics.jsonl"
    made = read_jsonl(path, Document) if path.exists() else await make_topics(maker, given)
    return [topic.text for topic in made]


async def open_qa(maker: Maker, given: Given) -> list[Prompt]:
    """Questions on the topics, and their revisions."""
    subjects = await _subjects(maker, given)
    return await prompts.open_qa(maker, subjects, _novelty(maker, given))


async def writing(maker: Maker, given: Given) -> list[Prompt]:
    """Writing tasks on the topics by kind of text, and their revisions."""
    subjects = await _subjects(maker, given)
    return await prompts.writing(maker, subjects, _novelty(maker, given))


async def closed_qa(maker: Maker, given: Given) -> list[Prompt]:
    """Questions on documents; a document that is (nearly) there already is passed over."""
    path = given.own.documents or given.data
    if path is None:
        raise UserError("closed_qa: needs prompts.documents = FILE, JSONL rows with a text")
    texts = islice(_texts(path), given.own.most or None)
    characters = maker.settings.document_characters
    cut = [Document(text=prompts.cut(text, characters), source=path.name) for text in texts]
    kept, copies = filters.near(filters.exact(cut)[0], maker.settings.near_duplicate)
    write_jsonl(given.folder / "documents" / path.name.replace("/", "-"), kept)  # for trace
    maker.counts["documents"] = {"in": len(cut), "kept": len(kept), "near copies": len(copies)}
    return await prompts.closed_qa(maker, kept)


async def math(maker: Maker, given: Given) -> list[Prompt]:
    """Mathematics by school level, on topics and on names that a model finds to belong there."""
    named = await keywords.classified(maker, "math", list(_texts(given.own.math_names)))
    return await prompts.math(maker, named, _novelty(maker, given), given.own.most_math)


async def coding(maker: Maker, given: Given) -> list[Prompt]:
    """Python by difficulty, on topics, sorted names, and names mined from code."""
    own = given.own
    mined = keywords.mined(_texts(own.code), own.code_files)
    named = await keywords.classified(maker, "python", list(_texts(own.python_names)))
    maker.counts["mined"] = {"names": len(mined)}
    known = topics.merged(named, mined)
    return await prompts.coding(maker, known, _novelty(maker, given), own.most_python)


async def instructions(
    maker: Maker, given: Given, found: Sequence[Prompt] | None = None
) -> list[Prompt]:
    """Verifiable instructions on prompts, each in one of the forms, drawn by its id."""
    parts: dict[str, list[Prompt]] = {form: [] for form in given.own.instruction_forms}
    for prompt in given.prompts(*PLAIN) if found is None else found:
        drawn = seed_from(maker.seed, "form", prompt.id) % len(parts)
        parts[list(parts)[drawn]].append(prompt)
    settings, seed = maker.settings, maker.seed
    return [
        *instructed(parts.get("single", []), settings, seed),
        *instructed(parts.get("lasting", []), settings, seed, lasting=True),
        *await revised(maker, parts.get("revise", [])),
    ]


def _first_turns(maker: Maker, given: Given, path: Path, source: str) -> list[Prompt]:
    """Of the rows of a file, each text once; the rows left out are counted."""
    rows = islice(read_rows(path), given.own.most or None)
    found, left = real.first_turns(rows, source)
    kept, copies = filters.near(filters.exact(found)[0], maker.settings.near_duplicate)
    flagged = sum(bool(prompt.lineage.scores) for prompt in kept)
    told = {"out": len(kept), "near copies": len(copies), "flagged": flagged}
    maker.counts[f"{source} rows"] = {"in": len(found) + sum(left.values()), **told, **left}
    if not kept:
        raise UserError(f"{path}: no prompt in its rows: {left}")
    return kept


async def make_two_turn(maker: Maker, given: Given) -> list[Prompt]:
    """User, assistant, user: on the first turns of chats, or on prompts of the other flows."""
    chats = given.own.chats
    asked = _first_turns(maker, given, chats, "sharegpt") if chats else given.prompts(*PLAIN)
    return await two_turn(maker, asked)


async def read_real(maker: Maker, given: Given) -> list[Prompt]:
    """What people asked, with a mark on what was flagged as unsafe."""
    if given.own.logs is None:
        raise UserError("real: needs prompts.logs = FILE, rows of conversations")
    return _first_turns(maker, given, given.own.logs, "real")


async def split(maker: Maker, given: Given) -> list[Prompt]:
    """sft.jsonl and preference.jsonl in the folder: disjoint, the sources in a balanced ratio."""
    share, near = given.own.preference_share, maker.settings.near_duplicate
    sides = prompts.split(given.prompts(*ALL), share, maker.seed, near)
    written = []
    for name, side in zip(("sft", "preference"), sides, strict=True):
        groups = [
            [p for p in side if p.task == task] for task in dict.fromkeys(p.task for p in side)
        ]
        some = prompts.mix(groups, given.own.balanced or len(side), maker.seed)
        write_jsonl(given.folder / f"{name}.jsonl", some)
        maker.counts[name] = dict(Counter(prompt.task for prompt in some))
        maker.counts[name]["flagged"] = sum(prompts.UNSAFE in p.lineage.scores for p in some)
        written += [
            p.model_copy(update={"lineage": filters.noted(p.lineage, f"for {name}")}) for p in some
        ]
    return written


async def difficulty(maker: Maker, given: Given) -> list[Dialogue]:
    """One model's greedy answers by source, and difficulty.json: their mean helpfulness."""
    scorer = given.scorer()
    if scorer is None:
        raise UserError("difficulty: needs reward = a reward model's folder or a server")
    by_source: dict[str, list[Prompt]] = {}
    for prompt in given.prompts(*ALL):
        by_source.setdefault(prompt.task, []).append(prompt)
    some = [prompt for group in by_source.values() for prompt in group[: given.own.rated]]
    answers = await real.rated(maker, some, scorer)
    write_json(given.folder / "difficulty.json", real.difficulty(answers))
    return answers


READ: dict[str, tuple[str, ...]] = {  # what a flow reads of what the others left
    **dict.fromkeys(("open_qa", "writing"), ("topics",)),
    **dict.fromkeys(("instructions", "two_turn"), PLAIN),
    **dict.fromkeys(("split", "difficulty"), ALL),
}
PROMPT_FLOWS: dict[str, Callable[[Maker, Given], Awaitable[list[Any]]]] = {
    "topics": make_topics,
    "open_qa": open_qa,
    "writing": writing,
    "closed_qa": closed_qa,
    "math": math,
    "coding": coding,
    "instructions": instructions,
    "two_turn": make_two_turn,
    "real": read_real,
    "split": split,
    "difficulty": difficulty,
}
