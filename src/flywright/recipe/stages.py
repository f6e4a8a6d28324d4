"""The recipe, stage by stage: one short function each, in the order in which they happen.

Read it from top to bottom: documents, tokenizer, pretraining in two phases, a reward model from
ratings, prompts, dialogues and code written by a generator, code SFT, SFT, comparisons, DPO, RPO,
and the evaluation of every stage. loop.py says in which order and how often they are called.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from flywright.ask import Completer, Sampling
from flywright.ask.ledger import Ledger, Ledgered, LedgeredScorer
from flywright.data.filters import clean
from flywright.data.prepare import refuse_other_tokenizer
from flywright.data.shards import open_shard
from flywright.errors import UserError
from flywright.evals.compare import by_kind, compare
from flywright.evals.judge_pairs import judge_accuracy
from flywright.evals.pairs import pair_accuracy, rated_pairs
from flywright.evals.run import evaluate
from flywright.files import atomic_folder
from flywright.model import load_decoder, read_spec, save
from flywright.model.weights import open_decoder
from flywright.recipe import settings as s
from flywright.recipe import training
from flywright.recipe.answerers import Answerer, opened, reward_scorer
from flywright.recipe.brought import OwnShards
from flywright.recipe.overlap import apart, overlap
from flywright.recipe.sources import Source, TextSource
from flywright.recipe.step import Artifact, Work, stage
from flywright.records import (
    Comparison,
    Dialogue,
    Document,
    Prompt,
    Rating,
    read_jsonl,
    write_jsonl,
)
from flywright.sandbox import Sandbox, SandboxSettings
from flywright.spec import ModelSpec
from flywright.synth import Maker, filters, prompts, topics
from flywright.synth.comparisons import Judges, comparisons
from flywright.synth.dialogues import dialogues, two_turn
from flywright.synth.diversity import Novelty, diversity
from flywright.synth.genetic import genetic
from flywright.synth.instructions import instructed, revised
from flywright.tokenizer import Tokenizer, chat, train_tokenizer

Flow = Coroutine[Any, Any, list]  # a flow's records, to come

# ---------------------------------------------------------------- pretraining


@stage(version=1)
def gather_documents(work: Work, settings: s.DocumentSettings, source: TextSource) -> None:
    """Cleaned documents and decontaminated question-answer texts, from the recipe's source."""
    dropped: Counter[str] = Counter()
    work.items = write_jsonl(work / "documents.jsonl", clean(source.documents(), dropped))
    kept = apart(work, source.questions(), source)
    count = write_jsonl(work / "questions.jsonl", kept)
    work.facts |= {"dropped": dict(dropped), "questions": count, "notes": list(source.notes)}


@stage(version=1)
def make_tokenizer(work: Work, settings: s.DocumentSettings, documents: Artifact) -> None:
    """A SentencePiece BPE tokenizer, trained on a sample of the documents."""
    texts = [document.text for document in read_jsonl(documents / "documents.jsonl", Document)]
    step = max(1, len(texts) // settings.tokenizer_documents)
    tokenizer = train_tokenizer(texts[::step], settings.vocab_size)
    tokenizer.save(work / "tokenizer")
    work.items = len(texts[::step])
    work.facts = {"vocab_size": tokenizer.vocab_size}


@stage(version=1)
def make_shards(
    work: Work, settings: s.DocumentSettings, documents: Artifact, tokenizer: Artifact
) -> None:
    """Token shards, one for each group and source of documents (group.source.npy)."""
    encoder = Tokenizer.load(tokenizer / "tokenizer")
    texts = read_jsonl(documents / "documents.jsonl", Document)
    questions = read_jsonl(documents / "questions.jsonl", Document)
    placed = chain(((text.group, text) for text in texts), (("questions", q) for q in questions))
    sizes = training.write_shards(work.folder, placed, encoder, work.tick)
    work.tokens = sum(sizes.values())
    work.facts = {"tokens": sizes}


@stage(version=1)
def adopt_shards(work: Work, settings: s.DocumentSettings, own: OwnShards) -> None:
    """Shards that `flywright data` made, where they lie, and their tokenizer."""
    tokenizer = Tokenizer.load(own.tokenizer)
    refuse_other_tokenizer(own.folder, tokenizer)
    tokenizer.save(work / "tokenizer")
    for path in sorted(own.folder.glob("*.npy")):
        (work / path.name).unlink(missing_ok=True)
        (work / path.name).symlink_to(path.resolve())
        work.tokens += len(open_shard(path))


@stage(version=2, trains=True)
def pretrain(
    work: Work, settings: s.PretrainSettings, model: dict, tokenizer: Artifact, shards: Artifact
) -> None:
    """A new Nemotron, trained on the blend with a batch ramp."""
    spec, encoder = ModelSpec(**model), Tokenizer.load(tokenizer / "tokenizer")
    start = partial(training.new_decoder, spec, work.seed)
    context = spec.context_length
    training.train_on_blend(work, settings, shards.folder, start, context, encoder, ramped=True)


@stage(version=1, trains=True)
def continue_pretraining(
    work: Work, settings: s.PretrainSettings, base: Artifact, shards: Artifact
) -> None:
    """The base, trained on: another distribution, and a rate that falls steeply (SPEC 2)."""
    start = partial(open_decoder, base.weights)
    encoder, context = training.open_tokenizer(base.weights), read_spec(base.weights).context_length
    training.train_on_blend(work, settings, shards.folder, start, context, encoder)


@stage(version=1)
def adopt(work: Work, settings: s.BaseSettings, revision: str) -> None:
    """A base that others trained, in place of pretraining; `revision` is the hash of its bytes."""
    source, owner = Path(settings.folder), Path(settings.tokenizer or settings.folder)
    tokenizer, model = training.open_tokenizer(owner), load_decoder(source)
    if tokenizer.vocab_size > model.spec.vocab_size:
        sizes = f"{tokenizer.vocab_size} pieces, the model {model.spec.vocab_size}"
        raise UserError(f"{owner}: the tokenizer has {sizes}: it belongs to another")
    with atomic_folder(work / "weights") as folder:
        save(model, folder, chat.end_ids(tokenizer))
        tokenizer.save(folder)


# ---------------------------------------------------------------- reward model


@stage(version=1)
def gather_ratings(work: Work, settings: s.RewardSettings, split: str, source: Source) -> None:
    """Human-like five-attribute ratings, and ratings of a held-out split to judge the judge."""
    work.items = write_jsonl(work / "ratings.jsonl", source.ratings(settings.ratings))
    write_jsonl(work / "heldout.jsonl", source.rated_heldout(split, settings.heldout_ratings))


@stage(version=2, trains=True)
def train_reward(work: Work, settings: s.RewardSettings, base: Artifact, ratings: Artifact) -> None:
    """A five-attribute reward model on the base; its pair accuracy beside a length-only rule."""
    training.regress(work, settings, base.weights, read_jsonl(ratings / "ratings.jsonl", Rating))
    if work.ranks.first:
        weigh_reward(work, rated_pairs(list(read_jsonl(ratings / "heldout.jsonl", Rating))))


def weigh_reward(work: Work, pairs: list[Comparison]) -> dict[str, Any]:
    """Tell how often the reward model just trained ranks pairs right; returned with intervals."""
    found = asyncio.run(pair_accuracy(reward_scorer(work / "weights"), pairs, work.tick))
    means = {name: found[name]["mean"] for name in ("pair_accuracy", "length_only")}
    work.facts |= {**found, **means, "pairs": len(pairs)}
    return found


# ---------------------------------------------------------------- synthetic data


def asked(
    work: Work, synth: s.SynthSettings, who: Answerer, flow: Callable[[Maker, Ledger], Flow]
) -> list:
    """The records of a flow. Every reply is remembered in the step's ledger."""
    with Ledger(work / "ledger.jsonl") as ledger:
        maker = Maker(Ledgered(opened(who), ledger), synth, work.seed, work.tick)
        made = asyncio.run(flow(maker, ledger))
    work.facts["flows"] = maker.counts
    return made


@stage(version=1)
def write_prompts(
    work: Work, settings: s.PromptSettings,
    synth: s.SynthSettings, documents: Artifact, source: Source, writer: Answerer,
) -> None:  # fmt: skip
    """Prompts of every family, split into disjoint sets for SFT and for preferences."""

    def novelty() -> Novelty | None:
        return None if source.patterned else Novelty(synth.near_duplicate)

    async def flow(maker: Maker, _ledger: Ledger) -> list[Prompt]:
        subjects = await topics.topics(maker)
        texts = list(read_jsonl(documents / "documents.jsonl", Document))
        english = [text for text in texts if text.language == "en"][: settings.documents]
        plain = [
            await prompts.open_qa(maker, subjects, novelty()),
            await prompts.writing(maker, subjects, novelty()),
            await prompts.closed_qa(maker, english),
            await prompts.math(maker, (), novelty()),
            await prompts.coding(maker, (), novelty()),
        ]
        some = prompts.mix(plain, settings.sft, maker.seed)
        return [
            *some,
            *instructed(some, synth, maker.seed),
            *instructed(some[::3], synth, maker.seed, lasting=True),
            *await revised(maker, some[::4]),
            *await two_turn(maker, some[1::4]),
        ]

    made = asked(work, synth, writer, flow)
    unique, _ = filters.exact(made)
    distinct, _ = filters.near(unique, synth.near_duplicate)
    fresh = apart(work, distinct, source, synth.overlap_share)
    near = 0.0 if source.patterned else synth.near_duplicate
    for_sft, for_preference = prompts.split(fresh, settings.preference_share, work.seed, near)
    for_sft = _balanced(for_sft, settings.sft, work.seed)
    for_preference = _balanced(for_preference, settings.preference, work.seed)
    truth = source.prompts(settings.truth)
    write_jsonl(work / "sft.jsonl", for_sft)
    write_jsonl(work / "preference.jsonl", [*for_preference, *truth])
    work.items = len(for_sft) + len(for_preference) + len(truth)
    work.facts |= {"copies": len(made) - len(unique), "near_copies": len(unique) - len(distinct)}


def _balanced(records: list[Prompt], count: int, seed: int) -> list[Prompt]:
    """At most `count` prompts, the families in turn."""
    families: dict[str, list[Prompt]] = {}
    for record in records:
        families.setdefault(record.task, []).append(record)
    return prompts.mix(list(families.values()), count, seed)


@stage(version=1)
def breed_code(
    work: Work, settings: s.GeneticSettings,
    synth: s.SynthSettings, sandbox: SandboxSettings, source: Source, writer: Answerer,
) -> None:  # fmt: skip
    """Coding samples by Genetic Instruct, with execution and a judge as fitness."""
    runner = Sandbox(sandbox)
    seeds = source.code_seeds()
    bred = asked(work, synth, writer, lambda maker, _: genetic(maker, seeds, settings, runner))
    fresh = apart(work, bred, source, synth.overlap_share)
    work.items = write_jsonl(work / "code.jsonl", fresh)
    work.facts["isolation"] = runner.isolation


@stage(version=1)
def hold_dialogues(
    work: Work, synth: s.SynthSettings,
    prompt_sets: Artifact, reward: Artifact, answerer: Answerer, user: Answerer,
) -> None:  # fmt: skip
    """Dialogues by role-play, kept where the reward model finds them good enough."""
    questions = list(read_jsonl(prompt_sets / "sft.jsonl", Prompt))
    scorer = reward_scorer(reward.weights)

    async def flow(maker: Maker, ledger: Ledger) -> list[Dialogue]:
        held = await dialogues(maker, questions, Ledgered(opened(user), ledger), synth.verify)
        return await filters.by_reward(maker, held, scorer, synth.dialogue_reward)

    kept = asked(work, synth, answerer, flow)
    work.items = write_jsonl(work / "dialogues.jsonl", kept)
    work.facts["diversity"] = diversity(kept)


@stage(version=1)
def compare_answers(
    work: Work, synth: s.SynthSettings, sandbox: SandboxSettings,
    prompt_sets: Artifact, reward: Artifact, policy: Artifact,
    answerer: Answerer, llm_judge: Answerer,
) -> None:  # fmt: skip
    """Pairs of answers, judged by ground truth, by an LLM in both orders, and by reward."""
    questions = list(read_jsonl(prompt_sets / "preference.jsonl", Prompt))
    judge = opened(llm_judge)

    async def flow(maker: Maker, ledger: Ledger) -> list[Comparison]:
        scorer = LedgeredScorer(reward_scorer(reward.weights), ledger)
        judges = Judges(Sandbox(sandbox), Ledgered(judge, ledger), scorer)
        answerers = {"policy": Ledgered(opened(policy), ledger), "generator": maker.ask}
        return await comparisons(maker, questions, answerers, judges)

    pairs = asked(work, synth, answerer, flow)
    for_dpo, for_rpo, quality = filters.preference_sets(pairs, synth)
    write_jsonl(work / "dpo.jsonl", for_dpo)
    write_jsonl(work / "rpo.jsonl", for_rpo)
    work.items = len(pairs)
    work.facts |= {
        "quality_filter": quality,
        "decided_by": dict(Counter(pair.judge for pair in pairs)),
        "judge": _agreement(pairs, judge),
    }


def _agreement(pairs: Iterable[Comparison], llm: Completer) -> dict[str, dict]:
    """How often each judge agrees with the ground truth, over the pairs that it decided.

    A program that stands in for a model is `scripted`: reports mark what it says.
    """
    votes: dict[str, list[int]] = {}
    for pair in pairs:
        for verdict in pair.lineage.verdicts if pair.judge == "truth" else ():
            votes.setdefault(verdict.judge.partition(":")[0], []).append(verdict.preference)
    votes.pop("truth", None)
    return {
        name: {
            "accuracy": sum(v > 0 for v in cast) / max(1, sum(v != 0 for v in cast)),
            "decided": sum(v != 0 for v in cast),
            "n": len(cast),
            "scripted": name == "llm" and getattr(llm, "scripted", False),
        }
        for name, cast in votes.items()
    }


# ---------------------------------------------------------------- alignment


@stage(version=1, trains=True)
def tune_on_code(work: Work, settings: s.Training, base: Artifact, code: Artifact) -> None:
    """Code SFT: the first of two SFT stages, coding only (SPEC 8.1)."""
    training.supervise(work, settings, base.weights, read_jsonl(code / "code.jsonl", Dialogue))


@stage(version=1, trains=True)
def tune(
    work: Work, settings: s.SftSettings, policy: Artifact, talks: Artifact, code: Artifact
) -> None:
    """General SFT on dialogues, with a small share of the code samples, or all if not staged."""
    general = list(read_jsonl(talks / "dialogues.jsonl", Dialogue))
    coding = list(read_jsonl(code / "code.jsonl", Dialogue))
    share = settings.code_share / (1 - settings.code_share)
    some = coding[: round(share * len(general))] if settings.staged else coding
    training.supervise(work, settings, policy.weights, [*general, *some])


@stage(version=1, trains=True)
def optimize(work: Work, settings: s.DpoSettings, policy: Artifact, pairs: Artifact) -> None:
    """DPO with its SFT term, or one RPO iteration; the reference is the policy that it starts from.

    RPO takes pairs by a looser filter than DPO does.
    """
    kept = "rpo.jsonl" if isinstance(settings, s.RpoSettings) else "dpo.jsonl"
    records = read_jsonl(pairs / kept, Comparison)
    training.optimize_preference(work, settings, policy.weights, records)


# ---------------------------------------------------------------- evaluation


@stage(version=1)
def measure(
    work: Work, settings: s.EvaluateSettings, label: dict,
    sandbox: SandboxSettings, source: Source, reward: Artifact, who: Answerer,
) -> None:  # fmt: skip
    """One row of the stage table: held-out prompts with truth, greedy, and the reward.

    Rows of label["whole"] have settings.whole times the items; the first are those of every row.
    """
    times = settings.whole if label["whole"] else 1
    near = source.heldout(settings.split, settings.near * times)
    held_out = near + source.heldout("far", settings.far * times)
    scorer, sampling = reward_scorer(reward.weights), Sampling(max_tokens=settings.max_tokens)
    tools = {"scorer": scorer, "sandbox": Sandbox(sandbox), "sampling": sampling}
    told = {"labels": label, "out": work.folder, "tick": work.tick}
    results = asyncio.run(evaluate(opened(who), held_out, **tools, **told))
    write_jsonl(work / "prompts.jsonl", held_out)
    work.items = len(held_out)
    work.facts = {"metrics": {name: value["mean"] for name, value in results.metrics.items()}}


@stage(version=1)
def judge_judges(
    work: Work, settings: s.EvaluateSettings, ratings: Artifact, judges: dict[str, Answerer]
) -> None:
    """LLMs as judges, both orders, on the pairs that the reward model is measured on."""
    pairs = rated_pairs(list(read_jsonl(ratings / "heldout.jsonl", Rating)))
    for name, who in judges.items():
        judge = opened(who)
        found = asyncio.run(judge_accuracy(judge, pairs, work.tick))
        work.facts[name] = found | {"scripted": getattr(judge, "scripted", False)}
    work.items = len(pairs)


@stage(version=1)
def draw_conclusions(
    work: Work, settings: s.EvaluateSettings,
    source: Source, rows: dict[str, Artifact], trained_on: list[Artifact],
) -> None:  # fmt: skip
    """What the turn brought, paired by item: over SFT, over the generator, over the turn before.

    rows: "last", "sft", and where there is one "generator" and "before". The gain over the
    generator is also told by the kind of error that the generator makes on an item.
    """
    last = rows["last"].folder
    names = {"sft": "gain", "generator": "against_generator", "before": "against_turn_before"}
    work.facts = {
        told: compare(rows[name].folder, last) for name, told in names.items() if name in rows
    }
    held_out = list(read_jsonl(last / "prompts.jsonl", Prompt))
    if "generator" in rows:
        kinds = {prompt.id: source.weakness(prompt) for prompt in held_out}
        work.facts["by_weakness"] = by_kind(rows["generator"].folder, last, kinds)
    work.facts["overlap"] = overlap(held_out, trained_on, source)
    work.items = len(held_out)
