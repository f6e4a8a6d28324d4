"""What a mesh costs on two cores: `python benchmarks/parallel.py`.

The same training steps (a Nemotron of some 34M parameters, 8 windows of 512 tokens a step) by one
process with two threads, and by two processes with one thread each over gloo: tensor and sequence
parallel, fully sharded data (ZeRO 1 and 3), and an interleaved pipeline. Each is the real training
loop; the time of a step is the median of those after the first two, the row the median of three
runs in turn. Writes benchmarks/results/parallel.json.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch
from recording import row, write_result

from flywright.data.batch import Sample
from flywright.data.loader import Shuffled
from flywright.model import Decoder
from flywright.model.sharding import DECODER
from flywright.parallel import apply_pipeline, compute_in, joined
from flywright.spec import MeshSpec, ModelSpec
from flywright.train.loop import fit
from flywright.train.objectives import language_model
from flywright.train.settings import TrainSettings

SPEC = ModelSpec(
    vocab_size=8192, hidden_size=512, layers=8, heads=8, kv_heads=4, head_dim=64, ffn_size=2048
)
WINDOW, BATCH, STEPS, SKIPPED, RUNS = 512, 8, 5, 2, 3
MESHES = {
    "tp 2, sequence parallel": MeshSpec(tp=2),
    "dp 2, ZeRO 1": MeshSpec(dp=2, zero=1),
    "dp 2, ZeRO 3": MeshSpec(dp=2, zero=3),
    "pp 2, 2 virtual stages": MeshSpec(pp=2, virtual=2),
}


def steps(mesh: MeshSpec, precision: str, folder: Path) -> None:
    """Some steps of training on this rank; the first rank leaves metrics.jsonl."""
    torch.set_num_threads(1 if mesh.ranks > 1 else 2)
    ids = np.random.default_rng(0).integers(0, SPEC.vocab_size, (STEPS * BATCH, WINDOW))
    samples = [Sample((each,), (np.arange(WINDOW) > 0,)) for each in ids]
    settings = TrainSettings(
        learning_rate=1e-4, batch_size=BATCH, micro_batch_tokens=2 * WINDOW,
        precision=precision, checkpoint_every_steps=10_000,
    )  # fmt: skip
    with joined(mesh) as ranks:
        parts = [Decoder(SPEC, seed=0)]
        if ranks.mesh is not None:
            policy = compute_in(torch.bfloat16 if precision == "bf16" else torch.float32)
            how = mesh.virtual, policy, mesh.zero
            parts = apply_pipeline(parts[0], ranks.mesh, DECODER, *how)
        fit(parts, Shuffled(samples, 0), language_model(), settings, folder, ranks=ranks)


def measure(name: str, precision: str) -> float:
    """Tokens a second of a mesh, or of one process for a name that is none."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        ranks = MESHES[name].ranks if name in MESHES else 1
        probe.close()
        started = []
        for rank in range(ranks):
            told = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port} if ranks > 1 else {}  # fmt: skip
            threads = {"OMP_NUM_THREADS": "1" if ranks > 1 else "2"}
            command = [sys.executable, __file__, "--one", name, precision, folder]
            started.append(subprocess.Popen(command, env={**os.environ, **told, **threads}))
        if any(process.wait() for process in started):
            raise SystemExit(f"{name}: a rank failed")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return BATCH * WINDOW / median(json.loads(line)["seconds"] for line in lines[SKIPPED:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", nargs="*", default=["bf16"], choices=["bf16", "fp32"])
    parser.add_argument("--one", nargs=3, metavar=("MESH", "PRECISION", "FOLDER"))
    told = parser.parse_args()
    if told.one:
        name, precision, folder = told.one
        steps(MESHES.get(name, MeshSpec()), precision, Path(folder))
        return
    rows = []
    for precision in told.precision:
        speeds: dict[str, list[float]] = {name: [] for name in ["one process", *MESHES]}
        for _ in range(RUNS):
            for name, found in speeds.items():
                found.append(measure(name, precision))
        alone = median(speeds.pop("one process"))
        for name, found in speeds.items():
            what = f"{name}, {precision}: 2 processes"
            rows.append(row(what, median(found), alone, "1 process, 2 threads", "tokens/s"))
    write_result("parallel", "python benchmarks/parallel.py", rows)


if __name__ == "__main__":
    main()
