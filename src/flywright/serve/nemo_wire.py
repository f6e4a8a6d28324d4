"""NeMo's `PUT /generate` (SPEC 11.2, 11.3): sentences in, prompt + continuation out.

    curl -X PUT localhost:1424/generate -H 'Content-Type: application/json' \\
         -d '{"sentences": ["Hello"], "tokens_to_generate": 8, "greedy": true}'

A bad value answers with NeMo's message as a bare JSON string and status 400. With `nemo_strict` the
statuses are the original's (200 with that string, 500 for missing sentences) and `true` passes for
an integer where it did there. Keys that are unknown or have no effect here are logged and named in
the header X-Flywright-Ignored. Sentences are raw prompts: control texts in them are parsed.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from flywright.ask import Completion, Sampling
from flywright.serve.backend import Backend, seeds_for
from flywright.serve.bodies import read_object
from flywright.serve.problems import Problem
from flywright.tokenizer import Tokenizer

log = logging.getLogger("flywright.serve")

MAX_SENTENCES = 128
END_OF_TEXT = "<|endoftext|>"  # NeMo's name for the end token
IGNORED = "X-Flywright-Ignored"


@dataclass(frozen=True)
class Row:
    """One line of NeMo's validation: key, default, the test, and what is said if it fails."""

    key: str
    default: Any
    holds: Callable[[Any], bool]
    message: str


def _whole(value: Any) -> bool:
    return isinstance(value, int)


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _flag(key: str) -> Row:
    return Row(key, False, _bool, f"{key} must be a boolean value")


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


# in NeMo's order: the first failure is the one that is reported
ROWS = (
    Row(
        "task_ids",
        None,
        lambda v: v is None,
        "task_ids cannot be used: this server has no prompt-tuned tasks",
    ),
    Row(
        "tokens_to_generate",
        64,
        lambda v: _whole(v) and v >= 1,
        "tokens_to_generate must be an integer greater than 0",
    ),
    _flag("all_probs"),
    Row(
        "temperature",
        1.0,
        lambda v: _number(v) and 0 < v <= 100,
        "temperature must be a positive number less than or equal to 100.0",
    ),
    _flag("add_BOS"),
    _flag("greedy"),
    Row("top_k", 0, lambda v: _number(v) and v >= 0, "top_k must be a positive integer number"),
    Row(
        "top_p",
        0.9,
        lambda v: _number(v) and 0 <= v <= 1,
        "top_p must be a positive number less than or equal to 1.0",
    ),
    Row(
        "repetition_penalty",
        1.2,
        lambda v: _number(v) and v >= 1,
        "repetition_penalty must be a positive number no less than 1.0",
    ),
    Row("end_strings", [END_OF_TEXT], _strings, "expect end_strings to be a list of strings"),
    Row(
        "min_tokens_to_generate",
        0,
        lambda v: _whole(v) and v >= 0,
        "min_tokens_to_generate must be an integer no less than 0",
    ),
    Row(
        "neighbors",
        0,
        lambda v: _whole(v) and v >= 0,
        "num of neighbors must be an integer no less than 0",
    ),
    _flag("compute_logprob"),
    Row(
        "random_seed",
        None,
        lambda v: v is None or (_whole(v) and v >= 0),
        "random_seed must be a positive integer number or None",
    ),
)
_WHOLE_KEYS = ("tokens_to_generate", "min_tokens_to_generate", "neighbors", "random_seed")


def check(tree: dict[str, Any], strict: bool) -> dict[str, Any]:
    """Values of all fields with NeMo's defaults. Raises Problem with NeMo's message."""
    values: dict[str, Any] = {"sentences": _sentences(tree, strict)}
    for row in ROWS:
        value = tree.get(row.key, row.default)
        wrong_bool = not strict and row.key in _WHOLE_KEYS and isinstance(value, bool)
        if row.key in tree and (wrong_bool or not row.holds(value)):
            raise Problem(200 if strict else 400, row.message, row.key)
        values[row.key] = value
    if values["all_probs"]:
        raise Problem(400, "all_probs true is not supported by this server", "all_probs")
    return values


def _sentences(tree: dict[str, Any], strict: bool) -> list[str]:
    if "sentences" not in tree:
        message = "sentences is required: a list of strings"
        raise Problem(500 if strict else 400, message, "sentences")
    sentences = tree["sentences"]
    if isinstance(sentences, (list, str)) and len(sentences) > MAX_SENTENCES:
        raise Problem(400, f"Maximum number of sentences is {MAX_SENTENCES}", "sentences")
    if not _strings(sentences) or not sentences:
        raise Problem(400, "sentences must be a list of at least one string", "sentences")
    return list(sentences)


def _harmless(text: str) -> str:
    return re.sub(r"[^\w,. -]", "?", text, flags=re.ASCII)[:500]


def ignored_keys(tree: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Keys of the request that change nothing here, each logged."""
    unknown = [key for key in tree if key != "sentences" and key not in {r.key for r in ROWS}]
    for key in unknown:
        log.error("The request key %s is not allowed", _harmless(key))
    unused = {
        "min_tokens_to_generate": values["min_tokens_to_generate"] > 1,
        # NeMo applies the penalty only where log-probabilities are computed, never when greedy
        "repetition_penalty": values["compute_logprob"]
        and not values["greedy"]
        and values["repetition_penalty"] != 1,
        "neighbors": values["neighbors"] > 0,
    }
    named = [key for key, matters in unused.items() if matters and key in tree]
    for key in named:
        log.warning("%s=%s has no effect on this server", key, values[key])
    return unknown + named


def sampling_of(values: dict[str, Any], max_tokens: int, seed: int) -> Sampling:
    """NeMo's fields as a Sampling; greedy ignores temperature, top_k and top_p."""
    stop = tuple(text for text in values["end_strings"] if text and text != END_OF_TEXT)
    if values["greedy"]:
        return Sampling(max_tokens=max_tokens, seed=seed, stop=stop)
    return Sampling(
        max_tokens=max_tokens,
        temperature=float(values["temperature"]),
        top_p=float(values["top_p"]) or 1.0,  # NeMo: 0 switches the filter off
        top_k=int(min(values["top_k"], 2**31)),
        seed=seed,
        stop=stop,
    )


def _asked(backend: Backend, values: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Raw prompts, and how many tokens each may get; clipped to the context as HOUSE 8 says."""
    head = "<s>" if values["add_BOS"] else ""
    prompts = [head + sentence for sentence in values["sentences"]]
    wanted, context = values["tokens_to_generate"], backend.settings.context_tokens
    rooms = []
    for index, prompt in enumerate(prompts):
        used = len(backend.prompt_ids(prompt))
        if used >= context:
            message = f"sentence {index} has {used} tokens; the context holds {context}"
            raise Problem(400, message, "sentences")
        rooms.append(min(wanted, context - used))
    if min(rooms) < wanted:
        log.warning("tokens_to_generate %d clipped to %d: context", wanted, min(rooms))
    return prompts, rooms


def router(backend: Backend) -> APIRouter:
    """`PUT /generate`; other methods get 405."""
    wire = APIRouter()

    @wire.put("/generate")
    async def generate(request: Request) -> JSONResponse:
        settings = backend.settings
        tree = await read_object(request, settings.max_body_bytes, settings.body_seconds)
        values = check(tree, settings.nemo_strict)
        ignored = ignored_keys(tree, values)
        prompts, rooms = _asked(backend, values)
        seeds = seeds_for(values["random_seed"], len(prompts))
        samplings = [sampling_of(values, *pair) for pair in zip(rooms, seeds, strict=True)]
        done = await backend.complete(list(zip(prompts, samplings, strict=True)))
        # keys come from the client: only harmless characters may enter a header or the log
        headers = {IGNORED: _harmless(", ".join(ignored))} if ignored else {}
        return JSONResponse(reply(backend, values, prompts, done), headers=headers)

    return wire


def reply(
    backend: Backend, values: dict[str, Any], prompts: list[str], done: list[Completion]
) -> dict[str, Any]:
    """NeMo's response body. `logprob` is null for prompt tokens: the completer does not say."""
    tokenizer = backend.tokenizer
    rows = {"sentences": [], "tokens": [], "logprob": [], "token_ids": [], "offsets": []}
    for sentence, prompt, completion in zip(values["sentences"], prompts, done, strict=True):
        rows["sentences"].append(sentence + continuation_text(tokenizer, completion))
        before = backend.prompt_ids(prompt)
        after = list(completion.token_ids)
        if not after and tokenizer is not None:
            after = tokenizer.encode(completion.text)
        ids = before + after
        rows["token_ids"].append(ids)
        rows["tokens"].append([tokenizer.piece(i) for i in ids] if tokenizer else [])
        rows["offsets"].append(offsets_of(tokenizer, ids) if tokenizer else [])
        known = list(completion.logprobs) or [None] * len(after)
        rows["logprob"].append(([None] * len(before) + known)[1:])
    return {**rows, "logprob": rows["logprob"] if values["compute_logprob"] else None}


def continuation_text(tokenizer: Tokenizer | None, completion: Completion) -> str:
    """What was generated with its stop text: `<extra_id_1>` shows, the end of document does not."""
    if tokenizer is None or not completion.token_ids:
        return completion.text
    shown = {token: tokenizer.piece(token) for token in tokenizer.extra_ids}
    parts: list[str] = []
    plain: list[int] = []
    for token in completion.token_ids:
        if token in shown:
            parts += [tokenizer.decode(plain), shown[token]]
            plain = []
        else:
            plain.append(token)
    return "".join([*parts, tokenizer.decode(plain)])


def offsets_of(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Where each token starts, in characters; special tokens have no width (SPEC 11.2)."""
    special = {tokenizer.bos_id, tokenizer.eos_id, *tokenizer.extra_ids}
    starts = [0]
    for token in ids[:-1]:
        starts.append(starts[-1] + (0 if token in special else _width(tokenizer.piece(token))))
    return starts[: len(ids)]


def _width(piece: str) -> int:
    """Characters of a piece; of a character given as bytes, only its first byte counts."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return 0 if 0x80 <= int(piece[3:5], 16) < 0xC0 else 1
    return len(piece)
