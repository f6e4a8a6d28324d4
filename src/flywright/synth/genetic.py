"""Genetic Instruct (SPEC 7): code samples by evolution, with execution and a judge as fitness.

    colonies x rounds: crossover or mutation -> new tasks -> code -> it runs, its tests pass, the
    judge says yes -> the survivor joins the colony; after each generation the colonies are merged.

Returns Dialogues (task, plain code). Each round draws its parents before it asks, so the outcome
does not depend on which call ends first.
"""

import ast
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from flywright.ask.limits import gather
from flywright.ask.protocol import Completer
from flywright.files import seed_from
from flywright.records import Conversation, Dialogue, Prompt, Verdict, record_id
from flywright.synth import parse
from flywright.synth.filters import Pool
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.settings import GeneticSettings
from flywright.synth.wording import keyed, template


class Runner(Protocol):
    """What runs code: flywright.sandbox.Sandbox, or a fake in tests."""

    async def run(self, code: str, tests: Sequence[str]) -> Any:
        """An outcome with `passed` and `error`."""
        ...


@dataclass(frozen=True)
class Member:
    """A task of the population; `parents` are the ids of those it was bred from."""

    id: str
    task: str
    parents: tuple[str, ...] = ()
    wording: str = ""


@dataclass(frozen=True)
class Birth:
    """One instructor call to be made: a mutation by a named method, or a crossover."""

    parents: tuple[Member, ...]
    method: str
    place: tuple[int, ...]


@dataclass(frozen=True)
class Evolution:
    """Who takes part: the maker's completer instructs, `coder` solves, `judge`, `runner` test."""

    maker: Maker
    settings: GeneticSettings
    coder: Completer
    judge: Completer
    runner: Runner

    def births(self, population: Sequence[Member], place: tuple[int, ...]) -> list[Birth]:
        """The calls of one round, drawn from the population by the place's seed."""
        rng = random.Random(seed_from(self.maker.seed, "births", place))
        births = []
        for number in range(self.settings.brood):
            if rng.random() < self.settings.crossover_share:
                count = min(self.settings.examples, len(population))
                births.append(
                    Birth(tuple(rng.sample(population, count)), "crossover", (*place, number))
                )
            else:
                method = rng.choice(list(keyed("genetic_methods")))
                births.append(Birth((rng.choice(population),), method, (*place, number)))
        return births

    async def instruct(self, birth: Birth, ask: Completer) -> list[Member]:
        """The new tasks of one birth."""
        if birth.method == "crossover":
            wording = template("genetic_crossover")
            examples = "\n".join(f"- {parent.task}" for parent in birth.parents)
            count = self.settings.offspring
            tasks, _ = await self.maker.ask_list(wording, count, examples=examples)
        else:
            wording = template("genetic_mutate")
            method = keyed("genetic_methods")[birth.method]
            request = wording.fill(task=birth.parents[0].task, method=method)
            said, _ = await self.maker.say(ask, request, "mutate", birth.place)
            tasks = [said]
        parents = tuple(parent.id for parent in birth.parents)
        name = f"{wording.hash}/{birth.method}"
        return [Member(record_id("genetic", task), task, parents, name) for task in tasks]

    async def raise_up(self, member: Member, _ask: Completer) -> list[tuple[Member, Dialogue]]:
        """The member with its code, if it is fit. Raises Dropped with what it failed at."""
        request = template("genetic_code").fill(task=member.task)
        reply, sampling = await self.maker.say(self.coder, request, "code", member.id)
        code = parse.code(reply)
        function = entry_point(code)
        tests = await self.write_tests(member.task, code)
        outcome = await self.runner.run(code, tests or [f"assert callable({function})"])
        if not outcome.passed:
            raise Dropped("execution failed")
        verdict = await self.judged(member.task, code)
        lineage = self.maker.lineage(
            "genetic",
            None,
            sampling,
            member.parents,
            model=self.coder.model,
            answer_by="model",
            verdicts=(verdict,),
            filters=(f"passed {len(tests)} tests" if tests else "runs",),
        ).model_copy(update={"template": member.wording})
        conversation = Conversation.of(member.task, code)
        dialogue = Dialogue(id=member.id, conversation=conversation, task="code", lineage=lineage)
        return [(member, dialogue)]

    async def write_tests(self, task: str, code: str) -> list[str]:
        """Assert lines for the task, if wanted and given; the code they are for is shown."""
        if not self.settings.tests:
            return []
        count = self.settings.tests
        request = template("genetic_tests").fill(task=task, code=code, count=count)
        said, _ = await self.maker.say(self.coder, request, greedy=True)
        return [line for line in parse.asserts(said, count) if _parses(line)]

    async def judged(self, task: str, code: str) -> Verdict:
        """The judge's yes. Raises Dropped on anything else."""
        request = template("genetic_judge").fill(task=task, code=code)
        said, _ = await self.maker.say(self.judge, request, greedy=True)
        if not parse.yes(said):
            raise Dropped("judged unfit")
        return Verdict(judge=self.judge.model, preference=1, detail=said[:200])

    async def colony(
        self, population: Sequence[Member], generation: int, number: int
    ) -> list[tuple[Member, Dialogue]]:
        """One colony's survivors of one generation."""
        here = list(population)
        known = Pool(self.maker.settings.near_duplicate)
        for member in here:
            known.add(member.task)
        survivors: list[tuple[Member, Dialogue]] = []
        for turn in range(self.settings.rounds):
            births = self.births(here, (generation, number, turn))
            children = await self.maker.run("genetic instruct", self.instruct, births)
            fresh = [child for child in children if _is_new(known, child.task)]
            fit = await self.maker.run("genetic fitness", self.raise_up, fresh)
            survivors += fit
            here += [member for member, _ in fit]
            if len(survivors) >= self.settings.target:
                break
        return survivors[: self.settings.target]


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    return True


def entry_point(code: str) -> str:
    """The name of the first function that the code defines. Raises Dropped if there is none."""
    if not _parses(code):
        raise Dropped("code does not parse")
    names = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    if not names:
        raise Dropped("code defines no function")
    return names[0]


def _is_new(known: Pool, task: str) -> bool:
    if known.likest(task):
        return False
    known.add(task)
    return True


async def genetic(
    maker: Maker,
    seeds: Sequence[Prompt],
    settings: GeneticSettings,
    runner: Runner,
    coder: Completer | None = None,
    judge: Completer | None = None,
) -> list[Dialogue]:
    """Code samples bred from the seeds' tasks; the seeds themselves are not among them.

    coder and judge are the maker's completer where none is given. After each generation the
    colonies are merged, near copies among all of them dropped, and the survivors breed on.
    """
    evolution = Evolution(maker, settings, coder or maker.ask, judge or maker.ask, runner)
    population = [Member(seed.id, seed.conversation.last) for seed in seeds]
    known = Pool(maker.settings.near_duplicate)
    for member in population:
        known.add(member.task)
    made: list[Dialogue] = []
    for generation in range(settings.generations):
        grow = partial(evolution.colony, population, generation)
        for survivors in await gather(grow, range(settings.colonies)):
            for member, dialogue in survivors:
                if _is_new(known, member.task):
                    population.append(member)
                    made.append(dialogue)
    return made
