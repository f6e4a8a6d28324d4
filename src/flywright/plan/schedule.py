"""The pipeline schedule, op by op: torch's own 1F1B and interleaved 1F1B orders, replayed in time.

What the engine executes is what is simulated: time, idle share (bubble) and the most micro-batch
activations that each rank holds at once. Chunk number c lives on rank c mod pp.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flywright.errors import UserError

Op = tuple[bool, int, int]  # (is forward, chunk, micro-batch)
Seconds = tuple[float, ...]  # of every chunk


@dataclass(frozen=True)
class Replay:
    seconds: float
    bubble: float  # idle time over the busiest rank's work
    in_flight: tuple[int, ...]  # per rank: most forwards whose backward is still to come
    messages: int  # chunk-to-chunk sends between ranks, both directions


@lru_cache(maxsize=64)
def schedule_ops(pp: int, virtual: int, microbatches: int) -> tuple[tuple[Op, ...], ...]:
    """Every rank's ops in the order in which the engine runs them.

    Raises UserError where the schedule refuses the numbers (interleaving needs micro-batches in
    whole rounds of about pp).
    """
    # torch is heavy, and the schedule's definition is all that is needed from it
    from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

    if pp == 1:
        return (tuple((way, 0, n) for n in range(microbatches) for way in (True, False)),)
    name, chunks = ("Interleaved1F1B", virtual) if virtual > 1 else ("1F1B", None)
    try:
        ranks = get_schedule_ops(name, pp, microbatches, chunks)
    except ValueError as error:
        what = f"pp {pp}, virtual {virtual}, {microbatches} micro-batches"
        raise UserError(f"{what}: {error}") from error
    return tuple(_compute_ops(actions) for actions in ranks)


def _compute_ops(actions: Sequence[Any]) -> tuple[Op, ...]:
    """Forwards and backwards only. A chunk takes micro-batches in order, so they are counted here:
    torch's 1F1B listing numbers the forwards of later ranks from their rank on."""
    seen: Counter[tuple[bool, int]] = Counter()
    ops = []
    for action in actions:
        if action is not None and action.computation_type.name in ("FORWARD", "FULL_BACKWARD"):
            key = (action.computation_type.name == "FORWARD", action.stage_index)
            ops.append((*key, seen[key]))
            seen[key] += 1
    return tuple(ops)


def timeline(
    pp: int, virtual: int, microbatches: int, forward: Seconds, backward: Seconds, hop: float = 0.0
) -> dict[Op, tuple[float, float]]:
    """When every op starts and ends; arguments as for `replay`."""
    ranks = schedule_ops(pp, virtual, microbatches)
    chunks, done = pp * virtual, {}
    clock, position = [0.0] * pp, [0] * pp
    pending = True
    while pending:
        pending = False
        for rank, ops in enumerate(ranks):
            while position[rank] < len(ops):
                ahead, chunk, _ = op = ops[position[rank]]
                start = clock[rank]
                if before := _needed(op, chunks):
                    if before not in done:
                        break
                    start = max(start, done[before][1] + hop * (before[1] % pp != rank))
                clock[rank] = start + (forward if ahead else backward)[chunk]
                done[op] = start, clock[rank]
                position[rank] += 1
                pending = True
    if any(at < len(ops) for at, ops in zip(position, ranks, strict=True)):
        raise UserError("the pipeline schedule deadlocks")
    return done


@lru_cache(maxsize=256)
def replay(
    pp: int,
    virtual: int,
    microbatches: int,
    forward_seconds: Seconds,
    backward_seconds: Seconds,
    hop_seconds: float = 0.0,
) -> Replay:
    """Run the schedule with the given time of each chunk's forward and backward.

    `hop_seconds` passes between a chunk's end and its neighbour's start on another rank.
    """
    times = (forward_seconds, backward_seconds)
    ended = timeline(pp, virtual, microbatches, *times, hop_seconds)
    total = max(end for _, end in ended.values())
    chunks = [one + two for one, two in zip(*times, strict=True)]
    busiest = microbatches * max(sum(chunks[rank::pp]) for rank in range(pp))
    flights = tuple(_most_in_flight(ops) for ops in schedule_ops(pp, virtual, microbatches))
    messages = 2 * microbatches * (pp * virtual - 1) if pp > 1 else 0
    return Replay(total, total / busiest - 1, flights, messages)


def _needed(op: Op, chunks: int) -> Op | None:
    """The op whose result this one waits for."""
    forward, chunk, number = op
    if forward:
        return (True, chunk - 1, number) if chunk else None
    return (False, chunk + 1, number) if chunk < chunks - 1 else (True, chunk, number)


def _most_in_flight(ops: Sequence[Op]) -> int:
    held = most = 0
    for forward, _, _ in ops:
        held += 1 if forward else -1
        most = max(most, held)
    return most


def closed_form(
    pp: int,
    virtual: int,
    microbatches: int,
    forward_seconds: Sequence[float],
    backward_seconds: Sequence[float],
    hop_seconds: float = 0.0,
) -> Replay:
    """`replay` for equal chunks: bubble (pp - 1) / (virtual m) (Narayanan et al. 2021)."""
    chunks = [one + two for one, two in zip(forward_seconds, backward_seconds, strict=True)]
    busiest = microbatches * max(sum(chunks[rank::pp]) for rank in range(pp))
    idle = (pp - 1) * (sum(chunks) / len(chunks) + 2 * hop_seconds)
    most = [
        pp - rank if virtual == 1 else 2 * (pp - rank - 1) + (virtual - 1) * pp + 1
        for rank in range(pp)
    ]
    flights = tuple(min(held, microbatches * virtual) for held in most)
    messages = 2 * microbatches * (pp * virtual - 1) if pp > 1 else 0
    return Replay(busiest + idle, idle / busiest, flights, messages)
