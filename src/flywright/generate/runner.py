"""The steps of a model in this process: plan, compute, hand out.

    runner = Runner(model.model, head, spec, ...); runner.ask(request); future.result()

What an answer, a score or a log-probability is made of, its owner says: `heard` gets each request
with the outputs that it asked for.

Shapes: M places whose output is asked for, E outputs of the head (a vocabulary, or attributes).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flywright.generate.cache import PagedCache, Step
from flywright.generate.packed import LEAST_ROWS
from flywright.generate.pages import Pages
from flywright.generate.scheduler import Request, Scheduler, wanted_of
from flywright.generate.worker import Worker, settle

STEP_TOKENS = 512  # of a step, at most: a long prompt is computed in pieces between other steps
MOST_OUTPUTS = 1 << 24  # numbers that a step's head may make

Heard = Sequence[tuple[Request, int]]  # requests of a step, and how many outputs each gets
Compute = Callable[[Step], Tensor]  # outputs_ME of a step


class Local:
    """A body and a head on one device, with their cache: computes steps."""

    def __init__(self, body: nn.Module, head: nn.Module, cache: PagedCache):
        self._body, self._head, self._cache = body, head, cache

    def __call__(self, step: Step) -> Tensor:
        """Outputs [M, E] of the step's wanted places, and at least LEAST_ROWS of them."""
        attend = self._cache.attend(step)
        hidden_TD = self._body(step.ids[None], step.position[None], attend)[0]
        wanted = step.wanted
        if len(wanted) < LEAST_ROWS:
            wanted = torch.cat((wanted, wanted.new_zeros(LEAST_ROWS - len(wanted))))
        return self._head(hidden_TD[wanted])


class Runner:
    """Runs requests over `compute`, many at once; each step begins with `prepare(running)`.

    `heard(rows, outputs_ME)` reads what a step has made, in the order of `rows`; it settles the
    requests' futures: one that is settled leaves.
    """

    def __init__(
        self,
        compute: Compute,
        pages: int,
        outputs: int,
        max_batch: int,
        device: torch.device,
        heard: Callable[[Heard, Tensor], None],
        prepare: Callable[[list[Request]], None] = lambda _running: None,
    ):
        self._compute, self._heard, self._prepare = compute, heard, prepare
        most = max(MOST_OUTPUTS // outputs, max_batch)
        self.scheduler = Scheduler(Pages(pages), max_batch, max(STEP_TOKENS, max_batch), most)
        self._device = device
        self._worker = Worker(lambda: self.scheduler.busy, self._step)
        self.steps = self.tokens = 0

    def ask(self, requests: Sequence[Request]) -> None:
        """Queue requests; their futures get the results."""
        self.scheduler.waiting.extend(requests)
        self._worker.wake()

    async def wait(self, request: Request) -> Any:
        """Queue one and await its result; an await that is cancelled takes it back."""
        self.scheduler.waiting.append(request)
        return await self._worker.wait(request.future)

    def _step(self) -> None:
        try:
            with torch.inference_mode():
                self._prepare(self.scheduler.running)
                plan = self.scheduler.plan()
                if plan:
                    self._run(plan)
        except Exception as error:  # it belongs to those who wait; the next step starts afresh
            for request in self.scheduler.drain():
                settle(request.future, error)

    def _run(self, plan: dict[Request, int]) -> None:
        step = Step.of(plan, LEAST_ROWS, self._device)
        rows = [(one, wanted) for one, n in plan.items() if (wanted := wanted_of(one, n))]
        outputs_ME = self._compute(step)
        self.steps, self.tokens = self.steps + 1, self.tokens + sum(plan.values())
        before = {request: request.cached for request in plan}
        for request, tokens in plan.items():
            request.cached += tokens
        self._heard(rows, outputs_ME[: sum(wanted for _, wanted in rows)])
        for request, cached in before.items():
            request.cached = min(request.cached, request.wanted)
            self.scheduler.remember(request, cached)
            if request.future.done():
                self.scheduler.leave(request)
