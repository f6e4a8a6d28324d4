"""What `flywright run RECIPE` does: find the recipe, lock the folder, walk the road, report."""

import json
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.files import locked, write_json
from flywright.parallel import joined
from flywright.recipe.brought import Brought
from flywright.recipe.console import Teller
from flywright.recipe.files_road import FilesSettings, walk
from flywright.recipe.loop import weak_to_strong
from flywright.recipe.settings import AlignSettings, RecipeSettings, WholeSettings
from flywright.recipe.sources import open_source
from flywright.recipe.step import Road, Stop
from flywright.report.page import write_report
from flywright.settings import apply_overrides, parse_settings, read_toml


def find_recipe(name: str) -> Path:
    """A recipe by file, or by name in recipes/ here or beside the package. Raises UserError."""
    package = Path(__file__).resolve().parents[3] / "recipes"
    folders = [Path("recipes"), package]
    candidates = [Path(name), *(folder / f"{name}.toml" for folder in folders)]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
    raise UserError(f"no recipe {name!r}: neither a file nor one of {', '.join(known) or 'none'}")


Recipe = RecipeSettings | AlignSettings | FilesSettings
_ROADS: dict[str, type[Recipe]] = {
    "files": FilesSettings,
    "align": AlignSettings,
    "whole": WholeSettings,
}


def read_recipe(path: Path, overrides: list[str], seed: int | None) -> Recipe:
    """A recipe file with overrides on top; its `road` says which settings it has.

    Raises UserError on a bad key or value.
    """
    if seed is not None:
        overrides = [*overrides, f"seed={seed}"]
    tree = apply_overrides(read_toml(path), overrides)
    road = tree.get("road", "")
    if road not in ("", *_ROADS):
        raise UserError(f"{path}: road = {road!r}: leave it out, or one of {', '.join(_ROADS)}")
    return parse_settings(_ROADS.get(road, RecipeSettings), tree, str(path))


def _walker(recipe: Recipe) -> Callable[[Road], Any]:
    """The recipe's road, with the source of its material opened."""
    if isinstance(recipe, FilesSettings):
        return lambda road: walk(road, recipe)
    if isinstance(recipe, AlignSettings | WholeSettings):
        source = Brought(recipe.files)
    else:
        source = open_source(recipe.source, recipe.seed)
    return lambda road: weak_to_strong(road, recipe, source)


def step_names(recipe: Recipe, until: str = "") -> list[str]:
    """The names of the steps in order, as far as `until`; nothing is done.

    Raises UserError where `until` is none of them.
    """
    road = Road(Path(), recipe.seed, until=until, plan_only=True)
    with suppress(Stop):
        _walker(recipe)(road)
        if until:
            raise UserError(f"--until {until}: no such step; steps: {', '.join(road.names)}")
    return road.names


def run(recipe: Recipe, root: Path, until: str = "") -> Path | None:
    """Walk the road in `root`; the first rank writes, tells, and returns the report's page.

    Finished steps are skipped, a killed one is gone on with; all ranks of a mesh call this. Raises
    UserError or FlywrightError.
    """
    step_names(recipe, until)  # what cannot be walked is refused before anything is written
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: no folder; name one with --out")
    walker = _walker(recipe)
    with joined(recipe.mesh) as ranks, ExitStack() as stack:
        teller = ranks.by_first(lambda: _begin(stack, recipe, root))
        with suppress(Stop):
            walker(Road(root, recipe.seed, until=until, announce=teller, ranks=ranks))
        if teller is None:
            return None
        page = write_report(root)
        teller.say(f"report: {page}")
        return page


def _begin(stack: ExitStack, recipe: Recipe, root: Path) -> Teller:
    """The folder is this run's, as long as `stack` is open."""
    stack.enter_context(locked(root))
    teller = stack.enter_context(Teller(root / "log.txt"))
    write_json(root / "settings.json", recipe.model_dump(mode="json"))
    write_json(root / "machine.json", machine())
    return teller


def machine() -> dict[str, str]:
    """What the run is measured on."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


_SHOWN = {
    "accuracy": "accuracy %",
    "instruction_following": "instructions %",
    "code": "code %",
    "reward": "reward",
    "arc_easy": "ARC-Easy %",
    "hellaswag": "HellaSwag %",
    "piqa": "PIQA %",
}


def stage_rows(root: Path) -> list[dict[str, Any]]:
    """report/stages.json as rows for the screen: what any row has, with its interval."""
    rows = json.loads((root / "report" / "stages.json").read_text())
    names = [name for name in _SHOWN if any(name in row["metrics"] for row in rows)]
    return [
        {"turn": row["turn"], "stage": row["stage"]}
        | {_SHOWN[name]: _shown(name, row["metrics"].get(name)) for name in names}
        for row in rows
    ]


def _shown(name: str, value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    scale, digits = (1, 2) if name == "reward" else (100, 1)
    half = (value["high"] - value["low"]) / 2
    return f"{value['mean'] * scale:.{digits}f} ± {half * scale:.{digits}f}"
