"""The report of a run: RUN/report/{index.html, stages.json, facts.json}, from artifacts alone.

`flywright report DIR` calls `write_report`. It works on a partial run: a section that nothing fills
is left out, and the page says which. The page needs no server, no network and no script.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flywright.files import read_json, write_json, write_text
from flywright.report import data, facts, pictures, tables
from flywright.report.artifacts import Run, label, read_run
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


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,  # every text of a run is foreign: it is shown, never obeyed
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    given = (duration, thousands, label, data.asked, tables.interval, tables.ends, tables.mood)
    environment.filters |= {function.__name__: function for function in given}
    environment.filters |= {"show": tables.show, "metric": tables.metric_label}
    return environment


def render(run: Run, found: dict[str, Any]) -> str:
    """The page as HTML text. `found`: the run's facts, as facts.json holds them."""
    turns = sorted({row.turn for row in run.evaluations})
    followed = data.example_id(run)
    drawn = {  # each an empty text where there is nothing to draw yet
        "stages": pictures.stages(run.evaluations),
        "answers": pictures.answers(run.evaluations),
        "losses": pictures.losses(run.steps),
        "preferences": pictures.preferences(run.steps),
    }
    template = _environment().get_template("page.jinja")
    page = template.render(
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        name=run.folder.resolve().name,
        machine=read_json(run.folder / "machine.json", missing_ok=True),
        notes=[*run.facts("documents").get("notes", []), *run.settings.get("notes", [])],
        facts=found,
        judges=facts.judges_by_turn(run),
        pictures={name: Markup(svg) for name, svg in drawn.items()},
        tables=[tables.stage_table(run, turn) for turn in turns],
        far=[tables.stage_table(run, turn, far=True) for turn in turns],
        metrics=tables.METRICS,
        parts=tables.PARTS,
        cards=data.cards(run),
        plain=facts.plain_tables(run),
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
