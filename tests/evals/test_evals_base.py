"""Base benchmarks: lm-evaluation-harness's prompts, what is right, and the same bytes every way."""

import asyncio
import hashlib
import json
import math
import os
from pathlib import Path

import pytest
import torch

from flywright.ask import AskError, Sampling, Scripted, TooLong
from flywright.errors import UserError
from flywright.evals import choice, compare, datafiles, pages, run, shots, suite, tasks, words
from flywright.generate import Engine
from flywright.generate.asking import Cutting
from flywright.model import Decoder
from flywright.records import Prompt, read_jsonl
from flywright.serve.http import Http, Reply
from flywright.stats import clustered_error, clustered_mean, detectable, standard_error
from flywright.tokenizer import Tokenizer
from tiny_model import spec_of, train_tiny

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FLYWRIGHT_DATA", ROOT / "../shared/data"))
GOLDEN = json.loads((ROOT / "tests/golden/evals_prompts.json").read_text())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few ARC questions with examples to draw from, and a few sums."""
    folder = tmp_path / "data"

    def rows(name: str, count: int) -> list[dict]:
        names = [f"{name}{number}" for number in range(count)]
        return [
            {"id": n, "question": f"Q {n}?", "choices": ["no", f"yes, {n}"], "gold": i % 2}
            for i, n in enumerate(names)
        ]

    files = {
        "arc/ARC-Easy_test.jsonl": rows("e", 9),
        "arc/ARC-Easy_train.jsonl": rows("t", 20),
        "gsm8k/test.jsonl": [
            {"question": f"{n} + 1,000?", "answer": f"It is.\n#### {n + 1000:,}"} for n in range(6)
        ],
    }
    for name, found in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def asked(prompt: Prompt) -> list[list[str]]:
    """What is sent for a prompt, as lm-eval logs it."""
    args = prompt.checks[0].args
    if "asks" in args:
        return [[context, text] for context, texts in args["asks"] for text in texts]
    return [[args["context"]]]


@pytest.mark.skipif(not (DATA / "mmlu").is_dir(), reason=f"no benchmark files in {DATA}")
@pytest.mark.parametrize("name", GOLDEN)
def test_prompts_are_those_of_the_harness_byte_for_byte(name: str) -> None:
    """The hashes are of what lm_eval 0.4.13 logged for the first five documents of each."""
    found = [asked(prompt) for prompt in tasks.load_prompts(tasks.task_named(name), DATA, 5)]
    text = json.dumps(found, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == GOLDEN[name]


def test_examples_depend_on_the_document_alone(data: Path) -> None:
    task = tasks.task_named("arc_easy@3")
    whole = {prompt.id: asked(prompt) for prompt in task.load(data)}
    few = {prompt.id: asked(prompt) for prompt in tasks.load_prompts(task, data, 4)}
    assert len(few) == 4 and few.items() <= whole.items()
    assert len({context for ((context, _), _) in whole.values()}) == 9
    for name in ("test", "train"):  # neither the problems' order nor the examples' decides
        path = data / f"arc/ARC-Easy_{name}.jsonl"
        path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert {prompt.id: asked(prompt) for prompt in task.load(data)} == whole
    assert whole["arc_easy/e0"][0][0].count("Question: Q t") == 3
    with pytest.raises(UserError, match="21 examples asked for, 20"):
        list(tasks.task_named("arc_easy@21").load(data))


def test_a_document_is_never_its_own_example() -> None:
    pool = ["a", "b", "c", "b"]
    draw = shots.drawer(pool, 2)
    for own in pool:
        assert own not in draw(own, own) and len(draw(own, own)) == 2
    with pytest.raises(UserError, match="3 examples asked for, 3"):
        shots.drawer(pool, 3)("a", "a")


ROWS = {  # task: (file, row as the hub has it, what is asked and what may follow)
    "arc_challenge@0": (
        "arc/ARC-Challenge-Test.jsonl",
        {
            "question": "Why?",
            "choices": {"text": ["so", "no"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        [["Question: Why?\nAnswer:", " so"], ["Question: Why?\nAnswer:", " no"]],
    ),
    "hellaswag@0": (
        "hellaswag/hellaswag_val.jsonl",
        {
            "activity_label": "Tea",
            "ctx_a": "Boil it [step] now.",
            "ctx_b": "then he",
            "endings": ["waits  long", "goes [title] on"],
            "label": "1",
        },
        [["Tea: Boil it now. Then he", " waits long"], ["Tea: Boil it now. Then he", " goes. on"]],
    ),
    "boolq": (
        "eval_extra/boolq_val.jsonl",
        {"passage": "P.", "question": "is it", "answer": True},
        [["P.\nQuestion: is it?\nAnswer:", " no"], ["P.\nQuestion: is it?\nAnswer:", " yes"]],
    ),
    "siqa": (
        "siqa/validation.jsonl",
        {
            "context": "A fell.",
            "question": "Why?",
            "answerA": "x",
            "answerB": "y",
            "answerC": "z",
            "label": "2",
        },
        [["Q: A fell. Why?\nA:", f" {letter}"] for letter in "xyz"],
    ),
    "xcopa": (
        "xcopa/test.et.jsonl",
        {"premise": "Ta läks. ", "choice1": "Aa", "choice2": "Bb", "question": "cause", "label": 1},
        [["Ta läks sest", " aa"], ["Ta läks sest", " bb"]],
    ),
    "mmlu@0": (
        "mmlu/test/abstract_algebra_test.csv",
        ' What?,1,2,"3,0",4,B\n',
        [
            [
                "The following are multiple choice questions (with answers) about abstract "
                "algebra.\n\nWhat?\nA. 1\nB. 2\nC. 3,0\nD. 4\nAnswer:",
                f" {letter}",
            ]
            for letter in "ABCD"
        ],
    ),
    "tydiqa@0": (
        "tydiqa/validation.jsonl",
        {
            "id": "english-7",
            "context": "C.",
            "question": "Q?",
            "answers": {"text": ["a b"], "answer_start": [0]},
        },
        [["Context: C.\n\nQuestion: Q?\n\nAnswer:"]],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_read_as_the_hub_has_them(name: str, tmp_path: Path) -> None:
    file, row, pairs = ROWS[name]
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(row if isinstance(row, str) else json.dumps(row) + "\n")
    (prompt,) = tasks.task_named(name).load(tmp_path)
    assert asked(prompt) == pairs
    gold = prompt.checks[0].args.get("gold", 1)
    assert gold == 1, "the second one is right in each row"


def one_choice(likely: list[float] | None) -> dict[str, float]:
    row = {"metrics": ["acc", "acc_norm"]}
    question = choice.Choice.plain(1, "Q:", ["yes indeed", "no", "on"], 1)
    prompt = choice._prompt("arc_easy", question, "", row)
    answer = "" if likely is None else json.dumps(likely)
    items = asyncio.run(choice.score(prompt, answer, None))
    return {item.metric: item.score for item in items}


def test_the_likeliest_choice_is_the_answer_and_the_first_of_equals() -> None:
    assert one_choice([-3.0, -2.0, -4.0]) == {"acc": 1, "acc_norm": 0}
    assert one_choice([-30.0, -2.0, -2.0]) == {"acc": 1, "acc_norm": 1}
    assert one_choice([-2.0, -2.0, -9.0]) == {"acc": 0, "acc_norm": 0}
    assert one_choice(None) == {"acc": 0, "acc_norm": 0}, "what does not fit is wrong"


def said(name: str, text: str, truth: object, split: str = "") -> dict[str, float]:
    row = {"split": split, "checks": [{"kind": "continuation", "args": {"answer": truth}}]}
    prompt = datafiles.problem("t", "t/1", "?").model_copy(update={"split": split})
    prompt = Prompt.model_validate({**prompt.model_dump(), **row})
    return words.SCORERS[name](text, prompt)


def test_answers_are_taken_from_the_text_as_the_harness_takes_them() -> None:
    assert said("hashes", "so 2.\n#### 1,234\n#### 9", "1234") == {
        "strict_match": 1,
        "flexible_extract": 0,
    }
    both = said("the_answer", "The answer is $18. The answer is 19.", "18")
    assert both == {"strict_match": 0, "flexible_extract": 0}, "a dollar sign is no digit there"
    assert said("the_answer", "The answer is 18.", "18")["strict_match"] == 1
    assert said("the_answer", "it costs $18.", "18") == {"strict_match": 0, "flexible_extract": 1}
    assert said("bbh", "So the answer is (A).", "(A)") == {"exact_match": 1}
    assert said("bbh", "So the answer is (A)", "(A)") == {"exact_match": 0}, "cut before the stop"
    squad = said("squad", " The Red, fox! ", ["blue", "red fox jumps"], "english")
    assert squad["exact_match"] == 0 and squad["f1"] == pytest.approx(0.8)
    assert said("squad", "(Fox)", ["a fox"], "english") == {"exact_match": 1, "f1": 1}


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (r"x = 10\text{ cm}", "10"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"\sqrt[3]8", r"\sqrt[3]{8}"),
        (r"1,234", "1234"),
        (r"(0,1)", "(0,1)"),
        (r"\left( 2, \infty \right)", r"\left(2,\infty\right)"),
        (r"90^\circ", "90"),
        (r"\boxed{7}", "7"),
        (r"\$5 dollars", "5"),
    ],
)
def test_final_answers_are_compared_without_units_and_short_forms(given: str, plain: str) -> None:
    assert words.normalised_math(given) == plain
    text = f"Final Answer: The final answer is ${given}$. I hope it is correct."
    assert said("math", text, plain)["exact_match"] == 1.0


def test_the_last_box_holds_the_answer() -> None:
    assert words._boxed(r"\boxed{1} and \boxed{\frac{a}{b}} end") == r"\frac{a}{b}"
    assert words._boxed(r"so \boxed 12$ here") == "12"


# --- a model in this process


def tiny(tokenizer: Tokenizer) -> Decoder:
    return Decoder(spec_of(tokenizer), seed=3).requires_grad_(False)


@pytest.fixture(scope="module")
def engine() -> Engine:
    tokenizer = train_tiny()
    return Engine(tiny(tokenizer), tokenizer, model_name="tiny@1")


def plainly(engine: Engine, context: str, text: str) -> float:
    """The slow twin: all logits of one text, cut on the left as lm-eval cuts."""
    tokenizer, model = engine.tokenizer, tiny(engine.tokenizer)
    before, whole = tokenizer.raw_ids(context, False), tokenizer.raw_ids(context + text, False)
    count = len(whole) - len(before)
    ids = whole[-(engine.context_tokens + 1) :]
    with torch.inference_mode():
        logits = model.lm_head(model.hidden(torch.tensor([ids[:-1]])))[0]
    likely = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float(likely[-count:].sum())


@pytest.mark.parametrize("words_before", [3, 60])
@pytest.mark.parametrize("texts", [[" ban", " cel"], [" ban cel", " dob", " fut gan hel"]])
def test_long_contexts_lose_their_beginning_and_stay_exact(
    engine: Engine, words_before: int, texts: list[str]
) -> None:
    context = " ".join(["ban cob del fut"] * words_before)[: words_before * 6].strip()
    found = asyncio.run(Cutting(engine).logprobs(context, texts))
    assert found == pytest.approx([plainly(engine, context, text) for text in texts], abs=1e-4)


def test_blanks_before_a_choice_belong_to_it(engine: Engine) -> None:
    one, other = (
        asyncio.run(Cutting(engine).logprobs(*ask))
        for ask in (
            ("ban cob ", ["del fut"]),
            ("ban cob", [" del fut"]),
        )
    )
    assert one == other


def test_a_raw_prompt_is_cut_to_leave_room_for_the_answer(engine: Engine) -> None:
    text = "ban cob del fut " * 40
    answer = asyncio.run(Cutting(engine).complete(text, Sampling(max_tokens=8)))
    ids = engine.tokenizer.raw_ids(text, False)[-(engine.context_tokens - 8) :]
    assert answer == asyncio.run(engine.complete(tuple(ids), Sampling(max_tokens=8)))
    with pytest.raises(TooLong):
        asyncio.run(Cutting(engine).complete(text, Sampling(max_tokens=64)))


# --- runs


def files(folder: Path) -> dict[str, bytes]:
    names = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def run_suite(
    who: object, data: Path, out: Path, names: tuple[str, ...] = (), workers: int = 256
) -> None:
    names = names or ("arc_easy@2", "gsm8k_cot")
    more = {"about": {"weights": "w"}, "workers": workers}
    asyncio.run(suite.run_tasks(who, names, data, out, limit=5, **more))  # type: ignore[arg-type]


class Breaking(Cutting):
    """Stops answering after some answers."""

    def __init__(self, engine: Engine, after: int):
        super().__init__(engine)
        self.left = after

    async def logprobs(self, context, continuations):  # type: ignore[no-untyped-def]
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return await super().logprobs(context, continuations)


def test_interrupted_and_resumed_with_any_number_of_workers_it_is_the_same(
    engine: Engine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {"gsm8k_cot": 8, "arc_easy": 8}
    for name, most in tokens.items():
        monkeypatch.setitem(tasks.TASKS, name, tasks.replace(tasks.TASKS[name], max_tokens=most))
    run_suite(Cutting(engine), data, tmp_path / "whole")
    with pytest.raises(BaseException):  # noqa: B017 - as a kill would
        run_suite(Breaking(engine, 3), data, tmp_path / "broken")
    assert (tmp_path / "broken/arc_easy@2" / run.LEDGER).exists()
    run_suite(Cutting(engine), data, tmp_path / "broken", workers=1)
    whole, broken = files(tmp_path / "whole"), files(tmp_path / "broken")
    here = [each.pop("report.html") for each in (whole, broken)]  # which names its folder
    assert whole == broken and here[0].replace(b"whole", b"broken") == here[1]
    entry = json.loads(whole["results.json"])["arc_easy@2"]
    assert entry["hashes"].keys() >= {"prompts", "task", "code", "model", "sampling", "data"}
    assert set(entry["hashes"]["data"]) == {"arc/ARC-Easy_test.jsonl", "arc/ARC-Easy_train.jsonl"}
    assert entry["about"] == {"weights": "w"} and entry["too_long"] == 0
    items = list(read_jsonl(tmp_path / "whole/arc_easy@2" / run.ITEMS, run.Item))
    assert entry["stderr"]["acc"] == standard_error([[i.score for i in items if i.metric == "acc"]])
    assert all(len(json.loads(item.answer)) == 2 for item in items if item.metric == "acc")


def test_tasks_of_the_same_model_stay_in_its_results(data: Path, tmp_path: Path) -> None:
    def done(model: str, task: str) -> list[str]:
        run_suite(Scripted(lambda *_: "The answer is 7.", model), data, tmp_path, (task,))
        card = (tmp_path / pages.CARD).read_text()
        known = json.loads((tmp_path / "results.json").read_text())
        assert all(f"| {name} |" in card for name in known)
        return sorted(known)

    assert done("a@1", "gsm8k_cot") == ["gsm8k_cot"]
    assert done("a@1", "gsm8k") == ["gsm8k", "gsm8k_cot"]
    assert done("b@1", "gsm8k") == ["gsm8k"]


def test_a_run_tells_its_scores_so_far_with_their_intervals() -> None:
    tally = run.Tally()
    tally.add([run.Item(id="1", task="t", metric="acc", score=n, answer="") for n in (0.0, 1.0)])
    assert tally.note() == "acc 0.500 ± 0.980"
    tally.tokens = 5
    assert tally.note().endswith(" tokens/s")


def test_what_does_not_fit_is_wrong_and_counted(data: Path, tmp_path: Path) -> None:
    def answer(prompt: object, _sampling: Sampling) -> str:
        if "3 + 1" in str(prompt).rpartition("Q:")[2]:
            raise TooLong("no room")
        return "The answer is 1000."

    run_suite(Scripted(answer, "m@1"), data, tmp_path, ("gsm8k_cot",))
    entry = json.loads((tmp_path / "results.json").read_text())["gsm8k_cot"]
    assert entry["too_long"] == 1 and entry["metrics"]["strict_match"]["mean"] == 0.2
    assert "1 did not fit the context" in (tmp_path / pages.CARD).read_text()


def test_a_server_that_finds_it_too_long_says_so_to_the_run() -> None:
    told = {"error": {"message": "the prompt is 9 tokens", "code": "context_length_exceeded"}}
    with pytest.raises(TooLong, match="9 tokens"):
        Http("http://x")._value(Reply(400, {}, json.dumps(told).encode()))
    with pytest.raises(AskError) as other:
        Http("http://x")._value(Reply(400, {}, b'{"error": {"message": "bad top_p"}}'))
    assert not isinstance(other.value, TooLong)


def test_card_and_page_state_protocols_and_show_failures_side_by_side(
    data: Path, tmp_path: Path
) -> None:
    for name, text in (("a", "The answer is 1,000."), ("b", "The answer is 1001. <script>")):
        run_suite(
            Scripted(lambda *_, t=text: t, f"{name}@1"), data, tmp_path / name, ("gsm8k_cot",)
        )
    card = (tmp_path / "a" / pages.CARD).read_text()
    assert "| gsm8k_cot | strict_match | 0.2000 ± 0.2000 | 5 | 8-shot; greedy continuation" in card
    assert "model-index:" in card and "value: 0.200000" in card
    page = pages.report([tmp_path / "a", tmp_path / "b"])
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count('class="right"') == 2 and "4 + 1,000?" in page
    found = compare.compare(tmp_path / "a", tmp_path / "b")["strict_match"]
    assert (found["mean"], found["n"], found["unpaired"]) == (0.0, 5, 0)
    assert found["stderr"] == pytest.approx(math.sqrt(0.5 / 5))
    assert found["detectable"] == pytest.approx(2.802 * found["stderr"])


def test_names_choose_shots_and_subjects_and_refuse_others() -> None:
    assert tasks.task_named("mmlu@0").shots == 0
    with pytest.raises(UserError, match="did you mean 'hellaswag'"):
        tasks.task_named("helaswag@0")
    with pytest.raises(UserError, match="examples are fixed"):
        tasks.task_named("ifeval@8")


# --- statistics


def test_standard_errors_are_those_of_the_harness() -> None:
    groups = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0]]
    own = [standard_error([group]) for group in groups]
    assert own[0] == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))
    sizes = [3, 4, 2]  # sqrt(sum((n_i - 1) n_i se_i^2) / (sum n_i - k) / sum n_i)
    spread = sum((n - 1) * n * e**2 for n, e in zip(sizes, own, strict=True))
    assert standard_error(groups) == pytest.approx(math.sqrt(spread / (9 - 3) / 9))
    assert standard_error([[1.0]]) == 0.0 and detectable(0.01) == pytest.approx(0.02802)


def test_clusters_widen_what_items_that_go_together_say() -> None:
    alike, mixed = [[1.0] * 20, [0.0] * 20] * 3, [[1.0, 0.0] * 20] * 3
    assert clustered_error(alike) > 4 * standard_error([[one for group in alike for one in group]])
    assert clustered_error(mixed) == pytest.approx(0, abs=1e-12)
    assert clustered_error([[1.0, 0.0]]) == 0.0
    wide = clustered_mean(alike)
    assert wide.mean == 0.5 and wide.high - wide.low > 0.5 and wide.n == 120
