"""Published training rows beside what the planner foretells for them.

check_rows(path) reads a CSV (columns: rows.py); MAPE = mean absolute percentage error of the
iteration time.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.plan.devices import UnknownDeviceError
from flywright.plan.job import Job
from flywright.plan.memory import memory
from flywright.plan.rows import NEEDED, TIMES, job_of, seconds_of
from flywright.plan.time import Time, iteration_time, mfu


@dataclass(frozen=True)
class CheckResult:
    """All rows as `_checked` makes them, and the errors over them."""

    rows: list[dict[str, Any]]
    skipped: list[str]  # rows of devices that are not known, and where they stand

    def mape(self, **wanted: str) -> float:
        """Mean |error| of the iteration time over rows with these values; nan over none."""
        errors = [abs(row["error"]) for row in self.rows if wanted.items() <= row.items()]
        return sum(errors) / len(errors) if errors else float("nan")

    def worst_mfu_error(self) -> float:
        """Largest relative distance of SPEC 3.4's formula from a published MFU."""
        pairs = ((row["formula_mfu"], row["published_mfu"]) for row in self.rows)
        return max((abs(ours / theirs - 1) for ours, theirs in pairs if theirs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        softwares = dict.fromkeys(row["software"] for row in self.rows)
        return {
            "rows": self.rows,
            "skipped": self.skipped,
            "mape": self.mape(),
            "mape_by_software": {name: self.mape(software=name) for name in softwares},
            "worst_mfu_error": self.worst_mfu_error(),
        }


def check_rows(path: Path | str) -> CheckResult:
    """Foretell every row of a CSV of a known device.

    Raises UserError with file and line for a row it cannot read, or where it can foretell none.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            missing = [name for name in NEEDED if name not in columns]
            if missing:
                raise UserError(f"{path}: no column {missing[0]!r}")
            if not set(TIMES) & set(columns):
                raise UserError(f"{path}: no column of {', '.join(TIMES)}")
            return _all_checked(reader, path)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


def _all_checked(reader: csv.DictReader, path: Path) -> CheckResult:
    found, skipped = [], []
    for row in reader:
        try:
            found.append(_checked(row, f"{path}:{reader.line_num}"))
        except UnknownDeviceError as error:
            skipped.append(str(error))
    if not found:
        raise UserError(skipped[0] if skipped else f"{path}: a head without rows")
    return CheckResult(found, skipped)


def _foretold(job: Job) -> Time:
    """By replay; by the formula where other software ran what torch's schedules refuse."""
    try:
        return iteration_time(job)
    except UserError:
        return iteration_time(job, by_formula=True)


def _checked(row: dict[str, str], where: str) -> dict[str, Any]:
    """Published and foretold, side by side; memory in GiB, None where it is not published."""
    try:
        job = job_of(row)
        seconds = seconds_of(row, job)
        predicted = _foretold(job)
        if not 0 < seconds < float("inf"):
            raise ValueError(f"a time of {seconds} s")
        error = predicted.seconds / seconds - 1
        share, gib = (float(row.get(n) or 0) for n in ("published_mfu_pct", "peak_mem_gib"))
    except UnknownDeviceError as fault:
        raise UnknownDeviceError(f"{where}: {fault}") from None
    except (ValueError, ZeroDivisionError, UserError) as fault:
        raise UserError(f"{where}: {str(fault).splitlines()[0]}") from None
    return {
        "source": row.get("source", ""),
        "model": job.spec.name,
        "gpus": job.gpus,
        "device": job.device.name,
        "precision": job.precision,
        "software": job.software.name,
        "published_seconds": seconds,
        "predicted_seconds": predicted.seconds,
        "published_mfu": share / 100 or None,
        "formula_mfu": mfu(job, seconds),
        "published_gib": gib or None,
        "predicted_gib": memory(job, predicted.in_flight).gib,
        "error": error,
    }
