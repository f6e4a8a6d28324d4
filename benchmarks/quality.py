"""What each part of the recipe is worth: a finished run beside itself with one thing changed.

    python benchmarks/quality.py RUN [--only dpo-sft-term,judge-llm]

RUN is what `flywright run laptop --out RUN` left; nothing is written there. A variant redoes only
the steps that its change reaches, in RUN-quality/NAME/steps; of all else it reads the run's own.
It is measured on the same held-out items as the run's row, and compared item by item. Everything is
recorded, whichever way it comes out, in benchmarks/results/quality.json, experiment by experiment:
a run of this script that was stopped is gone on with.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recording import RESULTS, heading

from flywright.errors import FlywrightError, UserError
from flywright.evals.compare import by_kind, compare
from flywright.evals.items import STAGE_METRICS
from flywright.evals.run import read_results
from flywright.files import digest, write_json
from flywright.progress import Tick
from flywright.recipe.loop import weak_to_strong
from flywright.recipe.settings import RecipeSettings
from flywright.recipe.sources import Source, open_source
from flywright.recipe.step import MANIFEST, Announce, Artifact, Road, Stage, Stop
from flywright.records import Dialogue, Prompt, read_jsonl
from flywright.settings import apply_overrides, parse_settings
from flywright.stats import paired_difference
from flywright.synth.decontaminate import Benchmarks, decontaminate

METRICS = ("mean", *STAGE_METRICS, "reward")
UNTOLD = "flywright.world:Untold"  # the same small world, where no text tells the facts
FACT_TASK = "open_qa"
DATA = ("prompts", "code", "dialogues", "comparisons")
VARIANT = "variant"
NO_THRESHOLD = "-1e9"


@dataclass(frozen=True)
class Beside:
    """Two rows that are compared: evaluation steps of the run, or the variant's."""

    what: str
    ours: str
    peer: str
    peer_name: str


@dataclass(frozen=True)
class Experiment:
    """One change: settings, the steps that are redone with it (an evaluation last), the rows.

    swap: step -> another step of the run whose artifact is taken for it.
    """

    name: str
    changes: tuple[str, ...]
    redo: tuple[str, ...]
    besides: tuple[Beside, ...]
    swap: dict[str, str] = field(default_factory=dict)
    turns: int = 1


class Alongside(Road):
    """A road that takes the steps of a finished run, and makes only those to be redone itself."""

    def __init__(self, run: dict[str, Artifact], seed: int, root: Path, chosen: Experiment):
        super().__init__(root, seed, until=chosen.redo[-1], announce=Telling())
        self._run = run
        self._chosen = chosen
        self.made: dict[str, Artifact] = {}

    def do(self, function: Stage, name: str, settings: Any, *inputs: Any) -> Artifact:
        """The run's own artifact, or one made anew."""
        if name not in self._chosen.redo:
            name = self._chosen.swap.get(name, name)
            return self._run.get(name) or Artifact(name, self.root, "")
        for value in inputs:
            if isinstance(value, Artifact) and not value.fingerprint:
                raise UserError(f"step {value.name} of the run is not finished: go on with it")
        try:
            self.made[name] = super().do(function, name, settings, *inputs)
        except Stop:
            self.made[name] = self._at(name)
            raise
        return self.made[name]

    def _at(self, name: str) -> Artifact:
        return finished(self.root)[name]

    def link(self, name: str, artifact: Artifact) -> None:
        """A variant is nobody's policy."""


class Telling(Announce):
    """One line for each step that was made."""

    def begin(self, name: str) -> Tick:
        """The name, before the wait."""
        print(f"  {name} ..", end="", flush=True)
        return super().begin(name)

    def finished(self, name: str, seconds: float) -> None:
        """And the seconds after it."""
        print(f" {seconds:.1f} s", flush=True)


def finished(run: Path) -> dict[str, Artifact]:
    """The finished steps of a run by name."""
    found = {}
    for path in sorted((run / "steps").glob(f"*/{MANIFEST}")):
        said = json.loads(path.read_text())
        found[said["name"]] = Artifact(said["name"], path.parent, said["fingerprint"])
    return found


def _numbered(turn: int, *names: str) -> tuple[str, ...]:
    return tuple(f"{turn}-{name}" for name in names)


def filter_experiments(recipe: RecipeSettings, last: str) -> list[Experiment]:
    """Each filter left out once, then each judge."""
    rounds = [f"rpo{number}" for number in range(1, recipe.rpo.iterations + 1)]
    talks = ("dialogues", "sft", "eval-sft")
    pairs = ("comparisons", "dpo", *rounds, f"eval-{last}")
    left_out: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = [
        ("near-duplicates", "near-duplicate filter of prompts", ("synth.near_duplicate=0",),
         ("prompts", *talks)),
        ("decontamination", "decontamination", ("synth.overlap_share=0",),
         ("prompts", "code", "dialogues", "code-sft", "sft", "eval-sft")),
        ("verify", "verified instructions in dialogues", ("synth.verify=false",), talks),
        ("dialogue-reward", "reward filter of dialogues",
         (f"synth.dialogue_reward={NO_THRESHOLD}",), talks),
        ("chosen-quality", "chosen-quality filter of pairs",
         (f"synth.dpo_quality={NO_THRESHOLD}", f"synth.rpo_quality={NO_THRESHOLD}"), pairs),
        *((f"judge-{judge}", f"the {judge} judge",
           (f"synth.judges={[name for name in recipe.synth.judges if name != judge]}",), pairs)
          for judge in ("truth", "llm", "reward")),
    ]  # fmt: skip
    return [
        Experiment(
            name, changes, _numbered(1, *redo),
            (Beside(f"with {what}", f"1-{redo[-1]}", VARIANT, f"without {what}"),),
        )
        for name, what, changes, redo in left_out
    ]  # fmt: skip


def experiments(recipe: RecipeSettings) -> list[Experiment]:
    """All experiments on a run of this recipe."""
    last = f"rpo{recipe.rpo.iterations}"
    row1, row2 = f"1-eval-{last}", f"2-eval-{last}"
    rounds = [f"rpo{number}" for number in range(1, recipe.rpo.iterations + 1)]
    align = ("code-sft", "sft", "dpo", *rounds, f"eval-{last}")
    base = ("documents", "tokenizer", "shards", "pretrain", "continue")
    unlearned = [f"source={UNTOLD}"]
    for phase, blend in (("pretrain", recipe.pretrain), ("continued", recipe.continued)):
        kept = [f"{name}={by}" for name, by in blend.upweight.items() if name != "handbook"]
        unlearned.append(f"{phase}.upweight={{{', '.join(kept)}}}")
    return [
        Experiment(
            "dpo-sft-term", ("dpo.sft_weight=0",), _numbered(1, "dpo", "eval-dpo"),
            (Beside("DPO with its SFT term", "1-eval-dpo", VARIANT, "DPO without"),),
        ),
        Experiment(
            "rpo-loss", ('rpo.loss="dpo"',), _numbered(1, *rounds, f"eval-{last}"),
            (Beside("RPO", row1, VARIANT, "DPO for as many steps more"),),
        ),
        Experiment(
            "staged-sft", ("sft.staged=false",), _numbered(1, "sft", "eval-sft"),
            (Beside("code SFT, then SFT", "1-eval-sft", VARIANT, "one SFT on all"),),
        ),
        *filter_experiments(recipe, last),
        Experiment(
            "control", tuple(unlearned), (*base, *_numbered(1, *align)),
            (Beside("a base that saw the facts", row1, VARIANT, "one that never did"),),
        ),
        Experiment(
            "later-base", (), _numbered(1, *align),
            (
                Beside("turn 1's data on turn 2's base", VARIANT, row1, "on turn 1's base"),
                Beside("turn 2's data on turn 2's base", row2, VARIANT, "turn 1's data on it"),
            ),
            {"continue": "2-base"}, turns=2,
        ),
        Experiment(
            "later-data", (), _numbered(2, *align),
            (
                Beside("turn 2's data on turn 1's base", VARIANT, row1, "turn 1's data on it"),
                Beside("turn 2's data on turn 2's base", row2, VARIANT, "on turn 1's base"),
            ),
            {"2-base": "continue"}, turns=2,
        ),
    ]  # fmt: skip


def changed(recipe: RecipeSettings, changes: Iterable[str]) -> RecipeSettings:
    """The recipe with settings changed."""
    tree = apply_overrides(recipe.model_dump(mode="json"), list(changes))
    return parse_settings(RecipeSettings, tree, "experiment")


def nothing_to_do(chosen: Experiment, recipe: RecipeSettings) -> str:
    """Why an experiment tells nothing on this run; "" = it does."""
    if recipe.turns < chosen.turns:
        return f"it needs a run of {chosen.turns} turns"
    if not chosen.swap and changed(recipe, chosen.changes) == recipe:
        return "this is how the run is made: there is nothing to leave out"
    return ""


def ratio(ours: float, peer: float) -> float | None:
    """Over 1 = we are better, also where both are negative; None where it means nothing."""
    if ours > 0 and peer > 0:
        return ours / peer
    return peer / ours if ours < 0 and peer < 0 else None


def row(what: str, ours: float, peer: float, peer_name: str, unit: str, apart: Any) -> dict:
    """A row of the result file; apart = the paired difference, ours - peer."""
    kept = {name: apart[name] for name in ("mean", "low", "high", "n")}
    return {
        "what": what, "ours": ours, "peer": peer, "peer_name": peer_name,
        "ratio": ratio(ours, peer), "unit": unit, "difference": kept,
    }  # fmt: skip


def score_rows(beside: Beside, ours: Path, peer: Path) -> list[dict]:
    """One row a metric, over the items that both sides have."""
    apart = compare(peer, ours)
    means = [read_results(folder)["metrics"] for folder in (ours, peer)]
    return [
        row(
            f"{beside.what}: {name}", means[0][name]["mean"], means[1][name]["mean"],
            beside.peer_name, "reward" if name == "reward" else "share", apart[name],
        )
        for name in METRICS
        if name in apart and name in means[0] and name in means[1]
    ]  # fmt: skip


def fact_rows(pairs: dict[str, tuple[Path, Path]]) -> list[dict]:
    """Questions on facts and the rest, apart. pairs: "A beside B" -> their evaluations."""
    rows = []
    for names, (ours, peer) in pairs.items():
        what, _, peer_name = names.partition(" beside ")
        held_out = read_jsonl(ours / "prompts.jsonl", Prompt)
        kinds = {one.id: FACT_TASK if one.task == FACT_TASK else "all else" for one in held_out}
        for kind, both in by_kind(peer, ours, kinds).items():
            said = (f"{what}: {kind}", both["second"], both["first"], peer_name, "share")
            rows.append(row(*said, both["difference"]))
    return rows


def chosen_row(name: str, ours: Artifact, peer: Artifact) -> dict:
    """Chosen log-probability over the last fifth of the steps; both saw the same batches."""
    sides = []
    for artifact in (ours, peer):
        text = (artifact / "metrics.jsonl").read_text()
        sides.append([json.loads(line)["chosen_logprob"] for line in text.splitlines()])
    tail = max(1, len(sides[0]) // 5)
    if len(sides[0]) != len(sides[1]):
        raise UserError(f"{peer.folder}: {len(sides[1])} steps, the run has {len(sides[0])}")
    ours_tail, peer_tail = sides[0][-tail:], sides[1][-tail:]
    means = [sum(side) / tail for side in (ours_tail, peer_tail)]
    apart = paired_difference(ours_tail, peer_tail).as_dict()
    what = f"chosen log-probability at the end of {name}"
    return row(what, means[0], means[1], "the variant", "nat a chosen answer", apart)


def counts(artifacts: dict[str, Artifact], names: Iterable[str]) -> dict[str, Any]:
    """What the data steps among `names` say of what they made and dropped."""
    said = {name: artifacts[name].manifest() for name in names if name[2:] in DATA}
    return {name: {"items": one["items"], **one["facts"]} for name, one in said.items()}


def came_in(made: dict[str, Artifact], share: float, source: Source) -> int:
    """Prompts and code samples that decontamination would have kept out."""
    prompts, code = made["1-prompts"], made["1-code"]
    texts = [
        *read_jsonl(prompts / "sft.jsonl", Prompt),
        *read_jsonl(prompts / "preference.jsonl", Prompt),
        *read_jsonl(code / "code.jsonl", Dialogue),
    ]
    return len(
        decontaminate(texts, Benchmarks(source.benchmark_texts(), share=share, methods=("words",)))[
            1
        ]
    )


def carry_out(
    chosen: Experiment, recipe: RecipeSettings, run: dict[str, Artifact], root: Path
) -> dict[str, Any]:
    """Redo, compare: {"changes", "redone", "seconds", "counts", "rows"}."""
    variant = changed(recipe, (*chosen.changes, "evaluate.far=0"))
    source = open_source(variant.source, variant.seed)
    road = Alongside(run, variant.seed, root, chosen)
    with suppress(Stop):
        weak_to_strong(road, variant, source)
    told = road.made[chosen.redo[-1]]
    folder = lambda name: (told if name == VARIANT else run[name]).folder  # noqa: E731
    rows = []
    for beside in chosen.besides:
        rows += score_rows(beside, folder(beside.ours), folder(beside.peer))
    if chosen.name in ("dpo-sft-term", "rpo-loss"):
        step = chosen.redo[-2]
        rows.append(chosen_row(step[2:].upper(), run[step], road.made[step]))
    found: dict[str, Any] = {
        "changes": list(chosen.changes) or [f"{a} = {b}" for a, b in chosen.swap.items()],
        "redone": list(chosen.redo),
        "seconds": round(sum(one.manifest()["seconds"] for one in road.made.values()), 1),
    }
    data = [name for name in road.made if name[2:] in DATA]
    if data:
        found["counts"] = {"run": counts(run, data), "variant": counts(road.made, data)}
    if chosen.name == "decontamination":
        found["came_in"] = came_in(road.made, recipe.synth.overlap_share, source)
    if chosen.name == "control":
        student, control = folder(chosen.besides[0].ours), folder(VARIANT)
        generator = run[f"1-eval-{recipe.generator.name}"].folder
        rows += fact_rows({
            "the model beside its control": (student, control),
            "the model beside its generator": (student, generator),
            "the control beside the generator": (control, generator),
        })  # fmt: skip
    return found | {"rows": [{"experiment": chosen.name, **one} for one in rows]}


def fresh(run: Path, artifacts: dict[str, Artifact]) -> dict[str, Any]:
    """A result file without results."""
    machine = json.loads((run / "machine.json").read_text())
    return heading(f"python benchmarks/quality.py {run}", machine) | {
        "run": digest([(name, one.fingerprint) for name, one in sorted(artifacts.items())]),
        "experiments": {},
        "rows": [],
    }


def load_results(path: Path, run: Path, artifacts: dict[str, Artifact]) -> dict[str, Any]:
    """What was found on this run before; fresh if the file is of another run, or none."""
    new = fresh(run, artifacts)
    with suppress(OSError, ValueError):
        old = json.loads(path.read_text())
        if old["run"] == new["run"]:
            return old
    return new


def record(results: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Put an experiment's findings in the place of earlier ones."""
    rows = [one for one in results["rows"] if one["experiment"] != name]
    results["rows"] = [*rows, *found.get("rows", [])]
    results["experiments"][name] = {key: found[key] for key in found if key != "rows"}


def table(results: dict[str, Any]) -> str:
    """The rows as text: what, ours, peer, difference with its interval."""
    lines = []
    for name, one in results["experiments"].items():
        seconds = f", {one['seconds']:.0f} s" if "seconds" in one else ""
        lines.append(f"{name}{seconds}: {one.get('note') or '; '.join(one['changes'])}")
        for found in results["rows"]:
            if found["experiment"] == name:
                apart = found["difference"]
                lines.append(
                    f"  {found['what']:<52} {found['ours']:9.3f}   {found['peer_name']} "
                    f"{found['peer']:.3f}   {apart['mean']:+.3f} "
                    f"[{apart['low']:+.3f}, {apart['high']:+.3f}] n={apart['n']}"
                )
    return "\n".join(lines)


def run_all(run: Path, only: list[str], work: Path, out: Path) -> dict[str, Any]:
    """The experiments that are missing, or those named in `only`; returns the results."""
    artifacts = finished(run)
    try:
        tree = json.loads((run / "settings.json").read_text())
    except OSError:
        raise UserError(f"{run}: not a finished run of a recipe with turns") from None
    recipe = parse_settings(RecipeSettings, tree, str(run / "settings.json"))
    known = {one.name: one for one in experiments(recipe)}
    for name in only:
        if name not in known:
            raise UserError(f"no experiment {name!r}; there are: {', '.join(known)}")
    results = load_results(out, run, artifacts)
    for name in only or [name for name in known if name not in results["experiments"]]:
        print(name, flush=True)
        started, note = time.time(), nothing_to_do(known[name], recipe)
        if note:
            found = {"changes": list(known[name].changes), "note": note}
        else:
            found = carry_out(known[name], recipe, artifacts, work / name)
        record(results, name, found)
        write_json(out, results)
        print(f"  {note or f'{time.time() - started:.0f} s in all'}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--only", default="", help="experiments by name, with commas")
    parser.add_argument("--work", type=Path, help="default: RUN-quality")
    parser.add_argument("--out", type=Path, default=RESULTS / "quality.json")
    given = parser.parse_args()
    work = given.work or given.run.with_name(f"{given.run.name}-quality")
    only = [name for name in given.only.split(",") if name]
    try:
        print(table(run_all(given.run, only, work, given.out)))
    except FlywrightError as error:
        print(f"quality: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None


if __name__ == "__main__":
    main()
