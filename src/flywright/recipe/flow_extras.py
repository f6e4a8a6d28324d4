"""The flows of the extra sources, and what stands beside their records: reports, others' forms.

flywright synth topic_following|incapable|tools|problems|stem SETTINGS.toml
OUT.balance.json, OUT.ctat.jsonl, OUT.openai.jsonl, OUT.judges.{json,md}
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from flywright.ask import Completer
from flywright.errors import UserError
from flywright.files import canonical_json, write_json, write_text
from flywright.judge import agreement
from flywright.records import Comparison, Dialogue, Record, read_jsonl
from flywright.sandbox import Sandbox, SandboxSettings
from flywright.settings import Settings
from flywright.synth import Maker
from flywright.synth import incapable as _incapable
from flywright.synth import problems as _problems
from flywright.synth import stem as _stem
from flywright.synth import tools as _tools
from flywright.synth import topic_following as _topics
from flywright.synth.comparisons import ComparisonSettings


class RoleSettings(Settings):
    """Who plays which part, by the name of one of those who answer; empty = the generator."""

    user: str = Field(default="", description="dialogues")
    coder: str = Field(default="", description="code")
    judge: str = Field(default="", description="code, comparisons")


class ExtraSettings(Settings):
    """What a flow reads and writes, and the settings of the extra sources."""

    out: Path
    data: Path | None = Field(default=None, description="JSONL: prompts or documents; stem: files")
    sandbox: SandboxSettings = SandboxSettings()
    roles: RoleSettings = RoleSettings()
    comparisons: ComparisonSettings = ComparisonSettings()
    topic_following: _topics.TopicFollowingSettings = _topics.TopicFollowingSettings()
    incapable: _incapable.IncapableSettings = _incapable.IncapableSettings()
    tools: _tools.ToolSettings = _tools.ToolSettings()
    problems: _problems.ProblemSettings = _problems.ProblemSettings()
    stem: _stem.StemSettings = _stem.StemSettings()

    def part(
        self, role: str, answerers: Mapping[str, Completer], otherwise: Completer
    ) -> Completer:
        """Who plays a part: the one named, or `otherwise`. Raises UserError for an unknown name."""
        name = getattr(self.roles, role)
        if name and name not in answerers:
            raise UserError(f"roles.{role} = {name!r}: those who answer are {', '.join(answerers)}")
        return answerers[name] if name else otherwise

    def beside(self, suffix: str) -> Path:
        """A file beside `out`."""
        return self.out.with_suffix(suffix)

    @property
    def given(self) -> Path:
        """`data`, which has to be named. Raises UserError if it is not."""
        if self.data is None:
            raise UserError("this flow needs data = FILE or FOLDER")
        return self.data


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(f"{canonical_json(row)}\n" for row in rows))


def told_of_judges(own: ExtraSettings, pairs: Sequence[Comparison]) -> None:
    """Write the report of the judges' agreement and bias beside the pairs."""
    people = own.comparisons.people
    report = agreement.judged(pairs, list(read_jsonl(people, Comparison)) if people else [])
    write_json(own.beside(".judges.json"), report)
    write_text(own.beside(".judges.md"), agreement.table(report))


async def topic_following(maker: Maker, own: ExtraSettings) -> list[Dialogue]:
    given = []
    if own.data:
        given, maker.counts["read"] = _topics.given(own.data)
    made = await _topics.scenes(maker, own.topic_following, given)
    _write_rows(own.beside(".ctat.jsonl"), map(_topics.row_of, made))
    write_json(own.beside(".balance.json"), _topics.balance(made))
    return [_topics.dialogue_of(maker, scene) for scene in made]


async def incapable(maker: Maker, own: ExtraSettings) -> list[Dialogue]:
    made = await _incapable.incapable(maker, own.incapable)
    write_json(own.beside(".balance.json"), _incapable.balance(made))
    return made


async def tools(maker: Maker, own: ExtraSettings) -> list[Dialogue]:
    made = await _tools.called(maker, own.tools, Sandbox(own.sandbox))
    _write_rows(own.beside(".openai.jsonl"), map(_tools.openai_row, made))
    return made


async def problems(maker: Maker, own: ExtraSettings) -> Sequence[Record]:
    asked, maker.counts["read"] = _problems.problems(own.given, own.problems, maker.seed)
    tries = own.problems.tries
    return await _problems.solved(maker, asked, tries) if tries else asked


async def stem(maker: Maker, own: ExtraSettings) -> list[Dialogue]:
    files = sorted(own.given.rglob("*.json*")) if own.given.is_dir() else [own.given]
    made, counts = _stem.stem(files, own.stem, maker.seed)
    maker.counts |= counts
    write_json(own.beside(".balance.json"), counts)
    return made


EXTRAS = {
    "topic_following": topic_following,
    "incapable": incapable,
    "tools": tools,
    "problems": problems,
    "stem": stem,
}
