"""The experiments: what is redone and what is read, how rows are written; and that they run."""

import json

import pytest
import quality
from road_artifacts import TOY

from flywright.errors import UserError
from flywright.files import file_hash, write_json
from flywright.recipe.run import read_recipe, run, step_names
from flywright.recipe.step import Artifact, Work, stage
from flywright.settings import Settings

TWO_TURNS = (
    "turns=2",
    "rpo.iterations=1",
    "sft.train.epochs=14",  # so that turn 1's model learns to end its answers
    "sft.train.learning_rate=3e-3",
    "synth.dialogue_reward=-100",
    "synth.dpo_quality=-100",
)


class Number(Settings):
    """A toy step's settings."""

    value: int


@stage(version=1)
def add(work: Work, settings: Number, *inputs: Artifact) -> None:
    """The value and those of the inputs, summed."""
    total = settings.value + sum(int((one / "sum.txt").read_text()) for one in inputs)
    (work / "sum.txt").write_text(str(total))


def walk(road, second):
    first = road.do(add, "first", Number(value=1))
    middle = road.do(add, "middle", Number(value=second), first)
    return road.do(add, "last", Number(value=100), middle)


def experiment(redo, **more):
    return quality.Experiment("test", (), redo, (), **more)


def test_a_variant_reads_the_run_and_writes_beside_it(tmp_path):
    original = quality.Road(tmp_path / "run", 1)
    walk(original, 10)
    run_steps = quality.finished(tmp_path / "run")
    before = {path: file_hash(path) for path in (tmp_path / "run").rglob("*.*") if path.is_file()}
    chosen = experiment(("middle", "last"))
    road = quality.Alongside(run_steps, 1, tmp_path / "variant", chosen)
    with pytest.raises(quality.Stop):
        walk(road, 20)
    assert (road.made["last"] / "sum.txt").read_text() == "121"
    assert set(quality.finished(tmp_path / "variant")) == {"middle", "last"}
    assert before == {path: file_hash(path) for path in before}
    swapped = experiment(("last",), swap={"middle": "first"})
    road = quality.Alongside(run_steps, 1, tmp_path / "swapped", swapped)
    with pytest.raises(quality.Stop):
        walk(road, 10)
    assert (road.made["last"] / "sum.txt").read_text() == "101"


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    road = quality.Alongside({}, 1, tmp_path, experiment(("last",)))
    with pytest.raises(UserError, match="middle of the run is not finished"):
        walk(road, 10)
    with pytest.raises(UserError, match="not a finished run"):
        quality.run_all(tmp_path, [], tmp_path, tmp_path / "out.json")


def test_experiments_redo_steps_of_the_road_and_change_what_they_say():
    recipe = read_recipe(TOY, list(TWO_TURNS), None)
    road = step_names(recipe)
    made = quality.experiments(recipe)
    assert len({one.name for one in made}) == len(made) >= 14
    for one in made:
        places = [road.index(name) for name in one.redo]
        assert places == sorted(places) and one.redo[-1].partition("-")[2].startswith("eval-")
        sides = {side for beside in one.besides for side in (beside.ours, beside.peer)}
        assert sides <= {*road, quality.VARIANT}
        assert set(one.swap) | set(one.swap.values()) <= set(road)
        assert quality.nothing_to_do(one, recipe) == ""
    one_turn = quality.changed(recipe, ["turns=1", "synth.judges=['truth', 'reward']"])
    notes = {one.name: quality.nothing_to_do(one, one_turn) for one in made}
    assert "2 turns" in notes["later-base"] and not notes["judge-truth"]
    again = {one.name: one for one in quality.experiments(one_turn)}
    assert "nothing to leave out" in quality.nothing_to_do(again["judge-llm"], one_turn)


def test_the_ratio_is_above_one_where_ours_is_better():
    assert quality.ratio(0.6, 0.5) == pytest.approx(1.2)
    assert quality.ratio(-40.0, -50.0) == pytest.approx(1.25)
    assert quality.ratio(0.0, 0.5) is None and quality.ratio(-1.0, 1.0) is None


def test_results_are_kept_for_the_same_run_only(tmp_path):
    write_json(tmp_path / "machine.json", {"cores": "2"})
    out, steps = tmp_path / "out.json", {"a": Artifact("a", tmp_path, "one")}
    results = quality.load_results(out, tmp_path, steps)
    apart = {"mean": 0.1, "low": -0.1, "high": 0.3, "n": 7, "unpaired": 0}
    found = {"changes": ["a.b=1"], "seconds": 3.0}
    rows = [{"experiment": "x", **quality.row("with it", 0.5, 0.4, "without", "share", apart)}]
    for _ in range(2):
        quality.record(results, "x", found | {"rows": rows})
        write_json(out, results)
    quality.record(results, "y", {"changes": [], "note": "it needs more"})
    write_json(out, results)
    kept = quality.load_results(out, tmp_path, steps)
    assert kept == results and len(kept["rows"]) == 1
    assert kept["rows"][0]["difference"] == {"mean": 0.1, "low": -0.1, "high": 0.3, "n": 7}
    shown = quality.table(kept)
    assert "x, 3 s: a.b=1" in shown and "y: it needs more" in shown
    assert "0.500" in shown and "without 0.400" in shown and "+0.100 [-0.100, +0.300] n=7" in shown
    other = {"a": Artifact("a", tmp_path, "another")}
    assert quality.load_results(out, tmp_path, other)["rows"] == []


@pytest.mark.slow
def test_every_experiment_runs_on_a_run_of_two_turns(tmp_path):
    root, out = tmp_path / "run", tmp_path / "quality.json"
    recipe = read_recipe(TOY, list(TWO_TURNS), None)
    run(recipe, root)
    before = {path: file_hash(path) for path in root.rglob("*") if path.is_file()}
    quality.run_all(root, [], tmp_path / "work", out)
    results = json.loads(out.read_text())
    assert len(results["experiments"]) >= 14
    for name, one in results["experiments"].items():
        rows = [row for row in results["rows"] if row["experiment"] == name]
        assert rows and one["redone"] and one["seconds"] > 0 and "note" not in one
        for row in rows:
            assert row["difference"]["mean"] == pytest.approx(row["ours"] - row["peer"], abs=1e-6)
    judged = results["experiments"]["judge-llm"]["counts"]
    assert "llm" not in judged["variant"]["1-comparisons"]["decided_by"]
    assert before == {path: file_hash(path) for path in root.rglob("*") if path.is_file()}
