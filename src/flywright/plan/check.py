"""Published training rows beside what the planner foretells for them.

check_rows(path) reads a CSV with the columns of `REQUIRED`; MAPE = mean absolute percentage error
of the iteration time. Rows of systems without a profile use the default one.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.plan.devices import device
from flywright.plan.job import Job
from flywright.plan.memory import memory
from flywright.plan.software import software_of
from flywright.plan.time import iteration_time, mfu
from flywright.spec import MeshSpec, ModelSpec

_LABELS = ("source", "model", "gpu", "precision", "recompute", "iter_s", "glu")
_SHAPE = ("layers", "hidden", "ffn", "heads", "kv_heads", "vocab", "seq")
_LAYOUT = ("gbs", "mbs", "gpus", "tp", "pp", "vpp", "dp", "cp")
REQUIRED = (*_LABELS, *_SHAPE, *_LAYOUT)


@dataclass(frozen=True)
class CheckResult:
    """All rows as `_checked` makes them, and the errors over them."""

    rows: list[dict[str, Any]]

    def mape(self, **wanted: str) -> float:
        """Mean |error| of the iteration time over rows with these values; nan over none."""
        errors = [abs(row["error"]) for row in self.rows if wanted.items() <= row.items()]
        return sum(errors) / len(errors) if errors else float("nan")

    def worst_mfu_error(self) -> float:
        """Largest relative distance of SPEC 3.4's formula from a published MFU."""
        pairs = ((row["formula_mfu"], row["published_mfu"]) for row in self.rows)
        return max((abs(ours / theirs - 1) for ours, theirs in pairs if theirs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Rows and summary, ready for JSON."""
        softwares = dict.fromkeys(row["software"] for row in self.rows)
        return {
            "rows": self.rows,
            "mape": self.mape(),
            "mape_by_software": {name: self.mape(software=name) for name in softwares},
            "worst_mfu_error": self.worst_mfu_error(),
        }


def check_rows(path: Path | str) -> CheckResult:
    """Foretell every row of a CSV. Raises UserError with file and line for a row it cannot read."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path}: no column {missing[0]!r}")
            return CheckResult([_checked(row, f"{path}:{reader.line_num}") for row in reader])
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None


def _checked(row: dict[str, str], where: str) -> dict[str, Any]:
    """Published and foretold, side by side; memory in GiB, None where it is not published."""
    try:
        job = job_of(row)
        seconds = float(row["iter_s"])
        predicted = iteration_time(job)
    except (ValueError, ZeroDivisionError, UserError) as error:
        raise UserError(f"{where}: {error}") from None
    share, gib = row.get("published_mfu_pct"), row.get("peak_mem_gib")
    return {
        "source": row["source"],
        "model": row["model"],
        "gpus": job.gpus,
        "device": job.device.name,
        "precision": job.precision,
        "software": job.software.name,
        "published_seconds": seconds,
        "predicted_seconds": predicted.seconds,
        "published_mfu": float(share) / 100 if share else None,
        "formula_mfu": mfu(job, seconds),
        "published_gib": float(gib) if gib else None,
        "predicted_gib": memory(job, predicted.in_flight).gib,
        "error": predicted.seconds / seconds - 1,
    }


def job_of(row: dict[str, str]) -> Job:
    """The job that a row describes; blank micro-batch and virtual stages count as 1.

    A gated MLP has three matrices: in parameters, FLOPs and stored activations it is an ungated one
    of 1.5 times the width. A batch that is no multiple of dp x micro-batch is rounded to one.
    """
    heads, hidden = int(row["heads"]), int(row["hidden"])
    width = int(row["ffn"])
    spec = ModelSpec(
        name=row["model"],
        vocab_size=int(row["vocab"]),
        hidden_size=hidden,
        layers=int(row["layers"]),
        heads=heads,
        kv_heads=int(row["kv_heads"]),
        head_dim=hidden // heads,
        ffn_size=width * 3 // 2 if row["glu"] == "1" else width,
        context_length=int(row["seq"]),
    )
    mesh = MeshSpec(
        pp=int(row["pp"]), dp=int(row["dp"]), tp=int(row["tp"]), virtual=int(row["vpp"] or 1)
    )
    micro_batch = int(row["mbs"] or 1)
    step = micro_batch * mesh.dp
    return Job(
        spec=spec,
        # `A100-80GB (Selene)` is A100: sizes other than the usual 80 GB are part of a name
        device=device(row["gpu"].split()[0].removesuffix("-80GB")),
        mesh=mesh,
        batch=max(1, round(int(row["gbs"]) / step)) * step,
        micro_batch=micro_batch,
        sequence=int(row["seq"]),
        context=int(row["cp"] or 1),
        precision="fp8" if row["precision"] == "fp8" else "bf16",
        recompute="full" if row["recompute"] == "full" else "none",
        software=software_of(row["source"]),
    )
