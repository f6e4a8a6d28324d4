"""The planner's benchmark: its fit finds the constants behind a family's times; its tables."""

import json
from dataclasses import replace

import numpy as np
import planner
import pytest

from flywright.plan.time import iteration_time


def test_the_fit_finds_the_constants_behind_the_times() -> None:
    """What such constants would have taken is foretold within 1.5 %, also of runs left out."""
    truth = planner.MEAN + np.array([-1.0, 0.0, 0.0, 1.0, 0.5, 0.5]) * planner.DEVIATION
    values = dict(zip(planner.PRIOR, truth.tolist(), strict=True))
    published = planner.families(planner.read_runs(planner.PUBLISHED))["llm-foundry"]
    runs = [
        (job, iteration_time(replace(job, software=replace(job.software, **values))).seconds)
        for job, _ in published
    ]
    assert np.abs(planner.log_errors(runs, planner.MEAN)).max() > 0.03
    assert np.abs(planner.log_errors(runs, planner.fit(runs))).max() < 0.015
    left_out = planner.without(runs, lambda run: run[0].gpus)
    assert len(left_out) == len(runs) and max(map(abs, left_out)) < 0.02


def test_the_profiles_are_what_the_fit_gives() -> None:
    runs = planner.families(planner.read_runs(planner.PUBLISHED))["llm-foundry"]
    kept = [getattr(runs[0][0].software, name) for name in planner.PRIOR]
    assert kept == pytest.approx(planner.fit(runs), rel=0.02)


def test_the_document_says_what_was_measured() -> None:
    result = json.loads((planner.RESULTS / "planner.json").read_text())
    text = (planner.ROOT / "docs" / "planner.md").read_text()
    for table in planner.tables(result):
        assert table in text
