"""Law 5: tensor, sharded-data and pipeline parallel runs have one process's loss and gradients.

Two gloo processes on CPU, forked after one torch import; fp64, 1e-10.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.multiprocessing import start_processes

from flywright.model import Decoder, RewardModel
from flywright.model.logprobs import token_logprobs
from flywright.model.sharding import DECODER, REWARD
from flywright.parallel import apply, apply_pipeline, build_mesh, pipeline_schedule
from flywright.spec import MeshSpec, ModelSpec

TIGHT = 1e-10
SPEC = ModelSpec(
    vocab_size=32, hidden_size=16, layers=4, heads=4, kv_heads=2, head_dim=8, ffn_size=24
)
GATED = {"mlp": "swiglu", "norm": "rmsnorm", "qkv_bias": True, "family": "qwen2"}
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
    return torch.randint(32, (4, 7), generator=torch.Generator().manual_seed(1))


def _share(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Part of the mean loss over the whole batch's 24 predicted tokens."""
    logits_NV = logits_BTV[:, :-1].flatten(0, 1)
    summed = torch.nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:].flatten(), reduction="sum")
    return summed / 24


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
    ours = -token_logprobs(hidden_ND, model.lm_head.weight, mine[:, 1:].flatten()).sum() / 24
    ours.backward()
    assert abs(_summed(ours) - loss) < TIGHT
    assert _check_gradients(model, gradients) == set(gradients)


def _pipeline_case(virtual: int) -> Case:
    def case(_folder: Path) -> None:
        loss, gradients = _single()
        mesh = build_mesh(MeshSpec(pp=2, virtual=virtual))
        chunks = apply_pipeline(_decoder(), mesh, DECODER, virtual)
        schedule = pipeline_schedule(chunks, mesh["pp"], microbatches=4, loss=_share)
        ids_BT, losses = _ids(), []
        if dist.get_rank() == 0:
            schedule.step(ids_BT)
        else:
            schedule.step(target=ids_BT, losses=losses)
            assert abs(sum(part.item() for part in losses) - loss) < TIGHT
        names = [_check_gradients(chunk, gradients) for chunk in chunks]
        gathered: list[list[set[str]]] = [[], []]
        dist.all_gather_object(gathered, names)
        held = [name for rank in gathered for chunk in rank for name in chunk]
        assert sorted(held) == sorted(gradients)  # each parameter in one chunk only

    return case


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


def _product_case(_folder: Path) -> None:
    loss, gradients = _single()
    mesh = build_mesh(MeshSpec(pp=2, dp=2, tp=2, virtual=2))
    chunks = apply_pipeline(_decoder(), mesh, DECODER, virtual=2)
    schedule = pipeline_schedule(chunks, mesh["pp"], microbatches=2, loss=_share)
    mine, losses = _ids()[2 * mesh["dp"].get_local_rank() :][:2], []
    if mesh["pp"].get_local_rank() == 0:
        schedule.step(mine)
    else:
        schedule.step(target=mine, losses=losses)
        total = torch.stack([part.detach() for part in losses]).sum()
        dist.all_reduce(total, group=mesh["dp"].get_group())
        assert abs(total.item() - loss) < TIGHT
    for chunk in chunks:
        _check_gradients(chunk, gradients)


CASES = {
    "tp2": _tensor_case(SPEC),
    "tp2-gated-biased": _tensor_case(SPEC.model_copy(update=GATED)),
    "fsdp2": _data_case,
    "fsdp2-fused": _data_fused_case,
    "pp2": _pipeline_case(1),
    "pp2-interleaved": _pipeline_case(2),
    "reward-tp2": _reward_case,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_two_ranks_equal_one(case: Case, tmp_path: Path) -> None:
    _spread(case, tmp_path)


@pytest.mark.slow
def test_the_product_of_all_equals_one(tmp_path: Path) -> None:
    _spread(_product_case, tmp_path, ranks=8)
