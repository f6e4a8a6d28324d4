"""The report of a run: RUN/report/{index.html, stages.json, facts.json}, from artifacts alone.

`flywright report DIR` calls `write_report`. It works on a partial run: a section whose steps are
not finished says so. The page needs no server, no network and no script.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flywright.files import write_json, write_text
from flywright.report import cards, curves, made, numbers, pictures, tables
from flywright.report.artifacts import Run, label
from flywright.report.examples import examples
from flywright.report.read import number, read_run
from flywright.report.trace import example


@dataclass(frozen=True)
class Tile:
    """One number at the head of the page."""

    value: str
    name: str
    note: str = ""


def _moment(value: Any) -> str:
    """A manifest's time (seconds since 1970, or ISO text) as people write it, in UTC."""
    seconds = number(value)
    try:
        iso = datetime.fromisoformat
        when = datetime.fromtimestamp(seconds, UTC) if seconds else iso(str(value))
    except (ValueError, OverflowError, OSError):
        return ""
    return when.strftime("%Y-%m-%d %H:%M")


def _recorded(run: Run, key: str) -> str:
    """The first thing that a step recorded under this key, in its manifest or its facts."""
    for step in run.steps:
        value = step.facts.get(key, step.manifest.get(key))
        if value not in (None, "", {}):
            return str(value)
    return ""


def _about(run: Run) -> list[tuple[str, str]]:
    """What this run is: recipe, seed, date, machine."""
    started = [text for step in run.steps if (text := _moment(step.manifest.get("started")))]
    finished = [text for step in run.steps if (text := _moment(step.manifest.get("finished")))]
    when = f"{min(started)} to {max(finished)} UTC" if started and finished else ""
    rows = [
        ("Recipe", _recorded(run, "recipe") or run.folder.resolve().name),
        ("Seed", _recorded(run, "seed")),
        ("Date", when),
        ("Machine", _recorded(run, "machine")),
        ("Finished steps", str(len(run.steps))),
        ("Time", cards.duration(cards.total(run, "seconds")) if run.steps else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _notes(run: Run) -> list[str]:
    """What the first step says of where the run's text and answers come from."""
    documents = run.step("documents")
    notes = documents.facts.get("notes", []) if documents else []
    return [notes] if isinstance(notes, str) else [str(note) for note in notes]


def _metric_tiles(run: Run) -> list[Tile]:
    """The last stage's four metrics, each with its gain over General SFT."""
    if not run.evaluations:
        return []
    last = run.evaluations[-1]
    ends = tables.first_and_last(run.evaluations, last.turn)
    tiles = []
    for name in tables.metric_names([last])[:4]:
        share = tables.is_share(name, run.evaluations)
        note = f"{label(last.stage)}, turn {last.turn}"
        gain = tables.change(ends[1], ends[0], name) if ends else None
        if gain:
            note += f"; {tables.show(gain.mean, share, sign=True)} against General SFT"
        value = tables.show(last.metrics[name]["mean"], share) + (" %" if share else "")
        tiles.append(Tile(value, tables.metric_label(name), note))
    return tiles


def _tiles(run: Run, facts: dict[str, Any]) -> list[Tile]:
    """The numbers that sum the run up: the last stage's, then the data's and the reward model's."""
    tiles = _metric_tiles(run)
    share = facts["synthetic_share"]
    if share is not None:
        tiles.append(
            Tile(f"{100 * share:.1f} %", "Synthetic", "SFT and preference answers by a model")
        )
    pairs = cards.share_of(facts["reward_model"].get("pair_accuracy"))
    if pairs is not None:
        alone = cards.share_of(facts["reward_model"].get("length_only"))
        note = f"length alone: {100 * alone:.1f} %" if alone is not None else ""
        tiles.append(Tile(f"{100 * pairs:.1f} %", "Reward model on pairs", note))
    return tiles


def _pictures(run: Run) -> dict[str, Markup]:
    """All pictures by name; an empty text where there is nothing to draw yet."""
    drawn = {
        "stages": pictures.stages(run.evaluations),
        "wins": pictures.wins(tables.wins(run.evaluations)),
        "judges": pictures.judges(cards.judge_rows(run)),
        "rewards": pictures.rewards(run.evaluations),
        "lengths": pictures.lengths(run.evaluations),
        "losses": curves.losses(run.curves),
        "preferences": curves.preferences(run.curves),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader,
        autoescape=True,  # every text of a run is foreign: it is shown, never obeyed
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(run: Run, facts: dict[str, Any]) -> str:
    """The page as HTML text."""
    mixes = made.mixes(run)
    followed = next((mix.example_id for mix in reversed(mixes) if mix.example_id), "")
    task_stages, task_rows = tables.task_table(run.evaluations)
    environment = _environment()
    source = environment.loader.get_source(environment, "page.css")[0] if environment.loader else ""
    page = environment.get_template("page.jinja").render(
        css=Markup(source),
        name=run.folder.resolve().name,
        about=_about(run),
        notes=_notes(run),
        tiles=_tiles(run, facts),
        pictures=_pictures(run),
        stage_tables=[tables.stage_table(run.evaluations, turn) for turn in run.turns],
        task_stages=task_stages,
        task_rows=task_rows,
        judge_cards=cards.judge_cards(run),
        cards=[cards.mix_card(mix) for mix in mixes],
        synthetic_share=facts["synthetic_share"],
        examples=examples(run),
        lineage=example(run, followed),
        steps=cards.step_rows(run),
        total_time=cards.duration(cards.total(run, "seconds")),
        total_tokens=f"{cards.total(run, 'tokens'):,.0f}",
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes "?"


def write_report(run_dir: Path) -> Path:
    """Write RUN/report/ from the run's artifacts; returns the path of index.html.

    Each file appears whole or not at all. Raises UserError naming the file (and line) when
    `run_dir` is no run directory or an artifact is malformed.
    """
    run = read_run(Path(run_dir))
    facts = numbers.facts(run)
    folder = run.folder / "report"
    write_json(folder / "stages.json", numbers.stages(run))
    write_json(folder / "facts.json", facts)
    write_text(folder / "index.html", render(run, facts))
    return folder / "index.html"
