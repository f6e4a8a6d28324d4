"""One answer as it grows: its tokens, where it ends, and its text in parts.

Text is decoded from where it last was certain, a window of some tokens: a character may take
several tokens, and what looks like the beginning of a stop string may go on otherwise.
"""

from collections.abc import Callable, Sequence

from flywright.ask.protocol import Completion, Likely, Sampling
from flywright.generate.grammar import Constraint
from flywright.generate.scheduler import Request
from flywright.tokenizer import Tokenizer, chat

_UNFINISHED = "\ufffd"  # the end of a text that stops within a character

Tell = Callable[[Completion], None]


class Answer(Request):
    """A request whose tokens are drawn.

    `ends` are the tokens that end it: the model's or `sampling.end_ids`, and stop strings that are
    one control piece. `tell` gets the parts of a stream. At most `limit` tokens are drawn.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        ids: Sequence[int],
        sampling: Sampling,
        limit: int,
        tell: Tell | None = None,
    ):
        super().__init__(list(ids), len(ids) - 1)
        own = sampling.end_ids
        self.sampling, self.prompt_tokens, self.limit = sampling, len(ids), limit
        self.constraint: Constraint | None = None
        self.model_ends = tuple(chat.end_ids(tokenizer) if own is None else own)
        stops = [(text, tokenizer.raw_ids(text, continues=True)) for text in sampling.stop]
        single = [(t, ids[0] if len(ids) == 1 else -1) for t, ids in stops]
        self.ends = {*self.model_ends, *(one for _, one in single if one in tokenizer.control_ids)}
        self._stops = [text for text, one in single if one not in tokenizer.control_ids]
        self._hold = max((len(text) for text in self._stops), default=1) - 1
        self._tokenizer, self._tell = tokenizer, tell
        self.logprobs: list[float] = []
        self.top: list[Likely] = []
        self._text = ""  # decoded so far, whole characters
        self._certain = self._read = len(ids)  # a window's begin, and what of it is in the text
        self._cut = -1  # where a stop string begins
        self._told = self._told_tokens = 0

    @property
    def drawn(self) -> int:
        """How many tokens the answer has."""
        return len(self.logprobs)

    def add(self, token: int, logprob: float, likely: Likely) -> Completion | None:
        """One more token; the completion, if it was the last."""
        self.ids.append(token)
        self.wanted += 1
        self.logprobs.append(logprob)
        if self.sampling.top_logprobs:
            self.top.append(likely)
        ended = token in self.ends
        if self.constraint is not None and not ended:
            ended = self.constraint.accept(token)
        if (self._stops or self._tell) and not ended:
            self._grow()
        if ended or self._cut >= 0 or self.drawn >= self.limit:
            return self._complete("stop" if ended or self._cut >= 0 else "length")
        if self._tell:
            self._tell_part()
        return None

    def _grow(self) -> None:
        """Decode what is new, and look for stop strings in it."""
        before = self._tokenizer.decode(self.ids[self._certain : self._read])
        window = self._tokenizer.decode(self.ids[self._certain :])
        if window.endswith(_UNFINISHED) or len(window) <= len(before):
            return
        start = max(0, len(self._text) - self._hold)
        if not self._text and not window.strip():
            return  # the space before the first word is read with it
        self._text += window[len(before) :] if self._text else self._opening(window)
        self._certain, self._read = self._read, len(self.ids)
        if self.drawn >= self.sampling.min_tokens:
            found = [at for stop in self._stops if (at := self._text.find(stop, start)) >= 0]
            self._cut = min(found, default=-1)

    def _opening(self, window: str) -> str:
        """The first words, with as much space before them as the whole answer will have."""
        if self.sampling.end_ids is not None:
            return window
        whole = chat.answer_text(self._tokenizer, self.ids[self.prompt_tokens :])
        return whole[: len(whole) - len(whole.lstrip())] + window.lstrip()

    def _part(self, text: str, finish: str) -> Completion:
        new = slice(self._told_tokens, self.drawn)
        self._told, self._told_tokens = self._told + len(text), self.drawn
        ids, logprobs = tuple(self.ids[self.prompt_tokens :][new]), tuple(self.logprobs[new])
        counts = self.prompt_tokens, len(logprobs)
        return Completion(text, finish, ids, logprobs, *counts, tuple(self.top[new]))

    def _tell_part(self) -> None:
        """Tell what cannot become a stop string, nor the line's end that belongs to the turn's."""
        safe = len(self._text) - self._hold
        text = self._text[self._told : max(safe, self._told)]
        kept = text.rstrip("\n")
        if kept and self._tell:
            self._tell(self._part(kept, ""))

    def _complete(self, finish: str) -> Completion:
        ids = self.ids[self.prompt_tokens :]
        if self.sampling.end_ids is None:
            text = chat.answer_text(self._tokenizer, ids)
        else:
            text = self._tokenizer.decode(ids[:-1] if ids[-1] in self.ends else ids)
        if self._cut >= 0:
            text = self._text[: self._cut]
        if self._tell:
            self._tell(self._part(text[self._told :], finish))
        counts = self.prompt_tokens, self.drawn
        return Completion(text, finish, tuple(ids), tuple(self.logprobs), *counts, tuple(self.top))
