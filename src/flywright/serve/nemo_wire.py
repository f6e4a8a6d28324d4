"""NeMo's `PUT /generate` (SPEC 11.2, 11.3): sentences in, prompt + continuation out.

    curl -X PUT localhost:1424/generate -H 'Content-Type: application/json' \\
         -d '{"sentences": ["Hello"], "tokens_to_generate": 8, "greedy": true}'

A bad value answers with NeMo's message as a bare JSON string and status 400. With `nemo_strict` the
statuses are the original's (200 with that string, 500 for missing sentences) and `true` passes for
an integer where it did there. Keys that are unknown or have no effect here are logged. Sentences
are raw prompts: control texts in them are parsed.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from flywright.ask import Completion, Sampling
from flywright.serve.backend import Backend, seeds_for
from flywright.serve.problems import Problem
from flywright.tokenizer import Tokenizer

log = logging.getLogger("flywright.serve")

MAX_SENTENCES = 128
END_OF_TEXT = "<|endoftext|>"  # NeMo's name for the end token


@dataclass(frozen=True)
class Row:
    """One line of NeMo's validation: key, default, the test, and what is said if it fails."""

    key: str
    default: Any
    holds: Callable[[Any], bool]
    message: str  # {} is the key


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and value >= least


def _number(least: float, most: float = float("inf")) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _to_100(value: Any) -> bool:
    return _number(0, 100)(value) and value > 0


def _seed(value: Any) -> bool:
    return value is None or _whole(0)(value)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _flag(key: str) -> Row:
    return Row(key, False, lambda value: isinstance(value, bool), "{} must be a boolean value")


# in NeMo's order: the first failure is the one that is reported
ROWS = (
    Row("task_ids", None, lambda v: v is None, "{} cannot be used: no prompt-tuned tasks here"),
    Row("tokens_to_generate", 64, _whole(1), "{} must be an integer greater than 0"),
    _flag("all_probs"),
    Row("temperature", 1.0, _to_100, "{} must be a positive number less than or equal to 100.0"),
    _flag("add_BOS"),
    _flag("greedy"),
    Row("top_k", 0, _number(0), "{} must be a positive integer number"),
    Row("top_p", 0.9, _number(0, 1), "{} must be a positive number less than or equal to 1.0"),
    Row("repetition_penalty", 1.2, _number(1), "{} must be a positive number no less than 1.0"),
    Row("end_strings", [END_OF_TEXT], _strings, "expect {} to be a list of strings"),
    Row("min_tokens_to_generate", 0, _whole(0), "{} must be an integer no less than 0"),
    Row("neighbors", 0, _whole(0), "num of {} must be an integer no less than 0"),
    _flag("compute_logprob"),
    Row("random_seed", None, _seed, "{} must be a positive integer number or None"),
)
_WHOLE_KEYS = ("tokens_to_generate", "min_tokens_to_generate", "neighbors", "random_seed")


def check(tree: dict[str, Any], strict: bool) -> dict[str, Any]:
    """Values of all fields with NeMo's defaults. Raises Problem with NeMo's message."""
    values: dict[str, Any] = {"sentences": _sentences(tree, strict)}
    for row in ROWS:
        value = tree.get(row.key, row.default)
        wrong_bool = not strict and row.key in _WHOLE_KEYS and isinstance(value, bool)
        if row.key in tree and (wrong_bool or not row.holds(value)):
            raise Problem(200 if strict else 400, row.message.format(row.key), row.key)
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


def log_ignored(tree: dict[str, Any], values: dict[str, Any]) -> None:
    """Log keys of the request that change nothing here."""
    for key in tree.keys() - values.keys():
        log.error("The request key %.100r is not allowed", key)  # escaped: it comes from outside
    # NeMo applies the penalty only where log-probabilities are computed, never when greedy
    penalised = values["compute_logprob"] and not values["greedy"]
    unused = {
        "min_tokens_to_generate": values["min_tokens_to_generate"] > 1,
        "repetition_penalty": penalised and values["repetition_penalty"] != 1,
        "neighbors": values["neighbors"] > 0,
    }
    for key, matters in unused.items():
        if matters and key in tree:
            log.warning("%s=%s has no effect on this server", key, values[key])


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
    bos = backend.tokenizer.bos_id
    head = backend.tokenizer.piece(bos) if values["add_BOS"] and bos is not None else ""
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
        tree = await backend.read(request)
        values = check(tree, backend.settings.nemo_strict)
        log_ignored(tree, values)
        prompts, rooms = _asked(backend, values)
        seeds = seeds_for(values["random_seed"], len(prompts))
        samplings = [sampling_of(values, *pair) for pair in zip(rooms, seeds, strict=True)]
        done = await backend.complete(list(zip(prompts, samplings, strict=True)))
        return JSONResponse(reply(backend, values, prompts, done))

    return wire


def reply(
    backend: Backend, values: dict[str, Any], prompts: list[str], done: list[Completion]
) -> dict[str, Any]:
    """NeMo's response body. `logprob` is null for prompt tokens: the completer does not say."""
    tokenizer = backend.tokenizer
    rows = {"sentences": [], "tokens": [], "logprob": [], "token_ids": [], "offsets": []}
    for sentence, prompt, completion in zip(values["sentences"], prompts, done, strict=True):
        before = backend.prompt_ids(prompt)
        after = list(completion.token_ids) or tokenizer.encode(completion.text)
        ids = before + after
        known = list(completion.logprobs) or [None] * len(after)
        rows["sentences"].append(sentence + continuation_text(tokenizer, completion))
        rows["tokens"].append([tokenizer.piece(i) for i in ids])
        rows["logprob"].append(([None] * len(before) + known)[1:])
        rows["token_ids"].append(ids)
        rows["offsets"].append(offsets_of(tokenizer, ids))
    return {**rows, "logprob": rows["logprob"] if values["compute_logprob"] else None}


def continuation_text(tokenizer: Tokenizer, completion: Completion) -> str:
    """What was generated with its stop text: `<extra_id_1>` shows, the end of document does not."""
    if not completion.token_ids:
        return completion.text
    turns = tokenizer.control_ids - {tokenizer.bos_id, tokenizer.eos_id}
    parts: list[str] = []
    plain: list[int] = []
    for token in completion.token_ids:
        if token in turns:
            parts += [tokenizer.decode(plain), tokenizer.piece(token)]
            plain = []
        else:
            plain.append(token)
    return "".join([*parts, tokenizer.decode(plain)])


def offsets_of(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Where each token starts, in characters; special tokens have no width (SPEC 11.2)."""
    starts = [0]
    for token in ids[:-1]:
        starts.append(
            starts[-1] + (0 if token in tokenizer.control_ids else _width(tokenizer.piece(token)))
        )
    return starts[: len(ids)]


def _width(piece: str) -> int:
    """Characters of a piece; of a character given as bytes, only its first byte counts."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return 0 if 0x80 <= int(piece[3:5], 16) < 0xC0 else 1
    return len(piece)
