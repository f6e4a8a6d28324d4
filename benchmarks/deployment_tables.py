"""The tables of docs/deployment.md: `python benchmarks/deployment_tables.py`.

Fits come from the planner's memory model, the loss by FP8 from benchmarks/results/fp8.json; a test
holds the page to both.
"""

import json
from collections.abc import Iterator
from typing import Any

from recording import RESULTS, ROOT

from flywright.plan import device, inference_fit
from flywright.spec import preset

PAGE = ROOT / "docs" / "deployment.md"
DEVICES = ("H200", "H100", "A100")


def fit_lines() -> Iterator[str]:
    """A line for each device and precision; none for FP8 where the device has no units for it."""
    for name in DEVICES:
        for precision in ("bf16", "fp8"):
            if fit := inference_fit(preset("nemotron-4-340b"), device(name), precision):
                sizes = f"{fit['weights_gib']:.0f} | {fit['gib_a_gpu']:.0f}"
                room = f"{fit['memory_gib']:.0f} | {fit['cache_tokens']:,}"
                yield f"| {name} | {precision} | {fit['gpus']} | {sizes} | {room} |"


def fp8_lines() -> Iterator[str]:
    """A line for each row of the result."""
    for row in json.loads((RESULTS / "fp8.json").read_text())["rows"]:
        ours, peer = (_number(row[side]) for side in ("ours", "peer"))
        beside = "" if row["peer_name"] == "the policy as it is" else f" ({row['peer_name']})"
        yield f"| {row['what']}, {row['unit']} | {ours} | {peer}{beside} | {_more(row)} |"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _more(row: dict[str, Any]) -> str:
    if apart := row.get("difference"):
        return f"{apart['mean']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}], n {apart['n']}"
    if "kl_p99" in row:
        return (
            f"99th percentile {row['kl_p99']:.3f}; same likeliest token {row['same_top_token']:.1%}"
        )
    gap = row.get("largest_logprob_gap")
    return "" if gap is None else f"log-probabilities within {gap:.3f}"


def placed(text: str) -> str:
    """The page with its tables; what stands in them above their first line is kept."""
    for mark, lines in (("fits", fit_lines()), ("fp8", fp8_lines())):
        before, rest = text.split(f"<!-- {mark} -->\n")
        old, after = rest.split(f"<!-- /{mark} -->")
        table = "\n".join([*old.splitlines()[:2], *lines])
        text = f"{before}<!-- {mark} -->\n{table}\n<!-- /{mark} -->{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(placed(PAGE.read_text()))
