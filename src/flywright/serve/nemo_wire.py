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
from flywright.serve.backend import Ask, Backend, all_of, seeds_for, usable
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
        if isinstance(value, bool) and not (strict and "integer" in kinds):
            return kinds == "boolean"
        if kinds == "boolean" or not isinstance(value, int if "integer" in kinds else int | float):
            return False
        least, above = self.schema.get("minimum", 0), self.schema.get("exclusiveMinimum", -1)
        return above < value <= self.schema.get("maximum", math.inf) and value >= least


def _flag(key: str) -> Row:
    return Row(key, False, {"type": "boolean"}, "{} must be a boolean value")


def _number(kind: str | list[str], least: int, **more: int) -> dict[str, Any]:
    return {"type": kind, "minimum": least, **more}


_TEXTS = {"type": "array", "items": {"type": "string"}}
_TO_100 = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_POSITIVE = "{} must be a positive number"
_SEED = _number(["integer", "null"], 0)

# in NeMo's order: the first failure is the one that is reported
ROWS = (
    Row("task_ids", None, {"type": "null"}, "{} cannot be used: no prompt-tuned tasks here"),
    Row("tokens_to_generate", 64, _number("integer", 1), "{} must be an integer greater than 0"),
    _flag("all_probs"),
    Row("temperature", 1.0, _TO_100, f"{_POSITIVE} less than or equal to 100.0"),
    _flag("add_BOS"),
    _flag("greedy"),
    Row("top_k", 0, _number("number", 0), "{} must be a positive integer number"),
    Row("top_p", 0.9, _number("number", 0, maximum=1), f"{_POSITIVE} less than or equal to 1.0"),
    Row("repetition_penalty", 1.2, _number("number", 1), f"{_POSITIVE} no less than 1.0"),
    Row("end_strings", [END_OF_TEXT], _TEXTS, "expect {} to be a list of strings"),
    Row("min_tokens_to_generate", 0, _number("integer", 0), "{} must be an integer no less than 0"),
    Row("neighbors", 0, _number("integer", 0), "num of {} must be an integer no less than 0"),
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
    backend: Backend, values: dict[str, Any], sampling: Sampling
) -> tuple[list[list[int]], list[Ask]]:
    """Ids of the prompts, and what to ask; clipped to the context as HOUSE 8 says."""
    bos = backend.tokenizer.bos_id
    head = backend.tokenizer.piece(bos) if values["add_BOS"] and bos is not None else ""
    prompts = [head + sentence for sentence in values["sentences"]]
    known = [backend.prompt_ids(prompt) for prompt in prompts]
    asks: list[Ask] = []
    seeds = seeds_for(values["random_seed"], len(prompts))
    for prompt, ids, seed in zip(prompts, known, seeds, strict=True):
        room = min(sampling.max_tokens, backend.settings.context_tokens - len(ids))
        if room < sampling.max_tokens:
            log.warning("tokens_to_generate %d clipped to %d: context", sampling.max_tokens, room)
        least = min(sampling.min_tokens, room)
        own = replace(sampling, max_tokens=room, min_tokens=least, seed=seed)
        asks.append((backend.put(prompt, ids), own))
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
        ids, asks = asks_of(backend, values, sampling_of(backend, tree, values))
        tokens = sum(map(len, ids)) + sum(how.max_tokens for _, how in asks)
        if values["all_probs"]:
            backend.tellable(tokens * backend.tokenizer.vocab_size, "all_probs")
        backend.metrics.add("prompt_tokens", sum(map(len, ids)))
        return await backend.while_there(request, _reply(backend, values, ids, asks))

    return wire


async def _reply(
    backend: Backend, values: dict[str, Any], prompts: list[list[int]], asks: list[Ask]
) -> Response:
    """NeMo's response body. `logprob` and `full_logprob` tell of every token but the first."""
    done, tokenizer = await backend.complete(asks), backend.tokenizer
    both = list(zip(prompts, done, strict=True))
    rows = [[*ids, *(one.token_ids or tokenizer.encode(one.text))] for ids, one in both]
    heads = await _read(backend, prompts, 0) if values["compute_logprob"] else []
    full = await _read(backend, rows, tokenizer.vocab_size) if values["all_probs"] else []
    told = zip(heads, done, strict=False)

    def reply() -> Response:
        texts = zip(values["sentences"], done, strict=True)
        probabilities = [[_dense(one, tokenizer.vocab_size) for one in row.top] for row in full]
        return Json(
            {
                "sentences": [before + continuation_text(backend, one) for before, one in texts],
                "tokens": [[tokenizer.piece(i) for i in ids] for ids in rows],
                "logprob": [[*head.logprobs, *one.logprobs] for head, one in told] or None,
                "token_ids": rows,
                "offsets": [offsets_of(backend, ids) for ids in rows],
                **({"full_logprob": probabilities} if full else {}),
            }
        )

    # beside the event loop, which a million probabilities would hold up
    return await asyncio.to_thread(reply) if full else reply()


async def _read(backend: Backend, rows: list[list[int]], top: int) -> list[Completion]:
    reader = backend.reader("compute_logprob")
    with backend.places(len(rows)):
        return await all_of(reader.read(ids, top) for ids in rows)


def _dense(likely: Likely, size: int) -> list[float | None]:
    named = dict(likely)
    return [named.get(token) for token in range(size)]


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
