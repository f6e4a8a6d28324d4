"""The flows of the extra sources as the command runs them, and what stands beside the records."""

import asyncio
import json
from pathlib import Path

import pytest

from flywright.ask import Scripted
from flywright.errors import UserError
from flywright.recipe.flow_extras import EXTRAS, told_of_judges
from flywright.recipe.flows import FlowFile
from flywright.records import Comparison, Conversation, Lineage, Prompt, Verdict, write_jsonl
from flywright.settings import load_settings
from flywright.synth import Maker, SynthSettings

RECIPES = Path(__file__).parents[2] / "recipes"


def own_file(tmp_path, *overrides, size="laptop"):
    named = [f"out={tmp_path / 'made.jsonl'}", *overrides]
    return load_settings(FlowFile, RECIPES / f"synth-{size}.toml", named)


def run(flow, own, reply=lambda *_: pytest.fail("nobody has to be asked")):
    maker = Maker(Scripted(reply, model="m"), SynthSettings(), own.seed)
    return maker, asyncio.run(EXTRAS[flow](maker, own))


def test_problems_that_come_along_are_read_and_solved(tmp_path):
    path = RECIPES / "synth-laptop" / "problems.jsonl"
    _, asked = run("problems", own_file(tmp_path, f"data={path}", "problems.tries=0"))
    assert len(asked) == 4 and all(isinstance(one, Prompt) and one.checks for one in asked)
    right = {
        "baker": "54",
        "frac": "0.25",
        "share": "25%",
        "museum": "no",
        "allowed?": "Lower, Upper",
    }

    def reply(prompt, _sampling):
        found = [said for key, said in right.items() if key in prompt.last]
        return f"So it is.\nAnswer: {found[0] if found else '30.3'}"

    maker, solved = run("problems", own_file(tmp_path, f"data={path}"), reply)
    assert len(solved) == 4 and maker.counts["read"]["out"] == 4
    with pytest.raises(UserError, match="data = FILE"):
        run("problems", own_file(tmp_path))


def test_stem_from_a_folder_tells_what_was_left_out(tmp_path):
    folder = RECIPES / "synth-laptop"
    own = own_file(tmp_path, f"data={folder / 'stem.jsonl'}")
    _, made = run("stem", own)
    counts = json.loads((tmp_path / "made.balance.json").read_text())
    assert len(made) == 3 and counts["reclor"]["left out: licence non-commercial"] == 1
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.jsonl").write_text((folder / "stem.jsonl").read_text())
    assert run("stem", own_file(tmp_path, f"data={tmp_path / 'parts'}"))[1] == made


def test_the_full_size_has_the_reports_counts(tmp_path):
    own = own_file(tmp_path, size="full")
    topics, genes = own.topic_following, own.genetic
    assert len(topics.domains) * topics.scenarios * topics.dialogues == 1080
    assert topics.distractors == 5 and topics.batch == 10
    assert genes.colonies * genes.generations * genes.target == 800_000
    assert own.synth.user_turns == 3


def test_the_judges_report_stands_beside_the_pairs(tmp_path):
    votes = (Verdict(judge="truth", preference=1), Verdict(judge="llm:m", detail="A/A"))
    lineage = Lineage(source="comparisons", verdicts=votes)
    asked = Conversation.of("q")
    pair = Comparison(
        id="1", conversation=asked, chosen="a", rejected="b", judge="truth", lineage=lineage
    )
    people = tmp_path / "people.jsonl"
    write_jsonl(people, [pair])
    told_of_judges(own_file(tmp_path, f"comparisons.people={people}"), [pair])
    report = json.loads((tmp_path / "made.judges.json").read_text())
    assert report["agreement"]["people ~ truth"]["agree"] == 1.0
    assert report["position"] == {"llm:m": {"first twice": 1}}
    assert "first twice" in (tmp_path / "made.judges.md").read_text()


def test_roles_are_names_of_those_who_answer(tmp_path):
    one, two = Scripted(lambda *_: ""), Scripted(lambda *_: "")
    answerers = {"generator": one, "big": two}
    own = own_file(tmp_path, "roles.judge=big")
    assert own.part("judge", answerers, one) is two and own.part("coder", answerers, one) is one
    with pytest.raises(UserError, match=r"roles\.judge = 'big'.*generator"):
        own.part("judge", {"generator": one}, one)
