"""recipes/README.md shows the settings that the recipes have."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_is_of_the_recipes_as_they_stand():
    path = ROOT / "benchmarks" / "settings_table.py"
    spec = importlib.util.spec_from_file_location("settings_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.README.read_text()
    assert module.placed(page) == page, "run: python benchmarks/settings_table.py"
    assert "rate 3e-07" in page  # the report's code SFT
