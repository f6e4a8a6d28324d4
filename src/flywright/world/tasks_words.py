"""Word and list tasks: reverse, sort, pick, spell, count, change. Answers are one to five words."""

from collections.abc import Callable
from random import Random

from flywright.records import Check
from flywright.world.families import Fields, number, worded
from flywright.world.words import ANIMALS, COLOURS, FOODS, SORTABLE, THINGS, WORDS, spelled

_PLACES = {"first": 0, "second": 1, "third": 2, "last": -1}
_KINDS = {"animal": ANIMALS, "food": FOODS, "colour": COLOURS}


def _some(rng: Random, low: int, high: int, among: tuple[str, ...] = WORDS) -> Fields:
    return {"words": " ".join(rng.sample(among, rng.randint(low, high)))}


def _one(rng: Random) -> Fields:
    return {"word": rng.choice(WORDS)}


def _words(make: Callable[[list[str]], str]) -> Callable[[Fields], str]:
    """A solution that needs the list's words only."""
    return lambda fields: make(fields["words"].split())


_reverse = _words(lambda words: " ".join(reversed(words)))
_sort = _words(lambda words: " ".join(sorted(words)))
_longest = _words(lambda words: max(words, key=len))
_first_letters = _words(lambda words: " ".join(word[0] for word in words))
_count = _words(lambda words: str(len(words)))


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


def _place(rng: Random) -> Fields:
    return {**_some(rng, 4, 4), "which": rng.choice(tuple(_PLACES))}


def _pick(fields: Fields) -> str:
    return fields["words"].split()[_PLACES[fields["which"]]]


def _one_kind(rng: Random) -> Fields:
    """Three words of which exactly one is an animal, a food or a colour."""
    kind = rng.choice(tuple(_KINDS))
    words = [rng.choice(_KINDS[kind]), *rng.sample(THINGS, 2)]
    rng.shuffle(words)
    return {"words": " ".join(words), "kind": kind}


def _find_kind(fields: Fields) -> str:
    return next(w for w in fields["words"].split() if w in _KINDS[fields["kind"]])


def _repeats(rng: Random) -> Fields:
    return {**_one(rng), "number": str(rng.randint(2, 5))}


def _swap(rng: Random) -> Fields:
    words = rng.sample(WORDS, 4)
    return {"words": " ".join(words[:3]), "word": rng.choice(words[:3]), "other": words[3]}


def _swapped(fields: Fields) -> str:
    new = {fields["word"]: fields["other"]}
    return " ".join(new.get(word, word) for word in fields["words"].split())


def _follow(rng: Random) -> Fields:
    fields = _some(rng, 3, 3)
    return {**fields, "change": rng.choice(tuple(CHANGES)), "previous": _reverse(fields)}


CHANGES = {
    "Now write your answer in capital letters.": str.upper,
    "Now give me only the first word of that.": lambda text: text.split()[0],
    "Now give me only the last word of that.": lambda text: text.split()[-1],
    "Now write that two times.": lambda text: f"{text} {text}",
}


def _changed(fields: Fields) -> str:
    return CHANGES[fields["change"]](fields["previous"].strip())


def change_lesson(change: str, rng: Random) -> str:
    """A text, a change asked for, and the changed text."""
    text = _some(rng, 3, 3)["words"]
    return f"{text}\n{change}\n{CHANGES[change](text)}"


def _opening(fields: Fields) -> tuple[str, str]:
    return f"Write these words in reverse order: {fields['words']}", _reverse(fields)


def _counted(fields: Fields) -> tuple[Check, ...]:
    return number(_count(fields))


def _repeated(fields: Fields) -> str:
    return " ".join([fields["word"]] * int(fields["number"]))


def _drawn(low: int, high: int, among: tuple[str, ...] = WORDS) -> Callable[[Random], Fields]:
    return lambda rng: _some(rng, low, high, among)


FAMILIES = (
    worded("reverse_words", _drawn(3, 4), _reverse),
    worded("reverse_long", _drawn(5, 6), _reverse, like="reverse_words", far=True),
    worded("sort_words", _sortable, _sort),
    worded("sort_long", _drawn(4, 5, SORTABLE), _sort, like="sort_words", far=True),
    worded("longest_word", _with_one_longest, _longest),
    worded("pick_word", _place, _pick, patterns={"which": "|".join(_PLACES)}),
    worded("find_kind", _one_kind, _find_kind, patterns={"kind": "|".join(_KINDS)}),
    worded("first_letters", _drawn(2, 3), _first_letters),
    worded("first_letters_long", _drawn(4, 5), _first_letters, like="first_letters", far=True),
    worded("spell", _one, lambda fields: spelled(fields["word"]), known=True),
    worded("last_letter", _one, lambda fields: fields["word"][-1], known=True),
    worded("count_words", _drawn(2, 6), _count, checks=_counted),
    worded("count_long", _drawn(7, 9), _count, like="count_words", checks=_counted, far=True),
    worded("uppercase", _drawn(2, 3), lambda fields: fields["words"].upper()),
    worded("reverse_upper", _drawn(3, 3), lambda fields: _reverse(fields).upper(), far=True),
    worded("repeat_word", _repeats, _repeated),
    worded("replace_word", _swap, _swapped),
    worded(
        "follow_up",
        _follow,
        _changed,
        patterns={"change": "|".join(text.replace(".", r"\.") for text in CHANGES)},
        opening=_opening,
    ),
)
