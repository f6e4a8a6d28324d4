"""Items and labels in one SQLite file; a label that was acknowledged survives a power cut.

Write-ahead log with full sync: `add_label` returns after the commit is on the disk. Each call opens
its own connection, so any thread and any process may work on the file.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flywright.annotate.aggregate import is_open
from flywright.annotate.labels import Item, Label, PairLabel, RatingLabel
from flywright.errors import UserError
from flywright.files import digest, seed_from
from flywright.records import Comparison, Conversation, Dialogue, Lineage, Rating, parse_lines

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, grouping TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    item TEXT NOT NULL REFERENCES items(id), annotator TEXT NOT NULL, payload TEXT NOT NULL,
    helpfulness INTEGER, skipped INTEGER NOT NULL, created_seconds REAL NOT NULL,
    PRIMARY KEY (item, annotator));
"""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection inside one transaction. Raises UserError if the file is no database of ours."""
    try:
        connection = sqlite3.connect(path, timeout=10.0)
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot open: {error}") from None
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(SCHEMA)
        with connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: {error}") from None
    finally:
        connection.close()


def group_of(conversation: Conversation) -> str:
    """The prompt that an answer belongs to."""
    return digest([message.model_dump() for message in conversation.messages])


def item_of(value: dict[str, Any]) -> Item:
    """A Dialogue or Rating as something to rate; a Comparison or a pair of answers to compare.

    A pair is {"id", "conversation", "first", "second"} with optional first_model, second_model and
    task. Raises ValueError (pydantic's) for anything else.
    """
    if "chosen" in value:
        pair = Comparison.model_validate(value)
        return Item(
            id=pair.id,
            kind="comparison",
            group=group_of(pair.conversation),
            conversation=pair.conversation,
            first=pair.chosen,
            second=pair.rejected,
            first_model="chosen",
            second_model="rejected",
            task=pair.task,
            lineage=pair.lineage,
        )
    if "first" in value:
        conversation = Conversation.model_validate(value.get("conversation"))
        lineage = value.get("lineage", Lineage(source="annotate"))
        made = {"kind": "comparison", "group": group_of(conversation), "lineage": lineage}
        return Item.model_validate({**value, **made})
    kind = Rating if "helpfulness" in value else Dialogue
    record = kind.model_validate(value)
    return Item(
        id=record.id,
        kind="rating",
        group=group_of(record.conversation.without_answer()),
        conversation=record.conversation,
        lineage=record.lineage,
    )


def import_items(db_path: Path, jsonl: Path) -> int:
    """Add a JSONL file's items; those already there stay. Returns how many are new.

    Raises UserError with file:line for a bad line, or for a known id with other content.
    """
    new = 0
    with opened(db_path) as connection:
        for number, value in parse_lines(jsonl):
            try:
                item = item_of(value)
            except (ValidationError, AttributeError, TypeError) as error:
                first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
                raise UserError(f"{jsonl}:{number}: nothing to annotate: {first}") from None
            payload = item.model_dump_json()
            row = connection.execute("SELECT payload FROM items WHERE id = ?", (item.id,))
            known = row.fetchone()
            if known is None:
                values = (item.id, item.kind, item.group, payload)
                connection.execute("INSERT INTO items VALUES (?, ?, ?, ?)", values)
                new += 1
            elif known[0] != payload:
                raise UserError(f"{jsonl}:{number}: item {item.id!r} is there with other content")
    return new


def item(db_path: Path, item_id: str) -> Item | None:
    """One item by its id."""
    with opened(db_path) as connection:
        found = connection.execute("SELECT payload FROM items WHERE id = ?", (item_id,)).fetchone()
    return None if found is None else Item.model_validate_json(found[0])


def add_label(db_path: Path, item_id: str, annotator: str, label: Label) -> None:
    """Keep an annotator's label, in place of an earlier one of theirs; durable on return."""
    helpfulness = None if label.skip else getattr(label, "helpfulness", 0)
    values = (item_id, annotator, label.model_dump_json(), helpfulness, bool(label.skip))
    with opened(db_path) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?)", (*values, time.time())
        )


def next_item(db_path: Path, annotator: str) -> tuple[Item | None, int, int]:
    """What this annotator sees next, how many they have done, and how many are open to them.

    The other answer to the prompt just judged comes first; the rest in an order of the annotator's
    own, so that several people spread over the items.
    """
    with opened(db_path) as connection:
        rows = connection.execute("SELECT id, grouping FROM items").fetchall()
        labels = connection.execute(
            "SELECT item, annotator, helpfulness, skipped FROM labels ORDER BY created_seconds"
        ).fetchall()
    helpfulness: dict[str, list[int]] = {}
    flags: dict[str, int] = {}
    mine: list[str] = []
    for item_id, who, value, skipped in labels:
        if skipped:
            flags[item_id] = flags.get(item_id, 0) + 1
        else:
            helpfulness.setdefault(item_id, []).append(value)
        if who == annotator:
            mine.append(item_id)
    group = dict(rows)
    done = set(mine)
    waiting = [
        item_id
        for item_id in group
        if item_id not in done and is_open(helpfulness.get(item_id, []), flags.get(item_id, 0))
    ]
    if not waiting:
        return None, len(mine), 0
    last = group.get(mine[-1]) if mine else None

    def turn(item_id: str) -> tuple[bool, int, int]:
        own = seed_from(annotator, group[item_id])
        return group[item_id] != last, own, seed_from(annotator, item_id)

    return item(db_path, min(waiting, key=turn)), len(mine), len(waiting)


def everything(db_path: Path) -> list[tuple[Item, list[tuple[str, Label]]]]:
    """All items in order of import, each with its (annotator, label) pairs in order of name."""
    with opened(db_path) as connection:
        items = connection.execute("SELECT payload FROM items ORDER BY rowid").fetchall()
        labels = connection.execute(
            "SELECT item, annotator, payload FROM labels ORDER BY annotator"
        ).fetchall()
    by_item: dict[str, list[tuple[str, str]]] = {}
    for item_id, annotator, payload in labels:
        by_item.setdefault(item_id, []).append((annotator, payload))
    result = []
    for (payload,) in items:
        one = Item.model_validate_json(payload)
        kind = RatingLabel if one.kind == "rating" else PairLabel
        signed = [(who, kind.model_validate_json(text)) for who, text in by_item.get(one.id, [])]
        result.append((one, signed))
    return result
