"""Fixtures that many rooms share: a small tokenizer, a tiny spec; and the order of the files."""

import pytest

from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, train_tokenizer

TEXT = [
    "The quick brown fox jumps over the lazy dog.\nAnd 12 more foxes follow 345 dogs.",
    "def add(a, b):\n    return a + b\n",
    "System User Assistant, what is the answer? The answer is 7.",
    "Der Hund ist braun. El perro corre. Le chien dort.",
    "Sort these words: plum apple pear. apple pear plum",
]


LONGEST_FIRST = ("road", "recipe", "laws")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rooms whose files take long begin, so that no core waits for the last one at the end."""

    def rank(item: pytest.Item) -> int:
        room = item.path.parent.name
        return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXT * 20, vocab_size=400)


@pytest.fixture
def tiny_spec() -> ModelSpec:
    return ModelSpec(
        vocab_size=400, hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8,
        ffn_size=64, context_length=128, init_std=0.05,
    )  # fmt: skip
