"""Who waits, who runs, and what a step computes. Plain data, no model.

A request is a growing list of token ids, of which the first `cached` have their keys and values in
pages. A step computes the next tokens of the running requests: of most the one token that was
drawn last, of new ones a piece of their prompt, of preempted ones all that was theirs, again.
"""

from bisect import insort
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from flywright.generate.native import PAGE_TOKENS
from flywright.generate.pages import Pages, next_key, pages_for

_ARRIVALS = count()


@dataclass(eq=False)
class Request:
    """Tokens of one text. `wanted`: the first place of which the model's output is asked for.

    A caller that cancels the future takes the request back, at the next step. `guessed` of the last
    ids are guesses, not yet drawn.
    """

    ids: list[int]
    wanted: int
    future: "Future[Any]" = field(default_factory=Future)
    cached: int = 0
    guessed: int = 0
    pages: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    arrival: int = field(default_factory=lambda: next(_ARRIVALS))

    def page_keys(self, tokens: int) -> list[bytes]:
        """The digests of the full pages within the first tokens."""
        while len(self.keys) < tokens // PAGE_TOKENS:
            start = len(self.keys) * PAGE_TOKENS
            before = self.keys[-1] if self.keys else b""
            self.keys.append(next_key(before, self.ids[start : start + PAGE_TOKENS]))
        return self.keys[: tokens // PAGE_TOKENS]

    def forget_guesses(self, kept: int = 0) -> None:
        """Take the guesses out of the ids again, but for the first ones `kept`."""
        if self.guessed > kept:
            del self.ids[kept - self.guessed :]
        self.guessed = 0


@dataclass
class _Plan:
    """A step in the making: tokens of each request, and what may be added to them."""

    tokens_left: int
    wanted_left: int
    step: dict[Request, int] = field(default_factory=dict)


class Scheduler:
    """Requests that wait and that run, both in order of arrival, and the pages between them.

    max_batch: how many run. step_tokens: how many tokens a step computes, at most. most_wanted: of
    how many the output may be asked for in a step, which bounds what the head's product holds.
    """

    def __init__(self, pages: Pages, max_batch: int, step_tokens: int, most_wanted: int):
        self.pages = pages
        self.max_batch = max_batch
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.preemptions = self.reused_tokens = 0
        self._step_tokens, self._most_wanted = step_tokens, most_wanted

    @property
    def busy(self) -> bool:
        """True while any request waits or runs."""
        return bool(self.waiting or self.running)

    def plan(self) -> dict[Request, int]:
        """The running requests of the next step, and how many tokens of each; admits waiting ones.

        Requests that draw come first, so that a long prompt does not hold them up. Where pages are
        short the youngest request gives up its own, and waits at the head of the queue.
        """
        for request in [one for one in self.running if one.future.cancelled()]:
            self.leave(request)
        plan = _Plan(self._step_tokens, self._most_wanted)
        preempted = self.preemptions
        for request in sorted(self.running, key=lambda one: one.wanted > one.cached):
            if request in self.running:  # another may have taken its pages
                self._plan_one(request, plan)
        while self.preemptions == preempted and plan.tokens_left:
            request = self._admissible()
            if request is None:
                break
            insort(self.running, request, key=lambda one: one.arrival)
            self._plan_one(request, plan)
        return plan.step

    def _plan_one(self, request: Request, plan: _Plan) -> None:
        tokens = min(len(request.ids) - request.cached, plan.tokens_left)
        tokens -= max(0, wanted_of(request, tokens) - plan.wanted_left)
        if tokens > 0 and self._hold(request, request.cached + tokens, plan.step):
            plan.step[request] = tokens
            plan.tokens_left -= tokens
            plan.wanted_left -= wanted_of(request, tokens)

    def _hold(self, request: Request, tokens: int, step: dict[Request, int]) -> bool:
        """Take pages for a request's first tokens, from the youngest ones if there are none."""
        while (missing := pages_for(tokens) - len(request.pages)) > self.pages.free:
            youngest = self.running.pop()
            step.pop(youngest, None)
            self._give_up(youngest)
            self.waiting.appendleft(youngest)
            self.preemptions += 1
            if youngest is request:
                return False
        request.pages += self.pages.take(max(missing, 0))
        return True

    def _admissible(self) -> Request | None:
        """The next waiting request if it can run now, with the pages that are known of its text."""
        while self.waiting and self.waiting[0].future.cancelled():
            self.waiting.popleft()
        if not self.waiting or len(self.running) >= self.max_batch:
            return None
        request = self.waiting[0]
        keys = request.page_keys(min(request.wanted, len(request.ids) - 1))
        pages = self.pages.known(keys)
        if len(pages) < len(keys) and keys[len(pages)] in self._coming():
            fits = False  # somebody computes its next page at this moment
        else:
            needed = min(pages_for(len(request.ids) + 1), self.pages.count)
            fits = needed - len(pages) <= self.pages.free
        if not fits:
            self.pages.give(pages)
            return None
        self.waiting.popleft()
        request.pages, request.cached = pages, len(pages) * PAGE_TOKENS
        self.reused_tokens += request.cached
        return request

    def _coming(self) -> set[bytes]:
        """Pages of prompts that running requests have still to compute."""
        return {
            key
            for one in self.running
            if one.cached < one.wanted
            for key in one.page_keys(one.wanted)[one.cached // PAGE_TOKENS :]
        }

    def remember(self, request: Request, before: int) -> None:
        """Let others find the pages that have been filled since `before` tokens were cached."""
        full = request.page_keys(request.cached)
        for index in range(before // PAGE_TOKENS, len(full)):
            self.pages.remember(request.pages[index], full[index])

    def leave(self, request: Request) -> None:
        """A running request is done."""
        self.running.remove(request)
        self._give_up(request)

    def _give_up(self, request: Request) -> None:
        self.pages.give(request.pages)
        request.pages, request.cached = [], 0
        request.forget_guesses()

    def drain(self) -> list[Request]:
        """Take away every request, running and waiting."""
        drained = [*self.running, *self.waiting]
        for request in list(self.running):
            self.leave(request)
        self.waiting.clear()
        return drained


def wanted_of(request: Request, tokens: int) -> int:
    """Of how many of its next tokens the output is asked for."""
    return max(0, request.cached + tokens - max(request.wanted, request.cached))
