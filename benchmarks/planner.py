"""How well the planner foretells published runs: `python benchmarks/planner.py [--fit]`.

Three errors of the iteration time, as mean absolute percentages: over the rows the profiles are
fitted to (tests/plan/published_rows.csv); over the same rows, each foretold by a profile fitted
without it, without its (model, precision), or without its number of GPUs; and over rows that no
profile is fitted to (tests/plan/unseen_rows.csv). Writes benchmarks/results/planner.json and
planner.svg. `--fit` prints the constants for src/flywright/plan/software.toml first.

A profile's constants are the most likely ones given its rows and PRIOR, which all families share:
what a family's rows do not tell stays near it.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from recording import RESULTS, ROOT, row, write_result

from flywright.plan.check import CheckResult, check_rows
from flywright.plan.job import Job
from flywright.plan.rows import job_of, seconds_of
from flywright.plan.software import SOFTWARE
from flywright.plan.time import iteration_time

PUBLISHED = ROOT / "tests" / "plan" / "published_rows.csv"
UNSEEN = ROOT / "tests" / "plan" / "unseen_rows.csv"
# constant: (mean, deviation, least, most)
PRIOR = {
    "matmul_bf16": (0.78, 0.08, 0.3, 0.98),
    "matmul_fp8": (0.68, 0.08, 0.3, 0.98),
    "tp_exposed": (0.4, 0.25, 0.0, 1.0),
    "dp_exposed": (0.3, 0.2, 0.0, 1.0),
    "layer_seconds": (3e-4, 1.5e-4, 2e-5, 8e-4),
    "scale_loss": (0.006, 0.004, 0.0, 0.03),
}
NOISE = 0.03  # how far a right model would be off
MEAN, DEVIATION, LEAST, MOST = (np.array(each) for each in zip(*PRIOR.values(), strict=True))
STEPS = 8

Run = tuple[Job, float]  # a published run and its seconds an iteration


def read_runs(path) -> list[Run]:
    with path.open(newline="", encoding="utf-8") as stream:
        jobs = [(job_of(line), line) for line in csv.DictReader(stream)]
    return [(job, seconds_of(line, job)) for job, line in jobs]


def log_errors(runs: Sequence[Run], constants: np.ndarray) -> np.ndarray:
    """Log of foretold over published seconds with these constants in the runs' profile."""
    values = dict(zip(PRIOR, constants.tolist(), strict=True))
    foretold = (replace(job, software=replace(job.software, **values)) for job, _ in runs)
    seconds = np.array([iteration_time(job).seconds for job in foretold])
    return np.log(seconds / [published for _, published in runs])


def kind(run: Run) -> tuple:
    """Runs that differ in their number of GPUs and batch alone."""
    job = run[0]
    mesh = job.mesh.model_copy(update={"dp": 1})
    return job.spec.name, job.precision, job.device.name, job.recompute, str(mesh)


def weights_of(runs: Sequence[Run]) -> np.ndarray:
    """Runs of one kind count together as one."""
    counts = defaultdict(int)
    for run in runs:
        counts[kind(run)] += 1
    return np.array([counts[kind(run)] ** -0.5 for run in runs])


def fit(runs: Sequence[Run], start: np.ndarray = MEAN) -> np.ndarray:
    """Gauss-Newton on the log errors and the prior, kept within the bounds."""
    constants, weights = start.copy(), weights_of(runs) / NOISE
    for _ in range(STEPS):
        errors = log_errors(runs, constants)
        nudge = 0.02 * DEVIATION * np.where(constants < MOST - 0.02 * DEVIATION, 1, -1)
        moved = [log_errors(runs, constants + shift) for shift in np.diag(nudge)]
        slopes = (np.array(moved) - errors).T / nudge
        system = (slopes * weights[:, None]).T @ (slopes * weights[:, None])
        pull = slopes.T @ (weights**2 * errors) + (constants - MEAN) / DEVIATION**2
        step = np.linalg.solve(system + np.diag(DEVIATION**-2.0), pull)
        new = np.clip(constants - step, LEAST, MOST)
        if np.abs((new - constants) / DEVIATION).max() < 0.01:
            return new
        constants = new
    return constants


def families(runs: Iterable[Run]) -> dict[str, list[Run]]:
    found = defaultdict(list)
    for run in runs:
        found[run[0].software.name].append(run)
    return found


def without(runs: Sequence[Run], key: Callable[[Run], object]) -> list[float]:
    """Errors of runs foretold by constants fitted without all that share their key."""
    full, errors = fit(runs), []
    for held_out in dict.fromkeys(map(key, runs)):
        rest = [run for run in runs if key(run) != held_out]
        asked = [run for run in runs if key(run) == held_out]
        constants = fit(rest, full) if rest else MEAN
        errors += np.expm1(log_errors(asked, constants)).tolist()
    return errors
