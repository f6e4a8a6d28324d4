"""The engine: a Completer over a model in this process, with continuous batching.

    engine = Engine("runs/x/policy")
    for completion in engine.generate(["Once upon a time"], max_new_tokens=20): ...
    answer = await engine.complete(conversation, Sampling(max_tokens=64))

A step admits waiting requests into free slots, computes their prompts, then gives every running row
one token. Requests join and leave between steps; many awaits at once become one batch.

Shapes: B rows, T tokens, D hidden, V vocabulary.
"""

import asyncio
import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from flywright.ask.protocol import AskError, Completion, Sampling, TooLong
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.generate.cache import ROWS, KVCache, pad_rows, round_up
from flywright.generate.sampler import sample
from flywright.generate.scheduler import Request, Rows, Scheduler
from flywright.generate.score import batches, continuation_logprobs, pad_right
from flywright.generate.worker import Gathering, Worker, settle
from flywright.model import Decoder, load_decoder
from flywright.progress import Tick, silent
from flywright.records import Conversation
from flywright.tokenizer import Tokenizer, chat

Prompt = Conversation | str


class Engine:
    """Completes conversations and raw texts; `model` names it for ledgers and lineage.

    Give a model and its tokenizer, or a weights folder. At most `max_batch` requests run at a time,
    fewer where `cache_bytes` do not hold that many contexts; where they do not hold a few whole
    ones, the context is shorter: `context_tokens` says how long it is. `dtype` decodes in another
    precision than the model's own, on a copy; where the same answers are promised, that is float32.

    A completion's `logprobs` are the model's own: natural log-softmax in fp32 of the untempered,
    uncut logits at each generated token, the end token included. An answer does not depend on
    what else is running; greedily it is that of recomputing the whole text for every token, except
    where two tokens are closer than rounding (HOUSE law 3).
    """

    def __init__(
        self,
        model: Decoder | Path | str,
        tokenizer: Tokenizer | None = None,
        max_batch: int = 64,
        model_name: str = "",
        dtype: torch.dtype | None = None,
        cache_bytes: int = 1 << 31,
    ):
        if isinstance(model, str | Path):
            model_name, folder = model_name or str(model), model
            model, tokenizer = load_decoder(folder), tokenizer or Tokenizer.load(folder)
        if tokenizer is None:
            raise UserError("Engine: a model without a folder needs its tokenizer")
        if dtype not in (None, model.lm_head.weight.dtype):
            model = copy.deepcopy(model).to(dtype)
        weight = model.lm_head.weight
        if tokenizer.vocab_size > len(weight):
            raise UserError(f"tokenizer has {tokenizer.vocab_size} pieces, model {len(weight)}")
        self.model = model_name
        self.tokenizer = tokenizer
        self._weights = model
        # a vocabulary padded beyond the tokenizer's pieces is never drawn from (SPEC 11.3)
        self._head_VD = weight[: tokenizer.vocab_size]
        self._cache = KVCache(model.spec, max_batch, weight.dtype, weight.device, cache_bytes)
        self.context_tokens = self._cache.context_length
        self._rows = Rows.empty(self._cache.slots, self.context_tokens, weight.device)
        self._ends = torch.tensor(chat.end_ids(tokenizer), device=weight.device)
        self._scheduler = Scheduler(min(max_batch, self._cache.slots))
        self._worker = Worker(lambda: self._scheduler.busy, self._step)
        self._scoring = Gathering(self._continuations)

    # asking

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The answer to a conversation, or the continuation of a raw prompt.

        Raises TooLong where the prompt leaves no room in the context. An answer that reaches the
        context's end finishes as "length". Cancelling the await takes the request back.
        """
        request = self._request(prompt, sampling)
        self._scheduler.waiting.append(request)
        return await self._worker.wait(request.future)

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Sum of natural log-probabilities of each continuation after the raw context.

        Context and continuation are encoded apart, as when the model goes on from a prompt; an
        empty context is the start of a document. Raises AskError where the two do not fit.
        """
        before = self._raw_ids(context)
        pairs = [(before, chat.raw_ids(self.tokenizer, text, True)) for text in continuations]
        for _, after in pairs:
            self._fits(len(before) + len(after), self.context_tokens)
        return await asyncio.gather(*(self._scoring.ask(pair) for pair in pairs))

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
    ) -> list[Completion]:
        """Completions of many prompts, in order; prompt i is drawn with a seed of (seed, i)."""
        drawn = Sampling(max_new_tokens, temperature, top_p, top_k, stop=tuple(stop))
        requests = [
            self._request(prompt, drawn.with_seed(seed_from(seed, index)))
            for index, prompt in enumerate(prompts)
        ]
        self._scheduler.waiting.extend(requests)
        self._worker.wake()
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

    def _raw_ids(self, text: str) -> list[int]:
        # documents end with eos, so it is what stands before the first word of a text
        return chat.raw_ids(self.tokenizer, text) or [self.tokenizer.eos_id]

    def _fits(self, count: int, room: int) -> None:
        if count > room:
            raise TooLong(f"the prompt is {count} tokens, the model has room for {room}")

    def _request(self, prompt: Prompt, sampling: Sampling) -> Request:
        if isinstance(prompt, str):
            ids = self._raw_ids(prompt)
        else:
            ids = chat.prompt_ids(self.tokenizer, prompt)
        self._fits(len(ids), self.context_tokens - 1)
        if sampling.max_tokens < 1:
            raise AskError(f"max_tokens is {sampling.max_tokens}, expected at least 1")
        return Request(ids, sampling, min(sampling.max_tokens, self.context_tokens - len(ids)))

    # computing, in the worker's thread

    def _step(self) -> None:
        admitted: list[Request] = []
        try:
            with torch.inference_mode():
                for slot in reversed(self._scheduler.cancelled()):
                    self._leave(slot)
                admitted = self._scheduler.admit()
                self._prefill(admitted)
                self._decode()
        except Exception as error:  # it belongs to those who wait; the next step starts afresh
            for request in (*admitted, *self._scheduler.drain()):
                settle(request.future, error)

    def _continuations(self, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
        return continuation_logprobs(self._weights, pairs)

    def _prefill(self, admitted: list[Request]) -> None:
        """Compute prompts into the cache and draw each one's first token."""
        for group in batches([len(one.ids) for one in admitted], self._scheduler.max_batch):
            requests = [admitted[i] for i in group]
            first = len(self._scheduler.running)
            self._scheduler.running.extend(requests)
            self._rows.enter(first, requests)
            prompts = [one.ids for one in requests]
            ids_BT = pad_right(prompts, self.context_tokens, self._ends.device)
            hidden_BTD = self._weights.hidden(ids_BT, attend=self._cache.prefill(first))
            here = slice(first, first + len(requests))
            last_B = self._rows.length[here] - 1
            rows_B = torch.arange(len(requests), device=last_B.device)
            self._draw(here, hidden_BTD[rows_B, last_B])

    def _decode(self) -> None:
        """One token for every running row."""
        count = len(self._scheduler.running)
        if not count:
            return
        padded = slice(0, round_up(count, ROWS))
        lengths_B = self._rows.length[padded]
        hidden_BTD = self._weights.hidden(
            self._rows.token[padded, None], lengths_B[:, None], self._cache.decode(lengths_B)
        )
        self._rows.length[:count] += 1
        self._draw(slice(0, count), hidden_BTD[:, 0])

    def _draw(self, here: slice, hidden_BD: Tensor) -> None:
        """Draw the next token of slots `here`; let those that are done leave."""
        logits_BV = F.linear(pad_rows(hidden_BD), self._head_VD)
        rows = here.stop - here.start
        tokens_B, logprobs_B = sample(logits_BV[:rows], self._rows.draw(here))
        self._rows.add(here.start, tokens_B, logprobs_B)
        ended_B = torch.isin(tokens_B, self._ends)
        full_B = self._rows.index[here] >= self._rows.limit[here]
        done = set((ended_B | full_B).nonzero()[:, 0].tolist())
        ended = set(ended_B.nonzero()[:, 0].tolist()) if done else set()
        for row in reversed(range(rows)):
            slot = here.start + row
            if row in done:
                self._finish(slot, ended=row in ended)
            elif self._scheduler.running[slot].sampling.stop and self._stopped(slot):
                self._finish(slot, ended=True)

    def _answer(self, slot: int) -> list[int]:
        return self._rows.answer[slot, : int(self._rows.index[slot])].tolist()

    def _stopped(self, slot: int) -> bool:
        text = self.tokenizer.decode(self._answer(slot))
        return any(stop in text for stop in self._scheduler.running[slot].sampling.stop)

    def _finish(self, slot: int, ended: bool) -> None:
        """Hand over a row's completion and free its slot."""
        request, ids = self._scheduler.running[slot], self._answer(slot)
        text = chat.answer_text(self.tokenizer, ids)
        cuts = [text.find(stop) for stop in request.sampling.stop if stop in text]
        completion = Completion(
            text=text[: min(cuts)] if cuts else text,
            finish="stop" if ended or cuts else "length",
            token_ids=tuple(ids),
            logprobs=tuple(self._rows.logprob[slot, : len(ids)].tolist()),
            prompt_tokens=len(request.ids),
            completion_tokens=len(ids),
        )
        self._leave(slot)
        settle(request.future, completion)

    def _leave(self, slot: int) -> None:
        """Free a slot; the last running row moves into it."""
        last = self._scheduler.leave(slot)
        if last != slot:
            self._cache.move(last, slot, int(self._rows.length[last]))
            self._rows.move(last, slot)
        self._rows.free(last)
