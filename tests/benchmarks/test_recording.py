"""A benchmark's result: the fields that the contract names, and a ratio that says who is better."""

import json

import recording


def test_a_result_has_the_contracts_fields_and_is_printed(tmp_path, capsys):
    rows = [
        recording.row("speed", 8.0, 2.0, "the peer", "tokens/s"),
        recording.row("time", 8.0, 2.0, "the peer", "ms", less_is_better=True),
    ]
    recording.write_result(tmp_path / "x.json", "python x.py", rows, repeats=3)
    written = json.loads((tmp_path / "x.json").read_text())
    assert set(written) == {"date", "commit", "machine", "command", "repeats", "rows"}
    assert written["machine"] and written["rows"] == rows
    assert set(rows[0]) == {"what", "ours", "peer", "peer_name", "ratio", "unit"}
    assert [one["ratio"] for one in rows] == [4.0, 0.25]
    assert ["x4.00" in line for line in capsys.readouterr().out.splitlines()] == [True, False]
