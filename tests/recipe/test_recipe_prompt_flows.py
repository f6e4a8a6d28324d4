"""The prompt flows from their settings files: both parse, and the small one runs flow by flow."""

import json
import re
from pathlib import Path

import pytest

from flywright.errors import UserError
from flywright.recipe.flow_run import run_one
from flywright.recipe.flows import FlowFile
from flywright.recipe.prompt_flows import ALL, PROMPT_FLOWS
from flywright.records import Dialogue, Document, Prompt, read_jsonl
from flywright.serve import create_fake_app
from flywright.settings import load_settings
from flywright.synth.arguments import ARGUMENTS
from flywright.synth.prompts import UNSAFE
from served import served

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = RECIPES / "synth-laptop.toml"


@pytest.fixture(scope="module")
def endpoint():
    with served(create_fake_app()) as address:
        yield address


is_id = re.compile("[0-9a-f]{12}").fullmatch
FEWER = ["synth.macro_topics=2", "synth.subtopics=1", "synth.questions=2", "prompts.rated=3"]


def run(flow, out, endpoint, *more):
    given = [f"prompts.{name}={RECIPES}/synth-laptop/{name}.jsonl" for name in ("chats", "logs")]
    given += [f"prompts.documents={RECIPES}/synth-laptop/documents.jsonl"]
    given += [f"prompts.{s}_names={RECIPES}/synth-laptop/names.txt" for s in ("math", "python")]
    return run_one(
        flow,
        SMALL,
        [f"out={out}", f"generator.model={endpoint}", f"reward={endpoint}", *given, *more],
    )


@pytest.fixture(scope="module")
def folder(endpoint, tmp_path_factory):
    """Every flow of the small file, one after the other."""
    out = tmp_path_factory.mktemp("synth") / "out"
    for flow in PROMPT_FLOWS:
        run(flow, out, endpoint, *FEWER)
    return out


def test_the_full_size_has_the_reports_counts():
    own = load_settings(FlowFile, RECIPES / "synth-full.toml", [])
    sizes = own.synth
    assert own.prompts.most_topics == 3000 and own.prompts.most_math == 17_000
    assert own.prompts.most_python == 12_000
    topics = sizes.macro_topics * (1 + sizes.subtopics)
    assert topics > 3000 and topics * len(sizes.school_levels) > 0.75 * 17_000
    assert set(sizes.instruction_kinds) == set(ARGUMENTS) and sizes.instruction_size == "full"


def test_every_flow_wrote_its_records(folder):
    topics = [topic.text for topic in read_jsonl(folder / "topics.jsonl", Document)]
    assert len(topics) == 5 and topics[0] == "home brewing"
    for flow in ALL:
        made = list(read_jsonl(folder / f"{flow}.jsonl", Prompt))
        assert made and all(prompt.lineage.source for prompt in made), flow
        assert len({prompt.id for prompt in made}) == len(made)
    assert {p.task for p in read_jsonl(folder / "instructions.jsonl", Prompt)} == {
        *("instruction", "instruction_lasting", "instruction_revise")
    }


def test_the_sides_are_disjoint_and_what_was_flagged_is_not_for_sft(folder):
    sides = [list(read_jsonl(folder / f"{name}.jsonl", Prompt)) for name in ("sft", "preference")]
    families = [
        {name for p in side for name in (p.id, *p.lineage.parents) if is_id(name)} for side in sides
    ]
    assert all(families) and not families[0] & families[1]
    flagged = [sum(UNSAFE in prompt.lineage.scores for prompt in side) for side in sides]
    assert flagged == [0, 1]


def test_what_lies_beside_makes_no_flow_anew(folder, endpoint):
    for flow in ("split", "open_qa", "difficulty"):
        shards = folder / f"{flow}.work" / "shards"
        made = {path: path.stat().st_mtime_ns for path in shards.iterdir()}
        run(flow, folder, endpoint, *FEWER)
        assert {path: path.stat().st_mtime_ns for path in shards.iterdir()} == made, flow


def test_difficulty_is_told_by_source(folder):
    table = json.loads((folder / "difficulty.json").read_text())
    answers = list(read_jsonl(folder / "difficulty.jsonl", Dialogue))
    assert set(table) == {answer.task for answer in answers} and len(table) == 10
    assert all(row["low"] <= row["mean"] <= row["high"] for row in table.values())
    assert sum(row["n"] for row in table.values()) == len(answers)


def test_a_flow_on_nothing_says_what_it_needs(endpoint, tmp_path):
    with pytest.raises(UserError, match="data = FILE, or open_qa or "):
        run("split", tmp_path / "none", endpoint)
    with pytest.raises(UserError, match="difficulty: needs reward"):
        run("difficulty", tmp_path / "none", endpoint, "reward=")


def test_documents_and_code_of_ones_own(endpoint, tmp_path):
    (tmp_path / "code").mkdir()
    for n in range(3):
        (tmp_path / "code" / f"{n}.py").write_text("import json\nprint(json.dumps(1))\n")
    rows = ["A long text about rivers and the towns beside them."] * 2 + ["Another about bees."]
    documents = tmp_path / "c4.jsonl"
    documents.write_text("".join(json.dumps({"text": t, "url": "u"}) + "\n" for t in rows))
    small = ["synth.macro_topics=1", "synth.subtopics=0", "synth.questions=1"]
    told = run("coding", tmp_path / "a", endpoint, f"prompts.code={tmp_path}/code", *small)
    assert "'mined': {'names': 3}" in told
    told = run("closed_qa", tmp_path / "a", endpoint, f"prompts.documents={documents}", *small)
    assert "'documents': {'in': 3, 'kept': 2" in told
