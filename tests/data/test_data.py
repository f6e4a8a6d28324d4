"""Blends have exact shares and cover every window; filters drop what they name."""

from collections import Counter

import numpy as np
import pytest

from flywright.data.blend import BLOCK, BlendedWindows, block_counts
from flywright.data.filters import clean
from flywright.data.shards import open_shard, write_shard
from flywright.errors import UserError
from flywright.records import Document

SHARDS = {"en": np.arange(9001), "code": np.arange(10000, 13001), "other": np.arange(20000, 21001)}
WEIGHTS = {"en": 0.7, "code": 0.15, "other": 0.15}


def test_shares_are_exact_in_every_block():
    blend = BlendedWindows(SHARDS, [(0, WEIGHTS)], window=31, seed=0)
    for block in range(3):
        places = [blend.place(block * BLOCK + i)[0] for i in range(BLOCK)]
        assert Counter(places) == {"en": 140, "code": 30, "other": 30}
    assert sum(block_counts({"a": 1, "b": 1, "c": 1}).values()) == BLOCK


def test_each_window_once_an_epoch_and_each_token_predicted_once():
    blend = BlendedWindows({"en": SHARDS["en"]}, [(0, {"en": 1.0})], window=31, seed=0)
    windows = [blend.place(i)[1] for i in range(len(blend))]
    assert sorted(windows) == list(range(300))
    predicted = np.concatenate([s.documents[0][1:] for s in blend.take(0, 300)])
    assert sorted(predicted.tolist()) == list(range(1, 9001))


def test_order_is_seekable():
    blend = BlendedWindows(SHARDS, [(0, WEIGHTS)], window=31, seed=0)
    other = BlendedWindows(SHARDS, [(0, WEIGHTS)], window=31, seed=0)
    tail = [s.documents[0][0] for s in other.take(333, 5)]
    assert [s.documents[0][0] for s in blend.take(0, 338)][333:] == tail


def test_unknown_source_is_named():
    with pytest.raises(UserError, match="no source 'latin'; there are: en"):
        BlendedWindows({"en": SHARDS["en"]}, [(0, {"latin": 1.0})], window=31, seed=0)


def test_shard_round_trip(tokenizer, tmp_path):
    count = write_shard(tmp_path / "en.npy", ["The fox", "12 dogs"], tokenizer)
    tokens = open_shard(tmp_path / "en.npy")
    expected = [*tokenizer.encode("The fox"), 3, *tokenizer.encode("12 dogs"), 3]
    assert tokens.tolist() == expected and count == len(expected)
    (tmp_path / "bad.npy").write_bytes(b"x")
    with pytest.raises(UserError, match=r"bad\.npy"):
        open_shard(tmp_path / "bad.npy")


def test_filters_count_by_reason():
    texts = [
        "A good sentence about the brown dog and the fox.",
        "A good  sentence about the brown dog and the fox.",
        "short",
        "spam spam spam spam spam spam spam spam eggs",
        "$$$ ### @@@ !!! %%% ^^^ &&& *** ((( )))",
    ]
    dropped: Counter[str] = Counter()
    kept = list(clean((Document(text=t, source="s") for t in texts), dropped))
    assert [d.text for d in kept] == texts[:1]
    assert dropped == {"duplicate": 1, "too short": 1, "repetition": 1, "symbols": 1}


def test_a_blend_that_switches_in_mid_run_has_exact_shares_and_repeats_nothing():
    switch = 2 * BLOCK + 50  # in the middle of a block
    phases = [(0, {"en": 0.7, "code": 0.3}), (switch, {"en": 0.2, "code": 0.8})]
    shards = {name: np.arange(1, 30_002) for name in ("en", "code")}
    blend = BlendedWindows(shards, phases, window=31, seed=0)
    places = [blend.place(number) for number in range(switch + 3 * BLOCK)]
    share = lambda blocks: sum(source == "en" for source, _ in blocks) / len(blocks)  # noqa: E731
    assert share(places[: 2 * BLOCK]) == pytest.approx(0.7)
    assert share(places[switch:]) == pytest.approx(0.2)
    assert len(set(places)) == len(places)  # windows go on where the phase before left off
    before = BlendedWindows(shards, phases[:1], window=31, seed=0)
    assert [before.place(number) for number in range(switch)] == places[:switch]


def test_a_source_may_come_in_later_and_phases_come_in_order():
    shards = {name: np.arange(1, 5000) for name in ("en", "code")}
    blend = BlendedWindows(shards, [(0, {"en": 1.0}), (150, {"code": 1.0})], window=31, seed=0)
    sources = [blend.place(number)[0] for number in range(2 * BLOCK)]
    assert sources == ["en"] * 150 + ["code"] * (2 * BLOCK - 150)
    for bad in ([(0, {"en": 1.0}), (9, {"en": 1.0}), (2, {"en": 1.0})], [(9, {"en": 1.0})]):
        with pytest.raises(UserError, match="not in order"):
            BlendedWindows(shards, bad, window=31, seed=0)
    for bad in ([(0, {})], [(0, {"en": 0.0})], [(0, {"en": -0.5, "code": 1.5})]):
        with pytest.raises(UserError, match="no share may be"):
            BlendedWindows(shards, bad, window=31, seed=0)


def test_a_source_of_a_tenth_of_a_per_cent_comes_as_often_as_it_should():
    shards = {name: np.arange(1, 90_002) for name in ("en", "la")}
    blend = BlendedWindows(shards, [(0, {"en": 0.999, "la": 0.001})], window=31, seed=0)
    sources = Counter(blend.place(number)[0] for number in range(4000))
    assert sources == {"en": 3996, "la": 4}
