"""Keywords for mathematics and coding (SPEC 6.2): names sorted by a model, names found in code."""

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from flywright.ask.protocol import Completer
from flywright.synth import parse
from flywright.synth.maker import Maker
from flywright.synth.wording import template

_BUILT_IN = frozenset(name for name in dir(builtins) if not name.startswith("_"))
_IMPORT = re.compile(r"^\s*(?:from|import)\s+([A-Za-z_][\w.]*)", re.MULTILINE)


async def classified(maker: Maker, subject: str, names: Sequence[str]) -> list[str]:
    """The names that belong to `subject` ("math" or "python"): the answer begins with Yes."""
    wording = template(f"{subject}_entity")

    async def step(name: str, _ask: Completer) -> list[tuple[str, bool]]:
        sampling = maker.sampling(maker.settings.answer_tokens, wording.name, name, greedy=True)
        reply = await maker.ask.complete(wording.fill(name=name), sampling)
        return [(name, parse.begins_yes(reply.text))]

    answers = await maker.run(f"{subject} keywords", step, list(dict.fromkeys(names)))
    return [name for name, belongs in answers if belongs]


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return node.id if isinstance(node, ast.Name) else ""


def _names(code: str) -> Iterator[str]:
    """Modules, what is taken from them, and built-in names that a Python text uses."""
    try:
        tree = ast.walk(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError):  # another Python, or none
        yield from _IMPORT.findall(code)
        return
    nodes, meant = list(tree), {}
    for node in nodes:
        if isinstance(node, ast.Import):
            meant |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                meant[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    yield from meant.values()
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute):
            head, _, rest = _dotted(node).partition(".")
            if head in meant and rest:
                yield f"{meant[head]}.{rest}"
            elif head in _BUILT_IN and not rest:
                yield head


def mined(codes: Iterable[str], least: int = 2) -> list[str]:
    """The names used in `least` or more of the Python texts, the most frequent first."""
    counts = Counter(name for code in codes for name in set(_names(code)))
    found = (name for name, count in counts.items() if count >= least and not name.endswith(".*"))
    return sorted(found, key=lambda name: (-counts[name], name))
