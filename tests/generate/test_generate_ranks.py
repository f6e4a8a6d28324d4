"""Over tensor and pipeline ranks an engine and a scorer say what they say in one process."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx2
import pytest
import torch
import torch.distributed as dist
from test_generate_score import conversations

from flywright.ask import Completion, Sampling
from flywright.errors import FlywrightError, UserError
from flywright.generate import Engine, RewardScorer
from flywright.generate.ranks import OverRanks
from flywright.model import Decoder, RewardModel, load, load_decoder, open_meta, save
from flywright.model.sharding import DECODER
from flywright.parallel import Preemption, Ranks, build_mesh, cut, take_part
from flywright.recipe.answerers import answering
from flywright.spec import MeshSpec, ModelSpec
from flywright.tokenizer import Tokenizer
from gloo_ranks import spread

MESHES = {"tp2": MeshSpec(tp=2), "pp2": MeshSpec(pp=2), "tp2-pp2": MeshSpec(tp=2, pp=2)}
# of a larger vocabulary than the tokenizer's, and with layers that two stages do not share evenly
NEMOTRON = ModelSpec(
    vocab_size=332, hidden_size=32, layers=3, heads=4, kv_heads=2, head_dim=16, ffn_size=48,
    context_length=64, init_std=0.3,
)  # fmt: skip
QWEN = NEMOTRON.model_copy(
    update={"family": "qwen2", "norm": "rmsnorm", "mlp": "swiglu", "qkv_bias": True,
            "rotary_fraction": 1.0, "tied_embeddings": True}
)  # fmt: skip
WORDS = ["ban", "bel", "cut", "dob", "nut", "fob"]
LAYER_PAGE = 2 * 2 * 16 * 16 * 4  # bytes of keys and values of a layer's two heads


def _made(folder: Path, spec: ModelSpec) -> None:
    model = Decoder(spec, seed=5).requires_grad_(False)
    for name, parameter in model.named_parameters():  # zeros and ones would hide what is left out
        if "norm" in name or name.endswith("bias"):
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6)) / 4
            )
    save(model, folder / "policy")
    reward = RewardModel.from_decoder(model, seed=4, bias=(1.0, 2.0, 3.0, 4.0, 5.0))
    save(reward, folder / "reward")


def _asks() -> list[tuple[str, Sampling]]:
    chance = random.Random(1)
    words = lambda: " ".join(chance.choices(WORDS, k=chance.randint(0, 9)))  # noqa: E731
    return [(words(), Sampling(max_tokens=chance.choice([3, 9, 40, 60]))) for _ in range(9)]


def _together(engine: Engine, scorer: RewardScorer) -> tuple[list[Completion], list]:
    """They come one after another, two are taken back under way; scores are asked meanwhile."""

    async def one(index: int, ask: tuple[str, Sampling]) -> Completion:
        await asyncio.sleep(0.01 * index)
        return await engine.complete(*ask)

    async def everyone() -> tuple[list[Completion], list]:
        lost = [asyncio.ensure_future(one(2 * i, _asks()[i])) for i in (3, 4)]
        found = asyncio.ensure_future(asyncio.gather(*map(one, range(9), _asks())))
        rated = [asyncio.ensure_future(scorer.score(each)) for each in conversations(7)]
        await asyncio.sleep(0.1)
        for task in lost:
            task.cancel()
        return await found, await asyncio.gather(*rated)

    return asyncio.run(everyone())


def _answers(mesh_spec: MeshSpec, tokenizer: Tokenizer, folder: Path) -> None:
    ranks = Ranks(build_mesh(mesh_spec), mesh_spec)
    over = OverRanks(ranks)
    layers = -(-NEMOTRON.layers // mesh_spec.pp)
    policy = over.open(folder / "policy", cache_bytes=7 * layers * LAYER_PAGE // mesh_spec.tp)
    reward = over.open(folder / "reward")
    if not ranks.first:
        over.follow()
        return
    with over.leading():
        engine = Engine(policy, tokenizer, max_batch=3, guesses=1)
        scorer = RewardScorer(reward, tokenizer)
        got, scores = _together(engine, scorer)
        long = engine.generate(WORDS[:5], 50, min_new_tokens=45)
        assert engine.stats()["pages"] == 7 and engine.stats()["preemptions"]
    single = Engine(load_decoder(folder / "policy"), tokenizer, max_batch=1)
    expected = [asyncio.run(single.complete(*ask)) for ask in _asks()]
    expected += single.generate(WORDS[:5], 50, min_new_tokens=45)
    for mine, wanted in zip(got + long, expected, strict=True):
        assert mine.token_ids == wanted.token_ids and mine.finish == wanted.finish
        assert mine.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
    alone = load(folder / "reward")
    assert isinstance(alone, RewardModel)
    for mine, wanted in zip(
        scores, RewardScorer(alone, tokenizer).score_many(conversations(7)), strict=True
    ):
        assert mine == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(FlywrightError, match="have ended"):
        engine.generate(["ban"])


@pytest.mark.parametrize("axes", MESHES)
def test_over_ranks_as_in_one_process(axes: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    _made(tmp_path, NEMOTRON)
    spread(partial(_answers, MESHES[axes], tokenizer), tmp_path, MESHES[axes].ranks)


def test_a_gated_family_with_tied_embeddings(tokenizer: Tokenizer, tmp_path: Path) -> None:
    _made(tmp_path, QWEN)
    spread(partial(_answers, MESHES["tp2-pp2"], tokenizer), tmp_path, 4)


def _shares(folder: Path) -> None:
    mesh = build_mesh(MeshSpec(tp=2))
    model, tensors = open_meta(folder / "policy")
    chunk = cut(model, 0, 2, DECODER)
    take_part(chunk, tensors, mesh["tp"], DECODER.tensor, "cpu")
    held = dict(chunk.named_parameters())
    matrices = {name: each for name, each in held.items() if each.ndim == 2}
    assert len(matrices) == 1 + 2 * 6 and "model.layers.2.mlp.up_proj.weight" not in held
    assert all(2 * each.numel() == tensors[name].numel() for name, each in matrices.items())


def test_a_rank_holds_its_part(tmp_path: Path) -> None:
    _made(tmp_path, NEMOTRON)
    spread(_shares, tmp_path)


def _refused(folder: Path) -> None:
    spec = MeshSpec(tp=2)
    with pytest.raises(UserError, match=r"k_proj: 1 heads do not divide by tp 2"):
        OverRanks(Ranks(build_mesh(spec), spec)).open(folder / "policy")


def test_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    _made(tmp_path, NEMOTRON.model_copy(update={"kv_heads": 1}))
    spread(_refused, tmp_path)


def _left_alone(tokenizer: Tokenizer, folder: Path) -> None:
    spec = MeshSpec(pp=2)
    ranks = Ranks(build_mesh(spec), spec)
    over = OverRanks(ranks)
    part = over.open(folder / "policy")
    if not ranks.first:
        dist.barrier(group=over._orders)
        with torch.inference_mode():
            for _ in range(3):
                order = over._heard()
                assert order is not None
                order[0].share(order[1])
        os._exit(0)
    with Preemption() as ended:
        failed = pytest.raises(FlywrightError, match="step over the ranks failed")
        with failed, over.leading(), pytest.raises(RuntimeError):
            Engine(part, tokenizer).generate(["ban bel"])
        assert ended.wanted


def test_a_rank_that_dies_ends_the_first(tokenizer: Tokenizer, tmp_path: Path) -> None:
    _made(tmp_path, NEMOTRON)
    spread(partial(_left_alone, tokenizer), tmp_path)


def _idles(tokenizer: Tokenizer, folder: Path) -> None:
    spec = MeshSpec(tp=2, timeout_seconds=2)  # of which the mesh waits twice as long
    ranks = Ranks(build_mesh(spec), spec)
    over = OverRanks(ranks)
    part = over.open(folder / "policy")
    if not ranks.first:
        over.follow()
        return
    with over.leading():
        time.sleep(6)
        assert Engine(part, tokenizer).generate(["ban"], 3)[0].token_ids


@pytest.mark.slow
def test_a_server_may_idle_longer_than_a_step_may_take(tokenizer, tmp_path: Path) -> None:
    _made(tmp_path, NEMOTRON)
    spread(partial(_idles, tokenizer), tmp_path)


def test_ranks_that_were_not_started_are_told_the_command(tmp_path: Path) -> None:
    told = r"4 processes, 1 started: torchrun .* 4 -m flywright"
    with pytest.raises(UserError, match=told), answering(tmp_path, None, 1 << 20, tp=2, pp=2):
        pass


def _started(agent: int) -> dict[int, int]:
    """The ranks of torchrun's processes, with their ids."""
    ids = [int(i) for i in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]
    environments = {i: Path(f"/proc/{i}/environ").read_bytes().split(b"\0") for i in ids}
    return {
        int(entry[5:]): i
        for i, entries in environments.items()
        for entry in entries
        if entry.startswith(b"RANK=")
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("told", ["first rank", "torchrun"])
def test_torchrun_serves_and_ends(told: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    _made(tmp_path, NEMOTRON)
    for name in ("policy", "reward"):
        tokenizer.save(tmp_path / name)
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "4", "-m"]
    serve = ["serve", "policy", "--reward", "reward", "--tp", "2", "--pp", "2"]
    port, alone = _free_port(), {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", *launch, "flywright.cli", *serve, "--port", str(port)]
    said = tmp_path / "stderr"
    with said.open("w") as stderr:
        agent = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, text=True, env=alone
        )
    assert agent.stdout is not None
    ranks = {}
    try:
        assert any("serving" in line for line in agent.stdout)
        ranks = _started(agent.pid)
        assert sorted(ranks) == [0, 1, 2, 3]
        asked = {"prompt": "ban bel", "max_tokens": 20, "temperature": 0}
        answer = httpx2.post(f"http://127.0.0.1:{port}/v1/completions", json=asked, timeout=60)
        single = Engine(load_decoder(tmp_path / "policy"), tokenizer)
        [expected] = single.generate(["ban bel"], 20)
        assert answer.json()["choices"][0]["text"] == expected.text
        os.kill(ranks[0] if told == "first rank" else agent.pid, signal.SIGTERM)
        status = agent.wait(60)
        assert status == 0 or told == "torchrun"  # which ends with 1 whatever its ranks say
        assert "flywright: " not in said.read_text()  # no rank has failed
        assert not [rank for rank, i in ranks.items() if Path(f"/proc/{i}").exists()]
    finally:
        for process in (*ranks.values(), agent.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        agent.wait()
