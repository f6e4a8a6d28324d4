"""Published rows beside foretold ones. The rows here are a sample of the public ones."""

import json
from pathlib import Path

import pytest

from flywright.errors import UserError
from flywright.plan import check_rows

ROWS = Path(__file__).with_name("published_rows.csv")


def test_published_rows_are_foretold() -> None:
    result = check_rows(ROWS)
    assert len(result.rows) >= 12
    assert result.worst_mfu_error() < 0.015
    assert result.mape(device="H100", precision="bf16") < 0.08
    assert result.mape() < 0.12
    json.dumps(result.to_json(), allow_nan=False)
    largest = [row for row in result.rows if row["software"] == "nemotron-4-reports"]
    assert all(abs(row["error"]) < 0.05 for row in largest if "340B" in row["model"])


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    lines = ROWS.read_text().splitlines()
    bad = tmp_path / "rows.csv"
    bad.write_text("\n".join([lines[0], lines[1].replace("H100", "X1")]))
    with pytest.raises(UserError, match=r"rows\.csv:2: no device 'X1'"):
        check_rows(bad)
    bad.write_text("source,model\n")
    with pytest.raises(UserError, match="no column 'gpu'"):
        check_rows(bad)
    with pytest.raises(UserError, match="cannot read"):
        check_rows(tmp_path / "absent.csv")
