"""vLLM as the engine, for GPUs: `flywright serve MODEL --engine vllm`; the wires stay the same.

vLLM draws tokens; what they mean, where an answer ends and what its parts are is this room's. It
has samples of its own: a seed gives other ones than the embedded engine.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flywright.ask.protocol import AskError, Completion, Likely, Sampling
from flywright.errors import UserError
from flywright.generate.answer import Answer
from flywright.generate.asking import Asking, Prompt
from flywright.tokenizer import Tokenizer

_GRAMMARS = {"json": "json", "regex": "regex", "lark": "grammar"}


class VllmEngine(Asking):
    """A Reader over vLLM in this process. `options` are vLLM's engine arguments.

    Raises UserError where vLLM is missing or does not open the folder.
    """

    def __init__(self, folder: Path, model_name: str = "", **options: Any):
        try:
            import vllm  # type: ignore[import-not-found]
            from vllm.v1.engine.async_llm import AsyncLLM  # type: ignore[import-not-found]
        except ImportError:
            raise UserError("--engine vllm needs vLLM: pip install 'flywright[vllm]'") from None
        arguments = vllm.AsyncEngineArgs(str(folder), **options)
        try:
            self._llm = AsyncLLM.from_engine_args(arguments)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{folder}: vLLM: {str(error).splitlines()[0]}") from None
        self._vllm = vllm
        found = getattr(getattr(vllm, "exceptions", None), "VLLMClientError", ValueError)
        self._refusals = (ValueError, found)  # of a grammar, of so many log-probabilities
        tokenizer = Tokenizer.load(folder)
        super().__init__(tokenizer, model_name, self._llm.model_config.max_model_len)

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The answer, as Engine.complete has it."""
        return await self._drawn(self._answer(prompt, sampling))

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Completion]:
        """The answer in parts (ask.Reader); leaving the iterator takes the request back."""
        parts: asyncio.Queue[Completion] = asyncio.Queue()
        drawing = asyncio.ensure_future(
            self._drawn(self._answer(prompt, sampling, parts.put_nowait))
        )
        try:
            while not (drawing.done() and parts.empty()):
                heard = asyncio.ensure_future(parts.get())
                await asyncio.wait((heard, drawing), return_when=asyncio.FIRST_COMPLETED)
                if heard.done():
                    yield heard.result()
                else:
                    heard.cancel()
            await drawing
        finally:
            drawing.cancel()

    async def _drawn(self, answer: Answer) -> Completion:
        """Draw until the answer says that it is complete."""
        how, name = answer.sampling, uuid.uuid4().hex
        kind, _, source = how.grammar.partition(":")
        sampling = self._vllm.SamplingParams(
            max_tokens=answer.limit, min_tokens=min(how.min_tokens, answer.limit),
            temperature=how.temperature, top_p=how.top_p or 1e-6, top_k=how.top_k, min_p=how.min_p,
            repetition_penalty=how.repetition_penalty, seed=how.seed % 2**63,
            stop_token_ids=sorted(answer.ends), ignore_eos=True, detokenize=False,
            logprobs=how.top_logprobs,
            structured_outputs=self._grammar(kind, source) if kind else None,
            output_kind=self._vllm.sampling_params.RequestOutputKind.DELTA,
        )  # fmt: skip
        prompt = {"prompt_token_ids": answer.ids[: answer.prompt_tokens]}
        async for output in self._generated(prompt, sampling, name):
            new = output.outputs[0]
            for token, row in zip(new.token_ids, new.logprobs or (), strict=True):
                done = answer.add(token, row[token].logprob, _likely(row, how.top_logprobs))
                if done is not None:
                    return done  # leaving the loop takes the request back
        raise AskError("vLLM ended an answer before its end", retryable=True)

    async def _generated(self, *asked: Any) -> AsyncIterator[Any]:
        try:
            async for output in self._llm.generate(*asked):
                yield output
        except self._refusals as error:
            raise UserError(f"vLLM: {' '.join(str(error).split())[:300]}") from None

    def _grammar(self, kind: str, source: str) -> Any:
        if kind not in _GRAMMARS or not source:
            raise UserError("grammar: expected json:SCHEMA, regex:PATTERN or lark:GRAMMAR")
        return self._vllm.sampling_params.StructuredOutputsParams(**{_GRAMMARS[kind]: source})

    async def _read(self, ids: Sequence[int], wanted: int, top: int) -> Completion:
        sampling = self._vllm.SamplingParams(
            max_tokens=1, prompt_logprobs=top, detokenize=False, ignore_eos=True
        )
        rows: Sequence[Any] = ()
        prompt = {"prompt_token_ids": list(ids)}
        async for output in self._generated(prompt, sampling, uuid.uuid4().hex):
            rows = output.prompt_logprobs or rows
        told = list(zip(ids, rows, strict=True))[wanted + 1 :]
        return Completion(
            "",
            token_ids=tuple(ids),
            logprobs=tuple(row[token].logprob for token, row in told),
            prompt_tokens=len(ids),
            top=tuple(_likely(row, top) for _, row in told) if top else (),
        )


def _likely(row: Mapping[int, Any], count: int) -> Likely:
    best = sorted(row.items(), key=lambda one: -one[1].logprob)[:count]
    return tuple((token, one.logprob) for token, one in best)
