"""The fixed lexicon of the small world: short English words by kind, and invented proper names.

Everything else in this room draws from these lists, so that a small model meets each word often.
"""

from random import Random


def _list(text: str) -> tuple[str, ...]:
    """The entries of a text: parted by bars where it has any, else by spaces."""
    return tuple(text.split("|") if "|" in text else text.split())


ANIMALS = _list(
    "ant bat bear bee bird camel cat cow crab deer dog duck fish fox frog goat hen horse lion "
    "mouse owl pig rabbit seal sheep snake tiger wolf"
)
COLOURS = _list("black blue brown green grey pink purple red white yellow")
FOODS = _list(
    "apple bean bread butter cake cheese corn egg honey jam lemon milk nut onion orange pear "
    "pie plum rice salad soup tea"
)
THINGS = _list(
    "bag ball basket bed bell boat book bottle box bridge bucket button candle car chair clock "
    "coat cup desk door drum flag fork garden glass hammer hat house kite knife ladder lamp "
    "letter map mirror needle paper pen piano pillow plate pocket radio ring road rope shoe "
    "spoon stone table ticket train tree umbrella wagon wall watch wheel window"
)
JOBS = _list(
    "baker barber doctor driver farmer gardener miller painter pilot sailor singer tailor "
    "teacher writer"
)
QUALITIES = _list(
    "big bright calm clean cold dark dry fast happy heavy kind light long loud new old quick "
    "quiet round sad short slow small soft strong sweet tall warm wet young"
)
VERBS = _list("brings buys carries draws finds likes paints sees sells wants washes")
PLACES = _list(
    "at home|at school|by the river|by the sea|in the garden|in the kitchen|in the park|"
    "in the town|in the wood|near the bridge|on the farm|on the hill"
)
TIMES = _list("at night|at noon|every day|every week|in spring|in summer|in winter|today")

NOUNS = ANIMALS + FOODS + THINGS
WORDS = tuple(sorted({*ANIMALS, *COLOURS, *FOODS, *THINGS, *JOBS, *QUALITIES}))
SORTABLE = _list(
    "ant bag ball bear bed bird book cat cow cup deer dog door duck egg farm fish fox goat hat "
    "hen horse jam king lamp lion map milk moon nut owl pen pig ring road seal ship sun tea tree "
    "wolf"
)
GUESTS = _list(  # common names for passages; the invented people live in facts.py
    "Adam Anna Ben Carla Dora Emma Felix Greta Hugo Ida Jonas Kate Leo Mary Nina Oscar Paul Rosa "
    "Sam Tom Vera"
)

_ONSETS = _list("b br d dr f g gl h k kr l m n p pl r s st t tr v z")
_VOWELS = _list("a e i o u")
_CODAS = _list("l m n r s x")


def invent_names(rng: Random, count: int, ending: str = "") -> list[str]:
    """`count` different invented names of two syllables: "Brelom", or with an ending."""
    names: dict[str, None] = {}
    taken = {word.capitalize() for word in WORDS} | set(GUESTS)
    while len(names) < count:
        start = rng.choice(_ONSETS) + rng.choice(_VOWELS)
        middle = rng.choice(_CODAS if ending else _ONSETS[:20])
        tail = ending or rng.choice(_VOWELS) + rng.choice(_CODAS)
        name = (start + middle + tail).capitalize()
        if name not in taken:
            names[name] = None
    return list(names)


def an(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def spelled(word: str) -> str:
    """The letters with spaces between them: "c a t"."""
    return " ".join(word)
