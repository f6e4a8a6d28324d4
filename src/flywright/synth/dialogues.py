"""Dialogues by role-play (SPEC 6.6) and two-turn prompts (SPEC 6.4).

A model answers a prompt; a model in the user's part asks on; and so for settings.user_turns turns.
All decoding of dialogues is greedy. User turns lose their thanks and "sure, I'd be happy to".
"""

from collections.abc import Sequence

from flywright.ask.protocol import Completer, Sampling
from flywright.files import seed_from
from flywright.judge.truth import followed
from flywright.records import Conversation, Dialogue, Prompt, record_id
from flywright.synth import parse
from flywright.synth.flow import Dropped
from flywright.synth.instructions import LASTING, prompt_of
from flywright.synth.maker import Maker
from flywright.synth.wording import keyed, template


def transcript(conversation: Conversation) -> str:
    """The turns as "User: ..." and "Assistant: ..." lines."""
    return "\n".join(f"{m.role.capitalize()}: {m.content}" for m in conversation.turns)


async def _next_turn(
    maker: Maker, user: Completer, conversation: Conversation, prompt_id: str
) -> str:
    """The user's next message, in one of the personalities, drawn by prompt and turn."""
    moods = list(keyed("personalities").values())
    turn = len(conversation.turns)
    mood = moods[seed_from(maker.seed, "personality", prompt_id, turn) % len(moods)]
    request = template("follow_up").fill(personality=mood, history=transcript(conversation))
    said, _ = await maker.say(user, request, greedy=True)
    return parse.without_politeness(said)


def _keep_to(prompt: Prompt, answer: str) -> None:
    if not all(followed(prompt, answer)):
        raise Dropped("instruction not followed")


async def _play(
    maker: Maker, prompt: Prompt, ask: Completer, user: Completer, verify: bool
) -> tuple[Conversation, Sampling, str]:
    """The conversation, the answers' sampling, and why it ended early ("" if it did not)."""
    answer, sampling = await maker.say(ask, prompt.conversation, greedy=True)
    if verify:
        _keep_to(prompt, answer)
    conversation = prompt.conversation.answered(answer)
    for _ in range(1, maker.settings.user_turns):
        try:
            question = await _next_turn(maker, user, conversation, prompt.id)
            asked = conversation.then("user", question)
            answer, _ = await maker.say(ask, asked, greedy=True)
            if verify and prompt.task == LASTING:
                _keep_to(prompt, answer)
        except Dropped as drop:
            return conversation, sampling, str(drop)
        conversation = asked.answered(answer)
    return conversation, sampling, ""


async def dialogues(
    maker: Maker, prompts: Sequence[Prompt], user: Completer | None = None, verify: bool = True
) -> list[Dialogue]:
    """One dialogue a prompt, in the order of the prompts.

    user: who plays the user, by default who answers. verify: a dialogue whose first answer fails a
    verifiable instruction is dropped, and one ends before the turn that breaks a lasting one. A
    dialogue that ends early keeps its whole turns; its lineage says why it ended.
    """

    async def step(prompt: Prompt, ask: Completer) -> list[Dialogue]:
        conversation, sampling, ended = await _play(maker, prompt, ask, user or ask, verify)
        wording = template("follow_up") if maker.settings.user_turns > 1 else None
        lineage = maker.lineage(
            "dialogues",
            wording,
            sampling,
            (prompt.id,),
            answer_by="model",
            filters=(f"ended early: {ended}",) if ended else (),
        )
        name = record_id("dialogue", prompt.id, ask.model)
        return [Dialogue(id=name, conversation=conversation, task=prompt.task, lineage=lineage)]

    return await maker.run("dialogues", step, prompts)


async def two_turn(maker: Maker, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts of the form user, assistant, user: an answer and what the user asks next."""
    wording = template("second_turn")

    async def step(prompt: Prompt, ask: Completer) -> list[Prompt]:
        answer, _ = await maker.say(ask, prompt.conversation, "two_turn", prompt.id)
        answered = prompt.conversation.answered(answer)
        request = wording.fill(history=transcript(answered))
        said, sampling = await maker.say(ask, request, "two_turn user", prompt.id)
        conversation = answered.then("user", parse.without_politeness(said))
        lineage = maker.lineage("two_turn", wording, sampling, (prompt.id,))
        return [prompt_of("two_turn", conversation, lineage)]

    return await maker.run("two_turn", step, prompts)
