"""Word and list tasks: reverse, sort, pick, spell, count, change. Answers are one to five words."""

import re
from collections.abc import Callable
from random import Random

from flywright.world.families import Fields, worded
from flywright.world.words import LISTS, SORTABLE, THINGS, WORDS

_PLACES = {"first": 0, "second": 1, "third": 2, "last": -1}


def _some(low: int, high: int, among: tuple[str, ...] = WORDS) -> Callable[[Random], Fields]:
    return lambda rng: {"words": " ".join(rng.sample(among, rng.randint(low, high)))}


def _word(rng: Random) -> Fields:
    return {"word": rng.choice(WORDS)}


_three = _some(3, 3)


def _solution(make: Callable[[list[str]], str]) -> Callable[[Fields], str]:
    """A solution that needs the list's words only."""
    return lambda fields: make(fields["words"].split())


_reverse = _solution(lambda words: " ".join(reversed(words)))
_sort = _solution(lambda words: " ".join(sorted(words)))
_first_letters = _solution(lambda words: " ".join(word[0] for word in words))
_count = _solution(lambda words: str(len(words)))


def _sortable(rng: Random) -> Fields:
    """Three words; one time in three two of them share the first letter."""
    words = rng.sample(SORTABLE, 3)
    if rng.random() < 0.33:
        twins = [w for w in SORTABLE if w[0] == words[0][0] and w not in words]
        words[1] = rng.choice(twins) if twins else words[1]
        rng.shuffle(words)
    return {"words": " ".join(words)}


def _with_one_longest(rng: Random) -> Fields:
    """Three words of which one is longer than the others."""
    while True:
        words = rng.sample(WORDS, 3)
        lengths = sorted(len(word) for word in words)
        if lengths[-1] > lengths[-2]:
            return {"words": " ".join(words)}


def _one_kind(rng: Random) -> Fields:
    """Three words of which exactly one is an animal, a food or a colour."""
    kind = rng.choice(("animal", "food", "colour"))
    words = [rng.choice(LISTS[f"{kind}s"]), *rng.sample(THINGS, 2)]
    rng.shuffle(words)
    return {"words": " ".join(words), "kind": kind}


def _swap(rng: Random) -> Fields:
    words = rng.sample(WORDS, 4)
    return {"words": " ".join(words[:3]), "word": rng.choice(words[:3]), "other": words[3]}


def _swapped(fields: Fields) -> str:
    new = {fields["word"]: fields["other"]}
    return " ".join(new.get(word, word) for word in fields["words"].split())


CHANGES = {
    "Now write your answer in capital letters.": str.upper,
    "Now give me only the first word of that.": lambda text: text.split()[0],
    "Now give me only the last word of that.": lambda text: text.split()[-1],
    "Now write that two times.": lambda text: f"{text} {text}",
}


def _follow(rng: Random) -> Fields:
    fields = _three(rng)
    return {**fields, "change": rng.choice(tuple(CHANGES)), "previous": _reverse(fields)}


def change_lesson(change: str, rng: Random) -> str:
    """A text, a change asked for, and the changed text."""
    text = _three(rng)["words"]
    return f"{text}\n{change}\n{CHANGES[change](text)}"


FAMILIES = (
    worded("reverse_words", _reverse, _some(3, 4)),
    worded("reverse_long", _reverse, _some(5, 6)),
    worded("sort_words", _sort, _sortable),
    worded("sort_long", _sort, _some(4, 5, SORTABLE)),
    worded("longest_word", _solution(lambda words: max(words, key=len)), _with_one_longest),
    worded(
        "pick_word",
        lambda fields: fields["words"].split()[_PLACES[fields["which"]]],
        lambda rng: {**_some(4, 4)(rng), "which": rng.choice(tuple(_PLACES))},
    ),
    worded(
        "find_kind",
        lambda f: next(word for word in f["words"].split() if word in LISTS[f"{f['kind']}s"]),
        _one_kind,
    ),
    worded("first_letters", _first_letters, _some(2, 3)),
    worded("first_letters_long", _first_letters, _some(4, 5)),
    worded("spell", lambda fields: " ".join(fields["word"]), _word),
    worded("last_letter", lambda fields: fields["word"][-1], _word),
    worded("count_words", _count, _some(2, 6)),
    worded("count_long", _count, _some(7, 9)),
    worded("uppercase", lambda fields: fields["words"].upper(), _some(2, 3)),
    worded("reverse_upper", lambda fields: _reverse(fields).upper(), _three),
    worded(
        "repeat_word",
        lambda fields: " ".join([fields["word"]] * int(fields["number"])),
        lambda rng: {"word": rng.choice(WORDS), "number": str(rng.randint(2, 5))},
    ),
    worded("replace_word", _swapped, _swap),
    worded(
        "follow_up",
        lambda fields: CHANGES[fields["change"]](fields["previous"].strip()),
        _follow,
        patterns={"change": "|".join(map(re.escape, CHANGES))},
        opening=lambda f: (f"Write these words in reverse order: {f['words']}", _reverse(f)),
    ),
)
