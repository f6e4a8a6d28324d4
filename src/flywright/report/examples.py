"""The same prompt through the stages: a few items chosen by rule, not by taste.

For each task the first item that was wrong at first and right at last, one item that a later stage
lost, then items on which nothing changed.
"""

from flywright.records import Conversation, Prompt, read_jsonl
from flywright.report.artifacts import Evaluation, Item, Run, label

MOST = 6  # examples on the page


def _asked(conversation: Conversation) -> str:
    """A prompt as text; who said what is told where there is more than one message."""
    if len(conversation.messages) == 1:
        return conversation.last
    return "\n".join(f"{message.role}: {message.content}" for message in conversation.messages)


def _prompts(row: Evaluation) -> dict[str, str]:
    path = row.folder / "prompts.jsonl"
    prompts = read_jsonl(path, Prompt) if path.exists() else ()
    return {prompt.id: _asked(prompt.conversation) for prompt in prompts}


def _answers(row: Evaluation) -> dict[tuple[str, str], Item]:
    return {(item.metric, item.id): item for item in row.items if item.metric != "reward"}


def _story(items: list[Item]) -> str:
    scores = [item.score for item in items]
    first, last = scores[0], scores[-1]
    return "rise" if last > first else "fall" if last < max(scores) else "same"


def _chosen(rows: list[Evaluation]) -> list[list[Item]]:
    """Of each task the first item that rose, fell or stayed, as it went in every stage.

    Rises first, with one fall among them; of the items that all stages answered.
    """
    firsts: dict[str, dict[str, list[Item]]] = {"rise": {}, "fall": {}, "same": {}}
    tables = [_answers(row) for row in rows]
    for key in tables[0]:
        if all(key in table for table in tables):
            items = [table[key] for table in tables]
            firsts[_story(items)].setdefault(items[0].task, items)
    rises, falls, same = (list(by_task.values()) for by_task in firsts.values())
    order = [*rises[: MOST - 1], *falls[:1], *rises[MOST - 1 :], *falls[1:], *same]
    return order[:MOST]


def examples(run: Run) -> list[tuple[str, bool, list[tuple[str, Item]]]]:
    """(prompt, whether a later stage lost it, (stage, item) of every stage) of the last turn; the
    generator's answer stands first."""
    newest = run.evaluations[-1].turn if run.evaluations else 0
    rows = [row for row in run.turn(newest) if row.ours]
    if not rows:
        return []
    generator = run.last(newest - 1) or next((row for row in run.evaluations if not row.ours), None)
    wrote = _answers(generator) if generator else {}
    texts, found = _prompts(rows[-1]), []
    for items in _chosen(rows):
        first, prompt = items[0], texts.get(items[0].id.partition("#")[0], "")
        answers = [(label(row.stage), item) for row, item in zip(rows, items, strict=True)]
        if generator and (by_it := wrote.get((first.metric, first.id))):
            answers.insert(0, (f"{label(generator.stage)} (generator)", by_it))
        found.append((prompt, _story(items) == "fall", answers))
    return found
