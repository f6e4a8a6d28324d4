"""Fixtures of this room: an empty and a whole run directory."""

from pathlib import Path

import pytest
from report_run import RunWriter, write_whole


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    """An empty run directory to write into."""
    return RunWriter(tmp_path / "tiny")


@pytest.fixture
def whole_run(run: RunWriter) -> RunWriter:
    """Two turns of everything."""
    return write_whole(run)
