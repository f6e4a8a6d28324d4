"""A Reader that decodes a tiny model naively: every token from the whole text, in fp32, by itself.

What the wires promise is tested against it; it keeps the protocol of ask with real
log-probabilities, real end tokens and real stop strings, and knows nothing of batches or caches.
"""

import asyncio
import random

import torch

from flywright.ask import Completion, TooLong
from flywright.errors import UserError
from flywright.tokenizer import chat


class NaiveReader:
    """Over a Decoder and its tokenizer. `running` and `cancelled` count streams."""

    def __init__(self, model, tokenizer, seconds_a_token=0.0):
        self.model = "naive"
        self.weights = model
        self.tokenizer = tokenizer
        self.context_tokens = model.spec.context_length
        self.seconds_a_token = seconds_a_token
        self.asked = []
        self.running = self.cancelled = 0

    @torch.inference_mode()
    def logprobs_after(self, ids):
        """Log-probabilities [T, V] of what follows each of `ids`."""
        logits = self.weights(torch.tensor([ids]))[0, :, : self.tokenizer.vocab_size]
        return logits.float().log_softmax(-1)

    def ids_of(self, prompt):
        if isinstance(prompt, str):
            return chat.raw_ids(self.tokenizer, prompt)
        return (
            list(prompt) if isinstance(prompt, tuple) else chat.prompt_ids(self.tokenizer, prompt)
        )

    async def complete(self, prompt, sampling):
        parts = [part async for part in self.stream(prompt, sampling)]
        return Completion(
            "".join(part.text for part in parts),
            parts[-1].finish,
            sum((part.token_ids for part in parts), ()),
            sum((part.logprobs for part in parts), ()),
            parts[0].prompt_tokens,
            sum(part.completion_tokens for part in parts),
            sum((part.top for part in parts), ()),
        )

    async def stream(self, prompt, sampling):
        before = self.ids_of(prompt)
        if len(before) + sampling.max_tokens > self.context_tokens:
            raise TooLong("no room")
        if sampling.grammar:
            kind, _, text = sampling.grammar.partition(":")
            if kind == "regex" and text.count("(") != text.count(")"):
                raise UserError("regex: unbalanced parenthesis")
        self.asked.append((prompt, sampling))
        self.running += 1
        try:
            async for part in self._parts(before, sampling):
                yield part
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _parts(self, before, sampling):
        tokenizer, drawn, said, finish = self.tokenizer, [], 0, ""
        controls = {tokenizer.piece(i): i for i in tokenizer.control_ids}
        ends = chat.end_ids(tokenizer) if sampling.end_ids is None else sampling.end_ids
        ends = {*ends, *(controls[text] for text in sampling.stop if text in controls)}
        stops = [text for text in sampling.stop if text not in controls]
        while not finish:
            await asyncio.sleep(self.seconds_a_token)
            after = self.logprobs_after([*before, *drawn])[-1]
            token = self._draw(after, sampling, [*before, *drawn], ends, len(drawn))
            drawn.append(token)
            text, count = tokenizer.decode(drawn), len(drawn)
            cuts = [text.find(stop) for stop in stops if stop in text]
            if token in ends or (cuts and count >= sampling.min_tokens):
                finish = "stop"
                text = text[: min(cuts)] if cuts else text
            elif count == sampling.max_tokens:
                finish = "length"
            held = 0 if finish else self._held(text, stops)
            text = text[: len(text) - held]
            if finish == "stop" and token in ends:
                text = text.removesuffix("\n")
            best = after.topk(sampling.top_logprobs)
            top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            new, said = text[said:], max(said, len(text))
            yield Completion(
                new, finish, (token,), (float(after[token]),), len(before), 1,
                (top,) if sampling.top_logprobs else (),
            )  # fmt: skip

    @staticmethod
    def _held(text, stops):
        """Characters at the end that may become a stop, an end's newline, half a character."""
        lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max([*lengths, text.endswith("\n"), len(text) - len(text.rstrip("\ufffd"))])

    def _draw(self, after, sampling, context, ends, count):
        scores = after.clone()
        used = list(set(context))
        if sampling.repetition_penalty != 1:
            penalised = scores[used]
            factor = torch.where(
                penalised > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty
            )
            scores[used] = penalised * factor
        if count < sampling.min_tokens:
            scores[list(ends)] = float("-inf")
        if sampling.temperature == 0:
            return int(scores.argmax())
        weights = (scores / sampling.temperature).softmax(-1)
        weights = weights.where(weights >= sampling.min_p * weights.max(), 0.0).tolist()
        chance = random.Random(f"{sampling.seed} {count}")
        return chance.choices(range(len(weights)), weights)[0]

    async def read(self, ids, top=0):
        ids = list(ids)
        if len(ids) > self.context_tokens:
            raise TooLong("no room")
        after = self.logprobs_after(ids)[:-1]
        values = after.gather(-1, torch.tensor(ids[1:], dtype=torch.long)[:, None])[:, 0].tolist()
        best = after.topk(top)
        likely = [
            tuple(zip(i, p, strict=True))
            for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return Completion(
            "", "stop", tuple(ids), tuple(values), len(ids), 0, tuple(likely) if top else ()
        )

    async def logprobs(self, context, continuations):
        before = self.ids_of(context)
        found = []
        for text in continuations:
            after = chat.raw_ids(self.tokenizer, text, True)
            found.append(sum((await self.read([*before, *after])).logprobs[len(before) - 1 :]))
        return found
