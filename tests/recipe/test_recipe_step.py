"""Steps: skipped when done, gone on with when killed, redone with all that stands on them."""

from pathlib import Path

import pytest

from flywright.recipe.step import Announce, Artifact, Road, Stop, Work, stage
from flywright.settings import Settings


class Number(Settings):
    value: int = 1


CALLS: list[str] = []


@stage(version=1)
def first(work: Work, settings: Number) -> None:
    CALLS.append(work.name)
    (work / "number.txt").write_text(str(settings.value))
    work.items = settings.value


@stage(version=1)
def second(work: Work, settings: Number, before: Artifact) -> None:
    CALLS.append(work.name)
    total = int((before / "number.txt").read_text()) + settings.value
    (work / "number.txt").write_text(str(total))


@stage(version=1)
def breaks_once(work: Work, settings: Number) -> None:
    half = work / "half.txt"
    if not half.exists():
        half.write_text("half")
        raise RuntimeError("killed")
    (work / "whole.txt").write_text("whole")


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def walk(root: Path, value: int = 1, seed: int = 1, **options) -> list[Artifact]:
    road = Road(root, seed, **options)
    one = road.do(first, "first", Number(value=value))
    return [one, road.do(second, "second", Number(), one)]


def test_a_finished_step_is_skipped(tmp_path):
    walk(tmp_path)
    walk(tmp_path)
    assert CALLS == ["first", "second"]


@pytest.mark.parametrize("change", [{"value": 5}, {"seed": 2}])
def test_a_change_redoes_the_step_and_all_after_it(tmp_path, change):
    walk(tmp_path)
    _, two = walk(tmp_path, **change)
    assert CALLS == ["first", "second", "first", "second"]
    assert (two / "number.txt").read_text() == str(change.get("value", 1) + 1)


def test_the_manifest_says_what_was_done(tmp_path):
    one, two = walk(tmp_path, value=7)
    assert one.manifest()["items"] == 7
    assert [step.manifest()["number"] for step in (one, two)] == [1, 2]
    assert two.manifest()["inputs"] == {"first": one.fingerprint}
    assert two.manifest()["settings"] == {"value": 1}


def test_a_killed_step_goes_on_and_is_never_taken_for_done(tmp_path):
    with pytest.raises(RuntimeError):
        Road(tmp_path, 1).do(breaks_once, "b", Number())
    done = Road(tmp_path, 1).do(breaks_once, "b", Number())
    assert (done / "half.txt").exists() and (done / "whole.txt").exists()


def test_what_was_begun_for_other_settings_is_thrown_away(tmp_path):
    with pytest.raises(RuntimeError):
        Road(tmp_path, 1).do(breaks_once, "b", Number())
    with pytest.raises(RuntimeError):
        Road(tmp_path, 1).do(breaks_once, "b", Number(value=2))


@pytest.mark.parametrize("torn", ["", "{", '{"fingerprint": 3'])
def test_a_torn_manifest_is_not_done(tmp_path, torn):
    one, _ = walk(tmp_path)
    (one / "manifest.json").write_text(torn)
    walk(tmp_path)
    assert CALLS == ["first", "second", "first"]


def test_until_stops_after_the_step(tmp_path):
    with pytest.raises(Stop):
        walk(tmp_path, until="first")
    assert CALLS == ["first"]


def test_plan_only_names_the_steps_and_makes_nothing(tmp_path):
    road = Road(tmp_path, 1, plan_only=True)
    road.do(second, "second", Number(), road.do(first, "first", Number()))
    assert road.names == ["first", "second"] and not list(tmp_path.iterdir())


def test_links_point_to_the_newest_weights(tmp_path):
    one, two = walk(tmp_path)
    road = Road(tmp_path, 1, announce=Announce())
    for artifact in (one, two):
        artifact.weights.mkdir()
        road.link("policy", artifact)
    assert (tmp_path / "policy").resolve() == two.weights.resolve()
