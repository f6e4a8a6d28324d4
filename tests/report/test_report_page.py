"""The page: complete, self-contained, safe against what models write, there on a partial run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_run import HOSTILE, RunWriter, comparison, dialogue, write_whole

from flywright.errors import FlywrightError, UserError
from flywright.report import pictures
from flywright.report.artifacts import read_run
from flywright.report.page import write_report

SECTIONS = (
    *("claims", "stages", "reward", "data", "examples"),
    *("answers", "training", "facts", "lineage", "cost"),
)
VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Collects tags, ids and links, and checks that every tag is closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.events: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.targets.append(value or "")
            if name.startswith("on"):
                self.events.append(name)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    """The page of a whole run, drawn once."""
    run = write_whole(RunWriter(tmp_path_factory.mktemp("page") / "tiny"))
    for path in run.folder.glob("steps/*-eval-*/items.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        hostile = {"answer": HOSTILE, "task": HOSTILE, "truth": HOSTILE}
        run.lines(path, [{**row, **hostile} for row in rows])
        run.prompts(path.parent, {row["id"]: HOSTILE for row in rows})
    pairs = run.folder / "steps" / "2-comparisons@1" / "dpo.jsonl"
    run.lines(pairs, [comparison("x", HOSTILE, parents=[HOSTILE], model=HOSTILE)])
    return write_report(run.folder).read_text()


def test_every_section_is_filled_by_a_whole_run(html):
    page = Page(html)
    assert set(SECTIONS) <= set(page.ids)
    assert "Not in this run" not in html
    assert page.tags.count("svg") == 4


def test_the_page_needs_nothing_from_outside_and_runs_nothing(html):
    page = Page(html)
    assert "script" not in page.tags
    assert page.events == []
    outside = [t for t in page.targets if not t.startswith("#")]
    assert sorted(outside) == ["facts.json", "stages.json"]
    assert not re.search(r"url\((?!#)|@import", html)


def test_what_models_write_is_shown_and_never_obeyed(html):
    assert "<script>" not in html
    assert "&lt;script&gt;alert" in html
    assert "{{ 7*7 }}" in html
    assert "\ud800" not in html


def test_ids_are_unique_and_inner_links_arrive(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    inner = [t[1:] for t in page.targets if t.startswith("#")]
    inner += re.findall(r"url\(#([^)]*)\)", html)
    assert set(inner) <= set(page.ids)


def test_the_head_says_what_ran_where_and_what_is_simulated(html):
    assert "p, 2 cores (2 threads), Python 3.11, torch 2.13" in html
    assert "2023-11-14 22:13 to 2023-11-14 " in html
    assert "The first model that answers is scripted." in html
    assert "A note of the recipe." in html


def test_colours_follow_the_page(html):
    assert "prefers-color-scheme: dark" in html
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--blue)" in drawn
    assert re.findall(r"#[0-9a-f]{6}", drawn) == []


def text_of(html: str) -> str:
    """What a reader sees, tags away and white space single."""
    return " ".join(re.sub(r"<[^>]*>", " ", html.partition("</style>")[2]).split())


def test_claims_are_stated_with_their_paired_intervals(html):
    said = text_of(html)
    assert "RPO 3, turn 2 is above General SFT on the mean of accuracy, instruction" in said
    assert "+5.0 points (95 % interval +3.0 to +7.0, 120 items)" in said
    assert "RPO 3, turn 1 cannot be told from the first generator" in said
    assert "RPO 3, turn 2 cannot be told from the turn before" in said
    assert "slip 25 40.0 60.0 ▲ +20.0 +10.0 to +30.0" in said
    assert "Of 160 held-out items, none repeats the words of any of 4,200 training" in said
    assert "and 2 are the same item" in said


def test_a_fall_is_said_in_words(html):
    said = text_of(html)
    assert "▼ It is below it in code by more than the interval." in said
    assert re.search(r"DPO, turn 1: Code is [\d.]+ points below General SFT \(95 % interval", said)


def test_judges_stand_beside_the_reward_model_and_the_scripted_one_is_marked(html):
    said = text_of(html)
    assert "Reward model held-out pairs 50 50 – 86.0 The longer answer baseline" in said
    assert "LLM: Generator scripted held-out pairs 50 41 64.0 52.5" in said
    assert "LLM: Model held-out pairs 50 40 75.0 60.0 50.0 to 70.0" in said
    assert "LLM scripted pairs with a truth, turn 1 120 100 71.0 59.2" in said
    assert "slip 30 90.0 80.0 to 100.0 50.0 40.0 to 60.0" in said
    assert "llm (scripted) 71.0 % of 100 decided" in said
    assert "distinct-1 0.210 · distinct-2 0.550 · reward 3.100 ± 0.400" in said


def test_the_cost_counts_calls_and_tokens_written_once(html):
    assert re.search(r"Dialogues, turn 1 12 s – – 2 14 10", text_of(html))


def test_an_empty_run_says_that_nothing_ran(run):
    html = write_report(run.folder).read_text()
    assert not set(SECTIONS) & set(Page(html).ids)
    assert "Not in this run so far: what the run shows, stage by stage," in text_of(html)
    assert json.loads((run.folder / "report" / "stages.json").read_text()) == []
    facts = json.loads((run.folder / "report" / "facts.json").read_text())
    assert facts == {"reward_model": {}, "judge": {}, "synthetic_share": None, "steps": {}}


def test_a_partial_run_shows_what_there_is(run):
    run.training("pretrain", 5)
    run.step("1-comparisons")  # finished, but holds no record and no facts
    run.step("1-verdict", facts={"gain": {"accuracy": 0.5}})  # one metric alone, without interval
    (run.folder / "steps" / "1-sft@1").mkdir()  # begun, not finished
    run.evaluation(1, "teacher", 0.5)  # a model from outside, before any stage of ours
    html = write_report(run.folder).read_text()
    missing = set(SECTIONS) - set(Page(html).ids)
    assert missing == {"reward", "examples", "facts", "lineage"}
    assert "Teacher generator: wrote this turn&#39;s answers" in text_of(html)
    assert "The last stage of turn 1 is above General SFT on accuracy" in text_of(html)


def test_a_road_with_other_names_is_shown_in_the_order_of_its_steps(run):
    run.step("corpus")
    interval = {"mean": 1.25, "low": 1.2, "high": 1.3, "n": 90}
    run.step("bits", facts={"by_language": {"de": interval, "en_old": 2.5}, "note": "near chance"})
    run.lines(run.step("1-harvest") / "talks.jsonl", [dialogue("d1")])
    run.training("align")
    (run.folder / "settings.json").write_text('{"generator": {"name": "someone"}}')
    for stage in ("someone", "warm", "hot"):
        run.evaluation(1, stage, 0.5, count=4)
    html = write_report(run.folder).read_text()
    said = text_of(html)
    cost = said[said.rindex("Time, tokens and cost") :]
    assert "by language · de 1.25 1.2 to 1.3 90" in said
    assert "by language · en old 2.5" in said
    assert "note near chance" in said
    assert "Harvest, turn 1 1 record" in said
    names = ("Corpus", "Bits", "Harvest", "Align", "Evaluation of Someone", "Evaluation of Warm")
    places = [cost.index(name) for name in names]
    assert places == sorted(places)
    rows = json.loads((run.folder / "report" / "stages.json").read_text())
    assert [row["stage"] for row in rows] == ["someone", "warm", "hot"]
    assert said.count("generator: wrote this turn") == 1


def test_the_same_artifacts_give_the_same_report(run):
    run.evaluation(1, "sft", 0.5, count=4)
    first = write_report(run.folder).read_bytes()
    assert write_report(run.folder).read_bytes() == first
    names = {path.name for path in (run.folder / "report").iterdir()}
    assert names == {"index.html", "stages.json", "facts.json"}


def test_bad_input_is_named(run, tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        write_report(tmp_path / "nowhere")
    folder = run.step("1-sft")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2"):
        write_report(run.folder)
    (folder / "manifest.json").write_text("{torn")
    with pytest.raises(UserError, match=r"manifest\.json: not valid JSON"):
        write_report(run.folder)


def test_a_disk_that_refuses_leaves_no_half_page(run, monkeypatch):
    run.step("documents")
    good = write_report(run.folder).read_text()
    run.step("tokenizer")

    def refuse(self, *_args, **_kwargs):
        Path(self).touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(FlywrightError, match="No space left"):
        write_report(run.folder)
    monkeypatch.undo()
    assert (run.folder / "report" / "index.html").read_text() == good
    assert not list((run.folder / "report").glob(".*"))


def test_curves_of_one_point_are_drawn_and_nothing_is_no_picture(run):
    row = {"step": 1, "loss": 2.0, "margin": 0.5, "chosen_logprob": -3.0, "accuracy": 1.0}
    run.lines(run.step("1-dpo") / "metrics.jsonl", [row])
    steps = read_run(run.folder).steps
    assert "<svg" in pictures.losses(steps)
    assert "<svg" in pictures.preferences(steps)
    assert pictures.losses([]) == pictures.preferences([]) == ""
    assert pictures.stages([]) == pictures.answers([]) == ""
