"""The engine's parts beside their slow twins: decoding, attention, products, whole steps, draws.

    python benchmarks/engine.py [--out benchmarks/results/engine.json]

Decoding: a 5M-parameter model with random weights, fp32, prompts of 32 tokens, answers of 64,
beside naive decoding (the whole text recomputed for every token); both give the same tokens, which
is checked. Attention and products: the shapes of a layer of 768, 12 heads in 4 groups. Each pair
takes turns; the medians count. Only a machine that does nothing else gives numbers worth keeping.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from recording import RESULTS, row, write_result

from flywright.generate import Engine, native
from flywright.generate.cache import PagedCache, Step, gathered
from flywright.generate.packed import PackedLinear
from flywright.generate.runner import Local
from flywright.model import Decoder
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, train_tokenizer

SPEC = ModelSpec(
    vocab_size=2048,
    hidden_size=256,
    layers=6,
    heads=8,
    kv_heads=4,
    head_dim=32,
    ffn_size=1024,
    context_length=256,
    rotary_fraction=0.5,
)
PROMPT_TOKENS, ANSWER_TOKENS = 32, 64


def make_tokenizer() -> Tokenizer:
    """A tokenizer of SPEC.vocab_size pieces, trained on random syllables."""
    generator = torch.Generator().manual_seed(0)
    syllables = [a + b + c for a in "bcdfglmprst" for b in "aeiou" for c in "mnrstl"]
    picks = torch.randint(len(syllables), (1500, 3), generator=generator).tolist()
    words = ["".join(syllables[i] for i in pick) for pick in picks]
    text = [" ".join(words[i : i + 30]) for i in range(0, len(words), 10)]
    return train_tokenizer(text, SPEC.vocab_size)


def make_prompts(tokenizer: Tokenizer, count: int) -> list[str]:
    """Raw prompts of exactly PROMPT_TOKENS tokens, all different."""
    generator = torch.Generator().manual_seed(1)
    letters = torch.randint(97, 123, (count, 400), generator=generator).tolist()
    texts = ["".join(map(chr, row)) for row in letters]
    prompts = [tokenizer.decode(tokenizer.encode(text)[:PROMPT_TOKENS]) for text in texts]
    assert all(len(tokenizer.encode(text)) == PROMPT_TOKENS for text in prompts)
    return prompts


@torch.inference_mode()
def naive(model: Decoder, ids_BT: torch.Tensor, count: int) -> list[list[int]]:
    """Greedy tokens of equally long prompts, without a cache, as one batch."""
    start = ids_BT.shape[1]
    for _ in range(count):
        logits_BV = model.lm_head(model.hidden(ids_BT)[:, -1])
        ids_BT = torch.cat((ids_BT, logits_BV.argmax(-1, keepdim=True)), dim=1)
    return ids_BT[:, start:].tolist()


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], turns: int) -> tuple[float, float]:
    """Median wall seconds of each, taking turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns + 1):
        for times, work in zip(taken, (ours, theirs), strict=True):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return median(taken[0][1:]), median(taken[1][1:])  # the first ones warm up


def decoding(batch: int, turns: int) -> dict[str, object]:
    """Tokens a second of the engine and of naive decoding."""
    model, tokenizer = Decoder(SPEC, seed=0), make_tokenizer()
    engine = Engine(model, tokenizer, max_batch=batch)
    prompts = make_prompts(tokenizer, batch)
    ids_BT = torch.tensor([tokenizer.encode(prompt) for prompt in prompts])
    answers = [list(c.token_ids) for c in engine.generate(prompts, ANSWER_TOKENS)]
    expected = naive(model, ids_BT, ANSWER_TOKENS)
    assert answers == [e[: len(a)] for a, e in zip(answers, expected, strict=True)]
    made = sum(map(len, answers))
    ours, theirs = in_turns(
        lambda: engine.generate(prompts, ANSWER_TOKENS),
        lambda: naive(model, ids_BT, ANSWER_TOKENS),
        turns,
    )
    what, peer = f"greedy decoding, batch {batch}", "naive recompute, same model, same batch"
    return row(what, made / ours, batch * ANSWER_TOKENS / theirs, peer, "tokens/s")


def attention(rows: int, tokens: int, before: int, dtype: torch.dtype, turns: int) -> dict:
    """Compiled attention to pages beside torch's over gathered ones, one layer."""
    spec = ModelSpec(
        vocab_size=8, hidden_size=768, layers=1, heads=12, kv_heads=4, head_dim=64, ffn_size=8,
        context_length=before + tokens, rotary_fraction=0.5,
    )  # fmt: skip
    cache = PagedCache(spec, rows, dtype, torch.device("cpu"))
    pages = cache.pages // rows
    table = torch.randperm(cache.pages).int()[: rows * pages].view(rows, pages) + 1
    row_T = torch.arange(rows, dtype=torch.int32).repeat_interleave(tokens)
    position_T = (before + torch.arange(tokens, dtype=torch.int32)).repeat(rows)
    step = Step(row_T.long(), row_T, position_T, table, row_T.long())
    q, k, v = (torch.randn(1, heads, rows * tokens, 64).to(dtype) for heads in (12, 4, 4))
    fast, slow = cache.attend(step), gathered(cache.k, cache.v, step)
    ours, theirs = in_turns(lambda: fast(0, q, k, v), lambda: slow(0, q, k, v), turns)
    what = f"attention of {rows} x {tokens} tokens after {before}, {str(dtype)[6:]}"
    return row(what, ours * 1e3, theirs * 1e3, "pages gathered, torch's own attention", "ms", True)


def products(rows: int, dtype: torch.dtype, int8: bool, turns: int) -> dict:
    """Packed products of 24 matrices of 3072 x 768 beside torch's, or int8 beside packed ones."""
    weights = [torch.randn(3072, 768).mul_(0.02).to(dtype) for _ in range(24)]
    packs = [PackedLinear(weight) for weight in weights]
    x = torch.randn(rows, 768).to(dtype)
    if int8:
        eights = [PackedLinear(weight, int8=True) for weight in weights]
        pair = [lambda: [one(x) for one in eights], lambda: [one(x) for one in packs]]
    else:
        pair = [lambda: [one(x) for one in packs], lambda: [F.linear(x, one) for one in weights]]
    ours, theirs = in_turns(*pair, turns)
    kind, peer = ("int8", "packed") if int8 else ("packed", "torch's own")
    what = f"{kind} product, {rows} rows, {str(dtype)[6:]}"
    return row(what, ours * 1e3, theirs * 1e3, f"{peer} product", "ms", True)


def one_call(rows: int, int8: bool, turns: int) -> dict:
    """Twelve layers of 768 over the next token of each of some rows, by one call and by modules."""
    spec = ModelSpec(
        vocab_size=8192, hidden_size=768, layers=12, heads=12, kv_heads=4, head_dim=64,
        ffn_size=3072, context_length=256, rotary_fraction=0.5,
    )  # fmt: skip
    model, half = Decoder(spec, seed=0).bfloat16(), torch.bfloat16
    native._function.cache_clear()
    os.environ["FLYWRIGHT_NATIVE"] = "0"  # the slow twin: oneDNN's products, gathered pages
    slow = Local(model, PagedCache(spec, rows, half, torch.device("cpu")))
    del os.environ["FLYWRIGHT_NATIVE"]
    native._function.cache_clear()
    fast = Local(model, PagedCache(spec, rows, half, torch.device("cpu")), int8=int8)
    assert fast.whole is not None and slow.whole is None
    row_T, position_T = torch.arange(rows).int(), torch.full((rows,), 200).int()
    table = torch.arange(1, 16 * rows + 1).int().view(rows, 16)
    step = Step(row_T, row_T, position_T, table, row_T)
    ours, theirs = in_turns(lambda: fast(step), lambda: slow(step), turns)
    what = f"12 layers and head over {rows} tokens, {'int8' if int8 else 'bfloat16'}"
    return row(what, ours * 1e3, theirs * 1e3, "bfloat16 by modules and oneDNN", "ms", True)


def largest(rows: int, turns: int) -> dict:
    """The largest logits of rows of 8192 and their logsumexp, beside torch's two operations."""
    logits = torch.randn(rows, 8192)
    twin = lambda: (logits.argmax(-1), logits.logsumexp(-1))  # noqa: E731
    ours, theirs = in_turns(lambda: native.peaks(logits), twin, turns)
    what = f"largest of 8192 logits and their logsumexp, {rows} rows"
    return row(what, ours * 1e3, theirs * 1e3, "torch's argmax and logsumexp", "ms", True)


def sharing(turns: int) -> dict[str, object]:
    """16 answers to one prompt of 160 tokens, beside 16 prompts that share nothing."""
    model, tokenizer = Decoder(SPEC, seed=0), make_tokenizer()
    engine = Engine(model, tokenizer, max_batch=16)
    chance = torch.Generator().manual_seed(2)

    def prompts(kinds: int) -> list[tuple[int, ...]]:
        made = torch.randint(10, 2000, (kinds, 160), generator=chance).tolist()
        return [tuple(made[i % kinds]) for i in range(16)]

    ours, theirs = in_turns(
        lambda: engine.generate(prompts(1), 8, min_new_tokens=8),
        lambda: engine.generate(prompts(16), 8, min_new_tokens=8),
        turns,
    )
    what = "16 answers of 8 tokens to one prompt of 160"
    return row(what, ours * 1e3, theirs * 1e3, "16 prompts that share nothing", "ms", True)


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.json")
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    single, half = torch.float32, torch.bfloat16
    with torch.inference_mode():
        rows = [decoding(batch, max(3, turns // 2)) for batch in (1, 8, 64)]
        rows += [attention(64, 1, 255, dtype, turns) for dtype in (single, half)]
        rows += [attention(1, 512, 0, dtype, turns) for dtype in (single, half)]
        rows += [products(m, dtype, False, turns) for dtype in (single, half) for m in (1, 8, 64)]
        rows += [products(m, half, True, turns) for m in (1, 8, 64)]
        rows += [one_call(m, int8, turns) for int8 in (False, True) for m in (1, 8, 64)]
        rows += [largest(m, turns) for m in (1, 64)]
        rows.append(sharing(turns))
    write_result(parser.parse_args().out, "python benchmarks/engine.py", rows)


if __name__ == "__main__":
    main()
