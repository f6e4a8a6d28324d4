"""Whether anything held out was trained on: found by words, by item, in later turns, in texts."""

import pytest

from flywright.recipe.overlap import overlap
from flywright.recipe.sources import Source
from flywright.recipe.step import Artifact
from flywright.records import Conversation, Dialogue, Document, Lineage, Prompt, write_jsonl

LINEAGE = Lineage(source="test")


class ByLastWord(Source):
    """An item is the last word of what is asked, whatever stands before it."""

    def identify(self, conversation):
        return conversation.last.split()[-1]


def held_out(*turns):
    name = " ".join(turns)
    return Prompt(id=name, conversation=Conversation.of(*turns), lineage=LINEAGE)


@pytest.fixture
def trained(tmp_path):
    talk = Conversation.of("Spell cat", "c a t", "Reverse  A B.", "B A")
    dialogue = Dialogue(id="d", conversation=talk, lineage=LINEAGE)
    write_jsonl(tmp_path / "dialogues.jsonl", [dialogue])
    text = "User\nSay one\nAssistant\none\nUser\nSay two\nAssistant\ntwo"
    write_jsonl(tmp_path / "questions.jsonl", [Document(text=text, source="questions")])
    return [Artifact("talks", tmp_path, "")]


@pytest.mark.parametrize(
    ("turns", "words", "items"),
    [
        (("spell CAT",), 1, 0),  # the same words but for case
        (("Please spell the word cat",), 0, 1),  # another wording of one item
        (("reverse a b",), 1, 0),  # a later turn of a talk
        (("Say two",), 1, 1),  # inside a transcript
        (("Say one", "one", "Say two"), 1, 1),
        (("Say three",), 0, 0),
    ],
)
def test_overlap_is_counted(trained, turns, words, items):
    found = overlap([held_out(*turns)], trained, ByLastWord())
    assert (found["prompts"], found["items"]) == (words, items)
    assert (found["heldout"], found["training"]) == (1, 4)
