"""The replayed schedule: known bubbles, known activations, and the paper's own topology."""

import pytest

from flywright.errors import UserError
from flywright.plan.schedule import closed_form, replay, schedule_ops


def _equal(pp: int, virtual: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (1.0,) * (pp * virtual), (2.0,) * (pp * virtual)


@pytest.mark.parametrize("microbatches", [36, 48])
def test_the_papers_pipeline(microbatches: int) -> None:
    """PP 12 x 8 virtual stages: bubble (p-1)/(v m), p v + p - 1 activations on the first rank."""
    run = replay(12, 8, microbatches, *_equal(12, 8))
    assert run.bubble == pytest.approx(11 / (8 * microbatches))
    assert run.in_flight[0] == 12 * 8 + 11
    assert run.messages == 2 * microbatches * 95


@pytest.mark.parametrize(("pp", "virtual", "count"), [(4, 1, 8), (2, 2, 4), (8, 12, 16), (1, 1, 3)])
def test_replay_is_its_closed_form_for_equal_chunks(pp: int, virtual: int, count: int) -> None:
    run, formula = (f(pp, virtual, count, *_equal(pp, virtual)) for f in (replay, closed_form))
    assert run.seconds == pytest.approx(formula.seconds)
    assert run.bubble == pytest.approx(formula.bubble)
    assert run.in_flight == formula.in_flight


def test_two_stages_two_microbatches_by_hand() -> None:
    """F0 F1 on stage 0; stage 1 starts at 1, its slow backwards (3) end at 5 and 9."""
    run = replay(2, 1, 2, (1.0, 1.0), (2.0, 3.0))
    assert run.seconds == 1 + (1 + 3) + (1 + 3) + 2


def test_hops_delay() -> None:
    still = replay(4, 1, 8, *_equal(4, 1)).seconds
    assert replay(4, 1, 8, *_equal(4, 1), 0.25).seconds > still + 6 * 0.25 - 1e-9


def test_every_chunk_sees_every_microbatch_forward_and_backward() -> None:
    ops = [op for rank in schedule_ops(4, 2, 8) for op in rank]
    wanted = {(way, chunk, n) for way in (True, False) for chunk in range(8) for n in range(8)}
    assert sorted(ops) == sorted(wanted)


def test_an_impossible_interleaving_is_refused() -> None:
    with pytest.raises(UserError, match="pp 4, virtual 2, 9 micro-batches"):
        schedule_ops(4, 2, 9)
