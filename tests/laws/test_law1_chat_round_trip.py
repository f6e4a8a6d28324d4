"""Law 1: parse(render(c)) == c; prompts are prefixes; the mask covers words and end of turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywright.records import Conversation
from flywright.tokenizer import chat

text = st.text(
    st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=40
) | st.sampled_from(["<extra_id_1>", "\n", "  two spaces ", "</s>", "<extra_id_1>User\nhi", "\n\n"])


@st.composite
def conversations(draw):
    turns = draw(st.lists(text, min_size=1, max_size=5))
    return Conversation.of(*turns, system=draw(text))


@given(conversation=conversations())
def test_parse_undoes_render(tokenizer, conversation):
    rendered = chat.render(tokenizer, conversation)
    assert chat.parse(tokenizer, rendered.ids) == conversation


@given(conversation=conversations())
def test_each_prompt_is_a_prefix_and_mask_is_exactly_the_answers(tokenizer, conversation):
    turns = conversation.turns
    full = conversation if len(turns) % 2 == 0 else conversation.answered("ok")
    rendered = chat.render(tokenizer, full)
    expected = [False] * len(rendered.ids)
    start = 1 if full.system else 0
    for n in range(start, len(full.messages), 2):
        asked = Conversation(messages=full.messages[: n + 1])
        prompt = chat.prompt_ids(tokenizer, asked)
        assert rendered.ids[: len(prompt)] == prompt
        answer = chat.answer_ids(tokenizer, asked, full.messages[n + 1].content)
        end = len(prompt) + len(answer)
        assert rendered.ids[len(prompt) : end] == answer
        expected[len(prompt) : end] = [True] * len(answer)
    assert rendered.mask == expected


@given(conversation=conversations())
def test_content_never_becomes_a_control_token(tokenizer, conversation):
    rendered = chat.render(tokenizer, conversation)
    closing = 0 if conversation.awaits_answer else 1
    assert rendered.ids.count(tokenizer.extra_ids[0]) == 1
    assert rendered.ids.count(tokenizer.extra_ids[1]) == len(conversation.turns) + closing
    assert tokenizer.eos_id not in rendered.ids and tokenizer.bos_id not in rendered.ids


def test_text_is_the_cards(tokenizer):
    """The raw form of the model card gives the same ids as the conversation."""
    card = "<extra_id_0>System\n\n<extra_id_1>User\nHi 12\n<extra_id_1>Assistant\n"
    assert chat.raw_ids(tokenizer, card) == chat.prompt_ids(tokenizer, Conversation.of("Hi 12"))
    more = card + "Yes.\n<extra_id_1>User\nGo\n<extra_id_1>Assistant\n"
    conversation = Conversation.of("Hi 12", "Yes.", "Go")
    assert chat.raw_ids(tokenizer, more) == chat.prompt_ids(tokenizer, conversation)


@pytest.mark.parametrize("answer", ["fine", "two\nlines", " spaced ", ""])
def test_answer_text_undoes_answer_ids(tokenizer, answer):
    ids = chat.answer_ids(tokenizer, Conversation.of("Hi"), answer)
    assert chat.answer_text(tokenizer, ids) == answer


def test_reward_ids_end_with_the_scored_token(tokenizer):
    conversation = Conversation.of("a", "b")
    ids = chat.reward_ids(tokenizer, conversation)
    assert ids[-1] == tokenizer.extra_ids[2]
    assert ids[:-1] == chat.render(tokenizer, conversation).ids[:-1]
