"""Function calling on BFCL's files: the calls in an answer, as syntax trees, against possible ones.

Single-turn categories of any release (BFCL_v*_CATEGORY.json with possible_answer/): a call is right
with the name, all required arguments and no unknown one, each among its possible values. Where no
call is right (irrelevance) or any is (relevance), only that counts. An answer may be Python calls
in a list, or JSON. The multi-turn categories need their programs run, and are not read.
"""

import ast
import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flywright.evals.datafiles import NotThere, problem
from flywright.evals.items import Item, Metrics, Task, Who, item_of
from flywright.evals.tables import need, placed, talk
from flywright.records import Check, Prompt
from flywright.sandbox import Sandbox
from flywright.stats import mean_of_means

NAME = "bfcl"
_FILE = re.compile(r"BFCL_v\d+_(.+)\.json(\..+)?")
ABILITY = """You can call these functions, given as JSON:
{functions}

If they can do what is asked, reply only with the calls, in this form and with nothing else:
[name(argument=value, ...), name(argument=value, ...)]
If none of them fits, or a value that is needed is missing, say so in words and call nothing."""
_RESERVED = re.compile(rf"(?<=[(,\s])({'|'.join(keyword.kwlist)})=(?!=)")
Call = tuple[str, dict[str, Any]]


def load(path: Path) -> Iterator[Prompt]:
    """The questions of every single-turn category whose files are there."""
    found = [
        (m[1], file)
        for folder in (Path(path) / NAME, Path(path))
        for file in _files(folder)
        if (m := _FILE.fullmatch(file.name)) and "multi_turn" not in m[1]
    ]
    if not found:
        raise NotThere(f"{path}: found no {NAME}/BFCL_v*_CATEGORY.json")
    for category, file in found:
        truths = _truths(file, category)
        for where, row in placed(file):
            name = need(where, row, "id")
            if truths is not None and name not in truths:
                raise NotThere(f"{where}: {name} has no possible answer")
            said = need(where, row, "question")[0]
            args = {"functions": need(where, row, "function"), "category": category}
            args |= {"truth": truths[name] if truths else None, "messages": said}
            check = Check(kind=NAME, args=args)
            prompt = problem(NAME, f"{NAME}/{name}", said[-1]["content"] or " ", check)
            yield prompt.model_copy(update={"split": category})


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _truths(file: Path, category: str) -> dict[str, Any] | None:
    if "relevance" in category:
        return None
    names = [
        file.name.removesuffix(file.suffix) if file.suffix != ".json" else file.name,
        file.name,
    ]
    for name in names:
        with suppress(FileNotFoundError):
            rows = placed((file.parent / "possible_answer" / name).resolve(strict=True))
            return {need(where, row, "id"): need(where, row, "ground_truth") for where, row in rows}
    raise NotThere(f"{file}: found no possible_answer/{names[0]} beside it")


async def ask(prompt: Prompt, who: Who) -> str:
    """The model is told of the functions in the system message."""
    args = prompt.checks[0].args
    ability = ABILITY.replace("{functions}", json.dumps(args["functions"], indent=1))
    conversation = talk(prompt.id, args["messages"], ability)
    return (await who.asked.complete(conversation, who.sampling)).text


def parse_calls(text: str) -> list[Call] | None:
    """The calls that an answer consists of; None where it is no list of calls."""
    text = re.sub(r"</?tool_calls?>|^\s*```\w*\n|\n```\s*$", "", text).strip()
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        value = json.loads(text)
        return [_json_call(one) for one in (value if isinstance(value, list) else [value])]
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        listed = _RESERVED.sub(r"\1_reserved=", text if text.startswith("[") else f"[{text}]")
        tree = ast.parse(listed, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else []
        calls = [node for node in nodes if isinstance(node, ast.Call) and not node.args]
        if len(calls) == len(nodes):
            return [
                (ast.unparse(c.func), {_key(k): _value(k.value) for k in c.keywords}) for c in calls
            ]
    return None


def _key(given: ast.keyword) -> str:
    """An argument's name; words that Python keeps for itself are names in other languages."""
    return (given.arg or "").removesuffix("_reserved")


def _json_call(one: dict[str, Any]) -> Call:
    one = one.get("function", one) if isinstance(one.get("function"), dict) else one
    if "name" in one:
        given = one.get("arguments", one.get("parameters", {}))
        name = one["name"]
    else:
        ((name, given),) = one.items()
    given = json.loads(given) if isinstance(given, str) else given
    return name, dict(given)


def _value(node: ast.expr) -> Any:
    """A literal; what is none (a variable, a call) stays as its words."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def is_right(calls: Sequence[Call] | None, args: Mapping[str, Any], dots: bool = True) -> bool:
    """Whether the calls are the wanted ones, in any order; without `dots`, names have "_" there."""
    if args["truth"] is None:
        wanted = args["category"].endswith("relevance") and "irrelevance" not in args["category"]
        return bool(calls) == wanted
    left = list(calls or [])
    if len(left) != len(args["truth"]):
        return False
    documents = {function["name"]: function["parameters"] for function in args["functions"]}
    foreign = any(language in args["category"] for language in ("java", "javascript"))
    for truth in args["truth"]:
        ((name, allowed),) = truth.items()
        fit = next(
            (
                call
                for call in left
                if call[0] in (name, name if dots else name.replace(".", "_"))
                and _fits(call[1], allowed, documents.get(name, {}), foreign)
            ),
            None,
        )
        if fit is None:
            return False
        left.remove(fit)
    return True


def _fits(
    given: dict[str, Any], allowed: Mapping[str, Any], document: Mapping[str, Any], foreign: bool
) -> bool:
    if not set(document.get("required", ())) <= given.keys() <= allowed.keys():
        return False
    if any("" not in values for key, values in allowed.items() if key not in given):
        return False
    kinds = {key: about.get("type", "") for key, about in document.get("properties", {}).items()}
    return all(
        any(
            _same(_native(value, kinds.get(key, ""), foreign), one, kinds.get(key, ""))
            for one in allowed[key]
        )
        for key, value in given.items()
    )


def _native(value: Any, kind: str, foreign: bool) -> Any:
    """A value of Java or JavaScript, which comes as its source text."""
    if foreign and isinstance(value, str) and kind.lower() not in ("string", "any", "char"):
        with suppress(ValueError):
            return json.loads(re.sub(r"(?<=\d)[LlFfDd]$", "", value))
    return value


def _same(value: Any, right: Any, kind: str = "") -> bool:
    """Equal as the benchmark has it: texts without case and marks, no truth value for a number."""
    if isinstance(value, str) and isinstance(right, str):
        return _plain(value) == _plain(right)
    if isinstance(value, dict) and isinstance(right, dict):
        return value.keys() <= right.keys() and all(
            any(_same(value[key], one) for one in options) if key in value else "" in options
            for key, found in right.items()
            for options in [found if isinstance(found, list) else [found]]
        )
    if isinstance(value, list | tuple) and isinstance(right, list | tuple):
        return len(value) == len(right) and all(map(_same, value, right))
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    return value == right and not (isinstance(value, float) and kind == "integer")


def _plain(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


async def score(prompt: Prompt, answer: str, _sandbox: Sandbox | None = None) -> list[Item]:
    """1 if the calls are right."""
    args = prompt.checks[0].args
    by_wire = answer.lstrip().startswith(('[{"', '{"'))  # a native call: its name takes no dots
    right = is_right(parse_calls(answer), args, dots=not by_wire)
    return [item_of(prompt, "calls", float(right), answer, truth=json.dumps(args["truth"]))]


def summary(items: Sequence[Item]) -> Metrics:
    """The plain mean of the categories' accuracies."""
    groups: dict[str, list[float]] = {}
    for item in items:
        if item.metric == "calls":
            groups.setdefault(item.split, []).append(item.score)
    return {"calls_by_category": mean_of_means(list(groups.values())).as_dict()} if groups else {}


BFCL = Task(
    NAME,
    load,
    score,
    ask=ask,
    summary=summary,
    protocol="BFCL, single-turn: calls as text compared as syntax trees; mean of categories",
)
