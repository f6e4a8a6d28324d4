"""What is left out of the data: copies, near copies, benchmark items, poor dialogues and pairs.

Each filter keeps the order of the records, keeps the first of copies, and tells what it dropped.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rensa import RMinHash, RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]

from flywright.ask.protocol import Completer, Scorer
from flywright.records import Comparison, Dialogue, Document, Lineage, Prompt, weighted_reward
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.settings import SynthSettings

AnyText = TypeVar("AnyText", Document, Prompt, Dialogue, Comparison)
Gram = tuple[str, ...]

_TOKEN = re.compile(r"\w+|[-+*/=<>%^]")  # operators count: 3 + 4 is not 3 - 4
_PERMUTATIONS, _BANDS = 128, 32
_LEAST_TOKENS, _SHINGLE = 3, 3


def normal(text: str) -> str:
    """The text without differences of case, width, spacing and end punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(".!?")


def tokens(text: str) -> list[str]:
    """Words and operators of the normalised text."""
    return _TOKEN.findall(normal(text))


def grams(words: Sequence[str], length: int) -> set[Gram]:
    """All runs of `length` words; the whole where there are fewer."""
    last = max(len(words) - length, 0)
    return {tuple(words[i : i + length]) for i in range(last + 1)}


def text_of(record: Document | Prompt | Dialogue | Comparison) -> str:
    """A document's text, or the messages of a record's conversation, one after the other."""
    if isinstance(record, Document):
        return record.text
    return "\n".join(message.content for message in record.conversation.messages)


def noted(lineage: Lineage, filter_name: str, **scores: float) -> Lineage:
    """The lineage of a record that passed a filter."""
    filters, scores = (*lineage.filters, filter_name), {**lineage.scores, **scores}
    return lineage.model_copy(update={"filters": filters, "scores": scores})


@dataclass(frozen=True)
class Copy:
    """A dropped record and the kept one that it repeats; `likeness` is 1.0 or a Jaccard index."""

    record: str
    of: str
    likeness: float


class Pool:
    """Texts seen so far, asked for near copies: MinHash finds candidates, exact Jaccard decides.

    With a threshold of 0 nothing is one.
    """

    def __init__(self, threshold: float, texts: Iterable[str] = ()):
        self._threshold = threshold
        self._shingles: list[set[Gram]] = []
        self._index = RMinHashLSH(threshold or 1.0, _PERMUTATIONS, _BANDS)
        for text in texts:
            self.add(text)

    def _signature(self, shingles: set[Gram]) -> RMinHash:
        signature = RMinHash(_PERMUTATIONS, 1)
        signature.update([" ".join(gram) for gram in sorted(shingles)])
        return signature

    def alike(self, text: str) -> list[tuple[int, float]]:
        """(number, Jaccard) of each text at or over the threshold, in the order of their adding."""
        if not self._threshold:
            return []
        mine = grams(tokens(text), _SHINGLE)
        others = [(n, self._shingles[n]) for n in sorted(self._index.query(self._signature(mine)))]
        found = [(number, len(mine & other) / len(mine | other)) for number, other in others]
        return [(number, likeness) for number, likeness in found if likeness >= self._threshold]

    def likest(self, text: str) -> tuple[int, float] | None:
        """(number, Jaccard) of the most similar text at or over the threshold, or None."""
        return max(self.alike(text), key=lambda found: found[1], default=None)

    def add(self, text: str) -> None:
        """Remember a text; its number is how many were added before."""
        shingles = grams(tokens(text), _SHINGLE)
        self._index.insert(len(self._shingles), self._signature(shingles))
        self._shingles.append(shingles)


def exact(records: Iterable[AnyText]) -> tuple[list[AnyText], list[Copy]]:
    """(kept, dropped): each normalised text once."""
    seen: dict[str, str] = {}
    kept, copies = [], []
    for record in records:
        text = normal(text_of(record))
        if text in seen:
            copies.append(Copy(record.id, seen[text], 1.0))
        else:
            seen[text] = record.id
            kept.append(record)
    return kept, copies


def near(records: Iterable[AnyText], threshold: float) -> tuple[list[AnyText], list[Copy]]:
    """(kept, dropped): no two kept texts with a Jaccard index of `threshold` or more."""
    pool = Pool(threshold)
    kept, copies = [], []
    for record in records:
        found = pool.likest(text_of(record))
        if found:
            copies.append(Copy(record.id, kept[found[0]].id, found[1]))
        else:
            pool.add(text_of(record))
            kept.append(record)
    return kept, copies


@dataclass(frozen=True)
class Hit:
    """A record that repeats a benchmark item: how much of its n-grams, and one of them to read."""

    record: str
    benchmark: str
    item: str
    share: float
    words: str


def decontaminate(
    records: Iterable[AnyText],
    benchmarks: Iterable[tuple[str, str]],
    words: int = 8,
    share: float = 0.5,
) -> tuple[list[AnyText], list[Hit]]:
    """(kept, hits): without the records that hold `share` or more of a benchmark text's n-grams.

    benchmarks: (name, text) pairs. An n-gram is `words` words or operators, or the whole text where
    it is shorter; texts of fewer than three words are passed over, they would hit everything.
    A share of 0 keeps all.
    """
    if not share:
        return list(records), []
    owners: dict[Gram, list[int]] = defaultdict(list)
    sizes: list[int] = []
    items: list[tuple[str, str]] = []
    for name, text in benchmarks:
        if len(tokens(text)) >= _LEAST_TOKENS:
            found = grams(tokens(text), words)
            for gram in sorted(found):
                owners[gram].append(len(items))
            sizes.append(len(found))
            items.append((name, text))
    lengths = sorted({len(gram) for gram in owners})
    kept, hits = [], []
    for record in records:
        text = tokens(text_of(record))
        mine = sorted(gram for length in lengths for gram in grams(text, length))
        counts = Counter(owner for gram in mine for owner in owners.get(gram, ()))
        reached = [owner for owner in sorted(counts) if counts[owner] / sizes[owner] >= share]
        if not reached:
            kept.append(record)
            continue
        worst = max(reached, key=lambda owner: counts[owner] / sizes[owner])
        example = next(gram for gram in mine if worst in owners.get(gram, ()))
        hits.append(Hit(record.id, *items[worst], counts[worst] / sizes[worst], " ".join(example)))
    return kept, hits


async def by_reward(
    maker: Maker, dialogues: Sequence[Dialogue], scorer: Scorer, threshold: float
) -> list[Dialogue]:
    """The dialogues whose weighted reward reaches `threshold`, with their scores in the lineage."""

    async def step(dialogue: Dialogue, _ask: Completer) -> list[Dialogue]:
        attributes = await scorer.score(dialogue.conversation)
        reward = weighted_reward(attributes)
        if reward < threshold:
            raise Dropped("reward below the threshold")
        name = f"reward>={threshold:g} by {scorer.model}"
        lineage = noted(dialogue.lineage, name, **attributes, reward=reward)
        return [dialogue.model_copy(update={"lineage": lineage})]

    return await maker.run("reward filter", step, dialogues)


def chosen_quality(
    pairs: Iterable[Comparison], threshold: float
) -> tuple[list[Comparison], dict[str, int]]:
    """(kept, counts): pairs whose chosen answer's reward reaches `threshold` (HOUSE 8).

    Pairs that the ground truth decided are exempt; a pair without rewards is dropped.
    counts: in, out, exempt, dropped.
    """
    kept, exempt, total = [], 0, 0
    for pair in pairs:
        total += 1
        if pair.judge == "truth":
            exempt += 1
            kept.append(pair)
        elif pair.chosen_reward is not None and pair.chosen_reward >= threshold:
            lineage = noted(pair.lineage, f"chosen>={threshold:g}")
            kept.append(pair.model_copy(update={"lineage": lineage}))
    counts = {"in": total, "out": len(kept), "exempt": exempt, "dropped": total - len(kept)}
    return kept, counts


def preference_sets(
    pairs: Sequence[Comparison], settings: SynthSettings
) -> tuple[list[Comparison], list[Comparison], dict[str, dict[str, int]]]:
    """(for DPO, for RPO, counts of both): the two thresholds of the chosen-quality filter."""
    dpo, dpo_counts = chosen_quality(pairs, settings.dpo_quality)
    rpo, rpo_counts = chosen_quality(pairs, settings.rpo_quality)
    return dpo, rpo, {"dpo": dpo_counts, "rpo": rpo_counts}
