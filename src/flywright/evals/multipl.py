"""MultiPL-E: HumanEval in other languages, for those whose interpreter is here (SPEC 4.2).

Read are the benchmark's rows {name, language, prompt, tests, stop_tokens} of multipl_e/*.jsonl. The
program (head, answer, tests) runs in the sandbox, started by a Python program there. A language's
tests cannot be kept apart from the code as Python's are: a pass is an exit status of 0 and, as the
program's last words, a number that nobody could know before, so that leaving early is no pass.
"""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from flywright.errors import UserError
from flywright.evals import words
from flywright.evals.datafiles import NotThere, problem, read_from
from flywright.evals.humaneval import pass_at_k
from flywright.evals.items import Item, Metrics, Task, Who, item_of
from flywright.evals.shots import fixed
from flywright.evals.tables import need, placed
from flywright.records import Check, Prompt
from flywright.sandbox import Sandbox

NAME = "multipl_e"
ROOM = {"memory_bytes": 16 << 30, "processes": 64}  # addresses and threads that runtimes reserve
RUN = """
import subprocess, tempfile
def verdict():
    with tempfile.NamedTemporaryFile("w", suffix={suffix!r}) as file:
        file.write({program!r})
        file.flush()
        done = subprocess.run([*{command!r}, file.name], capture_output=True, text=True)
    said = done.stdout.rstrip().rpartition("\\n")[2]
    return [done.returncode, said, done.stderr[-300:]]
"""


def load(path: Path) -> Iterator[Prompt]:
    """The problems of every file in the folder, by language."""
    folder = Path(path) / NAME if Path(path).name != NAME else Path(path)
    files = sorted(folder.glob("*.jsonl*")) if folder.is_dir() else []
    if not files:
        raise NotThere(f"{path}: found no {NAME}/*.jsonl")
    for file in files:
        for where, row in placed(read_from(file)):
            language = need(where, row, "language")
            args = {"context": need(where, row, "prompt"), "tests": need(where, row, "tests")}
            args |= {"stops": row.get("stop_tokens", []), "language": language}
            check = Check(kind=NAME, args=args)
            prompt = problem(
                NAME, f"{NAME}/{language}/{need(where, row, 'name')}", args["context"], check
            )
            yield prompt.model_copy(update={"split": language})


def _runs(language: str) -> list[str]:
    """[suffix, how it says {}, command ...]. Raises UserError where it cannot be run here."""
    known = fixed("languages")["multipl_e"]
    if language not in known:
        raise UserError(f"{NAME}:{language}: not run here; choose others: {NAME}:{'+'.join(known)}")
    if not shutil.which(known[language][2]):
        raise UserError(
            f"{NAME}:{language}: needs {known[language][2]}, which is not on this machine"
        )
    return known[language]


async def ask(prompt: Prompt, who: Who) -> str:
    """The continuation of the head, up to the row's own stops."""
    _runs(prompt.split)
    text = await words.ask(prompt.model_copy(update={"checks": (_plain(prompt),)}), who)
    return cut(text, prompt.checks[0].args["stops"])


def _plain(prompt: Prompt) -> Check:
    return Check(kind="continuation", args={**prompt.checks[0].args, "stop": ""})


def cut(text: str, stops: list[str]) -> str:
    """The text before the first of the stops."""
    return text[: min([len(text), *(n for stop in stops if (n := text.find(stop)) >= 0)])]


async def grade(prompt: Prompt, answer: str, who: Who) -> list[Item]:
    """One item: 1 if the program ends well, by itself, after its tests."""
    if who.sandbox is None:
        raise UserError(f"{NAME} runs code: it needs a sandbox")
    args, nonce = prompt.checks[0].args, secrets.token_hex(16)
    suffix, says, *command = _runs(prompt.split)
    program = f"{args['context']}{answer}\n{args['tests']}\n{says.replace('{}', nonce)}\n"
    code = RUN.format(suffix=suffix, program=program, command=command)
    large = Sandbox(who.sandbox.settings.model_copy(update=ROOM))
    tests = [f"code, said, wrong = verdict()\nassert code == 0 and said == {nonce!r}, wrong"]
    outcome = await large.run(code, tests, ["verdict"])
    detail = outcome.error.replace(nonce, "...")
    return [item_of(prompt, "code", float(outcome.passed), answer, detail=detail)]


def summary(items: Sequence[Item]) -> Metrics:
    """pass@k of each language, and their mean."""
    splits = sorted({item.split for item in items})
    found = {split: pass_at_k(item for item in items if item.split == split) for split in splits}
    apart = {f"{k} ({split})": v for split, of in found.items() for k, v in of.items()}
    means = [of["pass@1"] for of in found.values()]
    average = {key: sum(one[key] for one in means) / len(means) for key in means[0]}
    return apart | {"average": average | {"n": len(items)}}


MULTIPL_E = Task(
    NAME,
    load,
    ask=ask,
    grade=grade,
    runs_code=True,
    summary=summary,
    protocol="0-shot continuation of the head up to the row's stops; pass@1, mean of the languages",
)
