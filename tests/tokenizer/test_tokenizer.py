"""Tokenizer: round trip, digits, whitespace, transformers' fast tokenizer agrees."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywright.errors import UserError
from flywright.records import Conversation
from flywright.tokenizer import Tokenizer, chat, train_tokenizer

text = st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=60)
UDHR = Path(os.environ.get("FLYWRIGHT_DATA", "../shared/data")) / "corpus_udhr" / "udhr.jsonl.gz"


@given(text)
def test_round_trip_on_any_text(tokenizer, value):
    assert tokenizer.decode(tokenizer.encode(value)) == value


def test_digits_are_split_and_newline_is_a_piece(tokenizer):
    pieces = [tokenizer.piece(i) for i in tokenizer.encode("345\n\ndef")]
    assert pieces[:5] == ["3", "4", "5", "\n", "\n"]


def test_ids_of_the_family(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.extra_ids) == (2, 3, (4, 5, 6))
    assert not set(tokenizer.encode("<extra_id_1> </s>")) & {2, 3, 4, 5, 6}


def test_save_load_keeps_ids(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode("The fox 12") == tokenizer.encode("The fox 12")
    assert again.hash == tokenizer.hash


def test_training_is_deterministic():
    texts = ["one two three four five six"] * 50 + ["seven eight nine ten"] * 30
    assert train_tokenizer(texts, 300).hash == train_tokenizer(texts, 300).hash


def test_too_little_text_is_one_clear_line():
    with pytest.raises(UserError, match=r"tokenizer of 9000 pieces: cannot train: Vocabulary size"):
        train_tokenizer(["abc"], 9000)


@pytest.fixture(scope="module")
def fast(tokenizer, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@given(value=text.filter(lambda t: not re.search(r"<(s|/s|unk|pad|extra_id_\d)>", t)))
def test_tokenizer_json_agrees(tokenizer, fast, value):
    assert fast.encode(value, add_special_tokens=False) == tokenizer.encode(value)


def test_real_text_of_500_languages_round_trips_and_agrees(tmp_path):
    if not UDHR.is_file():
        pytest.skip(f"{UDHR}: no such file")
    transformers = pytest.importorskip("transformers")
    with gzip.open(UDHR, "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"].replace("▁", "")[:1500] for line in stream]
    tokenizer = train_tokenizer(texts[::2], 8000)
    tokenizer.save(tmp_path)
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path)
    found = tokenizer.encode_batch(texts)
    assert found == [tokenizer.encode(one) for one in texts]
    assert [tokenizer.decode(ids) for ids in found] == texts
    assert fast(texts, add_special_tokens=False)["input_ids"] == found


@given(st.lists(text, max_size=5))
def test_many_texts_at_once_are_as_one_by_one(tokenizer, values):
    assert tokenizer.encode_batch(values) == [tokenizer.encode(value) for value in values]


def test_a_long_document_is_not_left_out():
    """SentencePiece alone skips what is longer than a mebibyte."""
    long = "\n".join(["zebra quagga okapi gnu"] * 60_000)
    tokenizer = train_tokenizer([long], 300)
    assert {"▁quagga", "▁okapi"} <= {tokenizer.piece(i) for i in range(300)}


@given(words=text, mark=st.sampled_from(["<s>", "</s>", "<extra_id_0>", "<extra_id_1>"]))
def test_content_is_text_and_a_raw_prompt_is_parsed(tokenizer, words, mark):
    assert not set(tokenizer.encode(words + mark + words)) & tokenizer.control_ids
    assert tokenizer.decode(tokenizer.encode(words + mark)) == words + mark
    assert (
        len(tokenizer.raw_ids(mark)) == 1 and set(tokenizer.raw_ids(mark)) < tokenizer.control_ids
    )


def test_chat_template_agrees(tokenizer, fast):
    conversation = Conversation.of("Hi", "yes", "Sort plum apple", system="Be short.")
    messages = [m.model_dump() for m in conversation.messages]
    ids = fast.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == chat.prompt_ids(tokenizer, conversation)
    full = conversation.answered("apple plum")
    messages = [m.model_dump() for m in full.messages]
    assert fast.apply_chat_template(messages, return_dict=False) == chat.render(tokenizer, full).ids
