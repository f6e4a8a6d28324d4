"""The prompt texts, which are data: one file each in templates/, with {placeholders}.

template("open_qa").fill(count=3, topic="rivers")  -> a Conversation
variants("instruction_join")                       -> texts between lines of ---
keyed("personalities")                             -> {name: text}, "name: text" a line
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flywright.files import digest
from flywright.records import Conversation

FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Template:
    """One prompt text. `hash` goes into lineage, so that a record names the words that made it."""

    name: str
    text: str

    @property
    def hash(self) -> str:
        """Name and a hash of the text."""
        return f"{self.name}@{digest(self.text, length=8)}"

    def fill(self, **values: Any) -> Conversation:
        """The text with its placeholders filled, as a user message."""
        return Conversation.of(self.text.format(**values))


def _read(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip()


@cache
def template(name: str) -> Template:
    """The template in templates/NAME.txt."""
    return Template(name, _read(name))


@cache
def variants(name: str) -> tuple[Template, ...]:
    """The templates in one file, parted by lines of three dashes."""
    texts = _read(name).split("\n---\n")
    return tuple(Template(f"{name}/{number}", text) for number, text in enumerate(texts))


@cache
def keyed(name: str, mark: str = ": ") -> dict[str, str]:
    """The "key MARK text" lines of one file, in file order."""
    pairs = (line.partition(mark) for line in _read(name).splitlines() if line)
    return {key: text for key, _, text in pairs}
