"""Multiple choice by log-likelihood: MMLU, ARC, HellaSwag, Winogrande and their like (SPEC 4).

Nothing is generated: the choice that the model holds likeliest after the question is its answer.
"acc" takes the sum of log-probabilities, "acc_norm" divides it by the choice's characters; of equal
ones the first. Prompts are lm-evaluation-harness's, byte for byte; a new benchmark
is a row of prompts/base.toml.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from flywright.ask import gather
from flywright.data.rows import Row, read_lines, read_rows
from flywright.errors import UserError
from flywright.evals.datafiles import NotThere, field, find, problem, read_from
from flywright.evals.items import Item, Metrics, Task, Who, item_of, mean_by
from flywright.evals.shots import before, drawer, fixed
from flywright.records import Check, Prompt
from flywright.sandbox import Sandbox


@dataclass(frozen=True)
class Choice:
    """What may follow what: choice i is `follows[i]` after `asked[i]`; `gold` is the right one.

    words: the problem's own. options: the choices as people read them, and by which length
    acc_norm divides. split: the subject or the language.
    """

    id: str
    words: str
    asked: tuple[str, ...]
    options: tuple[str, ...]
    gold: int
    split: str = ""
    follows: tuple[str, ...] = ()

    @classmethod
    def plain(
        cls,
        name: Any,
        asked: str,
        options: Sequence[str],
        gold: Any,
        words: str = "",
        split: str = "",
    ) -> "Choice":
        """One question, and answers that follow it after a blank."""
        contexts, follows = (asked,) * len(options), tuple(f" {option}" for option in options)
        shown = words or asked
        return cls(str(name), shown, contexts, tuple(options), int(gold), split, follows)

    @property
    def solved(self) -> str:
        """As a few-shot example."""
        return self.asked[self.gold] + self.follows[self.gold]


METRICS = ["acc", "acc_norm"]


def _answers(path: Path, row: Row) -> tuple[list[str], int]:
    """(choices, place of the right one) of {choices: [..], gold}, or as AI2 and the hub have it."""
    choices = field(path, row, "choices")
    if isinstance(choices, dict):
        labels, choices = choices["label"], choices["text"]
    elif choices and isinstance(choices[0], dict):
        labels, choices = [one["label"] for one in choices], [one["text"] for one in choices]
    else:
        return choices, int(field(path, row, "gold"))
    return choices, labels.index(field(path, row, "answerKey").strip())


def _science(form: str, path: Path) -> Iterator[Choice]:
    """ARC and OpenBookQA."""
    for number, row in enumerate(read_rows(path)):
        name = "question" if "question" in row else "question_stem"
        text, (options, gold) = field(path, row, name), _answers(path, row)
        yield Choice.plain(row.get("id", number), form.format(text), options, gold, words=text)


def _piqa(_form: str, path: Path) -> Iterator[Choice]:
    for number, row in enumerate(read_rows(path)):
        goal, options = field(path, row, "goal"), [field(path, row, f"sol{n}") for n in (1, 2)]
        asked = f"Question: {goal}\nAnswer:"
        yield Choice.plain(number, asked, options, field(path, row, "label"), words=goal)


def _boolq(_form: str, path: Path) -> Iterator[Choice]:
    for number, row in enumerate(read_rows(path)):
        if "query" in row:  # asked already, with the choices in an order of its own
            asked, right = row["query"], row["choices"][row["gold"]] == "yes"
        else:
            passage, question = field(path, row, "passage"), field(path, row, "question")
            asked = f"{passage}\nQuestion: {question}?\nAnswer:"
            right = bool(row["label"] if "label" in row else field(path, row, "answer"))
        yield Choice.plain(number, asked, ("no", "yes"), right)


def _siqa(_form: str, path: Path) -> Iterator[Choice]:
    for number, row in enumerate(read_rows(path)):
        asked = f"Q: {field(path, row, 'context')} {field(path, row, 'question')}\nA:"
        options = [field(path, row, f"answer{letter}") for letter in "ABC"]
        yield Choice.plain(number, asked, options, int(field(path, row, "label")) - 1)


def _cleaned(text: str) -> str:
    """HellaSwag's WikiHow part without its marks."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _hellaswag(_form: str, path: Path) -> Iterator[Choice]:
    """The official JSON lines; or as text, six lines an item: context, right one, four endings."""
    if ".txt" in path.name:
        rows = zip(*[read_lines(path)] * 6, strict=False)
        found = ((number, *row) for number, row in enumerate(rows))
    else:
        found = (
            (
                row.get("ind", number),
                f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}",
                field(path, row, "label"),
                *field(path, row, "endings"),
            )
            for number, row in enumerate(read_rows(path))
        )
    for name, context, right, *endings in found:
        yield Choice.plain(name, _cleaned(context), [_cleaned(one) for one in endings], right)


def _winogrande(_form: str, path: Path) -> Iterator[Choice]:
    """The same words after either name."""
    for number, row in enumerate(read_rows(path)):
        sentence, right = field(path, row, "sentence"), int(field(path, row, "answer")) - 1
        head, _, tail = sentence.partition("_")
        asked = tuple(head + field(path, row, f"option{n}") for n in (1, 2))
        name, follows = str(row.get("qID", number)), (f" {tail.strip()}",) * 2
        yield Choice(name, sentence, asked, asked, right, follows=follows)


def _mmlu(which: str, _form: str, path: Path) -> Iterator[Choice]:
    """SUBJECT_test.csv of the authors' archive, packed or unpacked; or the hub's rows."""
    if ".jsonl" in path.name:
        rows = read_rows(read_from(path.with_name(path.name.replace("_test", f"_{which}"))))
        for split, group in groupby(rows, lambda row: row["subject"]):
            for number, row in enumerate(group):
                yield _question(split, number, row["question"], row["choices"], row["answer"])
        return
    for name, stream in _tables(path, f"_{which}.csv"):
        for number, (question, *options, right) in enumerate(csv.reader(stream)):
            yield _question(name, number, question, options, "ABCD".index(right.strip()))


def _question(split: str, number: int, text: str, options: Sequence[str], gold: int) -> Choice:
    listed = "".join(f"\n{a}. {option}" for a, option in zip("ABCD", options, strict=True))
    words = f"{text.strip()}{listed}"
    return Choice.plain(f"{split}/{number}", f"{words}\nAnswer:", "ABCD", gold, words, split)


def _tables(path: Path, ending: str) -> Iterator[tuple[str, io.TextIOBase]]:
    """(subject, text) of every table with that ending, in the subjects' order."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in sorted(name for name in archive.namelist() if name.endswith(ending)):
                text = io.TextIOWrapper(archive.open(name), "utf-8", newline="")
                yield name.rpartition("/")[2].removesuffix(ending), text
        return
    for one in sorted(path.parent.parent.rglob(f"*{ending}")):
        with read_from(one).open(encoding="utf-8", newline="") as stream:
            yield one.name.removesuffix(ending), stream


def _mmlu_categories(items: Sequence[Item]) -> Metrics:
    """acc_stem, acc_humanities, ...: the means over the questions of a category's subjects."""
    of = {subject: name for name, subjects in fixed("mmlu").items() for subject in subjects}
    return mean_by((one for one in items if one.split in of), lambda i: f"acc_{of[i.split]}")


def _xcopa(_form: str, path: Path) -> Iterator[Choice]:
    """test.LANGUAGE.jsonl of every language: {premise, choice1, choice2, question, label}."""
    for one in sorted(path.parent.glob(path.name.replace("et", "*", 1))):
        language = one.name.split(".")[1]
        words = fixed("languages")["xcopa"].get(language)
        for number, row in enumerate(read_rows(read_from(one)) if words else ()):
            asked = f"{field(one, row, 'premise').strip()[:-1]} {words[row['question']]}"
            options = [field(one, row, f"choice{n}") for n in (1, 2)]
            options = [option[0].lower() + option[1:] for option in options]
            more = {"words": row["premise"], "split": language}
            yield Choice.plain(f"{language}/{number}", asked, options, row["label"], **more)


READ: dict[str, Callable[[str, Path], Iterator[Choice]]] = {
    "boolq": _boolq,
    "hellaswag": _hellaswag,
    "mmlu": partial(_mmlu, "test"),
    "mmlu_dev": partial(_mmlu, "dev"),
    "piqa": _piqa,
    "science": _science,
    "siqa": _siqa,
    "winogrande": _winogrande,
    "xcopa": _xcopa,
}


def documents(name: str, path: Path) -> Iterator[Choice]:
    """The benchmark's documents, in its file's order."""
    row = fixed("base")["choice"][name]
    yield from READ[row["read"]](row.get("form", "{}"), find(path, row["folder"], *row["files"]))


def load(name: str, path: Path, shots: int) -> Iterator[Prompt]:
    """The benchmark's documents as prompts, each with its examples."""
    row, found = fixed("base")["choice"][name], list(documents(name, path))
    file = find(path, row["folder"], *row["files"])
    pool = _examples(row, file, found) if shots else []
    for split, group in groupby(found, lambda one: one.split):
        solved = [one.solved for one in pool if one.split == split]
        draw = drawer(solved, shots)
        about = row.get("about", "").format(split.replace("_", " "))
        for one in group:
            own = "\n".join((*one.asked, *one.follows))
            examples = solved[:shots] if row.get("first") else draw(own, one.solved)
            yield _prompt(name, one, before(examples, about), row)


def _examples(row: Row, file: Path, found: list[Choice]) -> list[Choice]:
    """The documents that examples are taken from: their file's, else the scored ones."""
    if "examples" not in row and "read_examples" not in row:
        return found
    read = partial(READ[row.get("read_examples", row["read"])], row.get("form", "{}"))
    with suppress(NotThere):
        names = row.get("examples", row["files"])
        return list(read(find(file.parent, row["folder"], *names)))
    return found


def _prompt(name: str, one: Choice, start: str, row: Row) -> Prompt:
    grouped = groupby(zip(one.asked, one.follows, strict=True), lambda both: both[0])
    asks = [[start + asked, [follows for _, follows in group]] for asked, group in grouped]
    args = {"asks": asks, "options": list(one.options), "gold": one.gold}
    check = Check(kind="likelihood", args=args | {"metrics": row.get("metrics", METRICS)})
    prompt = problem(name, f"{name}/{one.id}", one.words, check)
    return prompt.model_copy(update={"split": one.split}) if one.split else prompt


async def ask(prompt: Prompt, who: Who) -> str:
    """The choices' log-likelihoods, as JSON."""
    asks = prompt.checks[0].args["asks"]
    found = await gather(lambda one: who.asked.logprobs(one[0], one[1]), asks, len(asks))
    return json.dumps([value for values in found for value in values])


async def score(prompt: Prompt, answer: str, _sandbox: Sandbox | None) -> list[Item]:
    """An item a metric, 1 or 0; an answer that could not be had (too long) is wrong."""
    args = prompt.checks[0].args
    options, truth = args["options"], args["options"][args["gold"]]
    likely = _likely(prompt.id, answer, len(options)) if answer else []
    weights = {"acc": [1] * len(options), "acc_norm": [len(option) for option in options]}
    items = []
    for number, metric in enumerate(args["metrics"]):
        scores = [ll / max(n, 1) for ll, n in zip(likely, weights[metric], strict=bool(answer))]
        best = scores.index(max(scores)) if scores else -1
        more = {"truth": truth, "detail": options[best] if scores else "no answer"}
        items.append(
            item_of(prompt, metric, float(best == args["gold"]), "" if number else answer, **more)
        )
    return items


def _likely(name: str, answer: str, count: int) -> list[float]:
    """The log-likelihoods of an answer. Raises UserError where it holds something else."""
    with suppress(ValueError):
        found = json.loads(answer)
        if isinstance(found, list) and len(found) == count:
            return [float(value) for value in found]
    raise UserError(f"{name}: {count} log-likelihoods are wanted as JSON, not {answer[:60]!r}")


def _task(name: str, row: Row) -> Task:
    """A row of prompts/base.toml as a Task."""
    shots, metrics = row.get("shots", 0), row.get("metrics", METRICS)
    how = f"log-likelihood of the choices, {' and '.join(metrics)}; {row['protocol']}"
    summary = _mmlu_categories if name == "mmlu" else None
    more: dict[str, Any] = {"ask": ask, "summary": summary, "shots": shots, "protocol": how}
    return Task(name, partial(load, name, shots=shots), score, **more)


TASKS = tuple(_task(name, row) for name, row in fixed("base")["choice"].items())
