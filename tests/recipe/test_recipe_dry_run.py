"""A dry run tells what the ranks of a mesh hold, and refuses what does not fit."""

import json
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.multiprocessing import start_processes

from flywright.data.batch import Sample
from flywright.data.prepare import TOKENIZER
from flywright.data.shards import write_shard
from flywright.errors import UserError
from flywright.model import Decoder, attention
from flywright.model.sharding import DECODER
from flywright.parallel import Ranks, apply_pipeline, build_mesh, compute_in
from flywright.recipe import stages
from flywright.recipe.brought import OwnShards
from flywright.recipe.dry_run import Job, Rank, dry_run, tables
from flywright.recipe.run import read_recipe, run, step_names
from flywright.recipe.settings import DocumentSettings, WholeSettings
from flywright.recipe.step import Work
from flywright.spec import MeshSpec
from flywright.train.objectives import language_model
from flywright.train.optim import MasterOptimizer
from flywright.train.passes import Passes
from flywright.train.settings import TrainSettings

ROOT = Path(__file__).parents[2]
SMALL = "{vocab_size=512,hidden_size=64,layers=8,heads=4,kv_heads=2,head_dim=16,ffn_size=256}"
WINDOW = 64


def recipe(name: str = "340b", **mesh: object) -> WholeSettings:
    changes = [f"model={SMALL}", f"pretrain.window={WINDOW}", "mesh.virtual=2", "mesh.dp_ramp=[]"]
    changes += [f"pretrain.train.micro_batch_tokens={WINDOW}", "pretrain.train.batch_ramp=[]"]
    changes += [f"mesh.{axis}={mesh.get(axis, 2)}" for axis in ("pp", "dp", "tp")]
    changes += ["pretrain.train.batch_size=16", f"mesh.zero={mesh.get('zero', 1)}"]
    changes += [f"pretrain.train.recompute={str(mesh.get('recompute', False)).lower()}"]
    found = read_recipe(ROOT / "recipes" / f"nemotron-4-{name}.toml", changes, None)
    assert isinstance(found, WholeSettings)
    return found


def command(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "flywright.cli", "run", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


# ---------------------------------------------------------------- the recipes


@pytest.mark.parametrize("name", ["nemotron-4-340b", "nemotron-4-15b"])
def test_without_its_files_a_line_says_which(name, tmp_path):
    chosen = read_recipe(ROOT / "recipes" / f"{name}.toml", [], None)
    with pytest.raises(UserError, match=r"ratings\.jsonl, .*, shards, tokenizer: no such file"):
        run(chosen, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_batches_and_ranks_grow_as_reported():
    for name, dps, batches in (
        ("340b", (16, 32, 64), (768, 1536, 2304)),
        ("15b", (96, 192, 288), (384, 768, 1152)),
    ):
        found = read_recipe(ROOT / "recipes" / f"nemotron-4-{name}.toml", [], None)
        assert isinstance(found, WholeSettings)
        train = found.pretrain.train
        untils = [until for until, _ in train.batch_ramp]
        assert [until * 4096 for until in untils] == [200e9, 400e9]
        assert train.samples * 4096 == 8e12
        assert (*(size for _, size in train.batch_ramp), train.batch_size) == batches
        phases = [found.mesh.phase(start) for start in (0, *untils)]
        assert tuple(mesh.dp for mesh in phases) == dps


def test_the_whole_road_and_the_mesh_is_no_part_of_it(tmp_path):
    for name in ("ratings", "prompts", "heldout", "code"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    for folder in ("shards", "tokenizer"):
        (tmp_path / folder).mkdir()
    named = ("ratings", "prompts", "heldout", "code", "shards", "tokenizer")
    files = {name: next(tmp_path.glob(f"{name}*")) for name in named}
    changes = [f"files.{name}={path}" for name, path in files.items()]
    changes += ["generator.model_at_endpoint=writer"]  # or it would be asked for its name
    path = ROOT / "recipes" / "nemotron-4-340b.toml"
    chosen = read_recipe(path, changes, None)
    names = step_names(chosen)
    assert names[:4] == ["documents", "shards", "pretrain", "continue"]
    assert "tokenizer" not in names and "1-rpo3" in names and names[-1] == "judges"
    assert "mesh" not in chosen.model_dump()
    from_texts = step_names(read_recipe(path, [*changes, "files.shards="], None))
    assert from_texts[:3] == ["documents", "tokenizer", "shards"]


def test_prepared_shards_are_taken_where_they_lie(tokenizer, tmp_path):
    shards, own = tmp_path / "shards", tmp_path / "own"
    tokenizer.save(own)
    count = write_shard(shards / "en.web.npy", ["The quick brown fox"], tokenizer)
    (shards / TOKENIZER).write_text(tokenizer.hash)
    adopt = lambda: stages.adopt_shards(  # noqa: E731
        work, DocumentSettings(vocab_size=1), OwnShards(shards, own)
    )
    work = Work("shards", tmp_path / "step", 1)
    work.folder.mkdir()
    adopt()
    assert work.tokens == count and len(np.load(work / "en.web.npy")) == count
    before = OwnShards(shards, own).fingerprint
    shards.rename(tmp_path / "moved")
    assert OwnShards(tmp_path / "moved", own).fingerprint == before
    shards = tmp_path / "moved"
    (shards / TOKENIZER).write_text("another")
    with pytest.raises(UserError, match="made with another tokenizer"):
        adopt()


# ---------------------------------------------------------------- the dry run


def test_a_small_mesh_is_told_rank_by_rank():
    ranks, fault = dry_run(recipe())
    assert not fault and [rank.pp_rank for rank in ranks] == [0, 1]
    spec = recipe().model
    each = sum(rank.parameters for rank in ranks) * 2  # norms are on both of the tp ranks
    assert each == spec.parameters + (2 * spec.layers + 1) * spec.norm_parameters
    for rank in ranks:
        assert rank.gpus == 8 and rank.microbatches == 8
        assert rank.weights == 2 * rank.parameters  # in bf16, and nothing besides
        assert rank.gradients == 4 * rank.parameters
        assert rank.optimizer == pytest.approx(12 * rank.parameters / 2, rel=0.01)  # over dp
        # of its two chunks, 8 micro-batches and an end that talks to nobody
        assert rank.pp_sends == 8 * 2 * 2 - 8
        # each chunk has two layers; a root of its own where it holds an end
        assert rank.dp_collectives == 2 * (2 * 2 + 1)
        assert rank.buffers == 2 * rank.pp_sends * WINDOW // 2 * spec.hidden_size * 2  # both ways
    ((title, rows),) = tables(ranks)
    assert "8 ranks" in title and {"pp rank 0", "pp rank 1"} < set(rows[0])


@pytest.mark.slow
def test_recomputing_keeps_less_and_asks_more():
    (plain, _), (again, _) = (dry_run(recipe(recompute=on))[0] for on in (False, True))
    assert again.activations < plain.activations / 4
    assert again.tp_collectives > plain.tp_collectives


@pytest.mark.slow
def test_what_dp_ranks_share_out_is_not_held():
    one, two, three = (dry_run(recipe(pp=1, tp=1, dp=4, zero=z))[0][0] for z in (1, 2, 3))
    assert one.gradients == 4 * one.parameters and one.weights == 2 * one.parameters
    assert two.gradients == three.gradients == one.parameters
    assert three.activations < two.activations  # gathered weights go again after a layer
    assert one.dp_collectives < two.dp_collectives < three.dp_collectives


def test_what_does_not_fit_fails_with_its_largest_part():
    large = SMALL.replace("ffn_size=256", "ffn_size=1_000_000_000").replace("layers=8", "layers=2")
    changes = [f"model={large}", "mesh.pp=1", "mesh.dp=1", "mesh.dp_ramp=[]", "mesh.tp=2"]
    changes += ["mesh.device=A100", f"pretrain.window={WINDOW}"]
    words = [word for change in changes for word in ("--set", change)]
    done = command("nemotron-4-340b", "--dry-run", "--json", *words)
    assert done.returncode == 1 and "does not fit: pipeline rank 0" in done.stderr
    assert "of A100's 80," in done.stderr and len(done.stderr.splitlines()) == 1
    assert json.loads(done.stdout)[0]["peak"] > 80 * 2**30


def test_a_batch_that_does_not_divide_is_bad_input():
    with pytest.raises(UserError, match="batch 16 does not divide by dp 3"):
        dry_run(recipe(dp=3))


# ---------------------------------------------------------------- against the real thing


class Kept:
    """Bytes that forwards keep for backwards: what autograd saves, and the chunks' outputs."""

    def __init__(self, chunks: list[Decoder]):
        self._chunks = chunks
        self._holders: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}
        self.outside: set[int] = set()  # what was received, counted as buffers
        self.most = 0

    def hold(self, holder: object, tensor: torch.Tensor) -> None:
        """Count a tensor's storage as long as `holder` lives."""
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        storage = tensor.untyped_storage()
        weights = {
            (p.to_local() if isinstance(p, DTensor) else p).untyped_storage()._cdata
            for chunk in self._chunks
            for p in chunk.parameters()
        }
        key = storage._cdata
        if key in weights or key in self.outside:
            return
        self._holders[key] += 1
        self._sizes[key] = storage.nbytes()
        self.most = max(self.most, sum(self._sizes.values()))
        weakref.finalize(holder, self._drop, key)

    def _drop(self, key: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._sizes[key], self._holders[key]

    def pack(self, tensor: torch.Tensor) -> "Saved":
        saved = Saved(tensor)
        self.hold(saved, tensor)
        return saved


class Saved:
    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


class Watched(Passes):
    """Passes of which every chunk's output is held as the schedule holds it."""

    kept: Kept | None = None

    def _chunk(self, chunk, x_1N, number):
        if self.kept is None:
            return super()._chunk(chunk, x_1N, number)
        self.kept.outside.add(x_1N.untyped_storage()._cdata)
        output = super()._chunk(chunk, x_1N, number)
        self.kept.hold(output.untyped_storage(), output)
        return output


def _really(rank: int, job: Job, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), job.mesh.ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=job.mesh.ranks)
    mesh, train = build_mesh(job.mesh), job.train
    parts = apply_pipeline(
        Decoder(job.spec, seed=0), mesh, DECODER, job.mesh.virtual, compute_in(job.dtype), job.zero
    )
    chunks = [part for part in parts if isinstance(part, Decoder)]
    ranks, objective = Ranks(mesh), language_model()
    optimizer = MasterOptimizer(chunks, train, ranks)
    passes = Watched(chunks, job.window, ranks, bf16=True)
    ids = np.arange(job.window) % job.spec.vocab_size
    one = Sample((ids,), (np.arange(job.window) > 0,))
    batches = passes.batches(passes.groups([one] * job.microbatches * job.mesh.dp))
    share = lambda model, batch, hidden: (  # noqa: E731
        objective.loss(objective.outputs(model, batch, hidden), batch)[0] / 1000
    )
    passes.run(batches, share, optimizer.collect)  # what is gathered once is there
    passes.kept = kept = Kept(chunks)
    with (
        patch.object(attention, "BLOCKED_TOKENS", 0),
        torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda saved: saved.tensor),
    ):
        passes.run(batches, share, optimizer.collect)
    local = lambda t: t.to_local() if isinstance(t, DTensor) else t  # noqa: E731
    found = {
        "microbatches": len(batches),
        "shard": sum(local(p).numel() for chunk in chunks for p in chunk.parameters()),
        "optimizer": sum(local(tensor).nbytes for tensor in optimizer.state().values()),
        "activations": kept.most,
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("virtual", [1, 2])
def test_a_small_model_walked_in_full_agrees(virtual, tmp_path):
    spec = recipe().model
    mesh = MeshSpec(pp=2, dp=2, tp=2, virtual=virtual, zero=1)
    train = TrainSettings(learning_rate=1e-3, batch_size=16, micro_batch_tokens=WINDOW)
    job = Job(spec, mesh, train, WINDOW, 8)
    foretold = {rank.pp_rank: rank for rank in _foretold(job)}
    start_processes(_really, args=(job, tmp_path), nprocs=8, start_method="fork")
    for pp_rank, rank in foretold.items():
        real = json.loads((tmp_path / f"{pp_rank * 4}.json").read_text())
        assert real["microbatches"] == rank.microbatches
        assert real["optimizer"] == rank.optimizer
        assert 12 * real["shard"] == pytest.approx(rank.optimizer, rel=0.01)
        assert real["activations"] == pytest.approx(rank.activations, rel=0.05)


def _foretold(job: Job) -> list[Rank]:
    whole = recipe()
    mesh = job.mesh
    pretrain = whole.pretrain.model_copy(update={"train": job.train})
    return dry_run(whole.model_copy(update={"mesh": mesh, "pretrain": pretrain}))[0]
