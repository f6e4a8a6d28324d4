"""AlpacaEval 2: the share of 805 instructions where a judge prefers us, raw and length-controlled.

A preference is in 1..2, less one the probability that the evaluated model's answer is better
(0 means a tie). The length-controlled rate comes from the benchmark's own logistic model

    logit = length * tanh((len_baseline - len_us) / sd) + slope * difficulty + constant

(lengths in characters) without its first term: the mean of sigmoid(slope * difficulty + constant).
The two coefficients are the stored ones of a listed model, else fitted here. The difficulty of each
instruction is published apart; where that file is not there, its distribution over the 805 follows
from the leaderboard, of which each row says the mean for other coefficients (SPEC 10.3).
"""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from flywright.ask import Sampling
from flywright.data.rows import read_lines
from flywright.errors import UserError
from flywright.evals.datafiles import NotThere, find, problem
from flywright.evals.items import Item, Metrics, Task, Who, item_of
from flywright.evals.judging import judged, ours
from flywright.evals.responses import JUDGED
from flywright.evals.tables import need, placed
from flywright.records import Check, Prompt

NAME, BASELINE = "alpaca_eval", "gpt4_1106_preview"
OUTPUTS = ("alpaca_eval_gpt4_baseline.json", f"results/{BASELINE}/model_outputs.json")
COEFFICIENTS = f"length_controlled_v1_baseline_{BASELINE}.csv"
LEADERBOARD = "leaderboards/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
DIFFICULTY = "instruction_difficulty.csv"
_FULL = "805"
PULLED_TO = np.array([-1.61, 0.76, 0.0])  # the mean of the two gamed baselines' own coefficients
PULL = np.array([13.0, 36.0, 1e-6])
VERDICT = Sampling(max_tokens=8)


def load(path: Path) -> Iterator[Prompt]:
    """The instructions with the baseline's answers; the first one carries the length model."""
    source = find(path, NAME, *OUTPUTS)
    difficulty = _difficulty(path)
    for number, (where, row) in enumerate(placed(source)):
        args = {"baseline": need(where, row, "output")}
        if number < len(difficulty):
            args["difficulty"] = difficulty[number]
        if number == 0:
            args["length_model"] = length_model(path)
        check = Check(kind=NAME, args=args)
        prompt = problem(NAME, f"{NAME}/{number}", need(where, row, "instruction"), check)
        yield prompt.model_copy(update={"split": row.get("dataset", "")})


def _difficulty(path: Path) -> list[float]:
    """Each instruction's difficulty by its place, where the file is there."""
    with suppress(NotThere):
        source = find(path, NAME, DIFFICULTY)
        return [
            float(need(where, row, NAME, "instruction_difficulty")) for where, row in placed(source)
        ]
    return []


def length_model(path: Path) -> dict[str, Any]:
    """{"coefficients": {model: [length, slope, constant]}, "levels", "weights"} from the files.

    Empty where the coefficients are not there. Without a leaderboard the last two are left out.
    """
    try:
        stored = _numbers(find(path, NAME, COEFFICIENTS), (1, 2, 3))
    except NotThere:
        return {}
    found: dict[str, Any] = {"coefficients": stored}
    with suppress(NotThere):
        rows = _numbers(find(path, NAME, LEADERBOARD), (10,), only=(6, _FULL))
        rates = {name: rate / 100 for name, (rate,) in rows.items() if name in stored}
        found |= difficulty_levels(stored, rates)
    return found


def _numbers(
    path: Path, columns: Sequence[int], only: tuple[int, str] = (0, "")
) -> dict[str, list[float]]:
    """Name (the first column) -> these columns, of the rows that have them all."""
    rows = list(csv.reader(read_lines(path)))[1:]
    kept = [row for row in rows if not only[1] or row[only[0]] == only[1]]
    with suppress(ValueError, IndexError):
        return {
            row[0]: [float(row[c]) for c in columns] for row in kept if all(row[c] for c in columns)
        }
    raise UserError(f"{path}: not the table of models and numbers that it should be")


def difficulty_levels(
    coefficients: dict[str, list[float]], rates: dict[str, float]
) -> dict[str, list[float]]:
    """Levels of difficulty and their weights, such that each model's rate comes out as published.

    A rate is linear in the weights; they are the least change of a normal distribution that gives
    all rates. Models whose rate no weights can give (entered by hand) are left out.
    """
    levels = np.linspace(-8, 8, 65)
    prior = np.exp(-(levels**2) / 4.5)
    prior /= prior.sum()
    table = np.array([coefficients[name][1:] for name in rates])
    shown = _sigmoid(np.outer(table[:, 0], levels) + table[:, 1:])
    known = np.array(list(rates.values()))
    weights = prior
    for least in (1e-4, 1e-8):
        top = np.vstack([shown, np.full(len(levels), 1e3)]) * np.sqrt(prior)
        left = np.concatenate([known - shown @ prior, np.zeros(len(levels) + 1)])
        found = np.linalg.lstsq(np.vstack([top, least * np.eye(len(levels))]), left, rcond=None)[0]
        weights = prior + np.sqrt(prior) * found
        fits = np.abs(shown @ weights - known) < 1e-5
        shown, known = shown[fits], known[fits]
    return {"levels": levels.tolist(), "weights": weights.tolist()}


def _sigmoid(x: Any) -> Any:
    return np.exp(-np.logaddexp(0, -x))


async def grade(prompt: Prompt, answer: str, who: Who) -> list[Item]:
    """One preference, stored or asked for in both orders; what could not be read is counted."""
    args = prompt.checks[0].args
    rows = args.get(JUDGED)
    lengths = [len(args["baseline"]), len(answer)]
    if rows:
        given = [None if one != one else one for one in (row.get("preference") for row in rows)]
        lengths = [
            len(rows[0].get(f"output_{n}") or text)
            for n, text in ((1, args["baseline"]), (2, answer))
        ]
    else:
        given = [await _asked(prompt, answer, who, swapped) for swapped in (False, True)]
    wins = [(value or 1.5) - 1 for value in given if value is not None]
    failed = [item_of(prompt, "unreadable", float(None in given), "", truth=str(given))]
    if len({*wins}) > 1 or not rows:
        failed.append(item_of(prompt, "order_decides", float(len({*wins}) > 1), ""))
    if not wins:
        return failed
    if not all(0 <= win <= 1 for win in wins):
        raise UserError(f"{prompt.id}: preferences are from 1 to 2 (0: a tie), not {given}")
    first = (rows or [{}])[0]
    detail: dict[str, Any] = {"lengths": lengths, "difficulty": None}
    if first.get("generator_1", BASELINE) == BASELINE:  # lengths are controlled against it alone
        detail["difficulty"] = args.get("difficulty")
        if "length_model" in args:
            detail |= _chosen(args["length_model"], first.get("generator_2", ""))
    win = item_of(prompt, "win", sum(wins) / len(wins), answer, detail=json.dumps(detail))
    return [win, *failed]


def _chosen(model: dict[str, Any], name: str) -> dict[str, Any]:
    """The length model without other models' coefficients."""
    rest = {key: model[key] for key in model if key != "coefficients"}
    return {**rest, "stored": model.get("coefficients", {}).get(name)}


async def _asked(prompt: Prompt, answer: str, who: Who, swapped: bool) -> float | None:
    texts = [prompt.checks[0].args["baseline"], answer]
    first, second = texts[::-1] if swapped else texts
    fields = {"instruction": prompt.conversation.last, "output_1": first, "output_2": second}
    said = (await judged(who, ours()["two-names"], VERDICT, **fields)).strip().strip(".\"'`*")
    if said not in ("m", "M"):
        return None
    return 2.0 if (said == "M") != swapped else 1.0


def summary(items: Sequence[Item]) -> Metrics:
    """Win rates in per cent, as the leaderboard has them."""
    wins = [item for item in items if item.metric == "win"]
    if not wins:
        return {}
    shares = np.array([item.score for item in wins])
    found = {
        "win_rate": _percent(shares),
        "discrete_win_rate": _percent((np.sign(shares - 0.5) + 1) / 2),
    }
    details = [json.loads(item.detail) for item in wins]
    model = next((each for each in details if "stored" in each), {"stored": None})
    return found | _controlled(shares, details, model)


def _percent(values: Any, weights: Any = None, n: int = 0) -> dict[str, float]:
    """Mean and standard error over n rows in per cent; the interval is 1.96 of them."""
    n = n or len(values)
    weights = np.full(len(values), 1 / len(values)) if weights is None else np.asarray(weights)
    mean = float(weights @ values)
    error = math.sqrt(max(float(weights @ (values - mean) ** 2), 0.0) / max(n - 1, 1))
    found = {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}
    return {name: 100 * value for name, value in found.items()} | {"n": n, "stderr": 100 * error}


def _controlled(shares: Any, details: Sequence[dict[str, Any]], model: dict[str, Any]) -> Metrics:
    """The length-controlled rate, under a name that says whether its coefficients are our fit.

    Empty where an instruction's difficulty would be needed and is not known.
    """
    levels, weights = [each["difficulty"] for each in details], None
    if known := None not in levels:
        apart = np.array([each["lengths"][0] - each["lengths"][1] for each in details], dtype=float)
        apart = np.tanh(apart / (apart.std(ddof=1) if apart.any() else 1.0))
        table = np.stack([apart, np.array(levels), np.ones(len(shares))], axis=1)
    if model["stored"] is not None and (known or "levels" in model):
        name, (_, slope, constant) = "length_controlled", model["stored"]
        levels, weights = (levels, None) if known else (model["levels"], model["weights"])
    elif known:
        name, (_, slope, constant) = "length_controlled_fitted", logistic(table, shares)
    else:
        return {}
    return {name: _percent(_sigmoid(slope * np.array(levels) + constant), weights, len(shares))}


def logistic(table: Any, shares: Any) -> Any:
    """Coefficients of (length, difficulty, constant) from shares in 0..1, by Newton's method.

    The benchmark adds 1,610 rows of its baseline made long and short, each at a tenth. Here their
    pull is a quadratic one, with the information of as many rows.
    """
    weights = np.array(PULLED_TO)
    for _ in range(50):
        expected = _sigmoid(table @ weights)
        slope = table.T @ (shares - expected) - PULL * (weights - PULLED_TO)
        curve = (table.T * (expected * (1 - expected))) @ table + np.diag(PULL)
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            break
    return weights


ALPACA_EVAL = Task(
    NAME,
    load,
    grade=grade,
    judged=True,
    max_tokens=2048,
    summary=summary,
    protocol="AlpacaEval 2: 805 instructions against gpt4_1106_preview, one verdict in each order",
)
