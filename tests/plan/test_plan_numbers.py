"""What the planner foretells: published counts, memory that adds up, layouts that fit."""

from dataclasses import replace

import pytest

from flywright.errors import UserError
from flywright.plan import Job, device, lay_out, params_table, search
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
    steps = 7.6e12 / (PAPER_JOB.batch * PAPER_JOB.sequence)
    days = steps * lay_out(PAPER_JOB).time.seconds / 86_400
    assert days == pytest.approx(74.6, rel=0.05)


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


def test_recompute_trades_memory_for_time() -> None:
    plain, again = lay_out(PAPER_JOB), lay_out(replace(PAPER_JOB, recompute="full"))
    assert again.memory.total < plain.memory.total
    assert 1.25 < again.time.seconds / plain.time.seconds < 1.35


def test_search_finds_what_fits_fastest_first() -> None:
    layouts = search(preset("nemotron-4-340b"), device("H100"), 1536, batch=768, limit=5)
    assert 1 <= len(layouts) <= 5
    seconds = [layout.time.seconds for layout in layouts]
    assert seconds == sorted(seconds)
    for layout in layouts:
        job = layout.job
        assert job.gpus == 1536
        assert job.microbatches * job.micro_batch * job.mesh.dp == 768
        assert layout.memory.fits(job.device.memory_gib)


def test_search_says_why_nothing_fits() -> None:
    with pytest.raises(UserError, match="nothing fits 8 x H100: the smallest layout needs"):
        search(preset("nemotron-4-340b"), device("H100"), 8, batch=64)
    with pytest.raises(UserError, match="A100 has no fp8"):
        search(preset("nemotron-4-15b"), device("A100"), 8, batch=64, precision="fp8")
    with pytest.raises(UserError, match="known: H100"):
        device("H999")
