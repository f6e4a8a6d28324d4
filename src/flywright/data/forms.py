"""The forms in which people have records: what a row of each looks like, and what it says.

Sources: HelpSteer2's card, NeMo-Aligner's datasets and scripts (SPEC 5.3, 12.3 to 12.6), and the
keys that public sets use. A reader returns a record's fields, or raises LeftOut with the reason.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any, Literal

from flywright.data import turns
from flywright.data.rows import Row
from flywright.data.turns import LeftOut
from flywright.records import (
    ATTRIBUTES,
    Comparison,
    Conversation,
    Dialogue,
    Document,
    Lineage,
    Message,
    Prompt,
    Rating,
    Record,
    Role,
    record_id,
)

Fields = dict[str, Any]  # of a record, without id and lineage
Fits = Callable[[Row], bool]
SIDES = ("chosen", "rejected")
_PROMPTS = ("prompt", "conversations", "question", "instruction")
_NEMO_ATTRIBUTES = ("quality", "toxicity", "humor", "creativity", *ATTRIBUTES)
_REWARDS = (("chosen_reward", "rejected_reward"), ("score_chosen", "score_rejected"))


@dataclass(frozen=True)
class Form:
    """One way to write records of a kind, by a name that people know; `by` says who answered.

    fits: what every row of a file has to be. read: a row's fields, or those of several records;
    None where rows are our own records. signs: what one of the first rows shows besides.
    rows: how many make one record (`read` gets them under "rows").
    """

    name: str
    kind: type[Record]
    fits: Fits
    read: Callable[[Row], Fields | list[Fields]] | None = None
    by: Literal["model", "human", ""] = ""
    signs: Fits = bool
    rows: int = 1

    def records(self, row: Row, source: str) -> Iterator[Record]:
        """A row's records. Raises LeftOut, or KeyError and its like where something is missing."""
        if self.read is None:
            yield self.kind.model_validate(row)
            return
        found = self.read(row)
        for number, fields in enumerate(found if isinstance(found, list) else [found]):
            if self.kind is Document:
                yield Document(**{"source": source, **fields})
                continue
            if self.kind in (Comparison, Dialogue):
                fields["task"] = self.name
            by = self.by or ("model" if self.kind in (Comparison, Rating) else "")
            fields["lineage"] = Lineage(source=source, answer_by=by)
            fields["id"] = record_id(self.name, number, row)
            yield self.kind(**fields)


def has(*keys: str, **kinds: type | tuple[type, ...]) -> Fits:
    """Whether a row has the keys, and those of `kinds` with a value of that type."""

    def fits(row: Row) -> bool:
        typed = all(isinstance(row.get(name), kind) for name, kind in kinds.items())
        return typed and all(name in row for name in keys)

    return fits


def shows(name: str, pattern: str) -> Fits:
    """Whether the text under `name` begins as the pattern says."""
    return lambda row: isinstance(row.get(name), str) and bool(re.match(pattern, row[name], re.S))


def _said(value: Any, role: Role = "assistant") -> list[Message]:
    if isinstance(value, str):
        return [Message(role=role, content=value)]
    return turns.from_messages([value] if isinstance(value, dict) else value)


def _asked(row: Row) -> list[Message]:
    """The prompt: messages, or a text with its "input", after "system" and "history"."""
    named = [row[name] for name in _PROMPTS if row.get(name)][:1]
    if row.get("input"):
        named = ["\n\n".join([*named, row["input"]])]
    if not named:
        raise LeftOut("no prompt")
    before = [words for both in row.get("history") or () for words in both]
    earlier = Conversation.of(*before).messages if before else ()
    return [*turns.system(row), *earlier, *_said(named[0], "user")]


def _talk(row: Row, said: Sequence[Message]) -> Fields:
    if isinstance(row.get("label"), bool):
        raise ValueError('"label" says which answers are good; unpaired preferences are not read')
    return {"conversation": turns.dialogue(said)}


def _answered(row: Row) -> Fields:
    answer = next(row[name] for name in ("response", "completion", "output") if name in row)
    return _talk(row, [*_asked(row), *_said(answer)])


def _chat(row: Row) -> Fields:
    if row.get("mask", "User") != "User":
        raise ValueError(f'"mask" is {row["mask"]!r}; only the user\'s turns are left untrained')
    listed = row["messages" if "messages" in row else "conversations"]
    return _talk(row, [*turns.system(row), *turns.from_messages(listed)])


def _pair(asked: Sequence[Message], chosen: str, rejected: str, **more: Any) -> Fields:
    if not all(isinstance(answer, str) and answer.strip() for answer in (chosen, rejected)):
        raise LeftOut("an empty answer")
    if chosen == rejected:
        raise LeftOut("equal answers")
    conversation = turns.conversation(asked)
    if not conversation.awaits_answer:
        raise LeftOut("not in turn")
    return {"conversation": conversation, "chosen": chosen, "rejected": rejected, **more}


def _whole(sides: Sequence[list[Message]], **more: Any) -> Fields:
    """A pair of two conversations that differ in their last answer only."""
    if not all(side and side[-1].role == "assistant" for side in sides):
        raise LeftOut("no answer")
    chosen, rejected = sides
    if chosen[:-1] != rejected[:-1]:
        raise LeftOut("two prompts")
    return _pair(chosen[:-1], chosen[-1].content, rejected[-1].content, **more)


def _rewards(row: Row) -> Fields:
    names = next((both for both in _REWARDS if set(both) & set(row)), _REWARDS[0])
    found = [None if row.get(name) is None else float(row[name]) for name in names]
    if not all(value is None or isfinite(value) for value in found):
        raise ValueError(f"{names[0]}, {names[1]}: not finite numbers")
    return dict(zip(_REWARDS[0], found, strict=True))


def _attributes(marks: Mapping[str, Any]) -> Fields:
    """The five; null and -100 are a missing one, a list is several people's and gives its mean."""
    found: Fields = {}
    for name in ATTRIBUTES:
        mark = marks.get(name)
        value = fmean(mark) if isinstance(mark, list) else mark
        found[name] = None if value is None or float(value) == -100 else float(value)
        if not 0 <= (found[name] or 0) <= 4:
            raise ValueError(f"{name} is {mark}, not from 0 to 4")
    if set(found.values()) == {None}:
        raise LeftOut("without any of the five attributes")
    return found


def _rated(row: Row) -> bool:
    return not set(ATTRIBUTES).isdisjoint(row)


def _means(row: Row) -> bool:
    return "prompt" in row and any(isinstance(row.get(name), list) for name in ATTRIBUTES)


def _helpsteer(row: Row) -> Fields:
    said = [*turns.from_marks(row["prompt"]), *_said(row["response"])]
    return {"conversation": turns.conversation(said), **_attributes(row)}


def _strength(row: Row) -> Fields:
    strength = float(row["preference_strength"])
    if strength == 0:
        raise LeftOut("without a preference")
    answers = (row["response_1"], row["response_2"])[:: 1 if strength < 0 else -1]
    asked = turns.from_marks(row["prompt"])
    return _pair(asked, *answers, judge="person", strength=abs(strength))


def _strings(row: Row) -> Fields:
    answers = (turns.answer(row[f"{side}_response"]) for side in SIDES)
    return _pair(turns.from_marks(row["prompt"]), *answers, **_rewards(row))


def _choice(row: Row) -> Fields:
    """Answers to a prompt, or whole conversations that begin with it."""
    sides = [_said(row[side] if side in row else row[f"{side}_response"]) for side in SIDES]
    if all(side and side[0].role == "assistant" for side in sides):
        sides = [[*_asked(row), *side] for side in sides]
    return _whole(sides, **_rewards(row))


def _transcripts(row: Row) -> Fields:
    return _whole([turns.from_text(row[side]) for side in SIDES], judge="person")


def _ranked(row: Row) -> Fields:
    return _whole([turns.from_text(each["text"]) for each in row["rows"]])


def _regression(row: Row) -> Fields:
    names = {5: ATTRIBUTES, 9: _NEMO_ATTRIBUTES}.get(len(row["label"]))
    if names is None:
        raise ValueError(f"a label of {len(row['label'])} values, neither five nor nine")
    found = _attributes(dict(zip(names, row["label"], strict=True)))
    return {"conversation": turns.dialogue(turns.from_text(row["text"])), **found}


def _labelled(row: Row) -> list[Fields]:
    """Every labelled answer is a rating; a user's text may hold several turns (SPEC 5.3)."""
    said, found = turns.system(row), []
    for turn in row["conversations"]:
        (message,) = turns.from_messages([turn])
        said += turns.from_marks(message.content) if message.role == "user" else [message]
        parts = [part for part in (turn.get("label") or "").split(",") if part]
        marks = dict(part.strip().split(":") for part in parts)
        if message.role == "assistant" and _rated(marks):
            found.append({"conversation": turns.conversation(said), **_attributes(marks)})
    if not found:
        raise LeftOut("without a label of the five attributes")
    return found


def _labels(row: Row) -> bool:
    return _is_chat(row) and any(turn.get("label") for turn in row["conversations"])


def _pandalm(row: Row) -> Fields:
    votes = Counter(row[f"annotator{number}"] for number in (1, 2, 3))
    best, count = votes.most_common(1)[0]
    if best not in (1, 2) or count < 2:
        raise LeftOut("without a majority")
    return _pair(_asked(row), row[f"response{best}"], row[f"response{3 - best}"], judge="person")


def _hhh(row: Row) -> Fields:
    """What a judge was told: the question, which may be a transcript, and the answer."""
    told = r"instruction to evaluate:\n(.*?)\n+###Response to evaluate:\n(.*?)\n+###Score"
    found = [re.findall(told, row[f"{side}_instruction"], re.S)[0] for side in SIDES]
    sides = [[*turns.from_text(f"\n\nHuman: {q}"), *_said(a)] for q, a in found]
    return _whole(sides, judge="person")


def _tree(row: Row) -> Fields:
    """The best-ranked answer to each question, down the tree."""
    node, said = row["prompt"], []
    while node:
        said.append({"role": node["role"], "content": node["text"]})
        node = min(node["replies"], key=lambda reply: reply.get("rank") or 0, default=None)
    return _talk(row, turns.from_messages(said))


def _talked(row: Row) -> Fields:
    text = row["input"].removesuffix("### Assistant:") + f"### Assistant: {row['output']}"
    return _talk(row, turns.from_transcript(text, "### "))


def _alpaca(row: Row) -> Fields:
    asked = re.findall(r"### Instruction:\n(.*?)\n+### Response:", row["prompt"], re.S)[0]
    return _answered({**row, "prompt": asked})


def _document(row: Row) -> Fields:
    own = set(row) <= set(Document.model_fields)  # another's "source" may be an address
    names = ("text", "language", "source")[: 3 if own else 2]
    return {name: row[name] for name in names if name in row}


def _awaits(row: Row) -> bool:
    said = row["conversation"].get("messages") if has(conversation=dict)(row) else None
    return has(role=str)(said[-1]) and said[-1]["role"] == "user" if said else False


def _prompt(row: Row) -> Fields:
    return {"conversation": turns.conversation(_asked(row))}


def _task(row: Row) -> Fields:
    return _answered({"instruction": row["instruction"], **row["instances"][0]})


def _helpsteer_row(row: Row) -> bool:
    return has("response", prompt=str)(row) and _rated(row)


def _template(row: Row) -> bool:
    return shows("text", r"\n\nHuman:|<extra_id_0>|\x00System")(row) and "label" not in row


_is_chat = has(conversations=list)
_TEXT = (str, list)  # or messages
_RESPONSES = ("chosen_response", "rejected_response")

FORMS: tuple[Form, ...] = (  # the first that fits is taken, so the more particular come first
    Form("Comparison records", Comparison, has("conversation", *SIDES)),
    Form("Rating records", Rating, lambda row: "conversation" in row and _rated(row)),
    Form("Prompt records", Prompt, _awaits),
    Form("Dialogue records", Dialogue, has("conversation")),
    Form("HelpSteer2 preferences", Comparison, has("preference_strength"), _strength),
    Form("HelpSteer2 disagreements (means)", Rating, _means, _helpsteer),
    Form("HelpSteer2 ratings", Rating, _helpsteer_row, _helpsteer),
    Form("NeMo-Aligner pairs (strings)", Comparison, has(*_RESPONSES, prompt=str), _strings),
    Form("NeMo-Aligner pairs (messages)", Comparison, has(*_RESPONSES), _choice),
    Form("NeMo-Aligner labelled texts", Rating, has(text=str, label=list), _regression),
    Form("NeMo-Aligner labelled chat", Rating, _is_chat, _labelled, signs=_labels),
    Form("NeMo-Aligner ranked texts", Comparison, _template, _ranked, rows=2),
    Form("hhh", Comparison, has("chosen_instruction", "rejected_instruction"), _hhh),
    Form("pandalm", Comparison, has("annotator1", "response1", "response2"), _pandalm),
    Form("hh", Comparison, shows("chosen", r"\n\nHuman:"), _transcripts),
    Form("chosen and rejected", Comparison, has(*SIDES), _choice),
    Form("oasst_trees", Dialogue, has(prompt=dict), _tree, "human"),
    Form("oasst_texts", Dialogue, shows("input", "### Human:"), _talked, "human"),
    Form("alpaca", Dialogue, shows("prompt", ".*?### Instruction:"), _alpaca, "human"),
    Form("self_instruct", Dialogue, has(instances=list), _task, "human"),
    Form("NeMo SFT chat", Dialogue, has("mask", conversations=list), _chat),
    Form("ShareGPT", Dialogue, _is_chat, _chat),
    Form("messages", Dialogue, has(messages=list), _chat),
    Form("instructions and outputs", Dialogue, has("instruction", "output"), _answered),
    Form("NeMo inputs and outputs", Dialogue, has("input", "output"), _answered),
    Form("prompts and responses", Dialogue, has("response", prompt=_TEXT), _answered),
    Form("prompts and completions", Dialogue, has("completion", prompt=_TEXT), _answered),
    Form("prompts", Prompt, has(prompt=_TEXT), _prompt, "human"),
    Form("texts", Document, has(text=str), _document),
)
