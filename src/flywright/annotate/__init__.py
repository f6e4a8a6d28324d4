"""People's judgement: a web page for rating and blind comparison, over one SQLite file.

    import_items(Path("work.db"), Path("answers.jsonl"))
    run(create_app(Path("work.db")))            # http://127.0.0.1:8001
    export(Path("work.db"), Path("out"))        # ratings.jsonl, comparisons.jsonl, summary.json

labels.py says what a label is, store.py keeps it, aggregate.py makes one rating of several.
"""

from flywright.annotate.app import create_app, run
from flywright.annotate.export import export
from flywright.annotate.store import import_items

__all__ = ["create_app", "export", "import_items", "run"]
