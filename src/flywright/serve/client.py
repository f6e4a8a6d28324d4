"""Asking an OpenAI-compatible server: a Completer, and a Scorer over the hosted reward format.

    model = HttpCompleter("http://localhost:8000", model="my-model")
    answer = await model.complete(Conversation.of("Hello"), Sampling(max_tokens=32))

Every failure is an AskError that says whether asking again may help, with the server's Retry-After;
the retries themselves are the caller's (ask has limits for that).
"""

import asyncio
import itertools
import re
from typing import Any

from jinja2 import Template

from flywright.ask import AskError, Completion, Load, Refused, Sampling
from flywright.files import digest
from flywright.records import ATTRIBUTES, Conversation
from flywright.serve.http import Http
from flywright.tokenizer.export import CHAT_TEMPLATE
from flywright.tokenizer.sentence_pieces import CONTROL_TEXTS

NEMO_ENDS = ("<|endoftext|>", "<extra_id_1>", "\x11")  # the client's stop list (SPEC 11.1)
MOST_TOKENS = 10_000_000  # that a server is believed to have read or written for one call
TOKEN_BYTES = 4  # of text, about
_GAUGE = re.compile(r"^vllm:(\w+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


def _fields(sampling: Sampling) -> dict[str, Any]:
    """Of OpenAI's own fields all but stop; of others those that are set."""
    own = ("max_tokens", "temperature", "top_p", "seed")
    fields = {k: v for k, v in vars(sampling).items() if k in own or v != getattr(Sampling, k)}
    for name in ("end_ids", "top_logprobs", "grammar"):
        if name in fields:
            raise AskError(f"{name} cannot be asked of a server")
    return {k: list(v) if k == "stop" else v for k, v in fields.items()}


def _count(usage: Any, name: str, text: str) -> int:
    """Tokens as the server counts them; by the letters, where it does not or cannot be right."""
    told = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(told, int) and 0 <= told < MOST_TOKENS:
        return told
    return -(-len(text.encode()) // TOKEN_BYTES)


def _messages(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in conversation.messages]


class HttpCompleter:
    """A Completer over an OpenAI-compatible server (ours, vLLM, a hosted one).

    `model` is the name on the wire, by default the first that the server lists. `tag` marks the
    endpoint's settings in ledgers: the name there is `model@tag`.
    """

    def __init__(
        self,
        base_url: str,
        model: str = "",
        api_key: str = "",
        timeout_seconds: float = 600.0,
        tag: str = "",
    ):
        self.http = Http(base_url, api_key, timeout_seconds)
        try:
            self.wire_model = model or str(self.http.get("/v1/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise self.http.misshapen("model in /v1/models; name one") from None
        self.model = f"{self.wire_model}@{tag}" if tag else self.wire_model

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """A chat answer to a conversation, a text completion of a raw prompt."""
        body = {"model": self.wire_model, **_fields(sampling)}
        if isinstance(prompt, str):
            reply = await self.http.call("/v1/completions", {**body, "prompt": prompt})
            return self._completion(reply, prompt)
        body["messages"] = _messages(prompt)
        reply = await self.http.call("/v1/chat/completions", body)
        return self._completion(reply, "".join(message.content for message in prompt.messages))

    async def load(self) -> Load | None:
        """What a vLLM server tells of its load; None where there is no telling."""
        page = await self.http.text("/metrics")
        found = dict(_GAUGE.findall(page or ""))
        cache = found.get("kv_cache_usage_perc", found.get("gpu_cache_usage_perc", 0))
        waiting = found.get("num_requests_waiting")
        return None if waiting is None else Load(float(waiting), float(cache))

    def _completion(self, reply: Any, asked: str) -> Completion:
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            usage = reply.get("usage")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self.http.misshapen("choices") from None
        if choice.get("finish_reason") == "content_filter":
            raise Refused(f"{self.http.base_url}: the answer was filtered")
        if not isinstance(text, str):
            raise self.http.misshapen("text")
        return Completion(
            text,
            finish="length" if choice.get("finish_reason") == "length" else "stop",
            prompt_tokens=_count(usage, "prompt_tokens", asked),
            completion_tokens=_count(usage, "completion_tokens", text),
        )

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """By echo, for servers that have it (vLLM and ours)."""
        asks = [self._echoed(context, continuation) for continuation in continuations]
        return list(await asyncio.gather(*asks))

    async def _echoed(self, context: str, continuation: str) -> float:
        body = {"model": self.wire_model, "prompt": context + continuation, "temperature": 0}
        asked = {**body, "max_tokens": 0, "echo": True, "logprobs": 0}
        reply = await self.http.call("/v1/completions", asked)
        try:
            report = reply["choices"][0]["logprobs"]
            rows = zip(report["text_offset"], report["token_logprobs"], strict=True)
            return sum(value for start, value in rows if start >= len(context))
        except (KeyError, IndexError, TypeError, ValueError):
            raise self.http.misshapen("echoed log-probabilities") from None


class NemoCompleter:
    """A Completer over a NeMo server's PUT /generate (SPEC 11.2), in Nemotron's chat format.

    `model` names it in ledgers. The server tells of its own tokens how many there are.
    """

    def __init__(
        self, base_url: str, model: str, api_key: str = "", timeout_seconds: float = 600.0
    ):
        self.http = Http(base_url.rstrip("/").removesuffix("/generate"), api_key, timeout_seconds)
        self.model = model
        self._chat = Template(CHAT_TEMPLATE)

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The continuation of the raw prompt, or of the conversation as Nemotron reads it."""
        fields = _fields(sampling)
        text = prompt if isinstance(prompt, str) else self._rendered(prompt)
        body: dict[str, Any] = {
            "sentences": [text],
            "tokens_to_generate": sampling.max_tokens,
            "greedy": sampling.greedy,
            "temperature": sampling.temperature or 1.0,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "random_seed": sampling.seed % 2**31,
            "min_tokens_to_generate": max(1, sampling.min_tokens),
            "repetition_penalty": sampling.repetition_penalty,
            "add_BOS": False,
            "end_strings": [*NEMO_ENDS, *fields.get("stop", ())],
        }
        reply = await self.http.call("/generate", body, "PUT")
        if isinstance(reply, str):  # NeMo's complaint, with status 200
            raise AskError(f"{self.http.base_url}: {reply}")
        try:
            said, count = reply["sentences"][0][len(text) :], len(reply["tokens"][0])
        except (KeyError, IndexError, TypeError):
            raise self.http.misshapen("sentences") from None
        ends = [end for end in body["end_strings"] if end in said]
        said = said[: min((said.index(end) for end in ends), default=len(said))]
        told = {"finish": "stop" if ends else "length", "completion_tokens": count}
        return Completion(said.removesuffix("\n"), **told)

    def _rendered(self, talk: Conversation) -> str:
        """The talk as one text, in which nothing that was said can become a control token."""
        said = _messages(talk)
        for message, control in itertools.product(said, CONTROL_TEXTS):
            message["content"] = message["content"].replace(control, f"< {control[1:]}")
        return self._chat.render(messages=said, add_generation_prompt=True)

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Raises AskError: the wire has no log-probabilities of given texts."""
        raise AskError(f"{self.model}: /generate gives no likelihoods")


class HttpScorer:
    """A Scorer over the hosted reward format: chat.completions with attributes in logprobs."""

    def __init__(self, base_url: str, model: str = "", api_key: str = ""):
        self.http = Http(base_url, api_key)
        self.wire_model = model
        self.model = model or f"reward-{digest(self.http.base_url, length=8)}"

    async def score(self, conversation: Conversation) -> dict[str, float]:
        """The five attributes of the last answer."""
        named = {"model": self.wire_model} if self.wire_model else {}
        body = {"messages": _messages(conversation), **named}
        reply = await self.http.call("/v1/chat/completions", body)
        try:
            rows = reply["choices"][0]["logprobs"]["content"]
            found = {row["token"]: float(row["logprob"]) for row in rows}
            return {name: found[name] for name in ATTRIBUTES}
        except (KeyError, IndexError, TypeError, ValueError):
            raise self.http.misshapen("reward attributes in logprobs.content") from None
