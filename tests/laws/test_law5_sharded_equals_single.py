"""Law 5: tensor, sharded-data and pipeline parallel runs have one process's loss and gradients.

Two gloo processes on CPU, forked after one torch import; fp64, 1e-10.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.multiprocessing import start_processes

from flywright.data.batch import Sample
from flywright.data.loader import Shuffled
from flywright.model import Decoder, RewardModel
from flywright.model.logprobs import token_logprobs
from flywright.model.sharding import DECODER, REWARD
from flywright.parallel import Ranks, apply, apply_pipeline, build_mesh, compute_in
from flywright.spec import MeshSpec, ModelSpec
from flywright.train.loop import fit
from flywright.train.objectives import (
    Objective,
    dpo,
    language_model,
    ranking,
    reward,
    rpo,
    sft,
)
from flywright.train.settings import TrainSettings

TIGHT = 1e-10
SPEC = ModelSpec(
    vocab_size=32, hidden_size=16, layers=4, heads=4, kv_heads=2, head_dim=8, ffn_size=24
)
GATED: dict[str, Any] = {"mlp": "swiglu", "norm": "rmsnorm", "qkv_bias": True, "family": "qwen2"}
Case = Callable[[Path], None]


def _run(rank: int, case: Case, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    try:
        case(folder)
    finally:
        dist.destroy_process_group()


def _spread(case: Case, folder: Path, ranks: int = 2) -> None:
    start_processes(_run, args=(case, ranks, folder), nprocs=ranks, start_method="fork")


def _decoder(spec: ModelSpec = SPEC) -> Decoder:
    model = Decoder(spec, seed=0).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero at first: a bias that is left out would not show
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    return model


def _ids() -> torch.Tensor:
    return torch.randint(32, (4, 8), generator=torch.Generator().manual_seed(1))


def _share(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Part of the mean loss over the whole batch's 28 predicted tokens."""
    logits_NV = logits_BTV[:, :-1].flatten(0, 1)
    summed = torch.nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:].flatten(), reduction="sum")
    return summed / 28


def _single(spec: ModelSpec = SPEC) -> tuple[float, dict[str, torch.Tensor]]:
    model, ids_BT = _decoder(spec), _ids()
    loss = _share(model(ids_BT), ids_BT)
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _whole(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _check_gradients(module: torch.nn.Module, expected: dict[str, torch.Tensor]) -> set[str]:
    names = set()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(_whole(parameter.grad), expected[name], rtol=0, atol=TIGHT)
        names.add(name)
    return names


def _summed(loss: torch.Tensor) -> float:
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total.item()


def _tensor_case(spec: ModelSpec) -> Case:
    def case(_folder: Path) -> None:
        loss, gradients = _single(spec)
        model = apply(_decoder(spec), build_mesh(MeshSpec(tp=2)), DECODER)
        weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")
        assert isinstance(weight, DTensor)
        assert weight.to_local().shape == (12, 16)
        ours = _share(model(_ids()), _ids())
        ours.backward()
        assert abs(ours.item() - loss) < TIGHT
        assert _check_gradients(model, gradients) == set(gradients)

    return case


def _data_case(_folder: Path) -> None:
    loss, gradients = _single()
    model = apply(_decoder(), build_mesh(MeshSpec(dp=2)), DECODER)
    # uneven shares: rank 0 has three rows, rank 1 has one
    mine = _ids()[:3] if dist.get_rank() == 0 else _ids()[3:]
    ours = _share(model(mine), mine)
    ours.backward()
    assert abs(_summed(ours) - loss) < TIGHT
    assert _check_gradients(model, gradients) == set(gradients)


def _data_fused_case(_folder: Path) -> None:
    """The road that training takes: hidden(), then the log-probability op on the head's weight."""
    loss, gradients = _single()
    model = apply(_decoder(), build_mesh(MeshSpec(dp=2)), DECODER)
    mine = _ids()[2 * dist.get_rank() :][:2]
    hidden_ND = model.hidden(mine)[:, :-1].flatten(0, 1)
    ours = -token_logprobs(hidden_ND, model.lm_head.weight, mine[:, 1:].flatten()).sum() / 28
    ours.backward()
    assert abs(_summed(ours) - loss) < TIGHT
    assert _check_gradients(model, gradients) == set(gradients)


def _reward_case(_folder: Path) -> None:
    single, sharded = (RewardModel.from_decoder(_decoder(), seed=3) for _ in range(2))
    expected = single(_ids()).square().sum()
    expected.backward()
    apply(sharded, build_mesh(MeshSpec(tp=2)), REWARD)
    ours = sharded(_ids()).square().sum()
    ours.backward()
    # the head is fp32 by design
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    for name, parameter in single.named_parameters():
        grad = _whole(sharded.get_parameter(name).grad)
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-5, atol=1e-7)


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
MESHES = {
    "tp2": MeshSpec(tp=2),
    "pp2": MeshSpec(pp=2),
    "pp2-interleaved": MeshSpec(pp=2, virtual=2),
    "zero1": MeshSpec(dp=2, zero=1),
    "zero2": MeshSpec(dp=2, zero=2),
    "zero3": MeshSpec(dp=2, zero=3),
    "dp2-tp2": MeshSpec(dp=2, tp=2),
    "product": MeshSpec(pp=2, dp=2, tp=2, virtual=2),
}
STEPS = 3
GAPLESS = {"score.bias", "model.norm.bias"}  # they move both rewards of a pair alike


def _model(of: str, spec: ModelSpec) -> Decoder | RewardModel:
    if of in ("reward", "ranking"):
        return RewardModel.from_decoder(_decoder(spec), seed=3).double()
    return _decoder(spec)


def _fitted(
    of: str, folder: Path, mesh: DeviceMesh | None, sharded: MeshSpec, spec: ModelSpec
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Metrics of each step, and the weights after the last, or this rank's of them."""
    objective, samples = OBJECTIVES[of]
    objective = replace(objective, start=lambda means, dtype: None)  # another reference than at 0
    settings = TrainSettings(
        learning_rate=1e-2, batch_size=5, samples=5 * STEPS, micro_batch_tokens=24, precision="fp32"
    )
    model, given = _model(of, spec), {}
    parts: list[Any] = [model]
    if mesh is not None:
        placements = REWARD if isinstance(model, RewardModel) else DECODER
        policy = compute_in(torch.float64)
        virtual, zero = sharded.virtual, sharded.zero
        parts = apply_pipeline(model, mesh, placements, virtual, policy, zero)
        given = {"ranks": Ranks(mesh, sharded)}
    fit(parts, Shuffled(samples(), 0), objective, settings, folder, **given)
    log = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return lines, {n: _whole(p.detach()) for part in parts for n, p in part.named_parameters()}


def _training_case(of: str, sharded: MeshSpec, spec: ModelSpec = SPEC) -> Case:
    def case(folder: Path) -> None:
        mesh = build_mesh(sharded)
        alone = folder / f"alone-{dist.get_rank()}"
        expected, weights = _fitted(of, alone, None, sharded, spec)
        found, ours = _fitted(of, folder / "sharded", mesh, sharded, spec)
        timed = ("seconds", "_seconds", "_per_second", "bytes", "mfu", "causal")
        for before, after in zip(expected, found, strict=dist.get_rank() == 0):
            for name, value in before.items():
                if not name.endswith(timed):
                    assert abs(after[name] - value) <= TIGHT * max(1, abs(value)), (name, before)
        for name, weight in ours.items():
            torch.testing.assert_close(weight, weights[name], rtol=0, atol=TIGHT)
        held: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(held, sorted(ours))
        assert set().union(*held) == set(weights)
        before = _model(of, spec).state_dict()
        still = {name for name, weight in ours.items() if torch.equal(weight, before[name])}
        assert still <= (GAPLESS if of == "ranking" else set())

    return case


CASES = {
    "tp2": _tensor_case(SPEC),
    "tp2-gated-biased": _tensor_case(SPEC.model_copy(update=GATED)),
    "tp2-head-norms": _tensor_case(SPEC.model_copy(update=GATED | {"qk_norm": True})),
    "fsdp2": _data_case,
    "fsdp2-fused": _data_fused_case,
    "reward-tp2": _reward_case,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_two_ranks_equal_one(case: Case, tmp_path: Path) -> None:
    _spread(case, tmp_path)


def _all_objectives(sharded: MeshSpec) -> Case:
    def case(folder: Path) -> None:
        for of in OBJECTIVES:
            _training_case(of, sharded)(folder / of)

    return case


@pytest.mark.parametrize("mesh", ["tp2", "pp2-interleaved", "zero1"])
def test_every_objective_over_a_mesh_trains_as_on_one_process(mesh: str, tmp_path: Path) -> None:
    """Loss, metrics and gradient norm of three steps, and the weights after them."""
    _spread(_all_objectives(MESHES[mesh]), tmp_path)


@pytest.mark.parametrize("mesh", ["pp2", "zero2", "zero3"])
def test_other_meshes_train_as_one_process(mesh: str, tmp_path: Path) -> None:
    _spread(_training_case("sft", MESHES[mesh]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["dp2-tp2", "product"])
def test_the_product_of_all_equals_one(mesh: str, tmp_path: Path) -> None:
    _spread(_all_objectives(MESHES[mesh]), tmp_path, MESHES[mesh].ranks)


@pytest.mark.slow
def test_the_papers_own_pipeline(tmp_path: Path) -> None:
    """PP 12 x 8 virtual stages (SPEC 3.2): 96 layers, one in each chunk."""
    spec = SPEC.model_copy(update={"layers": 96})
    _spread(_training_case("lm", MeshSpec(pp=12, virtual=8), spec), tmp_path, ranks=12)
