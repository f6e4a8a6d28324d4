"""What parallel promises without a process group: chunks of a pipeline, and clear refusals."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from flywright.errors import UserError
from flywright.model import Decoder
from flywright.model.sharding import DECODER
from flywright.parallel.mesh import build_mesh
from flywright.parallel.pipeline import chunk_numbers, cut, layer_range, runnable
from flywright.parallel.tensor import tensor_parallel
from flywright.plan.measure import fake_ranks
from flywright.plan.schedule import schedule_ops
from flywright.spec import MeshSpec, ModelSpec, PlacementSpec

PLACEMENTS = PlacementSpec(
    tensor={"body.layers.*": "column"},
    layers="body.layers",
    first=("body.embed",),
    last=("head",),
)


class Small(nn.Module):
    """A stand-in: embedding, five linear layers, head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Module()
        self.body.embed = nn.Embedding(10, 4)
        self.body.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body.embed(x)
        for layer in self.body.layers:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("chunks", [1, 2, 3, 5])
def test_chunks_in_a_row_are_the_model(chunks: int) -> None:
    model, x = Small(), torch.tensor([[1, 2, 3]])
    expected, names = model(x), []
    for chunk in range(chunks):
        part = cut(model, chunk, chunks, PLACEMENTS)
        x = part(x)
        names += [name for name, _ in part.named_parameters()]
    assert torch.equal(x, expected)
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_a_cut_leaves_the_model_whole() -> None:
    model = Small()
    cut(model, 0, 2, PLACEMENTS)
    assert len(list(model.body.layers)) == 5
    assert isinstance(model.head, nn.Linear)


def test_layers_are_dealt_evenly() -> None:
    assert [len(layer_range(7, chunk, 3)) for chunk in range(3)] == [3, 2, 2]
    with pytest.raises(UserError, match="5 layers cannot be cut into 6"):
        layer_range(5, 0, 6)


def test_interleaved_chunks_go_round_the_ranks() -> None:
    assert [chunk_numbers(rank, 3, 2) for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]


@pytest.fixture
def alone(tmp_path: Path):
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def test_a_mesh_that_does_not_fit_the_ranks_is_refused(alone: None) -> None:
    with pytest.raises(UserError, match="needs 4 ranks, but 1 were started"):
        build_mesh(MeshSpec(dp=2, tp=2))


def test_a_weight_without_a_placement_is_refused(alone: None) -> None:
    mesh = build_mesh(MeshSpec())["tp"]
    with pytest.raises(UserError, match=r"no tensor placement for 'body\.embed'"):
        tensor_parallel(Small(), mesh, PLACEMENTS.tensor)


def test_heads_that_do_not_divide_are_refused_in_a_line() -> None:
    spec = ModelSpec(
        vocab_size=32, hidden_size=16, layers=1, heads=4, kv_heads=2, head_dim=8, ffn_size=24
    )
    with torch.device("meta"):
        model = Decoder(spec)
    with fake_ranks(4, 0), pytest.raises(UserError, match="2 heads do not divide by tp 4"):
        tensor_parallel(model, build_mesh(MeshSpec(tp=4))["tp"], DECODER.tensor)


@pytest.mark.parametrize(
    ("ranks", "virtual", "count", "run"),
    [(12, 8, 36, 36), (12, 8, 18, 18), (12, 8, 5, 12), (4, 1, 6, 6), (4, 1, 3, 4), (2, 2, 7, 8)],
)
def test_as_many_micro_batches_as_torch_can_run(
    ranks: int, virtual: int, count: int, run: int
) -> None:
    assert runnable(count, ranks, virtual) == run
    assert len(schedule_ops(ranks, virtual, run)[0]) == 2 * virtual * run  # torch takes them


def test_tied_weights_are_not_parted():
    tied = Small()
    tied.head = nn.Linear(4, 10, bias=False)
    tied.head.weight = tied.body.embed.weight
    with pytest.raises(UserError, match="tied to another weight"):
        cut(tied, 0, 2, PLACEMENTS)
