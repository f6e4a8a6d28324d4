"""Records as a model sees them: every token, its mask, and how they lie in one micro-batch."""

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from flywright.data.batch import Sample, collate
from flywright.data.examples import comparison_examples, dialogue_examples, rating_examples
from flywright.model import read_spec
from flywright.recipe import files
from flywright.records import Comparison, Dialogue, Document, Rating, Record
from flywright.tokenizer import Tokenizer, chat

Rows = list[dict[str, Any]]
SIDES = ("chosen", "rejected")
_BEGINNING = 40  # characters of a document's text


def look_at(path: Path, model: Path, limit: int) -> dict[str, Any]:
    """The first `limit` records of a file of any form, as training makes them.

    "file" says which form it is; "tokens" is a row a token, of a pair the shared prompt once;
    "batch" and "packing" tell of the micro-batch that the records make, a row a document;
    "over_length" names those beyond the model's context, which training leaves out.
    """
    reading, tokenizer = files.read(path), Tokenizer.load(model)
    context = read_spec(model).context_length if (model / "config.json").exists() else sys.maxsize
    samples = {n: _sample(one, tokenizer) for n, one in enumerate(islice(reading, limit), start=1)}
    tokens = [row for n, sample in samples.items() for row in _tokens(n, sample, tokenizer)]
    sizes = {n: max(map(len, sample.documents)) for n, sample in samples.items()}
    why = f"tokens, the context has {context:,}: training leaves it out"
    over = [f"record {n}: {size:,} {why}" for n, size in sizes.items() if size > context]
    fitting = {n: sample for n, sample in samples.items() if sizes[n] <= context}
    packed = _packed(fitting, tokenizer) if fitting else {"batch": "no record fits", "packing": []}
    return {"file": reading.line, "tokens": tokens, **packed, "over_length": over}


def _sample(record: Record, tokenizer: Tokenizer) -> Sample:
    if isinstance(record, Dialogue):
        return dialogue_examples([record], tokenizer, sys.maxsize).samples[0]
    if isinstance(record, Rating):
        return rating_examples([record], tokenizer, sys.maxsize).samples[0]
    if isinstance(record, Comparison):
        return comparison_examples([record], tokenizer, sys.maxsize, needs_rewards=False).samples[0]
    if isinstance(record, Document):
        ids = [*tokenizer.opening, *tokenizer.encode(record.text), tokenizer.eos_id]
        return Sample((np.array(ids),), (np.arange(len(ids)) > 0,))
    ids = chat.prompt_ids(tokenizer, record.conversation)  # type: ignore[attr-defined]
    return Sample((np.array(ids),), (np.zeros(len(ids), dtype=bool),))


def _tokens(number: int, sample: Sample, tokenizer: Tokenizer) -> Rows:
    shared = sample.shared
    rows: Rows = []
    for side, (ids, mask) in enumerate(zip(sample.documents, sample.masks, strict=True)):
        for place in range(shared if side else 0, len(ids)):
            piece = tokenizer.piece(int(ids[place])).replace("\n", "\\n")
            part = "both" if place < shared else SIDES[side] if shared else ""
            row = {"record": number, "part": part, "place": place, "id": int(ids[place])}
            rows.append({**row, "piece": piece, "trained": bool(mask[place])})
    return rows


def _segments(number: int, sample: Sample) -> list[tuple[str, int]]:
    """Name and trained tokens of each part of a sample, in the order in which they lie."""
    shared = [(f"{number} both", 0)] if sample.shared else []
    sides = SIDES if len(sample.documents) == 2 else ("",)
    own = [int(mask[max(1, sample.shared) :].sum()) for mask in sample.masks]
    return [*shared, *((f"{number} {s}".strip(), n) for s, n in zip(sides, own, strict=True))]


def _packed(samples: dict[int, Sample], tokenizer: Tokenizer) -> dict[str, Any]:
    """The micro-batch of these samples, told from the batch itself."""
    batch = collate(list(samples.values()))
    named = [segment for n, sample in samples.items() for segment in _segments(n, sample)]
    rows: Rows = []
    start = 0
    for (name, trained), size in zip(named, batch.lengths, strict=True):
        ids, places = (x[start : start + size].tolist() for x in (batch.ids_N, batch.positions_N))
        text = tokenizer.decode(ids).replace("\n", " ")[:_BEGINNING]
        row = {"document": name, "start": start, "tokens": size}
        row |= {"positions": f"{places[0]}-{places[-1]}", "trained": trained}
        rows.append({**row, "text": text})
        start += size
    total = batch.ids_N.numel()
    said = f"one micro-batch: {batch.documents} documents end to end, {total:,} tokens"
    said += f", {batch.trained_tokens:,} trained, {(total - start) / total:.0%} padding"
    return {"batch": said, "packing": rows}
