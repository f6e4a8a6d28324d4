"""Tasks of the Nemotron-4 reports on small files: code for base models, MGSM's examples, FLORES."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceTrainer

from flywright.ask import Sampling, Scripted
from flywright.errors import UserError
from flywright.evals import calls, flores, hub, suite, tasks
from flywright.evals.run import Results
from flywright.sandbox import Sandbox


def put(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def results(name: str, data: Path, answers: Any, **more: Any) -> Results:
    run = suite.run_tasks(Scripted(answers, "m@1"), [name], data, data / "out", **more)
    return asyncio.run(run)[name]


HEAD = "def add(a, b):\n"
PROGRAM = {"task_id": "HumanEval/0", "prompt": HEAD, "entry_point": "add"}
PROGRAM |= {"test": "def check(f):\n    assert f(1, 2) == 3", "canonical_solution": " return a + b"}
SHORT = [
    {
        "task_id": number,
        "text": f"Add {number}.",
        "code": f"def add(x):\r\n  return x + {number}",
        "test_list": [f"assert add({n}) == {n + number}" for n in range(3)],
    }
    for number in (2, 3, 4, 11)
]


def test_a_base_model_goes_on_from_the_head_and_is_stopped(tmp_path: Path) -> None:
    put(tmp_path / "humaneval/HumanEval.jsonl", [PROGRAM])
    heard = []

    def answer(prompt: Any, sampling: Sampling) -> str:
        heard.append((prompt, sampling.stop, sampling.seed, sampling.temperature))
        return "    return a + b" if len(heard) == 1 else "    return a - b"

    found = results("humaneval_base", tmp_path, answer, sandbox=Sandbox(), workers=1)
    assert found.metrics["pass@1"]["mean"] == 1.0
    assert heard[0][:2] == (HEAD, ("\nclass", "\ndef", "\n#", "\nif", "\nprint"))
    with pytest.raises(UserError, match="give --temperature"):
        results("humaneval_base", tmp_path, answer, samples=2)
    heard.clear()
    more = {"samples": 2, "temperature": 0.8, "workers": 1, "sandbox": Sandbox()}
    found = results("humaneval_base", tmp_path, answer, **more)
    assert (found.metrics["pass@1"]["mean"], found.metrics["pass@2"]["mean"]) == (0.5, 1.0)
    assert heard[0][2] != heard[1][2] and {one[3] for one in heard} == {0.8}
    entry = json.loads((tmp_path / "out/results.json").read_text())["humaneval_base"]
    assert entry["protocol"].endswith("; 2 samples at temperature 0.8")


def test_mbpp_has_its_three_examples(tmp_path: Path) -> None:
    put(tmp_path / "mbpp/mbpp.jsonl", SHORT)
    (prompt,) = tasks.task_named("mbpp_base").load(tmp_path)
    first, *_, last = prompt.checks[0].args["context"].split("\n[DONE]\n\n")
    assert first == (
        "You are an expert Python programmer, and here is your task: Add 2. Your code should pass"
        " these tests:\n\nassert add(0) == 2\nassert add(1) == 3\nassert add(2) == 4\n[BEGIN]\n"
        "def add(x):\r\n  return x + 2"
    )
    assert last.endswith("assert add(2) == 13\n[BEGIN]\n") and "Add 11." in last
    right = results(
        "mbpp_base", tmp_path, lambda *_: "def add(x): return x + 11", sandbox=Sandbox()
    )
    assert right.metrics["pass@1"]["mean"] == 1.0


def test_mgsm_takes_the_authors_exemplars(tmp_path: Path) -> None:
    (tmp_path / "mgsm").mkdir()
    (tmp_path / "mgsm/mgsm_de.tsv").write_text("Wie viele?\t7\n")
    (tmp_path / "mgsm/mgsm_en.tsv").write_text("How many?\t7\n")
    with pytest.raises(UserError, match="mgsm@2: 0 examples for de"):
        list(tasks.task_named("mgsm@2").load(tmp_path))
    rows = {
        "de": {"1": {"q": "Frage: A?", "a": "Antwort: 1."}, "2": {"q": "Frage: B?", "a": "Da: 2."}},
        "en": {
            "1": {"q": "Question: A?", "a": "Step-by-Step Answer: One."},
            "2": {"q": "Question: B?", "a": "Step-by-Step Answer: Two."},
        },
    }
    (tmp_path / "mgsm/exemplars.py").write_text(f"NUMBERS = [1]\n\nMGSM_EXEMPLARS = {rows!r}\n")
    german, _ = tasks.task_named("mgsm@2").load(tmp_path)
    assert german.checks[0].args["context"] == (
        "Frage: A?\nStep-by-Step Answer: One.\n\nFrage: B?\nStep-by-Step Answer: Two.\n\n"
        "Frage: Wie viele?\nStep-by-Step Answer:"
    )


SHELL_TESTS = """}
candidate() { add "$@"; }
set -e
run_test() { [[ $(candidate 1 2) = 3 ]]; }
run_test
"""
SHELL = {"name": "HumanEval_0_add", "language": "sh", "prompt": "#!/bin/bash\nadd() {\n"}
SHELL |= {"tests": SHELL_TESTS, "stop_tokens": ["\n}"]}


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("    echo $(($1 + $2))", 1.0),
        ("    echo $(($1 - $2))", 0.0),
        ("    echo 3\n}\nexit 0\nrest() {", 0.0),
        ("    echo 3\n}\necho 0; exit 0; {", 0.0),
        ("    echo $((", 0.0),
    ],
)
def test_programs_of_other_languages_pass_by_their_tests(
    said: str, passes: float, tmp_path: Path
) -> None:
    put(tmp_path / "multipl_e/humaneval-sh.jsonl", [SHELL])
    put(tmp_path / "answers.jsonl", [{"name": SHELL["name"], "completion": said}])
    run = suite.run_tasks(
        None,
        ["multipl_e:sh"],
        tmp_path,
        tmp_path / "out",
        answers=tmp_path / "answers.jsonl",
        sandbox=Sandbox(),
    )
    assert asyncio.run(run)["multipl_e:sh"].metrics["average"]["mean"] == passes


def test_a_language_that_cannot_be_run_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    put(tmp_path / "multipl_e/humaneval-java.jsonl", [{**SHELL, "language": "java"}])
    with pytest.raises(
        UserError, match="multipl_e:java: not run here; choose others: multipl_e:jl"
    ):
        results("multipl_e", tmp_path, lambda *_: "x", sandbox=Sandbox())


def test_bleu_counts_clipped_matches_and_short_answers() -> None:
    truth = ["a", "b", "c", "d", "e", "f"]
    assert flores.bleu([flores.counts(truth, truth)]) == pytest.approx(100)
    short = flores.counts(truth[:5], truth)
    assert flores.bleu([short]) == pytest.approx(100 * math.exp(1 - 6 / 5))
    assert flores.counts(["a"] * 4, ["a", "b"]) == [4, 2, 1, 4, 0, 3, 0, 2, 0, 1]
    # one of four pairs, then none of three and of two: 1/2 and 1/4 of a match stand for none
    found = flores.bleu([[5, 5, 3, 5, 1, 4, 0, 3, 0, 2]])
    assert found == pytest.approx(100 * (3 / 5 * 1 / 4 * (1 / 2) / 3 * (1 / 4) / 2) ** 0.25)
    assert flores.bleu([flores.counts(["x"] * 5, truth)]) == 0.0
    assert flores.bleu([flores.counts([], truth)]) == 0.0


def test_flores_is_scored_by_its_own_pieces(tmp_path: Path) -> None:
    texts = {
        "zho_simpl": [f"中文 {n} 句" for n in range(12)],
        "deu": [f"Das ist der Satz Nummer {n} hier" for n in range(12)],
    }
    folder = tmp_path / "flores"
    for part in ("dev", "devtest"):
        (folder / part).mkdir(parents=True)
        for code, lines in texts.items():
            (folder / f"{part}/{code}.{part}").write_text("\n".join(lines) + "\n")
    prefix = str(folder / "spm")
    lines = iter([*texts["deu"], *texts["zho_simpl"]])
    SentencePieceTrainer.train(  # type: ignore[attr-defined]
        sentence_iterator=lines,
        model_prefix=prefix,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (prompt, *_) = tasks.task_named("flores@2").load(tmp_path)
    context = prompt.checks[0].args["context"]
    assert context.count("Chinese: ") == 3 and context.endswith("Chinese: 中文 0 句\nGerman:")

    def answer(asked: Any, _sampling: Sampling) -> str:
        number = str(asked).rpartition("中文 ")[2].split()[0]
        return f" Das ist der Satz Nummer {number} hier" if number != "3" else " Nein"

    found = results("flores@2", tmp_path, answer).metrics
    assert 80 < found["spbleu (zh-de)"]["mean"] < 100
    assert found["spbleu"]["mean"] == found["spbleu (zh-de)"]["mean"]
    assert found["spbleu"]["low"] < found["spbleu"]["mean"] < found["spbleu"]["high"] <= 100


def test_native_calls_have_no_dots_in_their_names() -> None:
    function = {"name": "math.add", "parameters": {"required": ["a"], "properties": {"a": {}}}}
    args = {"functions": [function], "category": "simple", "truth": [{"math.add": {"a": [1]}}]}
    prompt = next(iter([calls.problem("bfcl", "bfcl/1", "Add.", calls.Check(kind="x", args=args))]))
    scores = {
        text: asyncio.run(calls.score(prompt, text))[0].score
        for text in ('[{"math_add": "{\\"a\\": 1}"}]', "[math.add(a=1)]", "[math_add(a=1)]")
    }
    assert list(scores.values()) == [1.0, 1.0, 0.0]


def test_the_hub_is_read_into_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    rows = [{"question": "1 + 1?", "answer": "#### 2"}]
    put(tmp_path / "there/main/test.jsonl", rows)
    table = tmp_path / "hub.toml"
    table.write_text(f'[gsm8k]\n"gsm8k/test.jsonl" = ["{tmp_path}/there/main", "", "test"]\n')
    monkeypatch.setattr(hub, "TABLE", table)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = hub.data_folder(Path(f"hub:{tmp_path}/data"), ["gsm8k@0:x"])
    assert (tmp_path / "data/gsm8k/test.jsonl").read_text() == json.dumps(rows[0]) + "\n"
    assert [prompt.id for prompt in tasks.task_named("gsm8k").load(folder)] == ["gsm8k/0"]
    assert hub.data_folder(tmp_path, ["gsm8k"]) == tmp_path
    table.write_text('[gsm8k]\n"gsm8k/train.jsonl" = ["nobody/has-this", "main", "test"]\n')
    with pytest.raises(UserError, match="nobody/has-this: cannot be had from the hub"):
        hub.data_folder(Path(f"hub:{tmp_path}/data"), ["gsm8k"])
    assert not (tmp_path / "data/gsm8k/train.jsonl").exists()
