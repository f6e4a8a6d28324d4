"""OpenAI's wire: /v1/chat/completions, /v1/completions and /v1/models.

A request that would not fit the context is refused before it costs. Streams are server-sent events;
what fails before the first part has its own status, what fails later is an event with an error.
`echo` with `logprobs` tells how likely a given text is, as evaluation harnesses ask for it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from flywright.ask import Completion
from flywright.records import Conversation, weighted_reward
from flywright.serve import openai_shapes as shapes
from flywright.serve.backend import Ask, Backend, Prompt, all_of, drawn_tokens, seeds_for, too_late
from flywright.serve.bodies import Json, conversation_of, described, parse_body
from flywright.serve.openai_bodies import (
    UNSUPPORTED,
    AnswerRequest,
    ChatRequest,
    TextRequest,
    known,
    supported,
)
from flywright.serve.problems import Problem, error_of, problem_of
from flywright.serve.reward_wire import hosted_reply, score_all, wants_reward

STREAMED: Any = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}
NOTHING = Completion("", "length")  # the answer of no tokens


def router(backend: Backend) -> APIRouter:
    """The routes under /v1 that speak of language models."""
    wire = APIRouter(prefix="/v1")

    def listed() -> dict[str, Any]:
        names = [name for name in (backend.model_name, backend.reward_name) if name]
        about = {"object": "model", "created": 0, "owned_by": "flywright"}
        return {name: {"id": name, **about} for name in names}

    @wire.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": list(listed().values())}

    @wire.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name not in listed():
            message = f"model {name[:200]!r} is not served here"
            raise Problem(404, message, "model", "model_not_found")
        return listed()[name]

    def told(kind: type[AnswerRequest]) -> dict[str, Any]:
        return {"openapi_extra": described(kind, UNSUPPORTED), "responses": STREAMED}

    @wire.post("/chat/completions", **told(ChatRequest))
    async def chat(request: Request) -> Response:
        asked = parse_body(ChatRequest, supported(await backend.read(request)))
        conversation = conversation_of(asked.messages)
        if wants_reward(backend, asked.model, conversation):
            if asked.stream:
                raise Problem(400, "stream: rewards come whole", "stream")
            return Json(await backend.while_there(request, hosted_reply(backend, conversation)))
        backend.check_model(asked.model)
        if not conversation.awaits_answer:
            raise Problem(400, "messages: the last one must be the user's", "messages")
        wanted = asked.max_completion_tokens or asked.max_tokens
        return await Order.of(backend, asked, [conversation], wanted).answer(request)

    @wire.post("/completions", **told(TextRequest))
    async def text(request: Request) -> Response:
        asked = parse_body(TextRequest, supported(await backend.read(request)))
        backend.check_model(asked.model)
        for prompt in asked.prompt:
            if isinstance(prompt, tuple):
                backend.reader("prompt")
                known(backend, prompt, "prompt")
        wanted = 16 if asked.max_tokens is None else asked.max_tokens
        return await Order.of(backend, asked, asked.prompt, wanted).answer(request)

    return wire


@dataclass(frozen=True)
class Order:
    """What is to be answered: `asks` holds `drawn` for each prompt, of which `given` are given."""

    backend: Backend
    asked: AnswerRequest
    prompts: list[Prompt]
    ids: list[list[int]]
    asks: list[Ask]

    @classmethod
    def of(
        cls, backend: Backend, asked: AnswerRequest, prompts: list[Prompt], wanted: int | None
    ) -> "Order":
        """Checks what only the server can. Raises Problem where something would not fit or work."""
        asked.check()
        if asked.top is not None:
            backend.reader("logprobs")
        ids = [backend.prompt_ids(prompt, 1 if wanted is None else wanted) for prompt in prompts]
        drawn, _ = asked.counts
        seeds = iter(seeds_for(asked.seed, len(prompts) * drawn))
        asks: list[Ask] = []
        for prompt, one in zip(prompts, ids, strict=True):
            room = backend.settings.context_tokens - len(one)
            most = min(backend.settings.default_max_tokens, room) if wanted is None else wanted
            sampling = asked.sampling(backend, most)
            put = backend.put(prompt, one)
            asks += [(put, sampling.with_seed(next(seeds))) for _ in range(drawn)]
        order = cls(backend, asked, prompts, ids, asks)
        if asked.top is not None:
            tokens = sum(how.max_tokens for _, how in asks) + order.echo * order.read * drawn
            backend.tellable(tokens * (asked.top + 1), "logprobs")
        backend.metrics.add("prompt_tokens", order.read)
        return order

    @property
    def chat(self) -> bool:
        """True for messages, false for texts."""
        return isinstance(self.asked, ChatRequest)

    @property
    def echo(self) -> bool:
        """True if prompts are repeated before their answers."""
        return isinstance(self.asked, TextRequest) and bool(self.asked.echo)

    @property
    def read(self) -> int:
        """Tokens of the prompts, each counted once."""
        return sum(map(len, self.ids))

    async def answer(self, request: Request) -> Response:
        """The whole answer, or a stream of it."""
        if not self.asked.stream:
            return await self.backend.while_there(request, self._whole())
        began, events = time.perf_counter(), self._events()
        try:
            first = await self.backend.while_there(request, cast(Any, anext(events)))
        except BaseException:
            await events.aclose()
            raise
        self.backend.metrics.add("first_token_seconds", time.perf_counter() - began)
        return Streamed(first, events, self.backend.settings.deadline_seconds)

    async def _heads(self) -> list[Completion | None]:
        """How likely the prompts are, where an echo with log-probabilities was asked for."""
        top = self.asked.top
        if not self.echo or top is None:
            return [None] * len(self.ids)
        reader = self.backend.reader("echo")
        with self.backend.places(len(self.ids)):
            return list(await all_of(reader.read(ids, top) for ids in self.ids))

    async def _whole(self) -> Response:
        """The answers to each prompt, in order; the best of them where more were drawn."""
        heads = await self._heads()
        nothing = self.echo and self.asked.max_tokens == 0
        done = [NOTHING] * len(self.asks)
        done = done if nothing else await self.backend.complete(self.asks)
        each = len(self.asks) // len(self.prompts)
        given = [
            await self._best(prompt, done[index * each :][:each])
            for index, prompt in enumerate(self.prompts)
        ]

        def told() -> Response:
            choices: list[shapes.Choice] = []
            for index, answers in enumerate(given):
                echoed = self._echoed(index) if self.echo else ""
                for one in answers:
                    logprobs, said = self._logprobs(index, heads[index], one), echoed + one.text
                    made = shapes.choice(len(choices), said, self.chat, one.finish, logprobs)
                    choices.append(made)
            prefix = "chatcmpl" if self.chat else "cmpl"
            written, name = sum(map(drawn_tokens, done)), self.backend.model_name
            return Json(shapes.reply(prefix, name, choices, self.read, written))

        # beside the event loop, which a million log-probabilities would hold up
        return told() if self.asked.top is None else await asyncio.to_thread(told)

    async def _best(self, prompt: Prompt, answers: list[Completion]) -> list[Completion]:
        """The best of a prompt's answers: by reward in a chat where a reward model is served, else
        by the mean log-probability of a token. Of as many as were drawn, all, in their order."""
        drawn, given = self.asked.counts
        if drawn == given:
            return answers
        if self.backend.scorer is not None and isinstance(prompt, Conversation):
            rated = [prompt.answered(one.text) for one in answers]
            found, _ = await score_all(self.backend, rated)
            values = [weighted_reward(one) for one in found]
        else:
            self.backend.reader("best_of")
            values = [sum(one.logprobs) / max(1, len(one.logprobs)) for one in answers]
        ranked = sorted(range(len(answers)), key=lambda index: -values[index])
        return [answers[index] for index in ranked[:given]]

    def _echoed(self, index: int) -> str:
        prompt = self.prompts[index]
        return prompt if isinstance(prompt, str) else self.backend.speller.shown(self.ids[index])

    def _logprobs(
        self, index: int, head: Completion | None, one: Completion, first: int = 0
    ) -> dict[str, Any] | None:
        """Log-probabilities of an answer (from character `first` on), or with its prompt's."""
        top, speller = self.asked.top, self.backend.speller
        if top is None:
            return None
        if self.chat:
            return shapes.chat_logprobs(speller, one, top)
        tokens, values = list(one.token_ids), list(one.logprobs)
        likely: list[Any] = list(one.top) or [()] * len(tokens)
        if head is not None:
            tokens, values = [*self.ids[index], *tokens], [None, *head.logprobs, *values]
            likely = [None, *(head.top or [()] * len(head.logprobs)), *likely]
        return shapes.text_logprobs(speller, tokens, values, likely, top, first)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        """The answers as events: an answer's first is its opening or its echo."""
        options, each = self.asked.stream_options, self.asked.counts[0]
        with_usage = bool(options and options.include_usage)
        chunks = shapes.Chunks(self.chat, self.backend.model_name, with_usage)
        heads, widths = await self._heads(), self.backend.speller.width
        begun: dict[int, int] = {}  # answers, and how many characters of them have been told
        written = 0

        def opening(index: int, finish: str) -> bytes:
            if self.chat:
                return chunks.first(index)
            logprobs = self._logprobs(index // each, heads[index // each], Completion(""))
            return chunks.part(index, self._echoed(index // each), logprobs, finish)

        nothing = self.echo and self.asked.max_tokens == 0
        for index in range(len(self.asks)) if nothing else ():
            yield opening(index, "length")
        async with aclosing(self.backend.stream([] if nothing else self.asks)) as parts:
            async for index, one in parts:
                if index not in begun:
                    begun[index] = sum(map(widths, self.ids[index // each])) if self.echo else 0
                    if self.chat or self.echo:
                        yield opening(index, "")
                logprobs = self._logprobs(index, None, one, begun[index])
                begun[index] += sum(map(widths, one.token_ids))
                written += drawn_tokens(one)
                yield chunks.part(index, one.text, logprobs, one.finish)
        if with_usage:
            yield chunks.usage(self.read, written)
        yield shapes.DONE


class Streamed(StreamingResponse):
    """Events to a client; when it goes, or its time is over, the work behind them ends."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None], seconds: float):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._events, self._seconds = events, seconds
        super().__init__(self._told(first), headers=headers, media_type="text/event-stream")

    async def _told(self, first: bytes) -> AsyncGenerator[bytes, None]:
        last = asyncio.get_running_loop().time() + self._seconds
        yield first
        while True:
            try:
                async with asyncio.timeout_at(last):
                    told = await anext(self._events)
            except StopAsyncIteration:
                return
            except Exception as error:
                late = isinstance(error, TimeoutError)
                problem = too_late(self._seconds) if late else problem_of(error)
                yield shapes.event(error_of(problem))
                return
            yield told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them. A client that does not read is left a little after its time."""
        try:
            async with asyncio.timeout(self._seconds + 10):
                await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
