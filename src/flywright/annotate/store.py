"""Items and labels in one SQLite file; a label that was acknowledged survives a power cut.

Write-ahead log with full sync: `add_label` returns after the commit is on the disk. Each call opens
its own connection, so any thread and any process may work on the file.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import ValidationError

from flywright.annotate.aggregate import is_open
from flywright.annotate.labels import Item, Label, Skip, group_of, item_of, label_of
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.records import fault_of, parse_lines

# `helpfulness` is null for a label that flags the item, 0 for one of a comparison
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY, prompt TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    item TEXT NOT NULL REFERENCES items(id), annotator TEXT NOT NULL, payload TEXT NOT NULL,
    helpfulness INTEGER, PRIMARY KEY (item, annotator));
"""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection inside one transaction. Raises UserError if the file is no database of ours."""
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(SCHEMA)
            with connection:
                yield connection
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: {error}") from None


def import_items(db_path: Path, jsonl: Path) -> int:
    """Add a JSONL file's Dialogues (to rate) and Comparisons; those already there stay.

    Returns how many are new. Raises UserError with file:line for a bad line, or for a known id with
    other content.
    """
    new = 0
    with opened(db_path) as connection:
        for number, value in parse_lines(jsonl):
            try:
                found = item_of(value)
            except ValidationError as error:
                reason = f"nothing to annotate: {fault_of(error)}"
                raise UserError(f"{jsonl}:{number}: {reason}") from None
            row = (found.id, group_of(found), found.model_dump_json())
            known = connection.execute("SELECT * FROM items WHERE id = ?", row[:1]).fetchone()
            if known is None:
                connection.execute("INSERT INTO items VALUES (?, ?, ?)", row)
                new += 1
            elif known != row:
                raise UserError(f"{jsonl}:{number}: item {found.id!r} is there with other content")
    return new


def item(db_path: Path, item_id: str) -> Item | None:
    """One item by its id."""
    with opened(db_path) as connection:
        found = connection.execute("SELECT payload FROM items WHERE id = ?", (item_id,)).fetchone()
    return None if found is None else item_of(json.loads(found[0]))


def add_label(db_path: Path, item_id: str, annotator: str, label: Label) -> None:
    """Keep an annotator's label, in place of an earlier one of theirs; durable on return."""
    helpfulness = None if isinstance(label, Skip) else getattr(label, "helpfulness", 0)
    row = (item_id, annotator, label.model_dump_json(), helpfulness)
    with opened(db_path) as connection:
        connection.execute("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?)", row)


def next_item(db_path: Path, annotator: str) -> tuple[Item | None, int, int]:
    """What this annotator sees next, how many they have done, and how many are open to them.

    The other answer to the prompt just judged comes first; the rest in an order of the annotator's
    own, so that several people spread over the items.
    """
    with opened(db_path) as connection:
        prompts = dict(connection.execute("SELECT id, prompt FROM items").fetchall())
        labels = connection.execute(
            "SELECT item, annotator, helpfulness FROM labels ORDER BY rowid"
        ).fetchall()
    given: dict[str, list[int | None]] = {item_id: [] for item_id in prompts}
    for item_id, _, helpfulness in labels:
        given[item_id].append(helpfulness)
    mine = [item_id for item_id, who, _ in labels if who == annotator]
    waiting = [one for one in prompts.keys() - set(mine) if is_open(given[one])]
    if not waiting:
        return None, len(mine), 0
    last = prompts[mine[-1]] if mine else None

    def turn(item_id: str) -> tuple[bool, int, int]:
        prompt = prompts[item_id]
        return prompt != last, seed_from(annotator, prompt), seed_from(annotator, item_id)

    return item(db_path, min(waiting, key=turn)), len(mine), len(waiting)


def everything(db_path: Path) -> list[tuple[Item, list[tuple[str, Label]]]]:
    """All items in order of import, each with its (annotator, label) pairs in order of name."""
    with opened(db_path) as connection:
        items = connection.execute("SELECT payload FROM items ORDER BY rowid").fetchall()
        labels = connection.execute(
            "SELECT item, annotator, payload FROM labels ORDER BY annotator"
        ).fetchall()
    rows = {one.id: (one, []) for one in (item_of(json.loads(text)) for (text,) in items)}
    for item_id, annotator, text in labels:
        one, signed = rows[item_id]
        signed.append((annotator, label_of(one, json.loads(text))))
    return list(rows.values())
