"""A dataset's card against numbers counted by hand."""

import json

import pytest
from report_run import comparison, conversation, dialogue, lineage

from flywright.errors import UserError
from flywright.report.card import bars, card_of_folder, write_card


@pytest.fixture
def files(tmp_path, run):
    folder = tmp_path / "set"
    folder.mkdir()
    talks = [dialogue(f"t{n}", scores={"reward": float(n)}) for n in range(3)]
    human = dialogue("h")
    human["lineage"] |= {"answer_by": "human", "source": "people", "model": ""}
    prompt = {"id": "p", "conversation": conversation("Why?"), "lineage": lineage("")}
    run.lines(folder / "talks.jsonl", [*talks, human, talks[0], prompt])
    run.lines(folder / "pairs.jsonl", [comparison("c", "llm")])
    dropped = [{"reason": "near copy", "record": prompt}, {"reason": "no reward", "record": human}]
    run.lines(folder / "dropped.jsonl", [*dropped, dropped[0]])
    return folder


def test_the_card_says_what_is_there(files):
    tally = card_of_folder(files, {"people": "CC-BY-4.0"})
    card = (files / "README.md").read_text()
    assert tally.total == 6 and tally.answered == 5 and tally.by_model == 4
    assert "6 distinct records in 2 files" in card
    assert "**Synthetic share:** 80.0%\n(4 of 5 records with an answer" in card
    assert "| `people` | CC-BY-4.0 |" in card and "| not stated |" in card
    assert "| filter | near copy | 2 |" in card and "| filter | no reward | 1 |" in card
    assert "| `dialogue` | 4 | 66.7% |" in card and "| talks.jsonl | 6 |" in card
    assert "**Not compared with any benchmark:**" in card
    assert tally.rewards == [2.0, 0.0, 1.0, 2.0][-len(tally.rewards) :]


def test_the_header_is_what_the_hub_reads(files):
    yaml = pytest.importorskip("yaml")
    card_of_folder(
        files, dict.fromkeys(("people", "dialogues", "comparisons", "prompts", ""), "MIT")
    )
    header = yaml.safe_load((files / "README.md").read_text().split("---")[1])
    assert header["size_categories"] == ["n<1K"] and "synthetic" in header["tags"]
    named = {one["config_name"]: one["data_files"] for one in header["configs"]}
    assert named == {"pairs": "pairs.jsonl", "talks": "talks.jsonl"}
    assert header["license"] in ("mit", "other")


def test_flows_and_contamination_are_told(files):
    flows = {"open_qa": {"in": 9, "out": 2, "failed": 1, "dropped: cut": 6, "dropped: no": 0}}
    write_card(
        files / "x.card.md", [("talks.jsonl", files / "talks.jsonl")], flows, {}, "Compared."
    )
    card = (files / "x.card.md").read_text()
    assert "\n# x\n" in card
    assert "| open_qa | cut | 6 |" in card and "| open_qa | failed | 1 |" in card
    assert "| open_qa | no |" not in card and "\nCompared.\n" in card
    write_card(files / "x.card.md", [])  # one of ours is written again
    assert "none has an answer" in (files / "x.card.md").read_text()


def test_a_readme_of_another_hand_stays(files):
    (files / "README.md").write_text("mine")
    with pytest.raises(UserError, match="not a card of ours"):
        card_of_folder(files, {})
    assert (files / "README.md").read_text() == "mine"


def test_a_folder_without_records_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1}) + "\n")
    with pytest.raises(UserError, match="no records"):
        card_of_folder(tmp_path, {})


def test_bars_count_every_value():
    assert [line.split()[-1] for line in bars("x", [0, 0, 5, 10])[4:-1]] == [*"2000010001"]
    assert sum(int(line.split()[-1]) for line in bars("x", [2.0, 2.0])[4:-1]) == 2
    assert bars("x", []) == []


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 4095, 4096, 4097])
def test_every_length_has_a_bar(tmp_path, run, length):
    talk = dialogue("t")
    talk["conversation"]["messages"][-1]["content"] = "x" * length
    run.lines(tmp_path / "t.jsonl", [talk, dialogue("u")])
    card_of_folder(tmp_path, {})
    shown = (tmp_path / "README.md").read_text().split("in characters")[1].split("```")[1]
    assert sum(int(line.split()[-1]) for line in shown.strip().splitlines()) == 2
