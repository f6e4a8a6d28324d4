"""The benchmark of flows: every tool has a parser to edit, and its rows say who is better."""

import inspect

import pytest

import synth
from flywright.synth import parse


@pytest.mark.parametrize("name", synth.PEERS)
def test_every_peer_has_a_parser_to_edit(name):
    script = (synth.HERE / f"synth_peer_{name}.py").read_text()
    assert "lower" in synth.edited(script)
    compile(synth.edited(script), name, "exec")


def test_our_parser_after_the_edit_gives_small_letters():
    source = synth.edited(inspect.getsource(parse))
    found: dict = {}
    exec(compile(source, "parse", "exec"), found)
    assert (parse.spoken(" A b "), found["spoken"](" A b ")) == ("A b", "a b")
    with pytest.raises(ValueError, match="no parser"):
        synth.edited("text")


def test_rows_compare_with_each_peer_that_was_measured():
    def figures(cost, again):
        return {
            "speed": {"name": "n", "cpu_ms_a_call": cost, "calls_a_second": 1000 / cost},
            "calls": {"name": "n", "paid_again_after_kill": again, "killed": {"most_in_flight": 9}},
        }

    measured = {synth.OURS: figures(2, 0), "distilabel": figures(5, 40), "curator": {}}
    rows = {row["what"]: row for row in synth.compared(measured) if row["peer_name"] == "n"}
    assert len(rows) == 3
    assert rows["CPU a call"]["ratio"] == rows["calls a second, one process"]["ratio"] == 2.5
    again = rows["calls paid again after kill -9"]
    assert (again["ours"], again["peer"], again["ratio"]) == (0, 40, 40)
