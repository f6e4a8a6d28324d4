"""The benchmarks' files from the Hugging Face hub, where there is a network: `--data hub:DIR`.

What a task reads (hub.toml) and DIR lacks is fetched once, by `datasets`, and written in the layout
of local files; from then on everything is read from DIR, whose files' hashes stand in the results.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.files import write_text

TABLE = Path(__file__).with_name("hub.toml")


def data_folder(asked: Path | None, names: Sequence[str]) -> Path:
    """The folder of the tasks' files; of "hub" or "hub:DIR", once what is missing was fetched."""
    where, _, folder = str(asked or "data").partition(":")
    if where != "hub":
        return asked or Path("data")
    table = tomllib.loads(TABLE.read_text("utf-8"))
    target = Path(folder or "data")
    for name in dict.fromkeys(re.split("[@:]", name)[0] for name in names):
        for file, source in table.get(name, {}).items():
            if not (target / file).exists():
                rows = "".join(json.dumps(row) + "\n" for row in _rows(*source))
                write_text(target / file, rows)
    return target


def _rows(repository: str, config: str, *splits: str) -> Iterator[dict[str, Any]]:
    """The rows of these splits, one after the other."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("--data hub needs `datasets`: pip install datasets") from None
    for split in splits:
        try:
            yield from map(dict, load_dataset(repository, config or None, split=split))
        except (OSError, ValueError, RuntimeError) as error:  # its own errors are of these
            said = str(error).partition("\n")[0]
            raise UserError(f"{repository}: cannot be had from the hub: {said}") from None
