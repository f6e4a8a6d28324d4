"""Who waits and who runs. Plain data, no model.

Requests wait in order of arrival and take the next free slot. Running rows are always slots
0..n-1: when one leaves, the last takes its place. What changes with every token lies in tensors
(`Rows`), so that a step costs the same few operations for 1 row or for 64.

Shapes: S slots (running ones first), C the longest sequence.
"""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from flywright.ask.protocol import Completion, Sampling
from flywright.generate.sampler import Draw


@dataclass(eq=False)
class Request:
    """One prompt as token ids, how to draw, the most tokens it may get, and where the answer goes.

    A caller that cancels the future takes the request back, at the next step.
    """

    ids: list[int]
    sampling: Sampling
    limit_tokens: int
    future: Future[Completion] = field(default_factory=Future)


@dataclass(frozen=True, eq=False)
class Rows(Draw):
    """What the running rows are at, and how they are drawn: a tensor each, one entry a slot.

    `length` counts tokens in the cache, `index` those generated (the newest is not cached yet).
    """

    token: Tensor
    length: Tensor
    limit: Tensor
    answer: Tensor  # [S, C]
    logprob: Tensor  # [S, C]

    @classmethod
    def empty(cls, slots: int, longest: int, device: torch.device) -> "Rows":
        """All slots free."""
        shape = (slots, longest)
        whole = torch.zeros(shape, dtype=torch.long, device=device)
        real = torch.zeros(shape, dtype=torch.float32, device=device)
        columns = {column.name: whole[:, 0].clone() for column in fields(cls)}
        columns |= {name: real[:, 0].clone() for name in ("temperature", "top_p")}
        return cls(**(columns | {"answer": whole, "logprob": real}))

    def enter(self, first: int, requests: list[Request]) -> None:
        """Set slots `first`... to requests whose prompts are about to be cached."""
        here = slice(first, first + len(requests))
        drawn = [request.sampling for request in requests]
        columns = {
            "length": [len(request.ids) for request in requests],
            "limit": [request.limit_tokens for request in requests],
            "temperature": [sampling.temperature for sampling in drawn],
            "top_k": [sampling.top_k for sampling in drawn],
            "top_p": [sampling.top_p for sampling in drawn],
            "seed": [(sampling.seed + 2**63) % 2**64 - 2**63 for sampling in drawn],
        }
        for name, values in columns.items():
            column = getattr(self, name)
            column[here] = torch.tensor(values, dtype=column.dtype, device=column.device)
        self.index[here] = 0

    def draw(self, here: slice) -> Draw:
        """The sampler's view of some slots."""
        return Draw(**{column.name: getattr(self, column.name)[here] for column in fields(Draw)})

    def add(self, first: int, tokens_B: Tensor, logprobs_B: Tensor) -> None:
        """Append one token to each of slots `first`..."""
        here = slice(first, first + len(tokens_B))
        slots_B = torch.arange(here.start, here.stop, device=tokens_B.device)
        self.token[here] = tokens_B
        self.answer[slots_B, self.index[here]] = tokens_B
        self.logprob[slots_B, self.index[here]] = logprobs_B
        self.index[here] += 1

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        for column in fields(self):
            tensor = getattr(self, column.name)
            tensor[target] = tensor[source]

    def free(self, slot: int) -> None:
        """Make a slot harmless: it may be computed as padding, greedily, from position 0."""
        for column in (self.token, self.length, self.temperature):
            column[slot] = 0


class Scheduler:
    """Requests that wait (in order of arrival) and that run (`running[slot]`)."""

    def __init__(self, max_batch: int):
        self.max_batch = max_batch
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def busy(self) -> bool:
        """True while any request waits or runs."""
        return bool(self.waiting or self.running)

    def admit(self) -> list[Request]:
        """Take the longest-waiting requests for which there are free slots; drop cancelled ones."""
        admitted: list[Request] = []
        while self.waiting and len(self.running) + len(admitted) < self.max_batch:
            request = self.waiting.popleft()
            if not request.future.cancelled():
                admitted.append(request)
        return admitted

    def cancelled(self) -> list[int]:
        """Slots whose callers no longer wait."""
        return [slot for slot, one in enumerate(self.running) if one.future.cancelled()]

    def leave(self, slot: int) -> int:
        """Free a slot; returns the slot whose row has to move into it (the last; maybe itself)."""
        last = self.running.pop()
        if slot < len(self.running):
            self.running[slot] = last
        return len(self.running)

    def drain(self) -> list[Request]:
        """Take away every request, running and waiting."""
        drained = [*self.running, *self.waiting]
        self.running.clear()
        self.waiting.clear()
        return drained
