"""Who answers behind the wires: a completer, a scorer, and a bounded number of askers.

`Backend` is handed to every wire. It counts the answers asked for at this moment; beyond the bound
a request gets 429 and Retry-After at once instead of a place in an endless queue. Work ends when
its client goes or its deadline comes.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

from fastapi import Request
from pydantic import Field

from flywright.ask import Completer, Completion, Reader, Sampling, Scorer
from flywright.ask.protocol import Ids
from flywright.files import seed_from
from flywright.records import Conversation
from flywright.serve.bodies import read_object
from flywright.serve.metrics import Metrics
from flywright.serve.problems import Problem, log
from flywright.serve.spelling import Speller
from flywright.settings import Settings
from flywright.tokenizer import Tokenizer, chat

Prompt = Conversation | str | Ids
Ask = tuple[Prompt, Sampling]
Result = TypeVar("Result")
MOST_NUMBERS = 2_000_000  # log-probabilities in one answer


class ServeSettings(Settings):
    """How to serve. `context_tokens` is the model's; `max_pending` counts answers.

    `api_key_hashes` are SHA-256, in hex; none lets everybody in. `cors` are the origins whose web
    pages may ask. `loopback` refuses requests that name another host than this machine.
    """

    model_name: str = ""
    reward_name: str = ""
    context_tokens: int = Field(default=4096, ge=1)
    default_max_tokens: int = Field(default=1024, ge=1)
    max_pending: int = Field(default=256, ge=1)
    max_body_bytes: int = Field(default=4 << 20, ge=1)
    body_seconds: float = Field(default=30.0, gt=0)
    deadline_seconds: float = Field(default=600.0, gt=0)
    nemo_strict: bool = False
    api_key_hashes: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    loopback: bool = False
    log_prompts: bool = False


@dataclass
class Backend:
    """The answerers and what the wires need to know of them.

    `pending` counts answers under way, `active` HTTP requests; one that is `draining` takes none.
    """

    completer: Completer | None
    tokenizer: Tokenizer
    scorer: Scorer | None
    settings: ServeSettings
    metrics: Metrics = field(default_factory=Metrics)
    pending: int = 0
    active: int = 0
    draining: bool = False

    def __post_init__(self) -> None:
        self.speller = Speller(self.tokenizer)
        stats = getattr(self.completer, "stats", dict)
        self.metrics.watch(lambda: {"pending_answers": self.pending, **stats()})

    @property
    def model_name(self) -> str:
        """The policy's name on the wire; empty if none is served."""
        return "" if self.completer is None else self.settings.model_name or self.completer.model

    @property
    def reward_name(self) -> str:
        """The reward model's name on the wire; empty if none is served."""
        return "" if self.scorer is None else self.settings.reward_name or self.scorer.model

    def check_model(self, asked: str | None) -> None:
        """Raises Problem(404) if no language model is served, or another than `asked`."""
        if self.completer is None:
            raise Problem(404, "no language model is served here", "model", "model_not_found")
        check_name(asked, self.model_name)

    @property
    def reads(self) -> bool:
        """True if the completer streams and tells log-probabilities: if it is a Reader."""
        return hasattr(self.completer, "stream") and hasattr(self.completer, "read")

    def reader(self, wanted: str) -> Reader:
        """The completer as a Reader, for the field `wanted`. Raises Problem(400) if it is none."""
        if not self.reads:
            raise Problem(400, f"{wanted}: the model behind this server cannot do that", wanted)
        return cast(Reader, self.completer)

    async def read(self, request: Request) -> dict[str, Any]:
        """The request's JSON object, within the server's bounds. Raises Problem."""
        settings = self.settings
        tree = await read_object(request, settings.max_body_bytes, settings.body_seconds)
        if settings.log_prompts:
            log.info("%s %.10000r", request.url.path, tree)
        return tree

    def prompt_ids(self, prompt: Prompt, wanted: int = 1) -> list[int]:
        """Ids of a conversation, of a raw prompt with its control texts, or as given.

        Raises Problem(400) where they and an answer of `wanted` tokens are more than the context
        holds; for a text that cannot fit before it is encoded.
        """
        context = self.settings.context_tokens
        if isinstance(prompt, tuple):
            ids = list(prompt)
        else:
            self._may_fit(prompt, wanted, context)
            as_ids = chat.raw_ids if isinstance(prompt, str) else chat.prompt_ids
            ids = as_ids(self.tokenizer, cast(Any, prompt))
        fits(len(ids), wanted, context)
        return ids

    def rated_tokens(self, conversation: Conversation) -> int:
        """How many tokens a reward model reads. Raises Problem(400) for more than it holds."""
        context = getattr(self.scorer, "context_tokens", self.settings.context_tokens)
        self._may_fit(conversation, 0, context)
        count = len(chat.reward_ids(self.tokenizer, conversation))
        fits(count, 0, context)
        return count

    def _may_fit(self, prompt: Conversation | str, wanted: int, context: int) -> None:
        texts = [prompt] if isinstance(prompt, str) else [m.content for m in prompt.messages]
        fits(sum(map(len, texts)) // self._longest_piece, wanted, context, "at least ")

    def put(self, prompt: Prompt, ids: list[int]) -> Prompt:
        """The prompt as the completer is asked: a Reader takes its ids, encoded once."""
        return tuple(ids) if self.reads else prompt

    @cached_property
    def _longest_piece(self) -> int:
        return max(len(self.tokenizer.piece(i)) for i in range(self.tokenizer.vocab_size))

    def tellable(self, numbers: int, wanted: str) -> None:
        """Raises Problem(400) for more log-probabilities than one answer may hold."""
        if numbers > MOST_NUMBERS:
            message = f"{wanted}: {numbers} numbers, at most {MOST_NUMBERS}: ask for fewer tokens"
            raise Problem(400, message, wanted)

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Hold `count` places. Raises Problem: 429, or 400 for more than there are at all."""
        most = self.settings.max_pending
        if count > most:
            raise Problem(400, f"one request may ask for at most {most} answers, not {count}")
        if self.pending + count > most:
            raise Problem(429, "the server is busy; try again", retry_after_seconds=1)
        self.pending += count
        try:
            yield
        finally:
            self.pending -= count

    async def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Answers in order. Raises Problem 429 if the server is busy."""
        who = cast(Completer, self.completer)
        with self.places(len(asks)):
            done = await all_of(who.complete(cast(Any, prompt), one) for prompt, one in asks)
        self.metrics.add("completion_tokens", sum(map(drawn_tokens, done)))
        return done

    async def stream(self, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Parts of the answers as they come, each with its answer's index."""
        queue: asyncio.Queue[tuple[int, Completion] | Exception | None] = asyncio.Queue(64)

        async def pour(index: int, ask: Ask) -> None:
            try:
                async with aclosing(self._parts(*ask)) as parts:
                    async for part in parts:
                        await queue.put((index, part))
                await queue.put(None)
            except Exception as error:
                await queue.put(error)

        with self.places(len(asks)):
            tasks = [asyncio.create_task(pour(index, ask)) for index, ask in enumerate(asks)]
            try:
                left = len(tasks)
                while left:
                    item = await queue.get()
                    if isinstance(item, Exception):
                        raise item
                    if item is None:
                        left -= 1
                        continue
                    self.metrics.add("completion_tokens", drawn_tokens(item[1]))
                    yield item
            finally:
                await _end(tasks)

    async def _parts(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Completion, None]:
        who = cast(Any, self.completer)
        if not self.reads:
            yield await who.complete(prompt, sampling)
            return
        async with aclosing(who.stream(prompt, sampling)) as parts:
            async for part in parts:
                yield part

    async def while_there(self, request: Request, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which is cancelled when its client goes or its time is over.

        Raises Problem 499 or 504 then.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(request))
        seconds = self.settings.deadline_seconds
        try:
            await asyncio.wait({task, gone}, timeout=seconds, return_when="FIRST_COMPLETED")
            if task.done():
                return task.result()
            if gone.done():
                raise Problem(499, "the client has gone")
            raise too_late(seconds)
        finally:
            await _end([task, gone])


def fits(used: int, wanted: int, context: int, about: str = "") -> None:
    """Raises Problem(400) where prompt and answer are more than the context holds."""
    if used + wanted > context:
        answer = f" and the answer may take {wanted}" if wanted else ""
        message = f"the prompt has {about}{used} tokens{answer}; the context holds {context}"
        raise Problem(400, message, None, "context_length_exceeded")


def drawn_tokens(one: Completion) -> int:
    """How many tokens were drawn for an answer, or for a part of one."""
    return one.completion_tokens or len(one.token_ids)


def too_late(seconds: float) -> Problem:
    """The problem of a request that was not answered in time."""
    return Problem(504, f"no answer within {seconds:g} seconds", retry_after_seconds=1)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_of(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def check_name(asked: str | None, served: str) -> None:
    """Raises Problem(404) if another model than the served one is asked for."""
    if asked and asked != served:
        raise Problem(404, f"model {asked[:200]!r} is not served here", "model", "model_not_found")


def usable(temperature: float) -> float:
    """A temperature by which fp32 can divide; what is closer to 0 is 0, the likeliest token."""
    return float(temperature) if temperature >= 1e-4 else 0.0


def seeds_for(seed: int | None, count: int) -> list[int]:
    """One seed for each of `count` answers: the first as given, fresh ones if none was given."""
    first = secrets.randbits(62) if seed is None else seed
    return [first if index == 0 else seed_from(first, index) for index in range(count)]
