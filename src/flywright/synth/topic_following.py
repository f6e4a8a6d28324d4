"""Topic following (SPEC 6.9): talks within a scenario, and questions that lead away from it.

    domain -> scenarios, none like another -> instruction -> talks -> distractors -> the talk with
    each distractor after its bot turn, declined or led back

`scenes` makes them (from given talks, where there are), `dialogue_of` the records to learn from;
`row_of` and `given` write and read CantTalkAboutThis's field names.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flywright.ask.protocol import Completer, Sampling
from flywright.data.rows import placed_rows
from flywright.data.turns import LeftOut, dialogue, from_messages
from flywright.errors import UserError
from flywright.records import Conversation, Dialogue, record_id
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


@dataclass(frozen=True)
class Scene:
    """One talk, the user's turn first; `away` is what leads away from it and the bot's answer to
    that, by the number of the bot's turn, from 0, that it follows."""

    domain: str
    scenario: str
    instruction: str
    turns: tuple[str, ...] = ()
    away: dict[int, tuple[str, str]] = field(default_factory=dict)
    sampling: Sampling | None = None

    @property
    def about(self) -> dict[str, str]:
        """What templates say of it."""
        names = ("domain", "scenario", "instruction")
        return {name: getattr(self, name) for name in names}

    @property
    def id(self) -> str:
        """A hash of what it is about and what is said."""
        return record_id("topic_following", self.about, self.turns)

    @property
    def refusal(self) -> str:
        """The fixed answer to what is off the topic."""
        return template("tf_refusal").text.format(scenario=self.scenario)

    @property
    def told(self) -> list[str]:
        """The turns, with what leads away and its answers inserted."""
        after = [
            self.away.get(place // 2, ()) if place % 2 else () for place in range(len(self.turns))
        ]
        return [
            text for said, more in zip(self.turns, after, strict=True) for text in (said, *more)
        ]


def rouge_l(first: str, second: str) -> float:
    """ROUGE-L F of two texts: their longest common subsequence of words over their lengths."""
    one, two = re.findall(r"\w+", first.lower()), re.findall(r"\w+", second.lower())
    row = [0] * (len(two) + 1)
    for word in one:
        diagonal = 0
        for n, other in enumerate(two, 1):
            diagonal, row[n] = row[n], diagonal + 1 if word == other else max(row[n], row[n - 1])
    return 2 * row[-1] / (len(one) + len(two)) if one and two else 0.0


async def scenarios(maker: Maker, settings: TopicFollowingSettings) -> list[Scene]:
    """Scenes without words, settings.scenarios a domain where the model names so many.

    Each call sees all that were named before, those turned down as too alike among them.
    """

    async def step(domain: str, _ask: Completer) -> list[Scene]:
        kept: list[str] = []
        seen: list[str] = []
        for _ in range(2 * -(-settings.scenarios // settings.batch)):
            known = "\n".join(f"- {one}" for one in seen) or "- none yet"
            values = {"domain": domain, "known": known}
            new, _ = await maker.ask_list(template("tf_scenarios"), settings.batch, **values)
            for text in new:
                if all(rouge_l(text, other) < settings.likeness for other in seen):
                    kept.append(text)
                seen.append(text)
            if len(kept) >= settings.scenarios:
                break
        return [Scene(domain, text, "") for text in kept[: settings.scenarios]]

    return await maker.run("topic scenarios", step, settings.domains)


def _lines(turns: Sequence[str], numbered: bool = False) -> str:
    bot = "[{}] bot: {}" if numbered else "bot: {1}"
    return "\n".join(
        bot.format(n // 2 + 1, t) if n % 2 else f"user: {t}" for n, t in enumerate(turns)
    )


async def distracted(maker: Maker, scene: Scene, settings: TopicFollowingSettings) -> Scene:
    """The scene with what leads away from it, one after a turn. Raises Dropped if nothing fits."""
    talk = _lines(scene.turns, numbered=True)
    request = template("tf_distractors").fill(**scene.about, count=settings.distractors, talk=talk)
    said, sampling = await maker.say(maker.ask, request, "distractors", scene.id)
    found: dict[int, str] = {}
    for row in parse.json_in(said, list):
        row = row if isinstance(row, dict) else {}
        turn, text = row.get("turn"), _OPENER.sub("", str(row.get("distractor") or "").strip())
        if isinstance(turn, int) and 1 <= turn <= len(scene.turns) // 2 and text:
            found.setdefault(turn - 1, text[0].upper() + text[1:])
    if not found:
        raise Dropped("no distractor that follows a turn of the bot")
    away = {}
    for turn in sorted(found)[: settings.distractors]:
        answer = scene.refusal
        if settings.answer == "redirect":
            before = _lines([*scene.turns[: 2 * turn + 2], found[turn]])
            request = template("tf_redirect").fill(instruction=scene.instruction, talk=before)
            answer, _ = await maker.say(maker.ask, request, "redirect", scene.id, turn)
        away[turn] = (found[turn], answer)
    return replace(scene, away=away, sampling=sampling)


async def scenes(
    maker: Maker, settings: TopicFollowingSettings, given: Sequence[Scene] = ()
) -> list[Scene]:
    """Talks with their distractors; from `given` talks where there are any."""
    roomy = {"answer_tokens": settings.talk_tokens, "list_tokens": settings.talk_tokens}
    maker = replace(maker, settings=maker.settings.model_copy(update=roomy))

    async def instruct(scene: Scene, ask: Completer) -> list[Scene]:
        request = template("tf_instruction").fill(domain=scene.domain, scenario=scene.scenario)
        said, _ = await maker.say(ask, request, "instruction", scene.domain, scene.scenario)
        return [replace(scene, instruction=said)]

    async def play(place: tuple[Scene, int], ask: Completer) -> list[Scene]:
        scene, number = place
        request = template("tf_dialogue").fill(**scene.about, turns=settings.turns)
        said, _ = await maker.say(ask, request, "talk", scene.id, number)
        return [replace(scene, turns=tuple(parse.talk(said, settings.turns // 2)))]

    async def distract(scene: Scene, _ask: Completer) -> list[Scene]:
        return [scene if scene.away else await distracted(maker, scene, settings)]

    if not given:
        plain = await scenarios(maker, settings)
        told = await maker.run("topic instructions", instruct, plain)
        places = [(scene, number) for scene in told for number in range(settings.dialogues)]
        given = await maker.run("topic talks", play, places)
    return await maker.run("topic distractors", distract, given)


def dialogue_of(maker: Maker, scene: Scene) -> Dialogue:
    """The talk with its distractors inserted, under the scene's instruction."""
    talk = Conversation.of(*scene.told, system=scene.instruction)
    parents = (record_id(scene.domain, scene.scenario),)
    by = {"answer_by": "model"} if scene.sampling else {"answer_by": "human", "model": ""}
    wording = template("tf_distractors") if scene.sampling else None
    lineage = maker.lineage("topic_following", wording, scene.sampling, parents, **by)
    name = record_id(scene.id, scene.away)
    return Dialogue(id=name, conversation=talk, task="topic_following", lineage=lineage)


def row_of(scene: Scene) -> dict[str, Any]:
    """The scene in CantTalkAboutThis's field names."""

    def messages(turns: Sequence[str]) -> list[dict[str, str]]:
        return [dict(message) for message in Conversation.of(*turns).messages]

    return {
        "domain": scene.domain,
        "scenario": scene.scenario,
        "system_instruction": scene.instruction,
        "conversation": messages(scene.turns),
        "distractors": [
            {"bot turn": scene.turns[2 * turn + 1], "distractor": text}
            for turn, (text, _) in scene.away.items()
        ],
        "conversation_with_distractors": messages(scene.told),
    }


def scene_of(row: dict[str, Any]) -> Scene:
    """A scene from CantTalkAboutThis's field names; one distractor is kept for a bot's turn.

    Raises LeftOut where turns do not alternate, KeyError or the like where something is missing.
    """
    said = from_messages(row["conversation"])
    talk = dialogue(said[bool(said) and said[0].role != "user" :])  # a bot's greeting is left out
    words = tuple(message.content for message in talk.messages)
    scene = Scene(row["domain"], row["scenario"], row["system_instruction"], words)
    bot = [" ".join(turn.split()) for turn in scene.turns[1::2]]
    for each in row.get("distractors") or ():
        part = " ".join(each["bot turn"].split())  # people copied a part of the turn
        turn = next((n for n, text in enumerate(bot) if part and part in text), None)
        if turn is not None:
            scene.away.setdefault(turn, (each["distractor"], scene.refusal))
    return scene


def given(path: Path) -> tuple[list[Scene], Counter[str]]:
    """The scenes of a file in CantTalkAboutThis's form, and counts {in, out, and why left out}.

    Raises UserError naming a row of another form.
    """
    found: list[Scene] = []
    counts: Counter[str] = Counter()
    for where, row in placed_rows(path):
        counts["in"] += 1
        try:
            found.append(scene_of(row))
            counts["out"] += 1
        except LeftOut as why:
            counts[f"left out: {why}"] += 1
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{where}: not a topic-following row: {error!r}") from None
    return found, counts


def balance(made: Iterable[Scene]) -> dict[str, dict[str, int]]:
    """For each domain: talks, the bot's turns on the topic, and those that decline."""
    counts: dict[str, Counter[str]] = {}
    for scene in made:
        found = {"talks": 1, "on_topic": len(scene.turns) // 2, "off_topic": len(scene.away)}
        counts.setdefault(scene.domain, Counter()).update(found)
    return {domain: dict(found) for domain, found in counts.items()}
