"""Replies are read deterministically, and what is read stands in the reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywright.synth import Dropped, parse


@given(st.text(), st.integers(1, 4))
def test_every_element_stands_in_the_reply(reply, count):
    try:
        elements = parse.numbered(reply, count)
    except Dropped:
        return
    assert len(elements) == count == len(set(elements))
    assert all(element and element in reply for element in elements)


@given(
    st.lists(st.from_regex(r"[a-z][a-z ?.]{0,20}[a-z]", fullmatch=True), min_size=1, unique=True)
)
def test_a_numbered_list_is_read_whole(items):
    reply = "Sure:\n" + "\n".join(f" {n}) {item}" for n, item in enumerate(items, 1)) + "\n\nBye."
    assert parse.numbered(reply, len(items)) == items


def test_lists_that_are_short_or_cut_are_dropped():
    reply = '1. rivers\n2. **lakes**\n3. "seas"\n4. Rivers\n5. moun'
    assert parse.numbered(reply, 3) == ["rivers", "lakes", "seas"]
    assert parse.numbered(reply, 4)[-1] == "moun"
    with pytest.raises(Dropped, match="list too short"):
        parse.numbered(reply, 4, cut=True)
    with pytest.raises(Dropped):
        parse.numbered("no list here", 1)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Thank you for the explanation. How deep is it?", "How deep is it?"),
        ("Sure, I'd be happy to help! what about lakes?", "What about lakes?"),
        ("User: thanks! That's great. And the sea?", "And the sea?"),
        ("How do I say thank you in French?", "How do I say thank you in French?"),
        ("Surely not?", "Surely not?"),
        ("Thanks for that, but can you also list the ports?", "Can you also list the ports?"),
        ("Thank you, could you name two more?", "Could you name two more?"),
        ("That's really useful, and which is the oldest?", "Which is the oldest?"),
        ("Thank you for the list, the map, and the tips! Which is best?", "Which is best?"),
    ],
)
def test_politeness_is_stripped_at_the_start_only(said, left):
    assert parse.without_politeness(said) == left


def test_a_turn_of_politeness_only_is_dropped():
    with pytest.raises(Dropped):
        parse.without_politeness("Thank you very much.")


def test_only_a_last_line_of_yes_is_yes():
    assert parse.yes("It works.\nVerdict: Yes") and parse.yes("**Verdict: yes**")
    for reply in ("Verdict: No", "Verdict: Yes\nBut not quite.", "Yes", "", "Verdict: Yes or No"):
        assert not parse.yes(reply)


def test_code_and_asserts():
    assert parse.code("Here:\n```python\ndef f():\n    return 1\n```\nDone") == (
        "def f():\n    return 1"
    )
    assert parse.code("def f(): pass") == "def f(): pass"
    assert parse.asserts("Tests:\nassert f(1) == 2\n  assert f(2)\nassert f(3)", 2) == [
        "assert f(1) == 2",
        "assert f(2)",
    ]


def test_json_and_talks_are_found_in_what_is_said_around_them():
    assert parse.json_in('Sure [x]: ```json\n[{"a": 1}]\n``` done', list) == [{"a": 1}]
    assert parse.json_in('{not} {"name": "f", "arguments": {}} {"second": 1}', dict)["name"] == "f"
    with pytest.raises(Dropped, match="no JSON"):
        parse.json_in("none here {", dict)
    said = "A talk:\n**User:** one\n\nbot: two\n- still two\nUSER: three\nbot: four\nuser: five"
    assert parse.talk(said, 4) == ["one", "two\n- still two", "three", "four"]
    for bad, why in (("bot: a\nuser: b", "alternate"), ("user: a\nbot: b", "short"), ("", "short")):
        with pytest.raises(Dropped, match=why):
            parse.talk(bad, 4)
