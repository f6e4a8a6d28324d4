"""Prompts with verifiable instructions (SPEC 6.3, 10.6): sampled, free of conflict, joined by text.

The arguments go into Prompt.checks, where `judge` verifies them. Three forms: on one prompt, for
"all following turns" (its checks hold for every answer), and a second turn that asks for a change.
"""

import random
from collections.abc import Iterable, Sequence

from flywright.ask.protocol import Completer
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.records import Check, Conversation, Lineage, Prompt, record_id
from flywright.synth.arguments import ARGUMENTS, FIRST_ANSWER, Draw, conflict
from flywright.synth.maker import Maker
from flywright.synth.settings import SynthSettings
from flywright.synth.wording import keyed, variants

LASTING = "instruction_lasting"


def said(check: Check) -> str:
    """An instruction in words, from templates/instruction_wordings.txt."""
    shown = {
        name: ", ".join(value) if isinstance(value, list) else value
        for name, value in check.args.items()
    }
    return keyed("instruction_wordings", " | ")[check.kind].format(**shown)


def drawn(
    text: str, settings: SynthSettings, rng: random.Random, later: bool = False
) -> list[Check]:
    """One to settings.instructions_each instructions for a prompt, none in conflict with another.

    later: they are for other answers than the first too, so the prompt is not to be repeated.
    Raises UserError if settings.instruction_kinds names an unknown id.
    """
    unknown = sorted(set(settings.instruction_kinds) - set(ARGUMENTS))
    if unknown:
        raise UserError(f"instruction_kinds: unknown {unknown[0]!r}; known: {', '.join(ARGUMENTS)}")
    draw = Draw(rng, text, settings.instruction_size == "full")
    wanted = rng.randint(1, settings.instructions_each)
    kinds: list[str] = []
    possible = [k for k in settings.instruction_kinds if not (later and k in FIRST_ANSWER)]
    for kind in rng.sample(possible, len(possible)):
        if len(kinds) < wanted and not any(conflict(kind, other) for other in kinds):
            kinds.append(kind)
    kinds.sort(key="startend:end_checker".__eq__)  # last, so that nothing follows its phrase
    return [Check(kind=kind, args=ARGUMENTS[kind](draw)) for kind in kinds]


def instructed(
    prompts: Iterable[Prompt], settings: SynthSettings, seed: int, lasting: bool = False
) -> list[Prompt]:
    """Single-turn prompts with instructions; prompts that have checks already are passed over.

    lasting: the instruction is marked to hold for all following turns too.
    """
    source = LASTING if lasting else "instruction"
    joins = variants(LASTING if lasting else "instruction_join")
    made = []
    for prompt in prompts:
        if prompt.checks or len(prompt.conversation.messages) > 1:
            continue
        rng = random.Random(seed_from(seed, source, prompt.id))
        text = prompt.conversation.last
        checks = drawn(text, settings, rng, lasting)
        join = rng.choice(joins)
        instruction = " ".join(said(check) for check in checks)
        whole = join.text.format(prompt=text, instruction=instruction)
        lineage = Lineage(source=source, template=join.hash, seed=seed, parents=(prompt.id,))
        made.append(prompt_of(source, Conversation.of(whole), lineage, checks))
    return made


async def revised(maker: Maker, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Two-turn prompts: an answer, then the user asks to change it as an instruction says."""
    source = "instruction_revise"
    joins = variants(source)

    async def step(prompt: Prompt, ask: Completer) -> list[Prompt]:
        rng = random.Random(seed_from(maker.seed, source, prompt.id))
        checks = drawn(prompt.conversation.last, maker.settings, rng, later=True)
        join = rng.choice(joins)
        answer, sampling = await maker.say(ask, prompt.conversation, source, prompt.id)
        request = join.text.format(instruction=" ".join(said(check) for check in checks))
        conversation = prompt.conversation.answered(answer).then("user", request)
        lineage = maker.lineage(source, join, sampling, (prompt.id,))
        return [prompt_of(source, conversation, lineage, checks)]

    return await maker.run(source, step, [prompt for prompt in prompts if not prompt.checks])


def prompt_of(
    source: str, conversation: Conversation, lineage: Lineage, checks: Sequence[Check] = ()
) -> Prompt:
    """A prompt of the family `source`, known by its texts."""
    texts = [message.content for message in conversation.messages]
    return Prompt(
        id=record_id(source, texts),
        conversation=conversation,
        task=source,
        checks=tuple(checks),
        lineage=lineage,
    )
