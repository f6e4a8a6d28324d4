"""A weights folder fills a sharded model and is written by it; no rank ever holds the whole."""

import ctypes
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.multiprocessing import ProcessRaisedException

from flywright.errors import FlywrightError, UserError
from flywright.model import Decoder, RewardModel, load, save
from flywright.model.decoder import InitialTensors
from flywright.model.sharding import DECODER, REWARD
from flywright.model.shards import INDEX, join_parts, write_parts
from flywright.model.weights import open_meta, write_config
from flywright.parallel import apply_pipeline, build_mesh
from flywright.parallel.folder import fill, save_sharded, stream
from flywright.spec import MeshSpec, ModelSpec
from gloo_ranks import Case, spread

# 34 rows over tp 2 are 17, which dp 2 does not divide
SPEC = ModelSpec(
    vocab_size=34, hidden_size=16, layers=4, heads=4, kv_heads=2, head_dim=8, ffn_size=24
)
GATED = SPEC.model_copy(
    update={"family": "qwen2", "norm": "rmsnorm", "mlp": "swiglu", "qkv_bias": True,
            "rotary_fraction": 1.0}
)  # fmt: skip
LARGE = ModelSpec(
    vocab_size=512, hidden_size=512, layers=16, heads=8, kv_heads=8, head_dim=64, ffn_size=1024
)
# matrices that are large beside the 2 MiB that a system may map at once
WIDE = LARGE.model_copy(update={"layers": 1, "ffn_size": 16384})
MiB = 1 << 20
MESHES = {
    "tp2": MeshSpec(tp=2),
    "fsdp2": MeshSpec(dp=2),
    "pp2-interleaved": MeshSpec(pp=2, virtual=2),
    "fsdp2-tp2": MeshSpec(dp=2, tp=2),
}
PRODUCT = MeshSpec(pp=2, dp=2, tp=2, virtual=2)


def _ids() -> torch.Tensor:
    return torch.arange(16).reshape(2, 8)


def _filled(folder: Path, mesh_spec: MeshSpec, dtype: torch.dtype | None = None):
    mesh = build_mesh(mesh_spec)
    model, tensors = open_meta(folder, dtype)
    placements = REWARD if isinstance(model, RewardModel) else DECODER
    chunks = apply_pipeline(model, mesh, placements, mesh_spec.virtual)
    for chunk in chunks:
        fill(chunk, tensors, "cpu")
    return chunks, mesh


def _finish(chunks, temporary: Path, parts) -> None:
    join_parts(temporary, parts)
    write_config(chunks[0], temporary, (3, 2))


def _check_whole(chunk: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, parameter in chunk.named_parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        assert whole.dtype == expected[name].dtype, name
        assert torch.equal(whole, expected[name]), name


def _there_and_back(mesh_spec: MeshSpec, folder: Path) -> None:
    chunks, mesh = _filled(folder / "source", mesh_spec)
    single = load(folder / "source")
    for chunk in chunks:
        _check_whole(chunk, single.state_dict())
        assert all(parameter.requires_grad for parameter in chunk.parameters())
    if mesh_spec.pp == 1:  # and what runs before the save leaves no gathered weights behind
        torch.testing.assert_close(chunks[0](_ids()), single(_ids()), rtol=0, atol=1e-5)
    write = partial(write_parts, shard_bytes=6000)
    save_sharded(chunks, mesh, folder / "out", write, partial(_finish, chunks))
    assert (folder / "out" / INDEX).exists()  # as soon as any rank goes on


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"store"}


def _check_round_trip(tmp_path: Path, mesh_spec: MeshSpec) -> None:
    model = Decoder(SPEC, seed=0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # norms, too
    save(model, tmp_path / "source", (3, 2), shard_bytes=4000)
    spread(partial(_there_and_back, mesh_spec), tmp_path, mesh_spec.ranks)
    source, out, expected = tmp_path / "source", tmp_path / "out", model.state_dict()
    ours = load(out).state_dict()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    beside = {path.name for path in source.iterdir() if path.suffix == ".json"}
    for name in beside - {INDEX}:
        assert (out / name).read_bytes() == (source / name).read_bytes()
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    assert shards == [
        f"model-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))
    ]
    assert _names(out) == beside | set(shards)
    assert _names(tmp_path) == {"source", "out"}
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto").state_dict()
    assert all(torch.equal(theirs[name], expected[name]) for name in expected)


@pytest.mark.parametrize("mesh_spec", MESHES.values(), ids=MESHES.keys())
def test_a_folder_there_and_back(mesh_spec: MeshSpec, tmp_path: Path) -> None:
    _check_round_trip(tmp_path, mesh_spec)


@pytest.mark.slow
def test_a_folder_there_and_back_over_all_axes(tmp_path: Path) -> None:
    _check_round_trip(tmp_path, PRODUCT)


def _starts_alike(spec: ModelSpec, mesh_spec: MeshSpec, _folder: Path) -> None:
    with torch.device("meta"):
        model = Decoder(spec)
    mesh = build_mesh(mesh_spec)
    for chunk in apply_pipeline(model, mesh, DECODER, mesh_spec.virtual):
        fill(chunk, InitialTensors(chunk, spec, seed=7), "cpu")
        _check_whole(chunk, Decoder(spec, seed=7).state_dict())


@pytest.mark.parametrize("spec", [SPEC, GATED], ids=["nemotron", "gated"])
@pytest.mark.parametrize("axes", ["tp2", "pp2-interleaved"])
def test_who_holds_a_weight_does_not_decide_its_start(spec, axes, tmp_path: Path) -> None:
    mesh_spec = MESHES[axes]
    spread(partial(_starts_alike, spec, mesh_spec), tmp_path, mesh_spec.ranks)


def _reward(folder: Path) -> None:
    mesh = build_mesh(MeshSpec(dp=2))
    bias = (1.0, 2.0, 3.0, 4.0, 5.0)
    base = load(folder / "base")
    single = RewardModel.from_decoder(base, seed=3, bias=bias)
    assert single.model.norm.weight.dtype == torch.bfloat16
    _, tensors = open_meta(folder / "base")
    model, started = RewardModel.start(SPEC, tensors, 3, bias)
    chunks = apply_pipeline(model, mesh, REWARD)
    fill(chunks[0], started, "cpu")
    _check_whole(chunks[0], single.state_dict())
    save_sharded(chunks, mesh, folder / "out", write_parts, partial(_finish, chunks))
    again, _ = _filled(folder / "out", MeshSpec(dp=2), torch.float16)
    expected = {
        name: tensor if name.startswith("score.") else tensor.half()
        for name, tensor in single.state_dict().items()
    }
    _check_whole(again[0], expected)


def test_a_reward_model_starts_and_is_saved_over_ranks(tmp_path: Path) -> None:
    save(Decoder(SPEC, seed=0).bfloat16(), tmp_path / "base")
    spread(_reward, tmp_path, 2)
    single = RewardModel.from_decoder(load(tmp_path / "base"), seed=3, bias=(1.0, 2, 3, 4, 5))
    saved = load(tmp_path / "out")
    assert isinstance(saved, RewardModel) and saved.score.weight.dtype == torch.float32
    assert all(
        torch.equal(tensor, single.state_dict()[name])
        for name, tensor in saved.state_dict().items()
    )


def _fails(mesh_spec: MeshSpec, where: str, folder: Path) -> None:
    chunks, mesh = _filled(folder / "source", mesh_spec)

    def write(temporary: Path, tensors, stage: int):
        if where == "write" and stage == mesh_spec.pp - 1:
            next(tensors)
            raise FlywrightError("the disk is full")
        return write_parts(temporary, tensors, stage)

    def finish(_temporary: Path, _parts) -> None:
        raise FlywrightError("the disk is full")

    with pytest.raises(FlywrightError, match="the disk is full"):
        save_sharded(chunks, mesh, folder / "out", write, finish)
    save_sharded(chunks, mesh, folder / "late", write_parts, partial(_finish, chunks))


@pytest.mark.parametrize("where", ["write", "finish"])
@pytest.mark.parametrize("axes", ["tp2", "pp2-interleaved"])
def test_where_one_rank_fails_all_do_and_nothing_is_left(axes, where, tmp_path: Path) -> None:
    save(Decoder(SPEC, seed=0), tmp_path / "source")
    spread(partial(_fails, MESHES[axes], where), tmp_path, 2)
    assert _names(tmp_path) == {"source", "late"}


def _spoilt(folder: Path) -> None:
    with pytest.raises(UserError, match=r"'lm_head\.weight' has shape"):
        _filled(folder / "source", MeshSpec(dp=2))
    with pytest.raises(UserError, match=r"without a mesh"), torch.device("meta"):
        fill(Decoder(SPEC.model_copy(update={"tied_embeddings": True})), {}, "cpu")


def test_a_spoilt_folder_is_named_on_every_rank(tmp_path: Path) -> None:
    model = Decoder(SPEC, seed=0)
    model.lm_head = torch.nn.Linear(16, 36, bias=False)
    save(model, tmp_path / "source")
    spread(_spoilt, tmp_path, 2)


class _Peak:
    """The most anonymous memory that a block adds, in bytes."""

    def __init__(self) -> None:
        self._done, self.added = threading.Event(), 0

    def _take(self) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
        self.added = max(self.added, (kib << 10) - self._before)

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self._take()

    def __enter__(self) -> "_Peak":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before would be used again unseen
        self._before = 0
        self._take()
        self._before, self.added = self.added, 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._done.set()
        self._thread.join()
        self._take()


def _mapped_bytes() -> int:
    """Bytes of weights files that this process has touched."""
    kib, is_weights = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            is_weights = line.endswith(".safetensors")
        elif first == "Rss:" and is_weights:
            kib += int(rest[0])
    return kib << 10


def _size(folder: Path) -> int:
    return (folder / "source" / "model.safetensors").stat().st_size


def _holds_its_part(folder: Path) -> None:
    """Of 130 MiB in tensors of 2 MiB or less."""
    mesh = build_mesh(MeshSpec(dp=2))
    model, tensors = open_meta(folder / "source")
    chunks = apply_pipeline(model, mesh, DECODER)
    with _Peak() as held:
        fill(chunks[0], tensors, "cpu")
    assert 0.45 < held.added / _size(folder) < 0.6
    write = partial(write_parts, shard_bytes=2 * MiB)
    with _Peak() as held:
        save_sharded(chunks, mesh, folder / "out", write, partial(_finish, chunks))
    assert held.added / _size(folder) < 0.25  # gathered, its pieces, and a file that waits


def _reads_its_part(folder: Path) -> None:
    model, tensors = open_meta(folder / "source")
    (chunk,) = apply_pipeline(model, build_mesh(MeshSpec(dp=2)), DECODER)
    fill(chunk, tensors, "cpu")
    assert 0.45 < _mapped_bytes() / _size(folder) < 0.65


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
@pytest.mark.parametrize("case, spec", [(_holds_its_part, LARGE), (_reads_its_part, WIDE)])
def test_no_rank_holds_or_reads_more_than_its_part(case: Case, spec, tmp_path: Path) -> None:
    # not in this process: memory that it has freed would be its children's
    spread(lambda folder: save(Decoder(spec, seed=0), folder / "source"), tmp_path, 1)
    spread(case, tmp_path, 2)


def test_a_model_that_is_not_sharded_streams_as_it_is() -> None:
    model = Decoder(SPEC, seed=0)
    for name, tensor in stream(model):
        assert tensor.data_ptr() == model.get_parameter(name).data_ptr()


def test_a_failure_of_a_rank_reaches_the_test(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException):
        spread(lambda _folder: [][1], tmp_path, 2)
