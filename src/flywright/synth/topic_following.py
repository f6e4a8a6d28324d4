"""Topic following (SPEC 6.9): talks within a scenario, and questions that lead away from it.

    domain -> scenarios, none like another -> instruction -> talks -> distractors -> the talk with
    each distractor after its bot turn, declined or led back

`scenes` makes them, `dialogues_of` the records to learn from, `row_of` CantTalkAboutThis's form,
and `scene_of` reads that form: a row without distractors is given some.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from flywright.ask.protocol import Completer
from flywright.errors import UserError
from flywright.records import Conversation, Dialogue, Lineage, record_id
from flywright.settings import Settings
from flywright.synth import parse
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.wording import template

_OPENER = re.compile(
    r"^(?:by the way|also|and|but|so|oh|speaking of[^,]*|on another (?:note|topic))[,:]?\s+", re.I
)


class TopicFollowingSettings(Settings):
    """How much, and how a distractor is answered. The defaults are the report's counts."""

    domains: tuple[str, ...] = (
        *("health", "banking", "insurance", "travel", "taxes", "legal questions", "education"),
        *("computer troubleshooting", "real estate"),
    )
    scenarios: int = Field(default=60, ge=1, description="for each domain")
    batch: int = Field(default=10, ge=1, description="scenarios asked for in one call")
    likeness: float = Field(default=0.7, gt=0, le=1, description="ROUGE-L from which two are alike")
    dialogues: int = Field(default=2, ge=1, description="talks for each scenario")
    turns: int = Field(default=20, ge=4, description="turns of a talk; half as many are enough")
    talk_tokens: int = Field(default=2048, ge=64, description="longest talk")
    distractors: int = Field(default=5, ge=1, description="for each talk")
    answer: Literal["refusal", "redirect"] = Field(
        default="refusal", description="fixed words, or an answer made for each distractor"
    )
    samples: Literal["together", "each"] = Field(
        default="together", description="a talk's distractors in one record, or in one each"
    )


@dataclass(frozen=True)
class Distractor:
    """A question off the topic after bot turn number `turn`, from 0, and the bot's answer."""

    turn: int
    text: str
    answer: str = ""


@dataclass(frozen=True)
class Scene:
    """One talk: its turns, the user's first, and what leads away from it."""

    domain: str
    scenario: str
    instruction: str
    turns: tuple[str, ...]
    distractors: tuple[Distractor, ...] = ()

    @property
    def id(self) -> str:
        """A hash of what is said."""
        return record_id("topic_following", self.instruction, self.turns)


def rouge_l(first: str, second: str) -> float:
    """ROUGE-L F of two texts: their longest common subsequence of words over their lengths."""
    one, two = re.findall(r"\w+", first.lower()), re.findall(r"\w+", second.lower())
    row = [0] * (len(two) + 1)
    for word in one:
        diagonal = 0
        for n, other in enumerate(two, 1):
            diagonal, row[n] = row[n], diagonal + 1 if word == other else max(row[n], row[n - 1])
    return 2 * row[-1] / (len(one) + len(two)) if one and two else 0.0


async def scenarios(maker: Maker, settings: TopicFollowingSettings) -> list[tuple[str, str]]:
    """(domain, scenario), settings.scenarios for each domain where the model has so many.

    Each call sees all that were named before, those turned down as too alike among them.
    """

    async def step(domain: str, _ask: Completer) -> list[tuple[str, str]]:
        kept: list[str] = []
        seen: list[str] = []
        for _ in range(2 * -(-settings.scenarios // settings.batch)):
            known = "\n".join(f"- {one}" for one in seen) or "- none yet"
            values = {"domain": domain, "known": known}
            try:
                new, _ = await maker.ask_list(template("tf_scenarios"), settings.batch, **values)
            except Dropped:
                break
            for text in new:
                if all(rouge_l(text, other) < settings.likeness for other in seen):
                    kept.append(text)
                seen.append(text)
            if len(kept) >= settings.scenarios:
                break
        return [(domain, text) for text in kept[: settings.scenarios]]

    return await maker.run("topic scenarios", step, settings.domains)


async def _distracted(
    maker: Maker, scene: Scene, settings: TopicFollowingSettings
) -> tuple[Distractor, ...]:
    """What leads away from a talk, answered, in the order of its turns, one after a turn."""
    about = {"domain": scene.domain, "scenario": scene.scenario, "instruction": scene.instruction}
    bot = scene.turns[1::2]
    lines = [f"[{n // 2 + 1}] bot: {t}" if n % 2 else f"user: {t}" for n, t in enumerate(scene.turns)]
    request = template("tf_distractors").fill(
        **about, count=settings.distractors, talk="\n".join(lines)
    )
    said, _ = await maker.say(maker.ask, request, "distractors", scene.id)
    found: dict[int, Distractor] = {}
    for row in parse.json_in(said, list):
        row = row if isinstance(row, dict) else {}
        turn, text = row.get("turn"), _OPENER.sub("", str(row.get("distractor") or "").strip())
        if isinstance(turn, int) and 1 <= turn <= len(bot) and text:
            found.setdefault(turn - 1, Distractor(turn - 1, text[:1].upper() + text[1:]))
    if not found:
        raise Dropped("no distractor that follows a turn of the bot")
    chosen = [found[turn] for turn in sorted(found)][: settings.distractors]
    return tuple([await _answered(maker, scene, each, settings) for each in chosen])


async def _answered(
    maker: Maker, scene: Scene, distractor: Distractor, settings: TopicFollowingSettings
) -> Distractor:
    if settings.answer == "refusal":
        return replace(distractor, answer=template("tf_refusal").text.format(scenario=scene.scenario))
    told = [*scene.turns[: 2 * distractor.turn + 2], distractor.text]
    talk = "\n".join(f"{('user', 'bot')[n % 2]}: {text}" for n, text in enumerate(told))
    request = template("tf_redirect").fill(instruction=scene.instruction, talk=talk)
    said, _ = await maker.say(maker.ask, request, "redirect", scene.id, distractor.turn)
    return replace(distractor, answer=said)


async def scenes(
    maker: Maker, settings: TopicFollowingSettings, given: Sequence[Scene] = ()
) -> list[Scene]:
    """Talks with their distractors; from `given` talks where there are any."""
    roomy = maker.settings.model_copy(update={"answer_tokens": settings.talk_tokens})
    long = replace(maker, settings=roomy)

    async def instruct(pair: tuple[str, str], ask: Completer) -> list[tuple[str, str, str]]:
        request = template("tf_instruction").fill(domain=pair[0], scenario=pair[1])
        said, _ = await long.say(ask, request, "instruction", pair)
        return [(*pair, said)]

    async def play(place: tuple[str, str, str, int], ask: Completer) -> list[Scene]:
        domain, scenario, instruction, number = place
        about = {"domain": domain, "scenario": scenario, "instruction": instruction}
        request = template("tf_dialogue").fill(**about, turns=settings.turns)
        said, _ = await long.say(ask, request, "talk", place)
        turns = parse.talk(said, settings.turns // 2)
        return [Scene(domain, scenario, instruction, tuple(turns))]

    async def distract(scene: Scene, _ask: Completer) -> list[Scene]:
        known = scene.distractors or await _distracted(long, scene, settings)
        return [replace(scene, distractors=known)]

    if not given:
        pairs = await scenarios(maker, settings)
        told = await maker.run("topic instructions", instruct, pairs)
        places = [(*each, number) for each in told for number in range(settings.dialogues)]
        given = await maker.run("topic talks", play, places)
    return await maker.run("topic distractors", distract, given)


def dialogues_of(scene: Scene, lineage: Lineage, together: bool = True) -> Iterator[Dialogue]:
    """The talk with its distractors inserted: all in one record, or one each, ending there."""
    groups = [scene.distractors] if together else [(each,) for each in scene.distractors]
    for number, group in enumerate(groups):
        after = {each.turn: (each.text, each.answer) for each in group}
        end = len(scene.turns) if together else 2 * group[0].turn + 2
        said: list[str] = []
        for place, text in enumerate(scene.turns[:end]):
            said += [text, *(after.get(place // 2, ()) if place % 2 else ())]
        conversation = Conversation.of(*said, system=scene.instruction)
        name = record_id(scene.id, number, together)
        yield Dialogue(id=name, conversation=conversation, task="topic_following", lineage=lineage)


def row_of(scene: Scene) -> dict[str, Any]:
    """The scene in CantTalkAboutThis's field names."""
    (whole,) = dialogues_of(scene, Lineage(source="topic_following"))
    plain = Conversation.of(*scene.turns)
    return {
        "domain": scene.domain,
        "scenario": scene.scenario,
        "system_instruction": scene.instruction,
        "conversation": [dict(message) for message in plain.messages],
        "distractors": [
            {"bot turn": scene.turns[2 * each.turn + 1], "distractor": each.text}
            for each in scene.distractors
        ],
        "conversation_with_distractors": [dict(m) for m in whole.conversation.turns],
    }


def scene_of(row: dict[str, Any], where: str) -> Scene:
    """A scene from CantTalkAboutThis's field names; distractors whose turn is not found are left.

    Raises UserError naming `where` if a field is missing or the turns do not alternate.
    """
    try:
        told = [dict(each) for each in row["conversation"]]
        opened = told[next(n for n, each in enumerate(told) if each["role"] == "user") :]
        turns = [str(each["content"]) for each in opened][: len(opened) // 2 * 2]
        Conversation(messages=tuple(opened))
        bot = [" ".join(turn.split()) for turn in turns[1::2]]
        found = {}
        for each in row.get("distractors") or ():
            words = " ".join(str(each["bot turn"]).split())
            turn = next((n for n, text in enumerate(bot) if words and words in text), None)
            if turn is not None:
                answer = template("tf_refusal").text.format(scenario=row["scenario"])
                found.setdefault(turn, Distractor(turn, each["distractor"], answer))
        about = (row["domain"], row["scenario"], row["system_instruction"])
        return Scene(*about, tuple(turns), tuple(found[turn] for turn in sorted(found)))
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise UserError(f"{where}: not a topic-following row: {error!r}") from None


def balance(made: Iterable[Scene]) -> dict[str, dict[str, int]]:
    """For each domain: scenarios, talks, the bot's turns on the topic, and distractors."""
    counts: dict[str, dict[str, int]] = {}
    names: dict[str, set[str]] = {}
    for scene in made:
        names.setdefault(scene.domain, set()).add(scene.scenario)
        found = counts.setdefault(scene.domain, dict.fromkeys(("talks", "on_topic", "off_topic"), 0))
        found["talks"] += 1
        found["on_topic"] += len(scene.turns) // 2
        found["off_topic"] += len(scene.distractors)
    return {domain: {"scenarios": len(names[domain]), **counts[domain]} for domain in counts}
