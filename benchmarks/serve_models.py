"""What benchmarks/serve.py asks about: random Nemotrons in every engine's format, and prompts.

A model has no way to end an answer: its end tokens' logits are 0, never the largest, so that all
answers are as long as they may be, in every engine.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from serve_worker import last_line

from flywright.model import Decoder, RewardModel, save
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, chat, train_tokenizer

SHAPES = {  # hidden, layers, heads, kv heads, ffn, vocabulary
    "5m": (192, 4, 3, 1, 768, 4096),  # to try the benchmark itself
    "30m": (512, 8, 8, 2, 2048, 8192),
    "120m": (768, 17, 12, 4, 3072, 8192),
    "500m": (1280, 24, 20, 4, 5120, 32768),
}


def spec_of(size: str) -> ModelSpec:
    """The Nemotron shape behind a size."""
    return nemotron(*SHAPES[size])


def nemotron(
    hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocabulary: int,
    head_dim: int = 64, context: int = 1024,
) -> ModelSpec:  # fmt: skip
    """A shape from its numbers."""
    return ModelSpec(
        vocab_size=vocabulary,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_size=ffn,
        context_length=context,
    )


def draw_words(dice: random.Random, count: int) -> list[str]:
    """Words of random letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(dice.choices(letters, k=dice.randint(3, 9))) for _ in range(count)]


def make_tokenizer(vocabulary: int) -> Tokenizer:
    """A tokenizer of so many pieces, trained on random words."""
    dice = random.Random(0)
    known = draw_words(dice, 4 * vocabulary // 10)
    text = dice.choices(known, k=3 * vocabulary)
    lines = [" ".join(text[i : i + 30]) for i in range(0, len(text), 30)]
    return train_tokenizer(lines, vocabulary)


@torch.no_grad()
def make_folders(size: str, work: Path) -> tuple[Path, Path]:
    """The policy's and the reward model's folders in bf16, made once."""
    policy, reward = work / f"{size}-policy", work / f"{size}-reward"
    if (reward / "config.json").exists():
        return policy, reward
    spec = spec_of(size)
    tokenizer = make_tokenizer(spec.vocab_size)
    model = Decoder(spec, seed=0)
    for ends in (*chat.end_ids(tokenizer), *tokenizer.control_ids):
        model.lm_head.weight[ends] = 0
    rated = RewardModel.from_decoder(model, seed=0)
    for one, folder in ((model, policy), (rated, reward)):
        folder.mkdir(exist_ok=True)
        one.to(torch.bfloat16)
        if isinstance(one, RewardModel):
            one.score.float()
        save(one, folder, chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
        tokenizer.save(folder)
    return policy, reward


def make_gguf(folder: Path, form: str, source: Path) -> Path:
    """The folder in llama.cpp's format, made once by its own converter."""
    out = folder.parent / folder.name.replace("policy", f"{form}.gguf")
    if not out.exists():
        script, part = str(source / "convert_hf_to_gguf.py"), out.with_suffix(".part")
        command = [sys.executable, script, str(folder), "--outfile", str(part), "--outtype", form]
        env = os.environ | {"PYTHONPATH": str(source / "gguf-py"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"conversion to {form}: {last_line(done.stderr)}")
        part.rename(out)
    return out


class Prompts:
    """Texts of so many tokens that were not asked before."""

    def __init__(self, tokenizer: Tokenizer, seed: int = 1):
        self.tokenizer, self.dice = tokenizer, random.Random(seed)

    def text(self, tokens: int) -> str:
        """One text whose ids are just so many."""
        while True:
            ids = self.tokenizer.encode(" ".join(draw_words(self.dice, tokens)))[:tokens]
            text = self.tokenizer.decode(ids)
            if self.tokenizer.encode(text) == ids and len(ids) == tokens:
                return text

    def command(
        self, lengths: tuple[tuple[int, int], ...], how: str = "together"
    ) -> dict[str, Any]:
        """Requests of (prompt, answer) tokens."""
        texts = [self.text(length) for length, _ in lengths]
        ids = [self.tokenizer.encode(text) for text in texts]
        return {"how": how, "prompts": ids, "texts": texts, "counts": [n for _, n in lengths]}


def read_shapes(spec: ModelSpec) -> Iterator[tuple[int, int]]:
    """The matrices (outputs, inputs) that every token reads: all but the input embedding."""
    query, key, hidden = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.hidden_size
    for _ in range(spec.layers):
        yield from ((query, hidden), (key, hidden), (key, hidden), (hidden, query))
        yield from ((spec.ffn_size, hidden), (hidden, spec.ffn_size))
    yield spec.vocab_size, hidden
