"""Law 5: tensor, sharded-data and pipeline parallel runs have one process's loss and gradients.

Two gloo processes on CPU, forked after one torch import; fp64, 1e-10.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from over_meshes import (
    GATED,
    OBJECTIVES,
    SPEC,
    TIGHT,
    assert_same_steps,
    decoder,
    new_model,
    over,
    told,
    weights,
    whole,
)
from torch.distributed.tensor import DTensor

from flywright.data.loader import Shuffled
from flywright.model import RewardModel
from flywright.model.logprobs import token_logprobs
from flywright.model.sharding import DECODER, REWARD
from flywright.parallel import apply, build_mesh
from flywright.spec import MeshSpec, ModelSpec
from flywright.train.loop import fit
from flywright.train.objectives import reward
from flywright.train.passes import Passes
from flywright.train.reference import pair_reference
from flywright.train.settings import TrainSettings
from gloo_ranks import Case, spread


def _ids() -> torch.Tensor:
    return torch.randint(32, (4, 8), generator=torch.Generator().manual_seed(1))


def _share(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Part of the mean loss over the whole batch's 28 predicted tokens."""
    logits_NV = logits_BTV[:, :-1].flatten(0, 1)
    summed = torch.nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:].flatten(), reduction="sum")
    return summed / 28


def _single(spec: ModelSpec = SPEC) -> tuple[float, dict[str, torch.Tensor]]:
    model, ids_BT = decoder(spec), _ids()
    loss = _share(model(ids_BT), ids_BT)
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _check_gradients(module: torch.nn.Module, expected: dict[str, torch.Tensor]) -> set[str]:
    names = set()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(whole(parameter.grad), expected[name], rtol=0, atol=TIGHT)
        names.add(name)
    return names


def _summed(loss: torch.Tensor) -> float:
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total.item()


def _tensor_case(spec: ModelSpec) -> Case:
    def case(_folder: Path) -> None:
        loss, gradients = _single(spec)
        model = apply(decoder(spec), build_mesh(MeshSpec(tp=2)), DECODER)
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
    model = apply(decoder(), build_mesh(MeshSpec(dp=2)), DECODER)
    # uneven shares: rank 0 has three rows, rank 1 has one
    mine = _ids()[:3] if dist.get_rank() == 0 else _ids()[3:]
    ours = _share(model(mine), mine)
    ours.backward()
    assert abs(_summed(ours) - loss) < TIGHT
    assert _check_gradients(model, gradients) == set(gradients)


def _data_fused_case(_folder: Path) -> None:
    """The road that training takes: hidden(), then the log-probability op on the head's weight."""
    loss, gradients = _single()
    model = apply(decoder(), build_mesh(MeshSpec(dp=2)), DECODER)
    mine = _ids()[2 * dist.get_rank() :][:2]
    hidden_ND = model.hidden(mine)[:, :-1].flatten(0, 1)
    ours = -token_logprobs(hidden_ND, model.lm_head.weight, mine[:, 1:].flatten()).sum() / 28
    ours.backward()
    assert abs(_summed(ours) - loss) < TIGHT
    assert _check_gradients(model, gradients) == set(gradients)


def _reward_case(_folder: Path) -> None:
    single, sharded = (RewardModel.from_decoder(decoder(), seed=3) for _ in range(2))
    expected = single(_ids()).square().sum()
    expected.backward()
    apply(sharded, build_mesh(MeshSpec(tp=2)), REWARD)
    ours = sharded(_ids()).square().sum()
    ours.backward()
    # the head is fp32 by design
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    for name, parameter in single.named_parameters():
        grad = whole(sharded.get_parameter(name).grad)
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-5, atol=1e-7)


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


def _training_case(of: str, mesh: MeshSpec, spec: ModelSpec = SPEC, **changed: Any) -> Case:
    objective, samples = OBJECTIVES[of]
    objective = replace(objective, start=lambda means, dtype: None)  # another reference than at 0
    settings = TrainSettings(
        learning_rate=1e-2, batch_size=5, samples=5 * STEPS, micro_batch_tokens=24,
        precision="fp32", **changed,
    )  # fmt: skip

    seen: list[np.ndarray] = []

    def trained(folder: Path, now: MeshSpec) -> dict[str, torch.Tensor]:
        given = over(of, spec, now)
        model = given.pop("model")
        made = samples()
        if of in ("dpo", "rpo"):
            parts = model if isinstance(model, list) else [model]
            passes = Passes(parts, settings.micro_batch_tokens, given["ranks"])
            seen.append(pair_reference(passes, made))
        given["validation"] = made[:4]
        fit(model, Shuffled(made, 0), objective, settings, folder, **given)
        return weights(model)

    def case(folder: Path) -> None:
        seen.clear()
        alone = folder / f"alone-{dist.get_rank()}"
        expected, ours = trained(alone, MeshSpec()), trained(folder / "sharded", mesh)
        if dist.get_rank() == 0:
            assert_same_steps(told(folder / "sharded"), told(alone))
            assert "validation_loss" in told(alone)[-1]
        if seen:  # of the reference, on every rank
            np.testing.assert_allclose(seen[1], seen[0], rtol=1e-6)
        for name, weight in ours.items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=TIGHT)
        held: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(held, sorted(ours))
        assert set().union(*held) == set(expected)
        before = new_model(of, spec).state_dict()
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
    spread(case, tmp_path)


def _all_objectives(sharded: MeshSpec) -> Case:
    def case(folder: Path) -> None:
        for of in OBJECTIVES:
            _training_case(of, sharded)(folder / of)

    return case


@pytest.mark.parametrize("mesh", ["tp2", "pp2-interleaved", "zero1"])
def test_every_objective_over_a_mesh_trains_as_on_one_process(mesh: str, tmp_path: Path) -> None:
    """Loss, metrics and gradient norm of three steps, and the weights after them."""
    spread(_all_objectives(MESHES[mesh]), tmp_path)


@pytest.mark.parametrize("mesh", ["pp2", "zero2", "zero3"])
def test_other_meshes_train_as_one_process(mesh: str, tmp_path: Path) -> None:
    """Layers are computed again in backward: they find the weights that were let go."""
    spread(_training_case("sft", MESHES[mesh], recompute=True), tmp_path)


@pytest.mark.parametrize("mesh", ["tp2", "zero3", "pp2-interleaved"])
def test_bf16_over_a_mesh_is_near_bf16_on_one(mesh: str, tmp_path: Path) -> None:
    """What is computed in is rounded alike; what is kept, the fp32 weights, is not rounded."""
    settings = TrainSettings(learning_rate=1e-3, batch_size=5, samples=15, micro_batch_tokens=24)

    def case(folder: Path) -> None:
        for now in (MeshSpec(), MESHES[mesh]):
            given = over("reward", SPEC, now, dtype=torch.bfloat16)
            out = folder / ("meshed" if now.ranks > 1 else f"alone-{dist.get_rank()}")
            samples = OBJECTIVES["reward"][1]()
            fit(given.pop("model"), Shuffled(samples, 0), reward(), settings, out, **given)
        if dist.get_rank() == 0:
            ours, alone = told(folder / "meshed"), told(folder / "alone-0")
            for after, before in zip(ours, alone, strict=True):
                assert after["loss"] == pytest.approx(before["loss"], rel=2e-2)
                assert after["grad_norm"] == pytest.approx(before["grad_norm"], rel=5e-2)

    spread(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["dp2-tp2", "product"])
def test_the_product_of_all_equals_one(mesh: str, tmp_path: Path) -> None:
    spread(_all_objectives(MESHES[mesh]), tmp_path, MESHES[mesh].ranks)


@pytest.mark.slow
def test_the_papers_own_pipeline(tmp_path: Path) -> None:
    """PP 12 x 8 virtual stages (SPEC 3.2): 96 layers, one in each chunk."""
    spec = SPEC.model_copy(update={"layers": 96})
    spread(_training_case("lm", MeshSpec(pp=12, virtual=8), spec), tmp_path, ranks=12)
