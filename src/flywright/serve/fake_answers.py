"""What the fake endpoint says: answers by hash, in the shape that the prompt asks for.

fake_answers.toml holds the shapes, the words and the habits. The last shape that a prompt names
decides, so that what is asked goes before the texts that it is about: a list of the length asked
for, a verdict or grade as shown, JSON like its example, code that runs and tests
that hold, a transcript, a tool's call. Anything else gets sentences, most of them obedient to the
verifiable instructions among the prompt's words.
"""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flywright.files import seed_from
from flywright.records import ATTRIBUTES
from flywright.settings import read_toml

Tree = dict[str, Any]
_SAID = read_toml(Path(__file__).with_suffix(".toml"))
_SHAPES = [(name, re.compile(said[0]), said[1:]) for name, said in _SAID["shapes"].items()]
_FRAMES: list[Any] = list(_SAID["frames"])
_HABITS = [(re.compile(habit["pattern"]), habit) for habit in _SAID["habits"]]
_RANGE = r"\b(\d{1,2})\b[^.\d]{0,60}?(?:\bto\b|-|–)\s*(\d{1,3})\b"
_END, _START = 1_500, 500  # the characters of a prompt that say what it wants


def fake_answer(text: str, seed: int, context: Any = None, system: str = "") -> str:
    """The answer to a prompt's last text, drawn from a hash of seed, text and all else it hangs on.

    system: an earlier text that may say what shape is wanted, where `text` does not.
    """
    draw = random.Random(seed_from(seed, text, context))
    for part in (text[-_END:], text[:-_END][:_START], system[-_END:]):
        if found := _shape_in(part):
            name, shape = found
            if name in _MADE:
                return _MADE[name](draw, text if part in text else f"{text}\n{part}", shape)
            return phrase(draw, name)
    return _obedient(draw, text)


def _shape_in(part: str) -> tuple[str, str] | None:
    """The last shape that a text names and the words that name it; weak ones where no other is."""
    last = (False, -1, "", "")
    for name, pattern, words in _SHAPES:
        for found in pattern.finditer(part) if any(word in part for word in words) else ():
            last = max(last, (name not in _SAID["weak"], found.start(), name, found[0]))
    return last[2:] if last[2] else None


def phrase(draw: random.Random, kind: str) -> str:
    """One of the frames of that kind, its {words} drawn."""
    frame = draw.choice(_SAID["frames"][kind])
    return re.sub(r"{(\w+)}", lambda slot: draw.choice(_SAID["words"][slot[1]]), frame)


def _sentences(draw: random.Random, count: int) -> str:
    return " ".join(phrase(draw, "sentence") for _ in range(count))


def _obedient(draw: random.Random, text: str) -> str:
    """Sentences, changed by the habits that the prompt's words call for but one time in six."""
    said = _sentences(draw, draw.randint(1, 3))
    disobeys = draw.random() < 1 / 6
    for pattern, habit in () if disobeys else _HABITS:
        if found := pattern.search(text):
            said = _changed(draw, said, habit, found)
    return said


def _changed(draw: random.Random, said: str, habit: Tree, found: re.Match[str]) -> str:
    """What was said with something put around it, in other letters, or so many parts instead."""
    if "case" in habit:
        return getattr(str, habit["case"])(said)
    each = habit.get("each", "")
    made = range(int(found["n"])) if each else ()
    parts = [phrase(draw, each) if each in _FRAMES else each for _ in made]
    around = habit["around"].replace("{parts}", habit.get("join", " ").join(parts))
    for index, group in enumerate(found.groups()):
        around = around.replace(f"{{{index}}}", group)
    return around.replace("{said}", said)


def _count(text: str, usual: int) -> int:
    """How many are asked for: the first number before a word, or the first."""
    found = re.search(r"\b(\d{1,3}) [A-Za-z]", text) or re.search(r"\b(\d{1,3})\b", text)
    return int(found[1]) if found else usual


def _kind(text: str) -> str:
    """What the prompt's first line asks for: topics, problems, requests."""
    first = text.lstrip().partition("\n")[0]
    return next(kind for pattern, kind in _SAID["items"] if re.search(pattern, first))


def _list(draw: random.Random, text: str, _shape: str) -> str:
    """Numbered items, all different."""
    items: dict[str, None] = {}
    kind = _kind(text)
    while len(items) < _count(text, 5):
        items[phrase(draw, kind)] = None
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def _asserts(draw: random.Random, text: str, _shape: str) -> str:
    name = re.search(r"def (\w+)\(", text)
    starts = draw.sample(range(10, 99), min(_count(text, 3), 89))
    call = name[1] if name else "solve"
    return "\n".join(f"assert {call}([{start}, 7])[0] == 7" for start in starts)


def _verdict(draw: random.Random, text: str, shape: str) -> str:
    """`[[A]]`, `[[4]]`, `Verdict: Yes`, `Score: 4` on the last line: one of those shown, the first
    twice as often; a number where numbers are shown."""
    label = shape.strip("\n\"'`* ").partition(":")[0]
    if shape.startswith("[["):
        shown = re.findall(r"\[\[([^\[\]\n]{1,8})\]\]", text)
        shown = [one for one in shown if one.isdigit() == shown[-1].isdigit()]  # others are quoted
    else:
        rests = re.findall(re.escape(label) + r": ?([^\"'`\n]{1,40})", text[-_END:])
        splits = [re.split(r"[|/]|,? or |, ", rest.strip(" .<>[]{}*")) for rest in rests]
        shown = [one for split in splits for one in split]
    given = draw.choice([shown[0], *dict.fromkeys(shown)])
    if re.fullmatch(r"[\d. –-]+|[NX]|\w*(?:number|score|grade|rating)", shown[-1]):
        spread = re.search(r"from " + _RANGE, text) or re.search(_RANGE, text[-_END:])
        low, high = sorted((int(spread[1]), int(spread[2]))) if spread else (1, 5)
        given = str(draw.randint(low, high))
    said = f"[[{given}]]" if shape.startswith("[[") else f"{label}: {given}"
    return f"{phrase(draw, 'reason')}\n{said}"


def _transcript(draw: random.Random, text: str, shape: str) -> str:
    """Turn about, by the names that the prompt uses."""
    user, other = re.findall(r"\w+(?=:)", shape)[-2:]
    turns = re.search(r"\b(\d{1,2}) (?:\w+ )?(?:turns|exchanges|messages|rounds)", text)
    pairs = range(int(turns[1]) if turns else 3)
    said = [f"{user}: {phrase(draw, 'request')}\n{other}: {_sentences(draw, 2)}" for _ in pairs]
    return "\n".join(said)


def _values_in(text: str) -> list[Any]:
    """The objects in a text that are JSON, those of lists too; outermost ones only."""
    found, end = [], 0
    for place in re.finditer(r"[\[{]", text):
        if place.start() >= end:
            try:
                value, end = json.JSONDecoder().raw_decode(text, place.start())
            except ValueError:
                continue
            found += value if isinstance(value, list) else [value]
    return [value for value in found if isinstance(value, dict) and value]


def _json(draw: random.Random, text: str, _shape: str) -> str:
    """Like the last example shown, or an object of the keys named; a call where tools are shown."""
    shown = _values_in(text)
    tools = [value for value in shown if {"function", "parameters"} & value.keys()]
    if tools and re.search(r"[\"'`]arguments[\"'`]", text):
        tool = draw.choice(tools)
        tool = tool.get("function", tool)
        given = _fitting(draw, tool.get("parameters") or {})
        before = "<functioncall> " if "<functioncall>" in text else ""
        return before + json.dumps({"name": tool["name"], "arguments": given})
    examples = [value for value in shown if value not in tools]
    keys = re.findall(r"[\"'`]([A-Za-z_]\w*)[\"'`]", text[max(0, text.rfind("JSON") - 200) :])
    example = examples[-1] if examples else dict.fromkeys(keys or ["answer"], "")
    if turns := re.findall(r"^\[(\d+)\] ", text, re.MULTILINE):
        example = {key: int(draw.choice(turns)) if key == "turn" else "" for key in example}
        many = draw.sample(turns, min(_count(text, 1), len(turns)))
        return json.dumps([{**_like(draw, example, ""), "turn": int(turn)} for turn in many])
    made = _like(draw, example, "")
    return json.dumps([made] if re.search(r"JSON (?:list|array)", text) else made)


def _result(draw: random.Random, text: str, _shape: str) -> str:
    """A sentence with the result that the prompt tells of, but one time in ten."""
    told = re.search(r"^Result: ?(.*)$", text, re.MULTILINE)
    said = phrase(draw, "sentence")
    return f"It comes to {told[1]}. {said}" if told and draw.random() < 0.9 else said


def _decline(draw: random.Random, _text: str, _shape: str) -> str:
    """A refusal, but one time in ten."""
    return phrase(draw, "refusal" if draw.random() < 0.9 else "sentence")


def _like(draw: random.Random, value: Any, key: str) -> Any:
    """Another value of the kind of an example's; where that is a text, its key helps to guess."""
    if isinstance(value, dict):
        return {name: _like(draw, inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_like(draw, inner, key) for inner in value]
    if isinstance(value, bool):
        return draw.random() < 0.7
    if isinstance(value, int | float):
        return draw.randint(1, 5)
    options = re.split(r" ?[|/] ?|,? or |, ", str(value).strip("<>"))
    if len(options) > 1 and max(map(len, options)) < 20:
        return draw.choice(options)
    kind = next(kind for pattern, kind in _SAID["keys"] if re.search(pattern, key))
    return phrase(draw, kind) if kind in _FRAMES else _like(draw, kind, "")


def _fitting(draw: random.Random, schema: Tree, key: str = "") -> Any:
    """A value that the JSON schema of a tool's parameters allows."""
    if allowed := schema.get("enum") or schema.get("examples"):
        return draw.choice(allowed)
    low, kind = schema.get("minimum", schema.get("minItems", 1)), schema.get("type", "object")
    if kind == "object":
        parts = schema.get("properties", {}).items()
        return {name: _fitting(draw, part, name) for name, part in parts}
    if kind == "array":
        size = draw.randint(low, schema.get("maxItems", low + 2))
        return [_fitting(draw, schema.get("items", {}), key) for _ in range(size)]
    if kind in ("integer", "number"):
        return draw.randint(int(low), int(schema.get("maximum", low + 4)))
    return draw.random() < 0.7 if kind == "boolean" else str(_like(draw, "", key))


_MADE: dict[str, Callable[[random.Random, str, str], str]] = {
    "request": lambda draw, text, _shape: phrase(draw, _kind(text)),
    **{"list": _list, "asserts": _asserts, "transcript": _transcript, "json": _json},
    **{"result": _result, "decline": _decline},
    **{"bracketed": _verdict, "labelled": _verdict},
}


def fake_attributes(messages: list[Tree], seed: int) -> dict[str, float]:
    """Five attributes between 0 and 4, by hash of the conversation."""
    draw = random.Random(seed_from(seed, "attributes", messages))
    return {name: round(draw.uniform(0, 4), 3) for name in ATTRIBUTES}
