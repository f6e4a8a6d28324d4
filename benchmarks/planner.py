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
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from recording import RESULTS, ROOT, row, write_result

from flywright.plan.check import check_rows
from flywright.plan.job import Job
from flywright.plan.rows import job_of, seconds_of
from flywright.plan.schedule import closed_form
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


def read_runs(path: Path) -> list[Run]:
    """Published runs of a table."""
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
        if np.abs((new - constants) / DEVIATION).max() < 0.03:
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


def one_constant(runs: Sequence[Run]) -> list[float]:
    """The peer: a share of the peak, the median one of a device and precision, and the bubble."""

    def ideal(job: Job) -> float:
        work = job.spec.flops_per_token(job.sequence) * job.batch * job.sequence
        work *= 4 / 3 if job.recompute == "full" else 1
        virtual = job.mesh.virtual if job.mesh.pp > 1 else 1
        ones = (1.0,) * (job.mesh.pp * virtual)
        bubble = closed_form(job.mesh.pp, virtual, job.microbatches, ones, ones).bubble
        return work / (job.gpus * job.peak_flops) * (1 + bubble)

    shares = defaultdict(list)
    for job, seconds in runs:
        shares[job.device.name, job.precision].append(ideal(job) / seconds)
    return [
        ideal(job) / np.median(shares[job.device.name, job.precision]) / seconds - 1
        for job, seconds in runs
    ]


def mape(errors: Iterable[float]) -> float:
    """Mean absolute error in percent."""
    return 100 * float(np.mean(np.abs(list(errors))))


def scatter(tables: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Foretold over published seconds, a panel for each table, a colour for each family."""
    names = sorted({line["software"] for lines in tables.values() for line in lines})
    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, (title, lines) in zip(
        figure.subplots(1, 2, sharey=True), tables.items(), strict=True
    ):
        for number, name in enumerate(names):
            mine = [line for line in lines if line["software"] == name]
            ratio = [line["predicted_seconds"] / line["published_seconds"] for line in mine]
            seconds = [line["published_seconds"] for line in mine]
            axes.scatter(seconds, ratio, s=14, color=f"C{number}", label=name, alpha=0.75)
        axes.axhspan(0.9, 1.1, color="grey", alpha=0.15, lw=0)
        axes.axhline(1, color="grey", lw=0.8)
        error = mape(line["error"] for line in lines)
        axes.set(xscale="log", xlabel="published seconds an iteration", ylim=(0.5, 1.5))
        axes.set_title(f"{title}: {len(lines)} rows, mean error {error:.1f} %", loc="left")
    figure.axes[0].set_ylabel("foretold / published")
    figure.axes[0].legend(fontsize=8, frameon=False, loc="lower left")
    figure.savefig(path, metadata={"Date": None})


def by_family(lines: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Rows and mean error of each profile, device and precision."""
    groups = defaultdict(list)
    for line in lines:
        groups[f"{line['software']}, {line['device']}, {line['precision']}"].append(line["error"])
    return {name: {"rows": len(e), "mape": round(mape(e), 1)} for name, e in groups.items()}


def memory_error(lines: list[dict[str, Any]]) -> list[float]:
    """Errors of the memory where it is published."""
    return [
        line["predicted_gib"] / line["published_gib"] - 1 for line in lines if line["published_gib"]
    ]


def tables(result: dict[str, Any]) -> list[str]:
    """The tables of docs/planner.md."""
    errors = ["| | rows | foretold | one constant |", "|---|---|---|---|"]
    for line in result["rows"]:
        said = f"{line['what']} | {line['count']} | {line['ours']:.1f} % | {line['peer']:.1f} %"
        errors.append(f"| {said} |")
    held_out = ["| without its | error |", "|---|---|"]
    held_out += [f"| {key} | {error:.1f} % |" for key, error in result["held_out_mape"].items()]
    each = ["| profile, device, precision | rows fitted | error | not fitted | error |"]
    each.append("|---|---|---|---|---|")
    for name in result["fitted"] | result["unseen"]:
        found = (result[which].get(name) for which in ("fitted", "unseen"))
        cells = [f"{one['rows']} | {one['mape']} %" if one else " | " for one in found]
        each.append(f"| {name} | {' | '.join(cells)} |")
    memory = ["| memory | rows | mean error | worst |", "|---|---|---|---|"]
    for name, one in result["memory"].items():
        memory.append(f"| {name} | {one['rows']} | {one['mean']} % | {one['worst']} % |")
    return ["\n".join(table) for table in (errors, held_out, each, memory)]


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="print the profiles' constants")
    runs = read_runs(PUBLISHED)
    if parser.parse_args().fit:
        for name, mine in families(runs).items():
            print(f"[{name}]")
            print("\n".join(f"{key} = {v:.3g}" for key, v in zip(PRIOR, fit(mine), strict=True)))
        return
    published, unseen = check_rows(PUBLISHED).rows, check_rows(UNSEEN).rows
    bf16 = [each for each in published if each["precision"] == "bf16" and each["device"] == "H100"]
    lines = {"all published rows": published, "bf16 on H100": bf16, "rows not fitted to": unseen}
    peers = (
        one_constant(runs),
        one_constant([run for run in runs if run[0].device.name + run[0].precision == "H100bf16"]),
        one_constant(read_runs(UNSEEN)),
    )
    rows = [
        row(what, mape(line["error"] for line in mine), mape(peer), "one constant", "%", True)
        | {"count": len(mine)}
        for (what, mine), peer in zip(lines.items(), peers, strict=True)
    ]
    keys = {
        "row": id,
        "model and precision": lambda run: (run[0].spec.name, run[0].precision),
        "number of GPUs": lambda run: run[0].gpus,
    }
    held_out = {
        name: round(mape(e for mine in families(runs).values() for e in without(mine, key)), 2)
        for name, key in keys.items()
    }
    scatter({"fitted": published, "not fitted": unseen}, RESULTS / "planner.svg")
    write_result(
        "planner",
        "python benchmarks/planner.py",
        rows,
        held_out_mape=held_out,
        fitted=by_family(published),
        unseen=by_family(unseen),
        memory={
            name: {
                "rows": len(e),
                "mean": round(mape(e), 1),
                "worst": round(100 * max(map(abs, e)), 1),
            }
            for name, e in (
                ("published", memory_error(published)),
                ("unseen", memory_error(unseen)),
            )
        },
    )


if __name__ == "__main__":
    main()
