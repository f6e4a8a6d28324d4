"""The engine's speed beside naive decoding (the whole text recomputed for every token).

    python benchmarks/engine.py [--out benchmarks/results/engine.json]

A 5M-parameter model with random weights, fp32, prompts of 32 tokens, answers of 64. Both give the
same tokens; the benchmark checks that. Runs alternate for `--seconds` a row; the best of each
counts. Only a machine that does nothing else gives numbers worth keeping.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from recording import RESULTS, row, write_result

from flywright.generate import Engine
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


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(
    model: Decoder, tokenizer: Tokenizer, batch: int, budget_seconds: float
) -> dict[str, object]:
    """One row of the results: tokens a second at one batch size."""
    engine = Engine(model, tokenizer, max_batch=batch)
    prompts = make_prompts(tokenizer, batch)
    ids_BT = torch.tensor([tokenizer.encode(prompt) for prompt in prompts])
    answers = [list(c.token_ids) for c in engine.generate(prompts, ANSWER_TOKENS)]
    expected = naive(model, ids_BT, ANSWER_TOKENS)
    assert answers == [e[: len(a)] for a, e in zip(answers, expected, strict=True)]
    made = sum(map(len, answers))
    ours, peer = [], []
    end = time.perf_counter() + budget_seconds
    while not peer or time.perf_counter() < end:
        peer.append(batch * ANSWER_TOKENS / seconds(lambda: naive(model, ids_BT, ANSWER_TOKENS)))
        ours += [made / seconds(lambda: engine.generate(prompts, ANSWER_TOKENS)) for _ in range(3)]
    what, peer_name = f"greedy decoding, batch {batch}", "naive recompute, same model, same batch"
    return row(what, max(ours), max(peer), peer_name, "tokens/s")


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.json")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    model, tokenizer = Decoder(SPEC, seed=0), make_tokenizer()
    rows = [measure(model, tokenizer, batch, options.seconds) for batch in options.batches]
    write_result(options.out, "python benchmarks/engine.py", rows)


if __name__ == "__main__":
    main()
