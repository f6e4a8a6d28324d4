"""The report of a run: RUN/report/{index.html, stages.json, facts.json}, from artifacts alone.

`flywright report DIR` calls `write_report`. It works on a partial run: a section whose steps are
not finished says so. The page needs no server, no network and no script.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flywright.files import write_json, write_text
from flywright.report import curves, data, facts, pictures, tables
from flywright.report.artifacts import Run, label, read_json, read_run
from flywright.report.examples import examples
from flywright.report.trace import trace

FOLDER = Path(__file__).parent


def duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "3 min 20 s", "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if whole < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def thousands(number: float) -> str:
    """A count for people; a dash for none."""
    return f"{number:,.0f}" if number else "–"


def _about(run: Run, settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What this run is: recipe, seed, date, machine."""
    machine = read_json(run.folder / "machine.json")
    words = "{processor}, {cores} cores ({threads} threads), Python {python}, torch {torch}"
    began = min((step.manifest["started"] for step in run.steps), default="")
    ended = max((step.manifest["finished"] for step in run.steps), default="")
    when = f"{began[:16]} to {ended[:16]}".replace("T", " ") + " UTC"
    rows = [
        ("Recipe", settings.get("name", "")),
        ("Seed", str(settings.get("seed", ""))),
        ("Date", when if began else ""),
        ("Machine", words.format(**machine) if machine else ""),
        ("Finished steps", str(len(run.steps))),
        ("Time", duration(sum(step.manifest["seconds"] for step in run.steps))),
    ]
    return [(name, value) for name, value in rows if value]


def _pictures(run: Run) -> dict[str, Markup]:
    """All pictures by name; an empty text where there is nothing to draw yet."""
    drawn = {
        "stages": pictures.stages(run.evaluations),
        "wins": pictures.wins(tables.wins(run.evaluations)),
        "judges": pictures.judges(facts.judge_rows(run)),
        "rewards": pictures.rewards(run.evaluations),
        "lengths": pictures.lengths(run.evaluations),
        "losses": curves.losses(run.steps),
        "preferences": curves.preferences(run.steps),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,  # every text of a run is foreign: it is shown, never obeyed
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "label": label, "thousands": thousands}
    environment.filters["points"] = lambda share: tables.show(share, True, "+")
    return environment


def render(run: Run, found: dict[str, Any]) -> str:
    """The page as HTML text. `found`: the run's facts, as facts.json holds them."""
    settings = read_json(run.folder / "settings.json")
    turns = sorted({row.turn for row in run.evaluations})
    followed = data.example_id(run)
    template = _environment().get_template("page.jinja")
    page = template.render(
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        name=run.folder.resolve().name,
        about=_about(run, settings),
        notes=[*run.facts("documents").get("notes", []), *settings.get("notes", [])],
        facts=found,
        pictures=_pictures(run),
        tables=[tables.stage_table(run.evaluations, turn) for turn in turns],
        cards=data.cards(run),
        examples=examples(run),
        lineage=trace(run.folder, followed) if followed else [],
        run=run,
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes "?"


def write_report(run_dir: Path) -> Path:
    """Write RUN/report/ from the run's artifacts; returns the path of index.html.

    Each file appears whole or not at all. Raises UserError naming the file (and line) when
    `run_dir` is no run directory or an artifact cannot be read.
    """
    run = read_run(Path(run_dir))
    found = facts.facts(run)
    page = render(run, found)
    folder = run.folder / "report"
    write_json(folder / "stages.json", facts.stages(run))
    write_json(folder / "facts.json", found)
    write_text(folder / "index.html", page)
    return folder / "index.html"
