"""Files as people have them become records: golden files, and one clear line for what is wrong."""

import gzip
import json
from pathlib import Path

import pytest

from flywright.data.formats import open_records
from flywright.data.forms import FORMS
from flywright.errors import UserError
from flywright.records import (
    Comparison,
    Conversation,
    Dialogue,
    Document,
    Lineage,
    Prompt,
    Rating,
    write_jsonl,
)
from flywright.tokenizer import chat

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
FILES = sorted(path for path in GOLDEN.iterdir() if not path.name.endswith(".records.json"))
PRIME = [{"role": "user", "content": "Name a prime."}]
SEVEN = {"role": "assistant", "content": "7"}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(path: Path) -> dict:
    """What a file says: the line, and its records."""
    reading = open_records(path)
    records = [record.model_dump(mode="json", exclude_defaults=True) for record in reading]
    return {"line": reading.line.replace(str(path), path.name), "records": records}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path):
    """GOLDEN/NAME.records.json was checked by hand; a change of it is a change of what is read."""
    expected = json.loads((GOLDEN / f"{path.stem}.records.json").read_text(encoding="utf-8"))
    assert told(path) == expected


def test_aligners_strings_give_the_very_tokens_that_they_spell(tokenizer):
    path = GOLDEN / "aligner_strings.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = list(open_records(path, Comparison))
    for row, pair in zip(rows, pairs, strict=False):
        assert chat.prompt_ids(tokenizer, pair.conversation) == chat.raw_ids(
            tokenizer, row["prompt"]
        )
        for side in ("chosen", "rejected"):
            spelt = chat.raw_ids(tokenizer, row[f"{side}_response"], continues=True)
            assert chat.answer_ids(tokenizer, pair.conversation, getattr(pair, side)) == spelt


def test_labelled_texts_give_the_very_tokens_that_they_spell(tokenizer):
    path = GOLDEN / "aligner_regression.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row, rating in zip(rows, open_records(path, Rating), strict=False):
        spelt = chat.raw_ids(tokenizer, row["text"])
        assert chat.reward_ids(tokenizer, rating.conversation) == spelt


def test_our_own_records_come_back_as_they_were(tmp_path):
    asked, lineage = Conversation.of("a", system="s"), Lineage(source="own")
    whole = asked.answered("b")
    records = [
        Dialogue(id="1", conversation=whole, task="t", lineage=lineage),
        Rating(id="2", conversation=whole, verbosity=3, lineage=lineage),
        Comparison(id="3", conversation=asked, chosen="b", rejected="c", lineage=lineage),
        Prompt(id="4", conversation=asked, lineage=lineage),
        Document(text="x", source="y"),
    ]
    for record in records:
        write_jsonl(tmp_path / "r.jsonl", [record, record])
        assert list(open_records(tmp_path / "r.jsonl", type(record))) == [record] * 2


def test_packed_files_are_read_alike(tmp_path):
    plain = GOLDEN / "helpsteer2.jsonl"
    packed = tmp_path / "helpsteer2.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert told(packed)["records"] == told(plain)["records"]


def test_a_label_may_first_come_in_a_later_row(tmp_path):
    turns = [{"from": "User", "value": "a"}, {"from": "Assistant", "value": "b", "label": None}]
    marked = [turns[0], {**turns[1], "label": "helpfulness:4"}]
    rows = [{"system": "", "mask": "User", "conversations": each} for each in (turns, marked)]
    reading = open_records(lines(tmp_path / "l.jsonl", *rows), Rating)
    assert [rating.helpfulness for rating in reading] == [4.0]
    assert reading.dropped == {"without a label of the five attributes": 1}


TURNS = [{"from": "User", "value": "a"}, {"from": "Assistant", "value": "b"}]
TEMPLATE = "<extra_id_0>System\n\n<extra_id_1>User\na\n<extra_id_1>Assistant\n"
PAIR = {"prompt": TEMPLATE, "chosen_response": "b", "rejected_response": "c"}
WRONG = {
    "unknown form": (
        [{"promt": "a", "answer": "b"}],
        r"f\.jsonl: of no known form: its keys are answer, promt; known: .*HelpSteer2 ratings",
    ),
    "no rows": ([], r"f\.jsonl: no rows"),
    "mixed": (
        [{"messages": [*PRIME, SEVEN]}, PAIR],
        r"f\.jsonl:2: .*messages: its keys are",
    ),
    "a field is missing": (
        [{"messages": [*PRIME, SEVEN]}, {"messages": [{"role": "user", "text": "a"}]}],
        r"f\.jsonl:2: not of the form messages: no 'content'",
    ),
    "unpaired": (
        [{"messages": [*PRIME, SEVEN], "label": False}],
        r"f\.jsonl:1: .*messages: .*unpaired preferences are not read",
    ),
    "the user is trained": (
        [{"system": "", "conversations": TURNS, "mask": "Assistant"}],
        r"f\.jsonl:1: not of the form NeMo SFT chat: \"mask\" is 'Assistant'",
    ),
    "a control token": (
        [PAIR, {**PAIR, "chosen_response": "b\n<extra_id_1>User\nc\n<extra_id_1>"}],
        r"f\.jsonl:2: not of .*strings\): a turn holds the control token '<extra_id_1>'",
    ),
    "a reward is no number": (
        [{**PAIR, "chosen_reward": float("nan"), "rejected_reward": 0.0}],
        r"f\.jsonl:1: .*chosen_reward, rejected_reward: not finite",
    ),
    "seven labels": ([{"text": "a", "label": [1.0] * 7}], r"f\.jsonl:1: .*7 values, neither five"),
    "another scale": (
        [{"prompt": "a", "response": "b", "helpfulness": 9}],
        r"f\.jsonl:1: .*helpfulness is 9, not from 0 to 4",
    ),
    "an odd row": ([{"text": TEMPLATE + "b"}] * 3, r"f\.jsonl:3: .*the last row has no other"),
    "nothing left": (
        [{**PAIR, "rejected_response": "b"}] * 2,
        r"f\.jsonl: .*strings\), but no row is left: equal answers \(2\)",
    ),
    "bad records": ([{"conversation": {"messages": []}}], r"f\.jsonl:1: .*Dialogue records: id"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line_that_names_the_row(name, tmp_path):
    rows, message = WRONG[name]
    with pytest.raises(UserError, match=message) as raised:
        list(open_records(lines(tmp_path / "f.jsonl", *rows)))
    assert "\n" not in str(raised.value)


def test_a_row_of_an_array_is_named_by_its_number(tmp_path):
    path = tmp_path / "f.json"
    path.write_text(json.dumps([{"conversations": TURNS}, {"conversations": 1}], indent=2))
    with pytest.raises(UserError, match=r"f\.json: row 2: not of the form ShareGPT"):
        list(open_records(path))


def test_another_kind_than_the_wanted_is_named():
    with pytest.raises(UserError, match=r"HelpSteer2 ratings: ratings, where dialogues are needed"):
        open_records(GOLDEN / "helpsteer2.jsonl", Dialogue)
    with pytest.raises(UserError, match=r"dialogues, where ratings or comparisons are needed"):
        open_records(GOLDEN / "nemo_chat.jsonl", Rating, Comparison)


def test_the_document_tells_of_every_form():
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [form.name for form in FORMS if form.name not in text] == []
