"""A Completer over NeMo's `PUT /generate`, ours or the original's.

model = NemoCompleter("http://localhost:1424")
"""

from flywright.ask import AskError, Completion, Sampling
from flywright.records import Conversation
from flywright.serve.http import Http
from flywright.tokenizer.tokenizer import CONTROL_TEXTS


class NemoCompleter:
    """A Completer over NeMo's `PUT /generate`, on which everything is a raw prompt.

    A conversation is written out in the chat format (SPEC 11.1). Content that holds a control text
    is refused, because on this wire it would become a control token.
    """

    end_strings = ("<|endoftext|>", "<extra_id_1>")

    def __init__(self, base_url: str, model: str = "nemo", timeout_seconds: float = 600.0):
        self.http = Http(base_url, timeout_seconds=timeout_seconds)
        self.model = model

    async def close(self) -> None:
        """Close the connections."""
        await self.http.close()

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The continuation without the prompt and without the end of turn."""
        raw = prompt if isinstance(prompt, str) else raw_prompt(prompt)
        body = {
            "sentences": [raw],
            "tokens_to_generate": sampling.max_tokens,
            "greedy": sampling.greedy,
            "temperature": sampling.temperature or 1.0,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": 1.0,
            "end_strings": [*self.end_strings, *sampling.stop],
            "random_seed": sampling.seed % 2**32,  # NeMo seeds numpy with it: 32 bits
        }
        reply = await self.http.call("/generate", body, method="PUT")
        if isinstance(reply, str):  # the original refuses with status 200 and a bare string
            raise AskError(f"{self.http.base_url}: {reply}")
        try:
            text, ids = str(reply["sentences"][0])[len(raw) :], reply["token_ids"][0]
        except (KeyError, IndexError, TypeError):
            raise self.http.misshapen("sentences") from None
        return _cut(text, (*self.end_strings, *sampling.stop), len(ids))

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Not on this wire."""
        raise AskError("NeMo's wire gives no log-probabilities of given texts")


def _cut(text: str, ends: tuple[str, ...], tokens: int) -> Completion:
    places = [text.find(end) for end in ends if end in text]
    if not places:
        return Completion(text, finish="length", completion_tokens=tokens)
    return Completion(text[: min(places)].removesuffix("\n"), completion_tokens=tokens)


def raw_prompt(conversation: Conversation) -> str:
    """The chat format as text, for wires that know only text. Raises AskError on control texts."""
    for message in conversation.messages:
        if any(text in message.content for text in CONTROL_TEXTS):
            raise AskError(
                "a message holds a control text; NeMo's wire cannot carry it as plain text"
            )
    names = {"user": "User", "assistant": "Assistant"}
    turns = [f"<extra_id_1>{names[m.role]}\n{m.content}\n" for m in conversation.turns]
    head = f"<extra_id_0>System\n{conversation.system}\n"
    return head + "".join(turns) + "<extra_id_1>Assistant\n"
