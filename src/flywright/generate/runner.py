"""The steps of a model in this process: plan, compute, hand out.

    runner = Runner(Local(model, cache), 64, heard); runner.ask([request]); future.result()

What an answer, a score or a log-probability is made of, its owner says: `heard` gets each request
with the outputs that it asked for.

Shapes: M places whose output is asked for, E outputs of the head (a vocabulary, or attributes).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flywright.generate.cache import PagedCache, Step
from flywright.generate.native import MOST_ROWS
from flywright.generate.packed import LEAST_ROWS, Head, can_pack, one_call, packed
from flywright.generate.pages import Pages
from flywright.generate.scheduler import Request, Scheduler, wanted_of
from flywright.generate.worker import Worker, settle
from flywright.model import Decoder, RewardModel

STEP_TOKENS = 512  # of a step, at most: a long prompt is computed in pieces between other steps
MOST_OUTPUTS = 1 << 24  # numbers that a step's head may make

Heard = Sequence[tuple[Request, int]]  # requests of a step, and how many outputs each gets


class Local:
    """A model on one device, with its cache: computes steps.

    `outputs` numbers for each place: logits of the vocabulary's first `most_outputs`, or a reward
    model's `labels`. `exact`: an output's bits do not depend on what else is in the step.
    """

    def __init__(
        self,
        model: Decoder | RewardModel,
        cache: PagedCache,
        most_outputs: int | None = None,
        int8: bool = False,
    ):
        self.labels = model.labels if isinstance(model, RewardModel) else ()
        vocabulary = model.spec.vocab_size
        self.outputs = len(self.labels) or min(most_outputs or vocabulary, vocabulary)
        head = model.score if isinstance(model, RewardModel) else model.lm_head
        weight = next(model.parameters())
        self.device = weight.device
        self.exact = cache.exact and can_pack(weight) and weight.dtype == torch.float32
        self.least_rows = LEAST_ROWS if self.exact else 1
        self.pages, self.context_tokens = cache.pages, cache.context_length
        self._body, self._cache = packed(model.model, int8), cache
        if isinstance(head, nn.Linear):  # which the beginning of a cut model lacks
            head = Head(head.weight[:most_outputs], head.bias)
        self._head = head
        self.whole = one_call(self._body, head, cache)

    def __call__(self, step: Step) -> Tensor:
        """Outputs [M, E] of the step's wanted places, and at least `least_rows` of them."""
        if self.whole and len(step.ids) <= (MOST_ROWS or len(step.ids)):
            where = step.table, step.row, step.position
            made = self.whole(step.ids, step.wanted, where)
            return made if self.whole.head else self._head(made)
        return self._read(step, self._through(step, step.ids))

    def _through(self, step: Step, x_T: Tensor) -> Tensor:
        """The body's output [T, D] for ids, or for what the layers before made of them."""
        return self._body(x_T[None], step.position[None], self._cache.attend(step))[0]

    def _read(self, step: Step, hidden_TD: Tensor) -> Tensor:
        wanted = step.wanted
        if len(wanted) < self.least_rows:
            wanted = torch.cat((wanted, wanted.new_zeros(self.least_rows - len(wanted))))
        return self._head(hidden_TD[wanted])


class Runner:
    """Runs requests by `compute`, many at once; each step begins with `prepare(running)`.

    `heard(rows, outputs_ME)` reads what a step has made, in the order of `rows`; it settles the
    requests' futures: one that is settled leaves.
    """

    def __init__(
        self,
        compute: Local,
        max_batch: int,
        heard: Callable[[Heard, Tensor], None],
        prepare: Callable[[list[Request]], None] = lambda _running: None,
    ):
        self._compute, self._heard, self._prepare = compute, heard, prepare
        most, pages = max(MOST_OUTPUTS // compute.outputs, max_batch), Pages(compute.pages)
        self.scheduler = Scheduler(pages, max_batch, max(STEP_TOKENS, max_batch), most)
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
        step = Step.of(plan, self._compute.least_rows, self._compute.device)
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
