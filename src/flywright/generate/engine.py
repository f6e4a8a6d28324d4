"""The engine: answers over a model in this process, with continuous batching.

    engine = Engine("runs/x/policy")
    for completion in engine.generate(["Once upon a time"], max_new_tokens=20): ...
    answer = await engine.complete(conversation, Sampling(max_tokens=64))
    async for part in engine.stream(conversation, Sampling(max_tokens=64)): ...

Requests join and leave between steps; many awaits at once become one batch, and texts that begin
alike share the pages of their beginning.

Shapes: M places whose output a step asks for, V vocabulary.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from flywright.ask.protocol import Completion, Likely, Sampling
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.generate.answer import Answer, Tell
from flywright.generate.asking import Asking, Prompt
from flywright.generate.cache import PagedCache
from flywright.generate.grammar import Grammars
from flywright.generate.guess import guess
from flywright.generate.native import peaks
from flywright.generate.runner import Heard, Local, Runner
from flywright.generate.sampler import Draw, likely, penalise, sample
from flywright.generate.scheduler import Request
from flywright.generate.worker import settle
from flywright.model import Decoder, load_decoder
from flywright.progress import Tick, silent
from flywright.tokenizer import Tokenizer, chat

Places = list[tuple[Answer, int, int]]  # in a step's outputs: where, and how many or which


class Reading(Request):
    """A request of the log-probabilities of `told`, from place `wanted` + 1 on."""

    def __init__(self, ids: Sequence[int], wanted: int, top: int):
        super().__init__(list(ids[:-1]), wanted)  # what would follow the last is not asked
        self.told, self.top_logprobs = tuple(ids), top
        self.logprobs: list[float] = []
        self.top: list[Likely] = []


class Picking(Request):
    """A request of the log-probabilities of each of `tokens` in the place after its own."""

    def __init__(self, ids: Sequence[int], tokens: Sequence[int]):
        super().__init__(list(ids), len(ids) - 1)
        self.tokens = list(tokens)


class Engine(Asking):
    """Completes conversations and raw texts; `model` names it for ledgers and lineage.

    Give a model and its tokenizer, or a weights folder; a Local, or one over ranks (ranks.py), has
    its precision and cache. At most `max_batch` requests run at a time. `cache_bytes` of keys and
    values are shared among them, in pages; where they do not hold one whole context, the context is
    shorter: `context_tokens` says how long it is. `dtype` decodes in another precision than the
    model's own; where the same answers are promised, that is float32.
    `guesses`: so many tokens are guessed from what the text said before, and drawn in one step.
    `int8`: a bf16 model's layers, and what they are multiplied with, are rounded to 8 bits.

    A completion's `logprobs` are the model's own: natural log-softmax in fp32 of the untempered,
    uncut logits at each generated token, the end token included. Greedily an answer is that of
    recomputing the whole text for every token, except where two tokens are closer than rounding
    (HOUSE law 3). In fp32 on a CPU with a compiler (`exact`), what else is running, guesses, pages
    that are shared and requests that are put off do not change an answer by one bit.
    """

    def __init__(
        self,
        model: Decoder | Local | Path | str,
        tokenizer: Tokenizer | None = None,
        max_batch: int = 64,
        model_name: str = "",
        dtype: torch.dtype | None = None,
        cache_bytes: int = 1 << 31,
        guesses: int = 0,
        int8: bool = False,
    ):
        if isinstance(model, str | Path):
            model_name, folder = model_name or str(model), model
            model, tokenizer = load_decoder(folder, dtype), tokenizer or Tokenizer.load(folder)
        if tokenizer is None:
            raise UserError("Engine: a model without a folder needs its tokenizer")
        pieces = tokenizer.vocab_size
        if isinstance(model, Decoder):
            if dtype not in (None, model.lm_head.weight.dtype):
                model = copy.deepcopy(model).to(dtype)
            weight = model.lm_head.weight
            cache = PagedCache(model.spec, max_batch, weight.dtype, weight.device, cache_bytes)
            model = Local(model, cache, pieces, int8)
        if pieces > model.outputs:
            raise UserError(f"tokenizer has {pieces} pieces, model {model.outputs}")
        super().__init__(tokenizer, model_name, model.context_tokens)
        self.exact = model.exact
        self._grammars = Grammars(tokenizer, chat.end_ids(tokenizer))
        self._guesses, self._device = guesses, model.device
        self._runner = Runner(model, max_batch, self._heard, self._guess)

    # asking

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The answer to a conversation, or the continuation of a raw prompt or of token ids.

        Raises TooLong where the prompt leaves no room in the context. An answer that reaches the
        context's end finishes as "length". Cancelling the await takes the request back.
        """
        await self._compiled(sampling)
        return await self._runner.wait(self._constrained(prompt, sampling))

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Completion]:
        """The answer in parts (ask.Reader); leaving the iterator takes the request back."""
        loop, parts = asyncio.get_running_loop(), asyncio.Queue()

        def tell(part: Completion | None) -> None:
            loop.call_soon_threadsafe(parts.put_nowait, part)

        await self._compiled(sampling)
        request = self._constrained(prompt, sampling, tell)
        request.future.add_done_callback(lambda _: tell(None))
        asked = asyncio.ensure_future(self._runner.wait(request))
        try:
            while (part := await parts.get()) is not None:
                yield part
            await asked
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        stop: Sequence[str] = (),
        tick: Tick = silent,
        min_new_tokens: int = 0,
    ) -> list[Completion]:
        """Completions of many prompts, in order; prompt i is drawn with a seed of (seed, i)."""
        drawn = Sampling(
            max_new_tokens, temperature, top_p, top_k, stop=tuple(stop), min_tokens=min_new_tokens
        )
        requests = [
            self._constrained(prompt, drawn.with_seed(seed_from(seed, index)))
            for index, prompt in enumerate(prompts)
        ]
        self._runner.ask(requests)
        completions: list[Completion] = []
        try:
            for request in requests:
                completions.append(request.future.result())
                tick(len(completions), len(requests), "")
        except BaseException:
            for request in requests:
                request.future.cancel()
            raise
        return completions

    async def _compiled(self, sampling: Sampling) -> None:
        """Compile a grammar beside the event loop, which a large one would hold up."""
        if sampling.grammar:
            await asyncio.to_thread(self._grammars.open, sampling.grammar)

    def _constrained(self, prompt: Prompt, sampling: Sampling, tell: Tell | None = None) -> Answer:
        request = self._answer(prompt, sampling, tell)
        request.constraint = self._grammars.open(sampling.grammar) if sampling.grammar else None
        return request

    def stats(self) -> dict[str, int]:
        """What the engine does and has done, for gauges and counters."""
        scheduler = self._runner.scheduler
        return {
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
            "pages_free": scheduler.pages.free,
            "pages": scheduler.pages.count,
            "preemptions": scheduler.preemptions,
            "reused_tokens": scheduler.reused_tokens,
            "computed_tokens": self._runner.tokens,
            "steps": self._runner.steps,
        }

    async def _read(self, ids: Sequence[int], wanted: int, top: int) -> Completion:
        return await self._runner.wait(Reading(ids, wanted, top))

    async def _pick(self, ids: Sequence[int], tokens: Sequence[int]) -> list[float]:
        return await self._runner.wait(Picking(ids, tokens))

    # in the worker's thread

    def _guess(self, running: list[Request]) -> None:
        """Let the answers that go on guess their next tokens, while a step has room for them."""
        if not self._guesses:
            return
        for request in running:
            if isinstance(request, Answer) and request.wanted == request.cached:
                free = request.constraint is None and request.sampling.repetition_penalty == 1
                room = request.limit - request.drawn - 1
                if free and room > 0:
                    guessed = guess(request.ids, min(self._guesses, room))
                    request.ids += guessed
                    request.guessed = len(guessed)

    def _heard(self, rows: Heard, outputs_MV: Tensor) -> None:
        """Draw the next tokens of answers, and read those that are asked for."""
        # a vocabulary padded beyond the tokenizer's pieces is never drawn from (SPEC 11.3)
        logits_MV = outputs_MV[:, : self.tokenizer.vocab_size].float()
        best_M, total_M = peaks(logits_MV)
        answers: Places = []
        at = 0
        for request, wanted in rows:
            if isinstance(request, Answer):
                answers.append((request, at, wanted))
            elif isinstance(request, Reading):
                here = slice(at, at + wanted)
                _read_out(request, logits_MV[here], total_M[here])
            elif isinstance(request, Picking):
                settle(request.future, (logits_MV[at, request.tokens] - total_M[at]).tolist())
            at += wanted
        if answers:
            self._draw(answers, logits_MV, best_M, total_M)

    def _draw(self, answers: Places, logits_MV: Tensor, best_M: Tensor, total_M: Tensor) -> None:
        places = [(one, at + i, i) for one, at, wanted in answers for i in range(wanted)]
        if len(places) < len(logits_MV):
            chosen_M = torch.tensor([place for _, place, _ in places], device=self._device)
            logits_MV, best_M, total_M = (each[chosen_M] for each in (logits_MV, best_M, total_M))
        tells = [(one.sampling, one.drawn + i) for one, _, i in places]
        bent_MV, draw = _bent(places, logits_MV), Draw.of(tells, self._device)
        plain = draw is None and bent_MV is logits_MV
        tokens_M = best_M if plain else sample(bent_MV, draw)
        logprobs_M = logits_MV.gather(-1, tokens_M[:, None])[:, 0] - total_M
        tokens, logprobs = tokens_M.tolist(), logprobs_M.tolist()
        top = max(sampling.top_logprobs for sampling, _ in tells)
        tops = likely(logits_MV - total_M[:, None], top) if top else [()] * len(tokens)
        at = 0
        for one, _, wanted in answers:
            here = slice(at, at + wanted)
            _accept(one, list(zip(tokens[here], logprobs[here], tops[here], strict=True)))
            at += wanted


def _read_out(request: Reading, logits_NV: Tensor, total_N: Tensor) -> None:
    """Log-probabilities of the tokens that follow the places of a piece."""
    following = request.told[request.wanted + 1 : request.wanted + 1 + len(logits_NV)]
    targets_N1 = torch.tensor(following, dtype=torch.long, device=logits_NV.device)[:, None]
    logprobs_N = logits_NV.gather(-1, targets_N1)[:, 0] - total_N
    request.logprobs += logprobs_N.tolist()
    if request.top_logprobs:
        logprobs_NV = logits_NV - total_N[:, None]
        request.top += likely(logprobs_NV, request.top_logprobs)
    request.wanted += len(logits_NV)
    if request.wanted >= len(request.told) - 1:
        heard = {"logprobs": tuple(request.logprobs), "top": tuple(request.top)}
        said = Completion("", token_ids=request.told, prompt_tokens=len(request.told), **heard)
        settle(request.future, said)


def _bent(places: Places, logits_MV: Tensor) -> Tensor:
    """Logits to draw from: without what may not come yet, what came made less likely."""
    bans = [
        (row, end)
        for row, (one, _, i) in enumerate(places)
        if one.drawn + i < one.sampling.min_tokens
        for end in one.model_ends
    ]
    bends = [
        (row, one)
        for row, (one, _, _) in enumerate(places)
        if one.sampling.repetition_penalty != 1 or one.constraint is not None
    ]
    if not bans and not bends:
        return logits_MV
    bent_MV = logits_MV.clone()
    if bans:
        where = torch.tensor(bans, device=bent_MV.device)
        bent_MV[where[:, 0], where[:, 1]] = -torch.inf
    for row, one in bends:
        if one.sampling.repetition_penalty != 1:
            penalise(bent_MV[row], one.ids, one.sampling.repetition_penalty)
        if one.constraint is not None:
            try:
                allowed_V = one.constraint.allowed().to(bent_MV.device)
            except UserError as error:  # its own fault, not the batch's
                settle(one.future, error)
                continue
            bent_MV[row].masked_fill_(~allowed_V, -torch.inf)
    return bent_MV


def _accept(answer: Answer, drawn: list[tuple[int, float, Likely]]) -> None:
    """Take the drawn tokens as far as the guesses were right, and the one after them."""
    guessed = answer.ids[len(answer.ids) - answer.guessed :] if answer.guessed else []
    answer.forget_guesses()
    try:
        for index, (token, logprob, likely_ones) in enumerate(drawn):
            done = answer.add(token, logprob, likely_ones)
            if done is not None:
                settle(answer.future, done)
                return
            if index < len(guessed) and guessed[index] != token:
                return
    except UserError as error:  # of its grammar: its own fault, not the batch's
        settle(answer.future, error)
