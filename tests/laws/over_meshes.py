"""Training over a mesh in tests: forked ranks on gloo, a tiny fp64 model, samples of each kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from flywright.data.batch import Sample
from flywright.model import Decoder, RewardModel
from flywright.model.sharding import DECODER, REWARD
from flywright.parallel import Ranks, apply_pipeline, build_mesh, compute_in
from flywright.spec import MeshSpec, ModelSpec
from flywright.train.objectives import (
    Objective,
    dpo,
    language_model,
    ranking,
    reward,
    rpo,
    sft,
)

TIGHT = 1e-10
SPEC = ModelSpec(
    vocab_size=32, hidden_size=16, layers=4, heads=4, kv_heads=2, head_dim=8, ffn_size=24
)
GATED: dict[str, Any] = {"mlp": "swiglu", "norm": "rmsnorm", "qkv_bias": True, "family": "qwen2"}


def decoder(spec: ModelSpec = SPEC) -> Decoder:
    model = Decoder(spec, seed=0).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero at first: a bias that is left out would not show
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    return model


def whole(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _documents(count: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 32, generator.integers(5, 12)) for _ in range(count)]


def _masks(*documents: np.ndarray, untrained: int = 1) -> tuple[np.ndarray, ...]:
    return tuple(np.arange(len(document)) >= untrained for document in documents)


def _texts() -> list[Sample]:
    return [Sample((ids,), _masks(ids, untrained=n % 4)) for n, ids in enumerate(_documents(9, 0))]


def _rated() -> list[Sample]:
    labels = np.random.default_rng(5).normal(size=(9, 5))
    labels[2, 1:4] = np.nan
    return [
        Sample((ids,), _masks(ids), {"attributes": label})
        for ids, label in zip(_documents(9, 1), labels, strict=True)
    ]


def _pairs() -> list[Sample]:
    """Two answers to a prompt of three tokens, which is computed once in some of them."""
    generator = np.random.default_rng(6)
    found = []
    for number, prompt in enumerate(_documents(9, 2)):
        pair = [np.concatenate([prompt[:3], ids]) for ids in _documents(2, 10 + number)]
        labels = {"reference": generator.normal(size=2) - 20, "rewards": generator.normal(size=2)}
        shared = 3 if number % 2 else 0
        found.append(Sample(tuple(pair), _masks(*pair, untrained=3), labels, shared))
    return found


OBJECTIVES: dict[str, tuple[Objective, Callable[[], list[Sample]]]] = {
    "lm": (language_model(), _texts),
    "sft": (sft(), _texts),
    "dpo": (dpo(0.3, 0.1), _pairs),
    "rpo": (rpo(0.3, 1.0, 0.1), _pairs),
    "reward": (reward(), _rated),
    "ranking": (ranking(), _pairs),
}


def new_model(of: str, spec: ModelSpec) -> Decoder | RewardModel:
    if of in ("reward", "ranking"):
        return RewardModel.from_decoder(decoder(spec), seed=3).double()
    return decoder(spec)


def over(
    of: str,
    spec: ModelSpec,
    now: MeshSpec,
    ramp: MeshSpec | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    """A new model, or this rank's chunks of it, and its ranks, for `fit`; on one process alone.

    dtype: what a mesh computes in; weights are fp64 with it, else fp32.
    """
    model, ramp = new_model(of, spec), ramp or now
    model = model if dtype == torch.float64 else model.float()
    if now.ranks == 1:
        return {"model": model, "ranks": Ranks(None, ramp)}
    mesh, policy = build_mesh(now), compute_in(dtype)
    placements = REWARD if isinstance(model, RewardModel) else DECODER
    parts = apply_pipeline(model, mesh, placements, now.virtual, policy, now.zero)
    return {"model": parts, "ranks": Ranks(mesh, ramp)}


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Of a model, or of a rank's chunks, whole and by name."""
    parts = model if isinstance(model, list) else [model]
    return {n: whole(p.detach()) for part in parts for n, p in part.named_parameters()}


def told(folder: Path) -> list[dict[str, float]]:
    """Each step's metrics, without what is measured of time and memory; none where none wrote."""
    timed = ("seconds", "_seconds", "_per_second", "bytes", "mfu", "causal")
    log = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [{n: v for n, v in line.items() if not n.endswith(timed)} for line in lines]


def assert_same_steps(ours: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(ours) == len(expected)
    for after, before in zip(ours, expected, strict=True):
        for name, value in before.items():
            assert abs(after[name] - value) <= TIGHT * max(1, abs(value)), (name, before)
