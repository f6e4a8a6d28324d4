"""NeMo's `PUT /generate` (SPEC 11.2, 11.3): sentences in, prompt + continuation out.

    curl -X PUT localhost:1424/generate -H 'Content-Type: application/json' \\
         -d '{"sentences": ["Hello"], "tokens_to_generate": 8, "greedy": true}'

A bad value answers with NeMo's message as a bare JSON string and status 400. With `nemo_strict` the
statuses are the original's (200 with that string, 500 for missing sentences), `true` passes for an
integer where it did there, and a repetition penalty, 1.2 if none is sent, works only beside
compute_logprob; else it works when sent (never when greedy: that is the plain argmax). Keys that
are unknown or have no effect here are logged. Sentences are raw prompts: control texts in them are
parsed. An answer ends at the end of document, and at end strings, which `sentences` show.
"""

import asyncio
import math
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from flywright.ask import Completion, Sampling
from flywright.ask.protocol import Likely
from flywright.serve.backend import Backend, all_of, seeds_for, usable
from flywright.serve.bodies import Json, described
from flywright.serve.problems import Problem, log

MAX_SENTENCES = 128
END_OF_TEXT = "<|endoftext|>"  # NeMo's name for the end token


@dataclass(frozen=True)
class Row:
    """One line of NeMo's validation: key, default, what it may be, what is said if it is not."""

    key: str
    default: Any
    schema: dict[str, Any]
    message: str  # {} is the key

    def holds(self, value: Any, strict: bool) -> bool:
        """True if a value keeps to the schema; `true` is an integer where NeMo's rules hold."""
        kinds = self.schema["type"]
        if value is None or kinds == "null":
            return value is None and "null" in kinds
        if kinds == "array":
            return isinstance(value, list) and all(isinstance(text, str) for text in value)
        if isinstance(value, bool) or kinds == "boolean":
            return isinstance(value, bool) and (
                kinds == "boolean" or (strict and kinds != "number")
            )
        if not isinstance(value, int if "integer" in kinds else int | float):
            return False
        least, above = self.schema.get("minimum", 0), self.schema.get("exclusiveMinimum", -1)
        return above < value <= self.schema.get("maximum", math.inf) and value >= least


def _flag(key: str) -> Row:
    return Row(key, False, {"type": "boolean"}, "{} must be a boolean value")


def _whole(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least}


_TEXTS = {"type": "array", "items": {"type": "string"}}
_TO_100 = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_SEED = {"type": ["integer", "null"], "minimum": 0}

# in NeMo's order: the first failure is the one that is reported
ROWS = (
    Row("task_ids", None, {"type": "null"}, "{} cannot be used: no prompt-tuned tasks here"),
    Row("tokens_to_generate", 64, _whole(1), "{} must be an integer greater than 0"),
    _flag("all_probs"),
    Row("temperature", 1.0, _TO_100, "{} must be a positive number less than or equal to 100.0"),
    _flag("add_BOS"),
    _flag("greedy"),
    Row("top_k", 0, {"type": "number", "minimum": 0}, "{} must be a positive integer number"),
    Row("top_p", 0.9, _SHARE, "{} must be a positive number less than or equal to 1.0"),
    Row(
        "repetition_penalty",
        1.2,
        {"type": "number", "minimum": 1},
        "{} must be a positive number no less than 1.0",
    ),
    Row("end_strings", [END_OF_TEXT], _TEXTS, "expect {} to be a list of strings"),
    Row("min_tokens_to_generate", 0, _whole(0), "{} must be an integer no less than 0"),
    Row("neighbors", 0, _whole(0), "num of {} must be an integer no less than 0"),
    _flag("compute_logprob"),
    Row("random_seed", None, _SEED, "{} must be a positive integer number or None"),
)
_SENTENCE = {"type": "string", "minLength": 1}
SCHEMA = {
    "type": "object",
    "required": ["sentences"],
    "properties": {
        "sentences": {**_TEXTS, "items": _SENTENCE, "minItems": 1, "maxItems": MAX_SENTENCES},
        **{row.key: {**row.schema, "default": row.default} for row in ROWS},
    },
}


def check(tree: dict[str, Any], strict: bool) -> dict[str, Any]:
    """Values of all fields with NeMo's defaults. Raises Problem with NeMo's message."""
    values: dict[str, Any] = {"sentences": _sentences(tree, strict)}
    for row in ROWS:
        value = tree.get(row.key, row.default)
        if row.key in tree and not row.holds(value, strict):
            raise Problem(200 if strict else 400, row.message.format(row.key), row.key)
        values[row.key] = value
    return values


def _sentences(tree: dict[str, Any], strict: bool) -> list[str]:
    if "sentences" not in tree:
        message = "sentences is required: a list of strings"
        raise Problem(500 if strict else 400, message, "sentences")
    sentences = tree["sentences"]
    if isinstance(sentences, (list, str)) and len(sentences) > MAX_SENTENCES:
        raise Problem(400, f"Maximum number of sentences is {MAX_SENTENCES}", "sentences")
    texts = isinstance(sentences, list) and all(isinstance(text, str) for text in sentences)
    if not texts or not sentences or not all(sentences):
        message = "sentences must be a list of at least one string, none of them empty"
        raise Problem(400, message, "sentences")
    return list(sentences)


def log_ignored(tree: dict[str, Any], values: dict[str, Any]) -> None:
    """Log keys of the request that change nothing here."""
    for key in tree.keys() - values.keys():
        log.error("The request key %.100r is not allowed", key)  # escaped: it comes from outside
    if values["neighbors"] > 0:
        log.warning("neighbors=%s has no effect on this server", values["neighbors"])


def sampling_of(backend: Backend, tree: dict[str, Any], values: dict[str, Any]) -> Sampling:
    """NeMo's fields as a Sampling; greedy ignores temperature, top_k, top_p and the penalty.

    Raises Problem for more end strings than a server can look for.
    """
    texts = [text for text in values["end_strings"] if text and text != END_OF_TEXT]
    if len(texts) > 64 or any(len(text) > 1024 for text in texts):
        raise Problem(400, "end_strings: up to 64 of up to 1,024 characters", "end_strings")
    sampling = Sampling(
        max_tokens=values["tokens_to_generate"],
        min_tokens=values["min_tokens_to_generate"],
        stop=tuple(dict.fromkeys(texts)),
        end_ids=(backend.tokenizer.eos_id,),
    )
    if values["greedy"]:
        return sampling
    strict = backend.settings.nemo_strict
    penalised = values["compute_logprob"] if strict else "repetition_penalty" in tree
    return replace(
        sampling,
        temperature=usable(values["temperature"]),
        top_p=float(values["top_p"]) or 1.0,  # NeMo: 0 switches the filter off
        top_k=int(min(values["top_k"], 2**31 - 1)),
        repetition_penalty=min(values["repetition_penalty"], 100.0) if penalised else 1.0,
    )


def asks_of(
    backend: Backend, tree: dict[str, Any], values: dict[str, Any]
) -> tuple[list[list[int]], list[tuple[str, Sampling]]]:
    """Ids of the prompts, and what to ask; clipped to the context as HOUSE 8 says."""
    bos, context = backend.tokenizer.bos_id, backend.settings.context_tokens
    head = backend.tokenizer.piece(bos) if values["add_BOS"] and bos is not None else ""
    sampling = sampling_of(backend, tree, values)
    seeds = seeds_for(values["random_seed"], len(values["sentences"]))
    known, asks = [], []
    for sentence, seed in zip(values["sentences"], seeds, strict=True):
        ids = backend.prompt_ids(head + sentence)
        room = min(sampling.max_tokens, context - len(ids))
        if room < sampling.max_tokens:
            log.warning("tokens_to_generate %d clipped to %d: context", sampling.max_tokens, room)
        least = min(sampling.min_tokens, room)
        asks.append(
            (head + sentence, replace(sampling, max_tokens=room, min_tokens=least, seed=seed))
        )
        known.append(ids)
    return known, asks


def router(backend: Backend) -> APIRouter:
    """`PUT /generate`; other methods get 405."""
    wire = APIRouter()

    @wire.put("/generate", openapi_extra=described(SCHEMA))
    async def generate(request: Request) -> Response:
        tree = await backend.read(request)
        values = check(tree, backend.settings.nemo_strict)
        log_ignored(tree, values)
        backend.check_model(None)
        for key in ("compute_logprob", "all_probs"):
            if values[key]:
                backend.reader(key)
        ids, asks = asks_of(backend, tree, values)
        size = sum(len(one) + ask[1].max_tokens for one, ask in zip(ids, asks, strict=True))
        if values["all_probs"]:
            backend.tellable(size * backend.tokenizer.vocab_size, "all_probs")
        backend.metrics.read(sum(map(len, ids)))
        return await backend.while_there(request, _reply(backend, values, ids, asks))

    return wire


async def _reply(
    backend: Backend, values: dict[str, Any], prompts: list[list[int]], asks: list[Any]
) -> Response:
    """NeMo's response body. `logprob` and `full_logprob` tell of every token but the first."""
    done = await backend.complete(asks)
    texts = [continuation_text(backend, one) for one in done]
    known = zip(prompts, done, strict=True)
    rows = [
        [*before, *(one.token_ids or backend.tokenizer.encode(one.text))] for before, one in known
    ]
    reply: dict[str, Any] = {
        "sentences": [f"{a}{b}" for a, b in zip(values["sentences"], texts, strict=True)],
        "tokens": [[backend.tokenizer.piece(i) for i in ids] for ids in rows],
        "logprob": None,
        "token_ids": rows,
        "offsets": [offsets_of(backend, ids) for ids in rows],
    }
    found, size = [], 0
    if values["all_probs"]:
        size = backend.tokenizer.vocab_size
        found = await _read(backend, rows, size)
    if values["compute_logprob"]:
        heads = await _read(backend, prompts, 0)
        reply["logprob"] = [
            [*head.logprobs, *one.logprobs] for head, one in zip(heads, done, strict=True)
        ]

    def told() -> Response:
        if found:
            reply["full_logprob"] = [[_dense(one, size) for one in each.top] for each in found]
        return Json(reply)

    # beside the event loop, which a million probabilities would hold up
    return await asyncio.to_thread(told) if found else told()


async def _read(backend: Backend, rows: list[list[int]], top: int) -> list[Completion]:
    reader = backend.reader("compute_logprob")
    with backend.places(len(rows)):
        return await all_of(reader.read(ids, top) for ids in rows)


def _dense(likely: Likely, size: int) -> list[float | None]:
    row: list[float | None] = [None] * size
    for token, logprob in likely:
        row[token] = logprob
    return row


def continuation_text(backend: Backend, completion: Completion) -> str:
    """What was generated with its stop text: `<extra_id_1>` shows, the end of document does not."""
    if not completion.token_ids:
        return completion.text
    tokenizer = backend.tokenizer
    return backend.speller.shown(completion.token_ids, (tokenizer.bos_id, tokenizer.eos_id))


def offsets_of(backend: Backend, ids: list[int]) -> list[int]:
    """Where each token starts, in characters; special tokens have no width (SPEC 11.2)."""
    control, starts = backend.tokenizer.control_ids, [0]
    for token in ids[:-1]:
        starts.append(starts[-1] + (0 if token in control else backend.speller.width(token)))
    return starts[: len(ids)]
