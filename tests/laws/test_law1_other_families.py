"""Law 1 over the formats that other families bring: prefix, mask, round trip, no control token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywright.records import Conversation
from flywright.tokenizer import Tokenizer, chat
from tokenizer_families import FAMILIES, write_family

WITH_SYSTEM = sorted(set(FAMILIES) - {"mistral", "mistral_marks"})
TRIMMING = {"llama2", "llama3"}
MARKS = [
    *("<|im_end|>", "<|im_start|>system\n", "<|eot_id|>", "</s>", "<s>", "<|endoftext|>"),
    *("\n", "\n\nyes", "  two spaces ", " ", "[INST] no", " [/INST]", "<<SYS>>", "<|user|>\n"),
]
text = st.text(
    st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=25
) | st.lists(st.sampled_from([*MARKS, "fox", "12"]), max_size=3).map("".join)


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {name: Tokenizer.load(write_family(name, folder / name)) for name in FAMILIES}


@st.composite
def asked(draw, contents=text):
    """(family, conversation that ends with an answer)."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    count = 2 * draw(st.integers(1, 3))
    turns = draw(st.lists(contents, min_size=count, max_size=count))
    system = draw(contents) if family in WITH_SYSTEM else ""
    return family, Conversation.of(*turns, system=system)


@settings(max_examples=150)
@given(drawn=asked())
def test_each_prompt_is_a_prefix_and_mask_is_exactly_the_answers(families, drawn):
    family, full = drawn
    tokenizer = families[family]
    rendered = chat.render(tokenizer, full)
    expected = [False] * len(rendered.ids)
    messages = full.messages
    for n in range(1 if full.system else 0, len(messages), 2):
        before = Conversation(messages=messages[: n + 1])
        prompt = chat.prompt_ids(tokenizer, before)
        assert rendered.ids[: len(prompt)] == prompt
        end = rendered.ids.index(chat.end_ids(tokenizer)[0], len(prompt)) + 1
        answer = rendered.ids[len(prompt) : end]
        said = messages[n + 1].content
        if family in TRIMMING:
            said = said.strip()
        if family != "qwen3" or n + 2 == len(messages):
            assert chat.answer_ids(tokenizer, before, messages[n + 1].content) == answer
            assert chat.answer_text(tokenizer, answer) == said
        expected[len(prompt) : end] = [True] * len(answer)
    assert rendered.mask == expected


@settings(max_examples=150)
@given(drawn=asked())
def test_content_never_becomes_a_control_token(families, drawn):
    """As many control tokens as with harmless words."""
    family, conversation = drawn
    tokenizer = families[family]
    harmless = Conversation.of(
        *["x"] * len(conversation.turns), system="x" if conversation.system else ""
    )
    found, expected = (
        [i for i in chat.render(tokenizer, one).ids if i in tokenizer.control_ids]
        for one in (conversation, harmless)
    )
    assert found == expected


@settings(max_examples=150)
@given(
    drawn=asked(st.text("abcxyz AZ.,!?0123456789äß世\n", max_size=25).map(str.strip).filter(bool))
)
def test_parse_undoes_render(families, drawn):
    family, conversation = drawn
    rendered = chat.render(families[family], conversation)
    assert chat.parse(families[family], rendered.ids) == conversation


@given(turns=st.lists(text, min_size=1, max_size=4), system=text)
def test_our_own_files_read_as_another_familys_give_the_same(tokenizer, borrowed, turns, system):
    """The template and tokenizer.json that we export, without tokenizer.model: a slow twin."""
    conversation = Conversation.of(*turns, system=system)
    assert chat.render(borrowed, conversation) == chat.render(tokenizer, conversation)
    asked = conversation if conversation.awaits_answer else conversation.without_answer()
    assert chat.prompt_ids(borrowed, asked) == chat.prompt_ids(tokenizer, asked)
    assert chat.end_ids(borrowed) == chat.end_ids(tokenizer)


@pytest.fixture(scope="module")
def borrowed(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("borrowed")
    tokenizer.save(folder)
    (folder / "tokenizer.model").unlink()
    return Tokenizer.load(folder)
