"""The crash drill: it aims at every step, and it sees what is wrong."""

import os
import signal

import crash_drill
import pytest
from road_artifacts import TOY


def test_moments_cover_all_steps_and_lie_within_them():
    seconds = {"a": 1.0, "b": 0.01, "c": 3.0, "report": 2.0}
    moments = crash_drill.draw(seconds, 10, seed=1)
    steps = [moment.step for moment in moments]
    assert set(steps) == set(seconds) and max(map(steps.count, seconds)) <= 3
    assert steps == sorted(steps, key=list(seconds).index)
    assert all(0 <= moment.after <= seconds[moment.step] for moment in moments)
    assert {moment.how for moment in moments} == {"SIGKILL", "full disk", "closed terminal"}
    assert moments == crash_drill.draw(seconds, 10, seed=1) != crash_drill.draw(seconds, 10, seed=2)


@pytest.mark.parametrize(
    ("how", "status", "said", "right"),
    [
        ("SIGKILL", -signal.SIGKILL, "", True),
        ("SIGKILL", 0, "", False),
        ("closed terminal", -signal.SIGHUP, "", True),
        ("closed terminal", 1, "flywright: x: cannot write: y", False),
        ("full disk", 1, "flywright: x: cannot write: No space left on device", True),
        ("full disk", 1, "Traceback (most recent call last):\nOSError: cannot write", False),
        ("full disk", 1, "flywright: something else", False),
        ("full disk", -7, "", False),
    ],
)
def test_a_run_that_ends_badly_is_told(how, status, said, right):
    assert (crash_drill.fault_of(how, status, said) == "") is right


def test_what_is_not_alike_is_told():
    expected = {"a": "1", "b": "2", "c": "3"}
    assert crash_drill.differences(expected, expected) == []
    told = crash_drill.differences({"a": "1", "b": "0", "d": "4"}, expected)
    assert told == ["b: differs", "c: missing", "d: left over"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a small tmpfs is mounted, which needs root")
def test_a_short_drill(tmp_path):
    kills, apart, files = crash_drill.drill(TOY, 5, 1, tmp_path)
    assert len(kills) == 5 and files > 100
    assert apart == [] and [kill.fault for kill in kills] == [""] * 5
