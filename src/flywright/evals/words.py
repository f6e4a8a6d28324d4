"""Problems answered in words after solved examples: GSM8K, BBH, MATH, MGSM, TyDiQA (SPEC 4, 10.1).

The model goes on from a raw text; patterns take the answer from what it wrote. Prompts, stops and
patterns are lm-evaluation-harness's, byte for byte; a new benchmark is a row of
prompts/base.toml.
"""

import ast
import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, repeat
from pathlib import Path
from typing import Any

from flywright.data.rows import Row, read_lines, read_rows
from flywright.errors import UserError
from flywright.evals.datafiles import field, find, problem, read_from
from flywright.evals.items import Item, Task, Who, item_of
from flywright.evals.shots import before, drawer, fixed
from flywright.records import Check, Prompt
from flywright.sandbox import Sandbox

INVALID = "[invalid]"  # what stands for an answer where no pattern is found
_NUMBER = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"


@dataclass(frozen=True)
class Problem:
    """A question as it is asked, and its answer; of an example, the `solved` text.

    about: what stands before a split's examples; stop: what stands for {} in the task's stops.
    """

    id: str
    words: str
    asked: str
    truth: str | list[str]
    split: str = ""
    solved: str = ""
    about: str = ""
    stop: str = ""


@dataclass(frozen=True)
class Pattern:
    """How an answer is taken from a text (the first or last match), and compared with the truth.

    ignoring: what both lose before they are compared; plain: case and punctuation too.
    """

    pattern: str
    last: bool = False
    ignoring: tuple[str, ...] = ()
    lower: bool = False
    bare: bool = False

    def found(self, text: str) -> str:
        """What the text says; INVALID where it says nothing."""
        matches = re.findall(self.pattern, text)
        if not matches:
            return INVALID
        match = matches[-1 if self.last else 0]
        if isinstance(match, tuple):
            match = next(filter(None, match), INVALID)
        return match.strip()

    def plain(self, text: str) -> str:
        """As it is compared."""
        for pattern in self.ignoring:
            text = re.sub(pattern, "", text)
        text = text.lower() if self.lower else text
        return text.translate(str.maketrans("", "", string.punctuation)) if self.bare else text

    def right(self, text: str, truth: str) -> float:
        """1.0 where what is found is the truth."""
        return float(self.plain(self.found(text)) == self.plain(truth))


def _by_patterns(patterns: dict[str, Pattern], text: str, prompt: Prompt) -> dict[str, float]:
    truth = prompt.checks[0].args["answer"]
    return {name: pattern.right(text, truth) for name, pattern in patterns.items()}


# --- GSM8K

_NUMBERS = {"ignoring": (",", r"\$", r"(?s).*#### ", r"\.$"), "lower": True}
_FLEXIBLE = Pattern(_NUMBER, last=True, **_NUMBERS)
_HASHES = {"strict_match": Pattern(r"#### (\-?[0-9\.\,]+)", **_NUMBERS)}
_THE_ANSWER = {"strict_match": Pattern(r"The answer is (\-?[0-9\.\,]+).", **_NUMBERS)}


def _gsm8k(form: str, path: Path) -> Iterator[Problem]:
    for number, row in enumerate(read_rows(path)):
        question, answer = field(path, row, "question"), field(path, row, "answer")
        asked = form.format(question)
        truth = answer.rpartition("#### ")[2]
        yield Problem(str(number), question, asked, truth, solved=f"{asked} {answer}")


def _gsm8k_exemplars(_form: str, _path: Path) -> Iterator[Problem]:
    for row in fixed("gsm8k_cot")["example"]:
        solved = f"Q: {row['question']}\nA: {row['answer']}"
        yield Problem("", "", "", "", solved=solved)


# --- BBH: 27 tasks, each with the authors' three exemplars


def _bbh(_form: str, path: Path) -> Iterator[Problem]:
    for one in sorted(path.parent.glob("*.json*")):
        name = one.name.partition(".")[0]
        for number, row in enumerate(_examples(read_from(one))):
            asked = f"Q: {field(one, row, 'input')}\nA: Let's think step by step.\n"
            yield Problem(f"{name}/{number}", row["input"], asked, row["target"], name)


def _examples(path: Path) -> list[dict[str, str]]:
    """The rows of {"canary", "examples": [{input, target}]}."""
    text = "\n".join(read_lines(path))
    try:
        return json.loads(text)["examples"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{path}: expected {{"examples": [...]}}') from None


def _bbh_exemplars(_form: str, path: Path) -> Iterator[Problem]:
    """cot-prompts/TASK.txt: a line on training data, a rule, the description, the exemplars."""
    for one in sorted((path.parent.parent / "cot-prompts").glob("*.txt")):
        text = "\n".join(read_lines(read_from(one))).partition("-----\n")[2].strip()
        text = text.replace("A: Let's think step by step. ", "A: Let's think step by step.\n")
        about, *solved = re.split(r"\n\n(?=Q: )", text)
        for example in solved:
            yield Problem("", "", "", "", one.stem, example, f"{about}\n\n")


# --- MATH


def _math(_form: str, path: Path) -> Iterator[Problem]:
    for number, row in enumerate(read_rows(path)):
        text, solution = field(path, row, "problem"), field(path, row, "solution")
        split = re.sub(r"\W+", "_", str(row.get("type") or row.get("subject") or "").lower())
        truth = normalised_math(_boxed(solution))
        asked = f"Problem:\n{text}\n\nSolution:"
        yield Problem(f"{split or 'math'}/{number}", text, asked, truth, split)


def _math_exemplars(_form: str, _path: Path) -> Iterator[Problem]:
    for row in fixed("math")["example"]:
        solved = f"Problem:\n{row['problem']}\n\nSolution: {row['solution']}"
        yield Problem("", "", "", "", solved=solved)


def _boxed(solution: str) -> str:
    r"""What stands in the last \boxed{} of a solution, or after a last "\boxed "."""
    if r"\boxed " in solution:
        return solution.rpartition(r"\boxed ")[2].partition("$")[0]
    start = max(solution.rfind(r"\boxed{"), solution.rfind(r"\fbox{"))
    inner, depth = solution[start:].partition("{")[2] if start >= 0 else "", 1
    for place, letter in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return inner[:place]
    return inner


def _dropped(text: str, whole_words: bool) -> str:
    """Without units and such: as whole words, or wherever they stand outside TeX commands."""
    for word in fixed("math")["removed"]:
        if whole_words:
            text = re.sub(rf"(?<!\\)\b{word}\b", "", text) if word.isalpha() else text
        elif word.isalpha():
            parts = re.split(r"(\\[a-zA-Z]+)", text)
            text = "".join(p if n % 2 else p.replace(word, "") for n, p in enumerate(parts))
        else:
            text = text.replace(word, "")
    return text


_TEX = (  # the mathematics within, then short forms written out
    (r"(.*?)(\$)(.*?)(\$)(.*)", r"$\3$"),
    (r"(\\text\{)(.*?)(\})", r"\2"),
    (r"(\\textbf\{)(.*?)(\})", r"\2"),
    (r"(\\overline\{)(.*?)(\})", r"\2"),
    (r"(\\boxed\{)(.*)(\})", r"\2"),
    (r"(frac)([^{])(.)", r"frac{\2}{\3}"),
    (r"(sqrt)(\[[^\]]*\])(\w)", r"\1\2{\3}"),
    (r"(sqrt)(?!\[)([^{])", r"sqrt{\2}"),
)


def normalised_math(answer: str) -> str:
    """A final answer as it is compared (arXiv 2206.14858, appendix D.1, as minerva_math 3.1)."""
    text = _dropped(answer.split("=")[-1], whole_words=True)
    for old, new in fixed("math")["substitutions"]:
        text = text.replace(old, new)
    text = _dropped(text, whole_words=False)
    for pattern, new in _TEX:
        text = re.sub(pattern, new, text)
    text = text.replace("$", "")
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+", text) else text


def _math_right(text: str, prompt: Prompt) -> dict[str, float]:
    said = re.search(r"Final Answer: The final answer is(.*?). I hope it is correct.", text)
    given = normalised_math(said[1].strip() if said else "[invalidanswer]")
    return {"exact_match": float(given == prompt.checks[0].args["answer"])}


# --- MGSM: questions in eleven languages, reasoning in English


_MGSM = {
    "strict_match": Pattern(r"The answer is (\-?[0-9\.\,]+)", lower=True, bare=True),
    "flexible_extract": Pattern(_NUMBER, last=True, lower=True, bare=True),
}


def _mgsm(_form: str, path: Path) -> Iterator[Problem]:
    for one in sorted(path.parent.glob("mgsm_*.tsv")):
        language = one.name.removeprefix("mgsm_").partition(".")[0]
        label = fixed("languages")["mgsm"].get(language)
        for number, line in enumerate(read_lines(read_from(one)) if label else ()):
            question, tab, truth = line.rpartition("\t")
            if not tab:
                raise UserError(f"{one}:{number + 1}: expected a question, a tab and its answer")
            asked = f"{label} {question}\nStep-by-Step Answer:"
            name = f"{language}/{number}"
            yield Problem(name, question, asked, truth, language, stop=label)


def _mgsm_exemplars(_form: str, path: Path) -> Iterator[Problem]:
    """The authors' exemplars.py: eight questions in the language, each reasoned on in English."""
    source = path.parent / "exemplars.py"
    if not source.exists():
        return
    tree = ast.parse("\n".join(read_lines(read_from(source))))
    sets = [one for one in tree.body if isinstance(one, ast.Assign)]
    values = [one.value for one in sets if ast.unparse(one.targets[0]) == "MGSM_EXEMPLARS"]
    if not values:
        raise UserError(f"{source}: it sets no MGSM_EXEMPLARS")
    rows = ast.literal_eval(values[0])
    for language, examples in rows.items():
        for number, example in examples.items():
            solved = f"{example['q']}\n{rows['en'][number]['a']}"
            yield Problem("", "", "", "", language, solved)


# --- TyDiQA, gold passage

_ARTICLES = {"english": r"\b(a|an|the)\b", "arabic": r"(?:^|\s)ال"}


def _tydiqa(_form: str, path: Path) -> Iterator[Problem]:
    for row in read_rows(path):
        name, passage = str(field(path, row, "id")), field(path, row, "context")
        question, answers = field(path, row, "question"), field(path, row, "answers")
        truths = answers["text"] if isinstance(answers, dict) else list(answers)
        asked = f"Context: {passage}\n\nQuestion: {question}\n\nAnswer:"
        split, solved = name.partition("-")[0], f"{asked} {truths[0]}"
        yield Problem(name, question, asked, truths, split, solved)


def _squad_words(text: str, language: str) -> list[str]:
    """Small, without punctuation and articles."""
    small = text.lower()
    kept = "".join(
        c for c in small if c not in string.punctuation and unicodedata.category(c)[0] != "P"
    )
    return re.sub(_ARTICLES.get(language, r"(?!)"), " ", kept).split()


def _overlap(said: list[str], truth: list[str]) -> float:
    shared = sum((Counter(said) & Counter(truth)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(truth)
    return 2 * precision * recall / (precision + recall)


def _squad(text: str, prompt: Prompt) -> dict[str, float]:
    said = _squad_words(text.strip(), prompt.split)
    truths = [_squad_words(one, prompt.split) for one in prompt.checks[0].args["answer"]]
    exact = max(float(said == truth) for truth in truths)
    return {"exact_match": exact, "f1": max(_overlap(said, truth) for truth in truths)}


# --- all of them

READ: dict[str, Callable[[str, Path], Iterator[Problem]]] = {
    "bbh": _bbh,
    "bbh_exemplars": _bbh_exemplars,
    "gsm8k": _gsm8k,
    "gsm8k_exemplars": _gsm8k_exemplars,
    "math": _math,
    "math_exemplars": _math_exemplars,
    "mgsm": _mgsm,
    "mgsm_exemplars": _mgsm_exemplars,
    "tydiqa": _tydiqa,
}
SCORERS: dict[str, Callable[[str, Prompt], dict[str, float]]] = {
    "bbh": partial(_by_patterns, {"exact_match": Pattern(r"(?<=the answer is )(.*)(?=.)")}),
    "hashes": partial(_by_patterns, _HASHES | {"flexible_extract": _FLEXIBLE}),
    "math": _math_right,
    "mgsm": partial(_by_patterns, _MGSM),
    "squad": _squad,
    "the_answer": partial(_by_patterns, _THE_ANSWER | {"flexible_extract": _FLEXIBLE}),
}


def load(name: str, path: Path, shots: int = 0) -> Iterator[Prompt]:
    """The benchmark's problems as prompts, each with its examples."""
    row = fixed("base")["words"][name]
    form, fewer = row.get("form", ""), row.get("read_examples")
    file = find(path, row["folder"], *row["files"])
    pool: list[Problem] = []
    if fewer:
        pool = list(READ[fewer](form, file))
    elif shots:
        pool = list(READ[row["read"]](form, find(file.parent, row["folder"], *row["examples"])))
    problems = sorted(READ[row["read"]](form, file), key=lambda one: one.split)
    for split, group in groupby(problems, lambda one: one.split):
        examples = [one for one in pool if one.split in ("", split)]
        about = examples[0].about if examples else ""
        solved = [one.solved for one in examples]
        if fewer and shots > len(solved):
            raise UserError(
                f"{name}@{shots}: {len(solved)} examples for {split or name} in {file.parent}"
            )
        draw = drawer(solved, shots)
        for one in group:
            chosen = solved[:shots] if fewer else draw(one.asked)
            args = {"context": before(chosen, about) + one.asked, "answer": one.truth}
            check = Check(kind="continuation", args={**args, "stop": one.stop})
            prompt = problem(name, f"{name}/{one.id}", one.words, check)
            yield prompt.model_copy(update={"split": split}) if split else prompt


async def ask(prompt: Prompt, who: Who) -> str:
    """The continuation of the problem's raw text, up to a stop of the task or of the language."""
    args = prompt.checks[0].args
    stop = tuple(one.format(args["stop"]) for one in who.sampling.stop)
    sampling = replace(who.sampling, stop=stop)
    return (await who.asked.complete(args["context"], sampling)).text


async def score(name: str, prompt: Prompt, answer: str, _sandbox: Sandbox | None) -> list[Item]:
    """An item a metric."""
    truth = prompt.checks[0].args["answer"]
    shown = {"truth": truth if isinstance(truth, str) else " | ".join(truth)}
    found = SCORERS[name](answer, prompt)
    texts = chain([answer], repeat(""))
    return [
        item_of(prompt, metric, value, text, **shown)
        for (metric, value), text in zip(found.items(), texts, strict=False)
    ]


def _task(name: str, row: Row) -> Task:
    """A row of prompts/base.toml as a Task."""
    shots = row.get("shots")
    more: dict[str, Any] = {"ask": ask, "stop": tuple(row["stop"]), "shots": shots}
    more["protocol"] = f"greedy continuation; {row['protocol']}"
    load_all = partial(load, name) if shots is None else partial(load, name, shots=shots)
    return Task(name, load_all, partial(score, row["scorer"]), row.get("max_tokens", 256), **more)


TASKS = tuple(_task(name, row) for name, row in fixed("base")["words"].items())
