"""Files that others wrote become records; the road on them walks to its end, tiny."""

import asyncio
import gzip
import json
import math
import os
import random
from pathlib import Path

import pytest

from flywright.errors import UserError
from flywright.evals.choice import Choice
from flywright.evals.likelihood import bits_per_byte, choose
from flywright.files import write_json
from flywright.recipe import files
from flywright.recipe.files_road import Files, FilesSettings, Sets
from flywright.recipe.run import read_recipe, run, stage_rows, step_names
from flywright.records import Comparison, Dialogue, Document, read_jsonl

DATA = Path(os.environ.get("FLYWRIGHT_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECIPE = Path(__file__).parents[2] / "recipes" / "real.toml"
WORDS = tuple("the river runs past a mill and green boats wait for rain by old stone".split())  # noqa: SIM905


def sentence(rng: random.Random, count: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count)).capitalize() + "."


def lines(path: Path, rows: list) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with a few sets in the real ones' forms."""
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(1)
    say = lambda: sentence(rng)  # noqa: E731
    texts = [{"text": "\n".join(say() for _ in range(9))} for _ in range(60)]
    lines(folder / "books.jsonl.gz", texts)
    lines(folder / "es.jsonl.gz", [{"text": f"El río y la casa de los {say()}"} for _ in range(60)])
    (folder / "java.txt").write_text("".join(f"int f{n}() {{ return {n}; }}\n" for n in range(200)))
    quiz = [{"question": say(), "choices": [say(), say()], "gold": n % 2} for n in range(80)]
    lines(folder / "quiz.jsonl.gz", quiz)
    hh = [
        {
            "chosen": f"\n\nHuman: {n} {say()}\n\nAssistant: {say()}",
            "rejected": f"\n\nHuman: {n} {say()}\n\nAssistant: {say()}",
        }
        for n in range(40)
    ]
    for row in hh[:36]:
        row["rejected"] = row["chosen"].rpartition("Assistant:")[0] + f"Assistant: {say()}"
    lines(folder / "hh.jsonl.gz", hh)
    talks = [
        {"question": f"{say()} {n}?", "answer": f"{say()} <<1+1=2>>2\n#### 2"} for n in range(30)
    ]
    lines(folder / "gsm8k" / "train.jsonl.gz", talks)
    lines(folder / "gsm8k" / "test.jsonl.gz", talks[:2])
    asked = [
        {"id": str(n), "question": say(), "choices": [say(), say()], "gold": 0} for n in range(4)
    ]
    lines(folder / "arc" / "ARC-Easy_test.jsonl.gz", asked)
    return folder


@pytest.fixture(scope="module")
def recipe(data) -> FilesSettings:
    tiny = [
        f"data={data}",
        'texts={books={path="books.jsonl.gz"}, es={path="es.jsonl.gz", language="es"},'
        ' java={path="java.txt", form="lines", language="code"}}',
        'quizzes={quiz="quiz.jsonl.gz"}',
        'pairs={hh="hh.jsonl.gz", hhh="absent.json"}',
        'dialogues.sets={gsm8k="gsm8k/train.jsonl.gz"}',
        "model={vocab_size=340, hidden_size=16, layers=1, heads=2, kv_heads=1, head_dim=8,"
        " ffn_size=32, context_length=256}",
        "documents.vocab_size=340",
        "pretrain.window=64",
        "benchmarks.items=2",
        "benchmarks.max_tokens=4",
        "heldout.texts=0.1",
    ]
    for stage in ("pretrain", "continued", "reward", "sft", "dpo"):
        tiny += [
            f"{stage}.train.{key}" for key in ('precision="fp32"', "samples=8", "batch_size=4")
        ]
        tiny += [f"{stage}.train.max_over_length_share=0.5", f"{stage}.train.batch_ramp=[]"]
    found = read_recipe(RECIPE, tiny, None)
    assert isinstance(found, FilesSettings)
    return found


@pytest.fixture(scope="module")
def walked(recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("real")
    run(recipe, out)
    return out


def facts(run_folder: Path, step: str) -> dict:
    return json.loads((run_folder / "steps" / f"{step}@1" / "manifest.json").read_text())["facts"]


def test_the_road_on_files_ends_with_numbers(walked, recipe):
    assert [row["stage"] for row in stage_rows(walked)] == ["base", "sft", "dpo"]
    bits = facts(walked, "bits")
    assert set(bits) == {"code", "en", "es"}
    for row in bits.values():
        assert row["bytes"] > 0 and all(0 < row[name] < 20 for name in ("continue", "dpo"))
    pairs = facts(walked, "pairs")
    for name in ("reward model", "the longer answer", "DPO's margin"):
        assert 0 <= pairs[name]["low"] <= pairs[name]["mean"] <= pairs[name]["high"] <= 1
    assert facts(walked, "benchmarks")["guessing"] == {"arc_easy": 0.5}
    assert facts(walked, "preferences")["missing"] == ["pairs.hhh"]
    assert json.loads((walked / "report" / "facts.json").read_text())["reward_model"]["pairs"] > 0


def test_no_prompt_is_on_both_sides(walked):
    steps = walked / "steps"
    sides = [
        {files.opening(pair.conversation) for pair in read_jsonl(path, Comparison)}
        for path in (steps / "preferences@1" / n for n in ("dpo.jsonl", "heldout.jsonl"))
    ]
    talks = read_jsonl(steps / "dialogues@1" / "dialogues.jsonl", Dialogue)
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert not sides[1] & {files.opening(talk.conversation) for talk in talks}


def test_held_out_texts_are_not_trained_on(recipe):
    source = Files(recipe)
    trained = {files.key(document.text) for document in source.documents()}
    held = [text for texts in source.heldout_texts().values() for text in texts]
    assert held and not trained & {files.key(text) for text in held}


def test_a_folder_without_sets_is_one_line(recipe, tmp_path):
    empty = recipe.model_copy(update={"data": tmp_path})
    assert "documents" in step_names(empty)
    with pytest.raises(UserError, match=r"no file of \[texts\] is there; set data=FOLDER"):
        run(empty, tmp_path / "out")


@pytest.mark.parametrize(
    ("votes", "outcome"), [((2, 2, 1), "B"), ((1, 1, 1), "A"), ((0, 0, 1), ""), ((0, 1, 2), "")]
)
def test_annotators_decide_by_majority_and_ties_are_left_out(tmp_path, votes, outcome):
    row = {"instruction": "Say", "input": "it", "response1": "A", "response2": "B"}
    row |= {f"annotator{n}": vote for n, vote in enumerate(votes, 1)}
    write_json(tmp_path / "p.json", [row])
    reading = files.read(tmp_path / "p.json", form="pandalm")
    if not outcome:
        with pytest.raises(UserError, match=r"no row is left: without a majority \(1\)"):
            list(reading)
        return
    (pair,) = reading
    assert (pair.chosen, pair.conversation.last, pair.task) == (outcome, "Say\n\nit", "pandalm")


def test_pairs_with_two_prompts_or_turns_out_of_order_are_counted(tmp_path):
    same = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "
    rows = [
        {"chosen": same + "yes", "rejected": same + "no"},
        {"chosen": same + "yes", "rejected": "\n\nHuman: other\n\nAssistant: no"},
        {"chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "rejected": same + "no"},
        {"chosen": same + "yes", "rejected": same + "yes"},
    ]
    path = Path(lines(tmp_path / "hh.jsonl.gz", rows))
    reading = files.read(path, form="hh")
    (pair,) = reading
    assert [m.content for m in pair.conversation.messages] == ["a", "b", "c"]
    assert (pair.chosen, pair.rejected) == ("yes", "no")
    assert reading.dropped == {"two prompts": 2, "equal answers": 1}
    with pytest.raises(UserError, match=r"hh\.jsonl\.gz:1: not of the form pandalm: its keys are"):
        list(files.read(path, form="pandalm"))


def test_long_texts_are_cut_without_loss():
    text = "".join(f"line {n} of many\n" for n in range(2000)) + "x" * 9000
    parts = [piece.text for piece in files.pieces(Document(text=text, source="s"))]
    assert "".join(parts) == text and max(map(len, parts)) <= files.PIECE
    assert parts[0].endswith("\n")


class Uniform:
    """Holds every byte likely at 1/256, and what ends in "right" a little more."""

    model = "uniform"

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        return [-len(t.encode()) * math.log(256) + t.endswith("right") for t in continuations]


def test_bits_per_byte_of_a_uniform_guess_are_eight():
    assert asyncio.run(bits_per_byte(Uniform(), ["abc", "ü"])) == pytest.approx(8)  # type: ignore[arg-type]
    item = Choice.plain(1, "Question", ("wrong and long", "right"), 1)
    (found,) = asyncio.run(choose(Uniform(), "arc", [item]))  # type: ignore[arg-type]
    assert (found.score, found.answer) == (1.0, "right")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no folder {DATA} (FLYWRIGHT_DATA names it)")
def test_every_set_of_the_recipe_is_read():
    recipe = read_recipe(RECIPE, [f"data={DATA}"], None)
    assert isinstance(recipe, FilesSettings)
    sets = [Sets("pairs", DATA, recipe.pairs), Sets("dialogues", DATA, recipe.dialogues.sets)]
    assert not any(found.missing for found in (Files(recipe), *sets))
    for form, path in recipe.pairs.items():
        assert sum(1 for _ in files.read(DATA / path, form=form)) > 200
    for form, path in recipe.dialogues.sets.items():
        assert sum(1 for _ in files.read(DATA / path, form=form)) >= 100
    assert "alpaca_eval" not in recipe.model_dump_json()
