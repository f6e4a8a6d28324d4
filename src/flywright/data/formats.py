"""Files of records in the forms that people have: recognised by their first rows, read as they are.

    reading = open_records(path, Comparison, Rating)     # the kinds that are wanted; none = any
    records = list(reading)
    print(reading.line)    # "p.jsonl: hh, 9 comparisons, 1 left out: no answer (1)"

The forms are in forms.py; docs/formats.md shows a row of each.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flywright.data.forms import FORMS, Form
from flywright.data.rows import Row, placed_rows
from flywright.data.turns import LeftOut
from flywright.errors import UserError
from flywright.records import Record, fault_of

_FIRST_ROWS = 20  # that a form is recognised by


class Reading:
    """The records of one file; `count` and `dropped` are of what was read so far."""

    def __init__(self, path: Path, form: Form):
        self.path, self.form = path, form
        self.count = 0
        self.dropped: Counter[str] = Counter()

    @property
    def line(self) -> str:
        """Which form it is, how many records it gave, and what was left out."""
        left = f", {self.dropped.total():,} left out: {self._why()}" if self.dropped else ""
        named = plural(self.form.kind)[: -1 if self.count == 1 else None]
        return f"{self.path}: {self.form.name}, {self.count:,} {named}{left}"

    def _why(self) -> str:
        return ", ".join(f"{why} ({count:,})" for why, count in self.dropped.most_common())

    def __iter__(self) -> Iterator[Any]:
        return (record for _, record in self.placed())

    def placed(self) -> Iterator[tuple[str, Any]]:
        """(where, record) of each. Raises UserError naming the row that is not of the form."""
        self.count, self.dropped = 0, Counter()
        for where, row in self._rows():
            try:
                for record in self.form.records(row, self.path.name.partition(".")[0]):
                    self.count += 1
                    yield where, record
            except LeftOut as why:
                self.dropped[str(why)] += 1
            except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
                what = fault_of(error) if isinstance(error, ValidationError) else error
                lack = "no " if isinstance(error, KeyError) else ""
                raise UserError(
                    f"{where}: not of the form {self.form.name}: {lack}{what}"
                ) from None
        if not self.count:
            raise UserError(f"{self.path}: {self.form.name}, but no row is left: {self._why()}")

    def _rows(self) -> Iterator[tuple[str, Row]]:
        waiting: list[Row] = []
        where = ""
        for where, row in placed_rows(self.path):
            if not self.form.fits(row):
                raise UserError(f"{where}: not of the form {self.form.name}: {_keys(row)}")
            waiting.append(row)
            if len(waiting) == self.form.rows:
                yield where, row if self.form.rows == 1 else {"rows": waiting}
                waiting = []
        if waiting:
            raise UserError(f"{where}: {self.form.name}, and the last row has no other beside it")


def open_records(
    path: Path, *wanted: type[Record], form: str = "", forms: Sequence[Form] = FORMS
) -> Reading:
    """Recognise the form of a file (or take the one that is named) and read its records.

    Raises UserError where it is of no known form, or holds another kind of records than `wanted`.
    """
    if form:
        return Reading(path, next(each for each in forms if each.name == form))
    first = [row for _, row in islice(placed_rows(path), _FIRST_ROWS)]
    if not first:
        raise UserError(f"{path}: no rows")
    fitting = (each for each in forms if each.fits(first[0]) and any(map(each.signs, first)))
    found = next(fitting, None)
    if found is None:
        known = ", ".join(each.name for each in forms if each.kind in wanted or not wanted)
        raise UserError(f"{path}: of no known form: {_keys(first[0])}; known: {known}")
    if wanted and found.kind not in wanted:
        needed = " or ".join(map(plural, wanted))
        raise UserError(f"{path}: {found.name}: {plural(found.kind)}, where {needed} are needed")
    return Reading(path, found)


def plural(kind: type[Record]) -> str:
    return f"{kind.__name__.lower()}s"


def _keys(row: Row) -> str:
    return "its keys are " + ", ".join(sorted(row))
