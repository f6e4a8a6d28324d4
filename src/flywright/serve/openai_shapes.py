"""The shapes of OpenAI's answers: choices, usage, log-probabilities, events of a stream.

Text completions report log-probabilities as parallel lists over the choice's text, chats as a list
of tokens. Lists of the most likely tokens always hold the drawn one too.
"""

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from flywright.ask import Completion
from flywright.ask.protocol import Likely
from flywright.serve.spelling import Speller

Choice = dict[str, Any]
DONE = b"data: [DONE]\n\n"


def choice(index: int, said: str, chat: bool, finish: str, logprobs: Any = None) -> Choice:
    """One answer as OpenAI's wire has it: a message in a chat, else a text."""
    body = {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
    return {"index": index, **body, "logprobs": logprobs, "finish_reason": finish}


def usage(read: int, written: int) -> dict[str, int]:
    """Tokens that were read and written."""
    counts = {"prompt_tokens": read, "completion_tokens": written}
    return {**counts, "total_tokens": read + written}


def reply(prefix: str, model: str, choices: list[Choice], read: int, written: int) -> Choice:
    """A whole answer of OpenAI's wire, with the tokens that were read and written."""
    chat = "message" in choices[0]
    kind = "chat.completion" if chat else "text_completion"
    return {**_head(prefix, kind, model), "choices": choices, "usage": usage(read, written)}


def _head(prefix: str, kind: str, model: str) -> Choice:
    name = f"{prefix}-{uuid.uuid4().hex}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


class Chunks:
    """Makes the events of one stream, which all have its id."""

    def __init__(self, chat: bool, model: str, with_usage: bool):
        prefix, kind = (
            ("chatcmpl", "chat.completion.chunk") if chat else ("cmpl", "text_completion")
        )
        self._chat = chat
        self._head = _head(prefix, kind, model)
        self._rest = {"usage": None} if with_usage else {}

    def first(self, index: int) -> bytes:
        """An answer begins (chats only: it says who speaks)."""
        return self._event(index, {"role": "assistant", "content": ""}, None, None)

    def part(self, index: int, text: str, logprobs: Any, finish: str) -> bytes:
        """An answer goes on, or ends."""
        said = {"content": text} if self._chat else text
        return self._event(index, said, logprobs, finish or None)

    def _event(self, index: int, said: Any, logprobs: Any, finish: str | None) -> bytes:
        body = {"index": index, "delta" if self._chat else "text": said, "logprobs": logprobs}
        one = {**body, "finish_reason": finish}
        return event({**self._head, "choices": [one], **self._rest})

    def usage(self, read: int, written: int) -> bytes:
        """The event that tells of tokens."""
        return event({**self._head, "choices": [], "usage": usage(read, written)})


def event(value: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chat_logprobs(speller: Speller, one: Completion, top: int) -> dict[str, Any]:
    """Of a chat's answer: a list of tokens, each with the `top` most likely in its place."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        raw = speller.bytes_of(token)
        return {"token": speller.text(token), "logprob": logprob, "bytes": raw}

    rows = zip(one.token_ids, one.logprobs, one.top or ((),) * len(one.token_ids), strict=False)
    content = [
        {**told(token, logprob), "top_logprobs": [told(*each) for each in likely[:top]]}
        for token, logprob, likely in rows
    ]
    return {"content": content}


def text_logprobs(
    speller: Speller,
    tokens: Sequence[int],
    logprobs: Sequence[float | None],
    likely: Iterable[Likely | None],
    top: int,
    first: int = 0,
) -> dict[str, Any]:
    """Of a text: lists over its tokens, which start `first` characters into it."""
    best = [
        None if logprob is None else _named(speller, token, logprob, (each or ())[:top])
        for token, logprob, each in zip(tokens, logprobs, likely, strict=False)
    ]
    return {
        "tokens": [speller.text(token) for token in tokens],
        "token_logprobs": list(logprobs),
        "top_logprobs": best if top else None,
        "text_offset": speller.starts(list(tokens), first),
    }


def _named(speller: Speller, token: int, logprob: float, likely: Likely) -> dict[str, float]:
    """By text; of tokens with one text, the likelier."""
    named: dict[str, float] = {}
    for each, value in (*likely, (token, logprob)):
        named.setdefault(speller.text(each), value)
    return named
