"""Every IFEval instruction: answers that follow it, and answers that do not."""

from typing import Any

import pytest

from flywright.errors import UserError
from flywright.judge.instructions import CHECKERS, follows, follows_loosely, variants
from flywright.judge.language import detect
from flywright.judge.words import sentences, tokens

AT_LEAST, LESS = "at least", "less than"

# id, args, answers that follow, answers that do not
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["red", "fox"]}, ["A Red FOX ran."], ["A red cat."]),
    (
        "keywords:frequency",
        {"keyword": "sea", "relation": AT_LEAST, "frequency": 2},
        ["Sea and sea.", "seaside, sea"],
        ["One sea."],
    ),
    (
        "keywords:frequency",
        {"keyword": "sea", "relation": LESS, "frequency": 2},
        ["sea", "none"],
        ["sea sea"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock"]},
        ["Rocks and rocky hills."],
        ["A Rock!", "rock"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "A", "let_relation": AT_LEAST, "let_frequency": 3},
        ["Banana", "a A a"],
        ["Bana"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_relation": AT_LEAST, "let_frequency": 2},
        ["#one #two"],
        ["#one"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Der Hund ist groß und die Katze ist klein.", "123"],
        ["The dog is big and the cat is small.", "Le chien est grand et le chat est petit."],
    ),
    (
        "length_constraints:number_sentences",
        {"relation": AT_LEAST, "num_sentences": 2},
        ["It rains. We stay in.", "Why? Because!", "1. Bread"],
        ["Mr. Smith came at 5 p.m. to see us.", "Bread\nMilk"],
    ),
    (
        "length_constraints:number_sentences",
        {"relation": LESS, "num_sentences": 2},
        ["It cost 3.50 euros."],
        ["It rains. It snows."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["One\n***\nTwo", "***\nOne\n***\nTwo\n***"],
        ["One\n\nTwo", "One\n***\n\n***\nTwo", "One\n***\nTwo\n***\nThree"],
    ),
    (
        "length_constraints:number_words",
        {"relation": AT_LEAST, "num_words": 3},
        ["one two three"],
        ["one, two"],
    ),
    (
        "length_constraints:number_words",
        {"relation": LESS, "num_words": 3},
        ["one two"],
        ["one two three"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weekend"},
        ["Hi there.\n\nWeekend, at last.", 'Hi.\n\n"weekend" it is'],
        ["Weekend.\n\nHi.", "Hi.\n\nWeekends.", "Hi.\n\nWeekend.\n\nBye.", "Weekend"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name], meet at [place]."],
        ["Dear [name]."],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. Write!", "bye p. s. more"],
        ["Bye. PS more", "Bye."],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. Write!"],
        ["Bye.\nP.S. Write!"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "- one\n  - two"],
        ["* one", "* one\n* two\n* three", "** one\n** two"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is maybe."],
        ["My answer is perhaps.", "Yes."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one** and *two*"],
        ["*one* and two", "** ** *one*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb"],
        ["SECTION 1\na", "Section 1\nSection 2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1]}', '```json\n{"a": 1}\n```'],
        ["a: 1", 'Here: {"a": 1}'],
    ),
    ("detectable_format:title", {}, ["<<Joy>>\ntext"], ["<Joy>", "<< >>", "Joy"]),
    (
        "combination:two_responses",
        {},
        ["One\n******\nTwo"],
        ["One", "One\n******\nOne", "One\n******\nTwo\n******\nThree"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say hello."},
        ["say hello. Hello!"],
        ["Hello! Say hello."],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "That is all."},
        ["Fine. THAT IS ALL.", '"Fine. That is all."'],
        ["That is all. Bye."],
    ),
    ("startend:quotation", {}, ['"Hello."', ' "Hi" '], ["Hello.", '"Hello.', '"']),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": AT_LEAST, "capital_frequency": 2},
        ["VERY good, REALLY", "I'M here"],
        ["VERY good"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THE CAT SAT ON THE MAT."],
        ["The cat sat.", "DER HUND UND DIE KATZE SIND NICHT HIER"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["the cat sat on the mat."],
        ["The cat sat.", "der hund und die katze sind nicht hier"],
    ),
    ("punctuation:no_comma", {}, ["No commas; none."], ["Well, no."]),
]


@pytest.mark.parametrize(("kind", "args", "good", "bad"), CASES)
def test_instruction(kind: str, args: dict[str, Any], good: list[str], bad: list[str]) -> None:
    for answer in good:
        assert follows(kind, args, answer), answer
    for answer in bad:
        assert not follows(kind, args, answer), answer
    for empty in ("", " \n"):
        assert not follows(kind, args, empty)


def test_all_25_instructions_have_cases() -> None:
    assert len(CHECKERS) == 25
    assert {case[0] for case in CASES} == set(CHECKERS)


def test_loose_forgives_an_opening_line_a_closing_line_and_asterisks() -> None:
    quoted = '"It is done."'
    for answer in (f"Sure:\n{quoted}", f"{quoted}\nBye", f"Sure:\n{quoted}\nBye", f"**{quoted}**"):
        assert not follows("startend:quotation", {}, answer)
        assert follows_loosely("startend:quotation", {}, answer)
    assert not follows_loosely("startend:quotation", {}, "Sure\nno\nno")
    assert len(variants("a\nb\nc")) == 8


def test_unknown_instruction_and_bad_arguments_are_named() -> None:
    with pytest.raises(UserError, match="keywords:existense"):
        follows("keywords:existense", {}, "a")
    with pytest.raises(UserError, match="keywords:existence"):
        follows("keywords:existence", {"keyword": "a"}, "a")
    with pytest.raises(UserError, match="at most"):
        follows("length_constraints:number_words", {"relation": "at most", "num_words": 3}, "a")
    assert follows("punctuation:no_comma", {"num_words": None}, "fine")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("the cat is on the mat", "en"),
        ("el gato está en la casa con los niños", "es"),
        ("le chat est dans la maison avec nous", "fr"),
        ("il gatto è nella casa con gli amici di Anna", "it"),
        ("o gato não está em casa com a gente", "pt"),
        ("кошка не была в доме, но он был там", "ru"),
        ("котката е в къщата и не иска да излезе", "bg"),
        ("बिल्ली घर में है और वह सो रही है", "hi"),
        ("मांजर घरात आहे आणि ते झोपले आहे", "mr"),
        ("گربه در خانه است و این را می خواهد", "fa"),
        ("القط في البيت مع هذا الرجل", "ar"),
        ("猫は家にいます", "ja"),
        ("고양이가 집에 있다", "ko"),
        ("ಬೆಕ್ಕು ಮನೆಯಲ್ಲಿದೆ", "kn"),
        ("Zxqv brrm", ""),
    ],
)
def test_language(text: str, code: str) -> None:
    assert detect(text) == code


def test_sentences_and_tokens() -> None:
    text = 'Dr. Who met J. Smith in the U.S. army. "Really?" she said... and left! Ok'
    assert sentences(text) == [
        "Dr. Who met J. Smith in the U.S. army.",
        '"Really?"',
        "she said... and left!",
        "Ok",
    ]
    assert tokens("DON'T SHOUT well-known U.S. I’M") == [
        *("DO", "N'T", "SHOUT", "well-known", "U.S", "I", "'M")
    ]
