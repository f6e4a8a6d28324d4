"""Sentences that mean the same in English, Spanish, German, French and Russian.

A sentence is subject, verb, object and place by number; each language has its words for them, the
objects already in the right case, so that word order is the only grammar needed.
"""

from dataclasses import dataclass
from random import Random

LANGUAGES = {"Spanish": "es", "German": "de", "French": "fr", "Russian": "ru"}

_SUBJECTS = {
    "en": "the cat|the dog|the bird|the man|the woman|the boy|the girl|the farmer|the doctor"
    "|the king",
    "es": "el gato|el perro|el pájaro|el hombre|la mujer|el niño|la niña|el granjero|el médico"
    "|el rey",
    "de": "die Katze|der Hund|der Vogel|der Mann|die Frau|der Junge|das Mädchen|der Bauer|der Arzt"
    "|der König",
    "fr": "le chat|le chien|l'oiseau|l'homme|la femme|le garçon|la fille|le fermier|le médecin"
    "|le roi",
    "ru": "кот|пёс|птица|мужчина|женщина|мальчик|девочка|фермер|врач|король",
}
_VERBS = {
    "en": "sees|eats|finds|brings|buys|wants",
    "es": "ve|come|encuentra|trae|compra|quiere",
    "de": "sieht|isst|findet|bringt|kauft|will",
    "fr": "voit|mange|trouve|apporte|achète|veut",
    "ru": "видит|ест|находит|приносит|покупает|хочет",
}
_OBJECTS = {
    "en": "the bread|the fish|the apple|the soup|the cheese|the cake|the rice|the egg|the meat",
    "es": "el pan|el pescado|la manzana|la sopa|el queso|el pastel|el arroz|el huevo|la carne",
    "de": "das Brot|den Fisch|den Apfel|die Suppe|den Käse|den Kuchen|den Reis|das Ei|das Fleisch",
    "fr": "le pain|le poisson|la pomme|la soupe|le fromage|le gâteau|le riz|l'œuf|la viande",
    "ru": "хлеб|рыбу|яблоко|суп|сыр|торт|рис|яйцо|мясо",
}
_PLACES = {
    "en": "|in the house|in the garden|in the park|at school|in the city",
    "es": "|en la casa|en el jardín|en el parque|en la escuela|en la ciudad",
    "de": "|im Haus|im Garten|im Park|in der Schule|in der Stadt",
    "fr": "|dans la maison|dans le jardin|dans le parc|à l'école|dans la ville",
    "ru": "|в доме|в саду|в парке|в школе|в городе",
}
_TABLES = [
    {language: words.split("|") for language, words in table.items()}
    for table in (_SUBJECTS, _VERBS, _OBJECTS, _PLACES)
]
OPENERS = {
    "es": ("Hoy es un buen día.", "Mira bien.", "Es una historia corta.", "Así es la vida."),
    "de": (
        "Heute ist ein guter Tag.",
        "Sieh gut hin.",
        "Das ist eine kurze Geschichte.",
        "So ist es.",
    ),
    "fr": ("C'est un beau jour.", "Regarde bien.", "C'est une petite histoire.", "C'est la vie."),
    "ru": ("Сегодня хороший день.", "Смотри внимательно.", "Это короткая история.", "Вот так."),
}


@dataclass(frozen=True)
class Sentence:
    """The numbers of subject, verb, object and place (place 0 is none)."""

    parts: tuple[int, int, int, int]

    @classmethod
    def read(cls, english: str) -> "Sentence":
        """The sentence behind its English words. Raises ValueError if it is none of ours."""
        rest, parts = english[0].lower() + english[1:].rstrip("."), []
        for table in _TABLES[:3]:
            index = next((i for i, words in enumerate(table["en"]) if rest.startswith(words)), -1)
            if index < 0:
                raise ValueError(f"not a sentence of this world: {english!r}")
            rest = rest[len(table["en"][index]) :].strip()
            parts.append(index)
        places = _TABLES[3]["en"]
        if rest not in places:
            raise ValueError(f"not a sentence of this world: {english!r}")
        return cls((parts[0], parts[1], parts[2], places.index(rest)))


def draw_sentence(rng: Random, with_place: bool = False) -> Sentence:
    """A sentence at random."""
    subject, verb, thing, place = (rng.randrange(len(table["en"])) for table in _TABLES)
    return Sentence((subject, verb, thing, place if with_place else 0))


def translate(sentence: Sentence, language: str) -> str:
    """The sentence in one language (a code), capitalised, with a full stop."""
    chosen = [table[language][index] for table, index in zip(_TABLES, sentence.parts, strict=True)]
    text = " ".join(part for part in chosen if part)
    return f"{text[0].upper()}{text[1:]}."
