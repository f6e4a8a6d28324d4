"""What the planner foretells: published counts, memory that adds up, layouts that fit."""

from dataclasses import replace

import pytest

from flywright.errors import UserError
from flywright.plan import Job, device, inference_fit, lay_out, params_table, search
from flywright.plan.devices import GIB
from flywright.plan.job import Precision
from flywright.plan.layout import given
from flywright.plan.memory import memory
from flywright.plan.software import SOFTWARE
from flywright.plan.time import mfu
from flywright.spec import MeshSpec, preset

PAPER_JOB = Job(
    spec=preset("nemotron-4-340b"),
    device=device("H100"),
    mesh=MeshSpec(pp=12, dp=64, tp=8, virtual=8),
    batch=2304,
    software=SOFTWARE["nemotron-4-reports"],
)
SMALL = Job(preset("nemotron-4-15b"), device("H100"), MeshSpec(dp=8, tp=2), batch=64)


def test_parameters_are_the_reports() -> None:
    rows = {row["part"]: row["parameters"] for row in params_table(preset("nemotron-4-340b"))}
    assert rows["non-embedding"] == 331_592_011_776
    assert rows["embeddings"] == 9_437_184_000
    assert rows["total"] == 341_029_195_776
    assert rows["attention"] + rows["mlp"] + rows["norms"] == rows["non-embedding"]


@pytest.mark.parametrize(
    ("dp", "batch", "seconds", "published"),
    [(16, 768, 10.3, 0.424), (32, 1536, 10.3, 0.423), (64, 2304, 8.0, 0.410)],
)
def test_the_papers_ramp(dp: int, batch: int, seconds: float, published: float) -> None:
    """SPEC 3.3: MFU from the FLOP formula within 1.5 %, iteration time foretold within 5 %."""
    job = replace(PAPER_JOB, mesh=MeshSpec(pp=12, dp=dp, tp=8, virtual=8), batch=batch)
    assert mfu(job, seconds) == pytest.approx(published, rel=0.015)
    assert mfu(job, seconds, causal=True) < mfu(job, seconds)
    layout = lay_out(job)
    assert layout.time.seconds == pytest.approx(seconds, rel=0.05)
    assert layout.memory.fits(job.device.memory_gib)


def test_days_of_the_last_phase() -> None:
    """SPEC 3.3: 7.6T tokens at 8.0 s an iteration are 74.6 days."""
    row = lay_out(PAPER_JOB).row(tokens=7.6e12)
    assert row["days"] == pytest.approx(74.6, rel=0.05)
    assert row["gpu_hours"] == pytest.approx(row["days"] * 24 * 6144)


def test_memory_parts_of_the_paper_job() -> None:
    """Weights and optimizer of the first stage by hand: 8 layers and an embedding over tp 8."""
    spec = PAPER_JOB.spec
    count = (8 * spec.layer_parameters + spec.vocab_size * spec.hidden_size) / 8
    parts = memory(PAPER_JOB, (107,) + (0,) * 11)
    assert parts.weights == 2 * count
    assert parts.optimizer == 12 * count / 64
    assert parts.logits == 0
    mlp = 107 * 2 * 4096 * 2 * spec.ffn_size / 8
    assert parts.activations_mlp == mlp
    assert parts.total == pytest.approx(sum(vars(parts).values()))


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "pp", "virtual", "micro", "count", "stored", "least"),
    [
        (48, 6144, 64, 1, 1, 4, 1, 59.25, 9.56),
        (96, 12288, 96, 8, 3, 1, 64, 66.84, 12.35),
        (105, 20480, 128, 35, 3, 1, 280, 114.02, 23.08),
        (128, 25600, 160, 64, 1, 1, 512, 131.25, 26.56),
    ],
)
def test_activations_are_korthikantis(
    layers: int, hidden: int, heads: int, pp: int, virtual: int, micro: int, count: int,
    stored: float, least: float,
) -> None:  # fmt: skip
    """Korthikanti et al. 2022, figure 1: GiB with tensor parallelism alone, and with sequence
    parallelism and selective recomputation."""
    spec = preset("nemotron-4-15b").model_copy(
        update={
            "layers": layers, "hidden_size": hidden, "heads": heads, "kv_heads": heads,
            "head_dim": hidden // heads, "ffn_size": 4 * hidden, "vocab_size": 51200,
        }
    )  # fmt: skip
    job = Job(
        spec, device("A100"), MeshSpec(pp=pp, tp=8, virtual=virtual), micro * count, micro,
        sequence=2048, software=SOFTWARE["megatron-2022"], recompute="selective",
    )  # fmt: skip
    plain = replace(job.software, sequence_parallel=False)
    for each, published in (
        (replace(job, recompute="none", software=plain), stored),
        (job, least),
    ):
        parts = lay_out(each).memory.parts_gib()
        foretold = sum(size for part, size in parts.items() if part.startswith("activations"))
        assert foretold == pytest.approx(published, rel=0.1)


def test_recompute_trades_memory_for_time() -> None:
    plain, again = lay_out(PAPER_JOB), lay_out(replace(PAPER_JOB, recompute="full"))
    assert again.memory.total < plain.memory.total
    assert 1.25 < again.time.seconds / plain.time.seconds < 1.35
    old = replace(SMALL, software=SOFTWARE["megatron-2022"])
    kinds = [lay_out(replace(old, recompute=kind)) for kind in ("none", "selective", "full")]
    assert sorted(kinds, key=lambda each: each.time.seconds) == kinds
    assert sorted(kinds, key=lambda each: -each.memory.total) == kinds


def test_what_is_asked_behaves_as_matter_does() -> None:
    """Longer sequences of as many tokens take longer; accumulating saves exchange and memory."""
    short, long = SMALL, replace(SMALL, sequence=32768, batch=8)
    assert lay_out(long).time.seconds > 1.3 * lay_out(short).time.seconds
    shared = replace(long, context=4, mesh=MeshSpec(dp=2, tp=2))
    assert lay_out(shared).time.seconds == pytest.approx(lay_out(long).time.seconds, rel=0.05)
    assert lay_out(shared).memory.activations_mlp == lay_out(long).memory.activations_mlp / 4
    wide = replace(SMALL, micro_batch=8)
    assert lay_out(wide).memory.total > lay_out(SMALL).memory.total
    assert lay_out(wide).time.seconds < lay_out(SMALL).time.seconds
    sharded = replace(SMALL, software=SOFTWARE["torchtitan-2024"])
    slow = replace(sharded, device=SMALL.device.model_copy(update={"network_bandwidth": 1e9}))
    assert lay_out(slow).time.exchange_seconds > 10 * lay_out(sharded).time.exchange_seconds
    gated = SMALL.spec.model_copy(update={"mlp": "swiglu", "ffn_size": 16384})
    same = replace(SMALL, spec=gated)  # as many parameters, more activations
    assert lay_out(same).time.seconds == pytest.approx(lay_out(SMALL).time.seconds, rel=0.01)
    assert lay_out(same).memory.activations_mlp > lay_out(SMALL).memory.activations_mlp


def test_search_finds_what_fits_fastest_first() -> None:
    base = Job(preset("nemotron-4-340b"), device("H100"), MeshSpec(), batch=768)
    layouts = search(base, 1536, limit=5)
    assert 1 <= len(layouts) <= 5
    seconds = [layout.time.seconds for layout in layouts]
    assert seconds == sorted(seconds)
    for layout in layouts:
        job = layout.job
        assert job.gpus == 1536
        assert job.microbatches * job.micro_batch * job.mesh.dp == 768
        assert layout.memory.fits(job.device.memory_gib)
    full = search(base, 1536, "full", limit=1)[0]
    assert full.job.recompute == "full" and full.time.seconds > seconds[0]


def test_a_given_layout_is_that_one() -> None:
    base = replace(PAPER_JOB, mesh=MeshSpec())
    assert given(base, "tp=8, pp=12,virtual=8,dp=64", None) == PAPER_JOB
    assert given(base, "tp=8,pp=12,virtual=8", 6144) == PAPER_JOB
    cut = given(base, "tp=8,pp=12,cp=2,micro=2", 6144)
    assert (cut.mesh.dp, cut.context, cut.micro_batch) == (32, 2, 2)


@pytest.mark.parametrize(
    ("mesh", "gpus", "said"),
    [
        ("tp=8,ep=2", 16, "'ep=2' is not tp, pp"),
        ("tp=x", 16, "'tp=x' is not tp, pp"),
        ("tp=8,tp=4,dp=2", 16, "tp is given twice"),
        ("tp=8,cp=3,dp=2", 48, "4096 tokens of a sequence have no 3 equal parts"),
        ("tp=8,dp=3", 16, "takes 24 GPUs, not 16"),
        ("tp=8,pp=4,virtual=50,dp=4", None, "96 layers and 96 heads"),
        ("tp=8,dp=7", 56, "batch 2304 does not divide by dp 7"),
    ],
)
def test_an_impossible_layout_is_one_line(mesh: str, gpus: int | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        given(replace(PAPER_JOB, mesh=MeshSpec()), mesh, gpus)


def test_tensors_cut_over_machines_are_exchanged_over_the_network() -> None:
    """Two machines have no link between them: a slower network is a slower iteration."""
    spec = preset("nemotron-8b")  # 32 heads of keys
    for tp, slows in ((8, False), (16, True)):
        job = replace(SMALL, spec=spec, mesh=MeshSpec(tp=tp))
        slow = replace(job, device=job.device.model_copy(update={"network_bandwidth": 1e9}))
        assert (lay_out(slow).time.seconds > 1.1 * lay_out(job).time.seconds) == slows


def test_search_says_why_nothing_fits() -> None:
    large = Job(preset("nemotron-4-340b"), device("H100"), MeshSpec(), batch=64)
    with pytest.raises(UserError, match="nothing fits 8 x H100: the smallest layout needs"):
        search(large, 8)
    with pytest.raises(UserError, match="A100 has no fp8"):
        replace(SMALL, device=device("A100"), precision="fp8")
    with pytest.raises(UserError, match="known: H100"):
        device("H999")


@pytest.mark.parametrize(
    ("name", "precision", "gpus"),
    [("H200", "bf16", 8), ("H100", "bf16", 16), ("A100", "bf16", 16), ("H100", "fp8", 8)],
)
def test_the_cards_required_hardware(name: str, precision: Precision, gpus: int) -> None:
    """SPEC 11.4: BF16 on 8 H200, 16 H100 or 16 A100-80GB; FP8 on 8 H100."""
    fit = inference_fit(preset("nemotron-4-340b"), device(name), precision)
    assert fit is not None
    assert fit["gpus"] == gpus
    assert fit["gib_a_gpu"] < device(name).memory_gib
    if precision == "bf16":
        assert fit["weights_gib"] == pytest.approx(2 * 341_029_195_776 / GIB)
        assert fit["cache_gib"] == pytest.approx(589_824 * 4096 / GIB)


def test_a_cache_can_ask_for_more_than_the_weights() -> None:
    spec = preset("nemotron-4-340b")
    one, many = (inference_fit(spec, device("H200"), requests=n) for n in (1, 256))
    assert one and many and many["gpus"] > one["gpus"]
    assert inference_fit(spec, device("A100"), "fp8") is None
