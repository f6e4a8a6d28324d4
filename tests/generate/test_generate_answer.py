"""An answer's parts, put together, are the answer, whatever the family of the tokenizer."""

import pytest

from flywright.ask import Sampling
from flywright.generate.answer import Answer
from flywright.records import Conversation
from flywright.tokenizer import Tokenizer, chat
from tokenizer_families import FAMILIES, write_family

TEXTS = (
    "The dog jumps.",
    " a space first",
    "Two lines\n\nand more\n",
    "Привет, 世界 \U0001f98a",
    "yes",
    "12 + 345",
)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("stop", [(), ("zebra",)])
def test_parts_make_up_the_answer(name, stop, tmp_path):
    tokenizer = Tokenizer.load(write_family(name, tmp_path / name))
    prompt = chat.prompt_ids(tokenizer, Conversation.of("Hello there!"))
    for text in TEXTS:
        ids = tokenizer.encode(text)
        parts = []
        sampling = Sampling(max_tokens=len(ids) + 1, stop=stop)
        answer = Answer(tokenizer, prompt, sampling, len(ids) + 1, parts.append)
        told = [answer.add(token, -0.5, ()) for token in [*ids, answer.model_ends[0]]]
        assert told[-1] is not None and not any(told[:-1])
        assert "".join(part.text for part in parts) == told[-1].text, text
