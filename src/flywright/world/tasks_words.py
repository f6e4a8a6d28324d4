"""Word and list tasks: reverse, sort, pick, spell, count, change. Answers are one to five words."""

from random import Random

from flywright.world.families import Family, Fields, number
from flywright.world.words import ANIMALS, COLOURS, FOODS, SORTABLE, THINGS, WORDS, spelled

ORDINALS = ("first", "second", "third", "fourth")


def _some(rng: Random, low: int, high: int, among: tuple[str, ...] = WORDS) -> Fields:
    return {"words": " ".join(rng.sample(among, rng.randint(low, high)))}


def _one(rng: Random) -> Fields:
    return {"word": rng.choice(WORDS)}


def _reverse(fields: Fields) -> str:
    return " ".join(reversed(fields["words"].split()))


def _sort(fields: Fields) -> str:
    return " ".join(sorted(fields["words"].split()))


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


def _longest(fields: Fields) -> str:
    return max(fields["words"].split(), key=len)


def _place(rng: Random) -> Fields:
    return {**_some(rng, 4, 4), "which": rng.choice((*ORDINALS[:3], "last"))}


def _pick(fields: Fields) -> str:
    words = fields["words"].split()
    return words[-1] if fields["which"] == "last" else words[ORDINALS.index(fields["which"])]


def _one_kind(rng: Random) -> Fields:
    """Three words of which exactly one is an animal, a food or a colour."""
    kinds = {"animal": ANIMALS, "food": FOODS, "colour": COLOURS}
    kind = rng.choice(tuple(kinds))
    odd = rng.choice(kinds[kind])
    words = [odd, *rng.sample(THINGS, 2)]
    rng.shuffle(words)
    return {"words": " ".join(words), "kind": kind}


def _find_kind(fields: Fields) -> str:
    kinds = {"animal": ANIMALS, "food": FOODS, "colour": COLOURS}
    return next(w for w in fields["words"].split() if w in kinds[fields["kind"]])


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


def _count_checks(fields: Fields) -> tuple:
    return number(str(len(fields["words"].split())))


_REVERSE = (
    "Write these words in reverse order: {words}",
    "Reverse this list: {words}",
    "Turn the order of these words around: {words}",
)
_SORT = (
    "Sort these words by the alphabet: {words}",
    "Put these words in alphabetical order: {words}",
    "Write these words from A to Z: {words}",
)
_INITIALS = (
    "Give the first letters: {words}",
    "First letters of these words: {words}",
)
_COUNT = ("How many words are in this list: {words}", "Count these words: {words}")
_UPPER = ("Write these words in capital letters: {words}", "Make these words upper case: {words}")

FAMILIES = (
    Family(
        "reverse_words",
        _REVERSE,
        lambda rng: _some(rng, 3, 4),
        _reverse,
        lessons=(
            "The list {words} in reverse order is {answer}.",
            "Take the words {words}. Start at the end and go back to the start: {answer}.",
            "{words}\nbackwards\n{answer}",
        ),
    ),
    Family("reverse_long", _REVERSE, lambda rng: _some(rng, 5, 6), _reverse, far=True),
    Family(
        "sort_words",
        _SORT,
        _sortable,
        _sort,
        lessons=(
            "In alphabetical order the words {words} are {answer}.",
            "We sort {words} by the alphabet and get {answer}.",
            "{words}\nfrom A to Z\n{answer}",
        ),
    ),
    Family("sort_long", _SORT, lambda rng: _some(rng, 4, 5, SORTABLE), _sort, far=True),
    Family(
        "longest_word",
        ("Which of these words is the longest: {words}", "Pick the longest word: {words}"),
        _with_one_longest,
        _longest,
        lessons=(
            "Of the words {words} the longest is {answer}.",
            "{answer} is the longest word in the list {words}.",
        ),
    ),
    Family(
        "pick_word",
        ("What is the {which} word of this list: {words}", "Write only the {which} word: {words}"),
        _place,
        _pick,
        patterns={"which": "first|second|third|fourth|last"},
        lessons=(
            "The {which} word of the list {words} is {answer}.",
            "In the list {words} the {which} word is {answer}.",
        ),
    ),
    Family(
        "find_kind",
        ("Which of these words names the {kind}: {words}", "Find the {kind}: {words}"),
        _one_kind,
        _find_kind,
        patterns={"kind": "animal|food|colour"},
        lessons=("In {words} the {kind} is {answer}.", "The {kind} among {words} is {answer}."),
    ),
    Family(
        "first_letters",
        _INITIALS,
        lambda rng: _some(rng, 2, 3),
        lambda fields: " ".join(word[0] for word in fields["words"].split()),
        lessons=(
            "The words {words} begin with the letters {answer}.",
            "First letters of {words}: {answer}.",
        ),
    ),
    Family(
        "first_letters_long",
        _INITIALS,
        lambda rng: _some(rng, 4, 5),
        lambda fields: " ".join(word[0] for word in fields["words"].split()),
        far=True,
    ),
    Family(
        "spell",
        ("Spell the word {word}.", "Write the letters of {word} one by one."),
        _one,
        lambda fields: spelled(fields["word"]),
        known=True,
        lessons=(
            "We spell {word} like this: {answer}.",
            "{word}\n{answer}",
            "The letters of {word} are {answer}.",
        ),
    ),
    Family(
        "last_letter",
        ("What is the last letter of {word}?", "Which letter ends the word {word}?"),
        _one,
        lambda fields: fields["word"][-1],
        known=True,
        lessons=("The word {word} ends with {answer}.", "{answer} is the last letter of {word}."),
    ),
    Family(
        "count_words",
        _COUNT,
        lambda rng: _some(rng, 2, 6),
        lambda fields: str(len(fields["words"].split())),
        checks=_count_checks,
        lessons=("The list {words} has {answer} words.", "Count {words}: that makes {answer}."),
    ),
    Family(
        "count_long",
        _COUNT,
        lambda rng: _some(rng, 7, 9),
        lambda fields: str(len(fields["words"].split())),
        checks=_count_checks,
        far=True,
    ),
    Family(
        "uppercase",
        _UPPER,
        lambda rng: _some(rng, 2, 3),
        lambda fields: fields["words"].upper(),
        lessons=(
            "In capital letters {words} is {answer}.",
            "The sign says {answer}, in small letters {words}.",
        ),
    ),
    Family(
        "reverse_upper",
        ("Write these words in reverse order and in capital letters: {words}",),
        lambda rng: _some(rng, 3, 3),
        lambda fields: _reverse(fields).upper(),
        far=True,
    ),
    Family(
        "repeat_word",
        ("Write the word {word} {number} times.", "Repeat {word} {number} times."),
        _repeats,
        lambda fields: " ".join([fields["word"]] * int(fields["number"])),
        lessons=("{word} said {number} times is {answer}.", "{number} times {word}: {answer}."),
    ),
    Family(
        "replace_word",
        ("Replace {word} with {other} in this list: {words}", "Change {word} to {other}: {words}"),
        _swap,
        _swapped,
        lessons=("Put {other} in the place of {word} in {words}, and you have {answer}.",),
    ),
    Family(
        "follow_up",
        ("{change}",),
        _follow,
        _changed,
        patterns={"change": "|".join(text.replace(".", r"\.") for text in CHANGES)},
        opening=_opening,
    ),
)
