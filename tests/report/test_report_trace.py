"""A record is followed back to what it was made from and forward to what was made of it."""

import pytest
from report_run import comparison, conversation, dialogue, lineage

from flywright.errors import UserError
from flywright.records import record_id
from flywright.report.trace import trace


@pytest.fixture
def chain(run):
    """topic -> prompt -> dialogue -> pair, a training step that reads it, and an evaluation."""
    topic = {"id": "topic1", "conversation": conversation("Rivers."), "lineage": lineage("")}
    prompt = {"id": "prompt1", "conversation": conversation("Name a river.")}
    prompts = run.step("1-prompts")
    run.lines(prompts / "topics.jsonl", [topic])
    row = {**prompt, "lineage": lineage("", parents=["topic1", "0123456789ab"])}
    run.lines(prompts / "prompts.jsonl", [row, {**row, "id": "prompt2"}])
    talk = dialogue("talk1", parents=["prompt1"], scores={"reward": 3.25}, sampling="greedy")
    run.lines(run.step("1-dialogues") / "d.jsonl", [talk])
    verdict = {"judge": "llm", "preference": -1}
    pair = comparison("pair1", "llm", parents=["talk1"], verdicts=[verdict], filters=["quality"])
    run.lines(run.step("1-comparisons") / "c.jsonl", [pair])
    run.step("1-dpo", inputs={"1-comparisons": "f0"})
    return run


def test_backward_reaches_the_first_ancestor(chain):
    lines = trace(chain.folder, "pair1")
    back = lines[lines.index("came from") + 1 : lines.index("what came from it")]
    assert [line.split()[0] for line in back] == ["talk1", "prompt1", "topic1", "0123456789ab"]
    assert [len(line) - len(line.lstrip()) for line in back] == [2, 4, 6, 6]
    assert "a record that was not kept" in back[-1]
    assert "1-prompts@1/prompts.jsonl:1" in back[1]
    text = "\n".join(lines)
    assert "“good” preferred over “bad”" in text
    assert "vote of llm: the second" in text
    assert "filters: quality" in text


def test_forward_reaches_the_last_descendant_and_the_steps_that_read_it(chain):
    lines = trace(chain.folder, "topic1")
    ahead = lines[lines.index("what came from it") + 1 :]
    assert [line.split()[0] for line in ahead] == ["prompt1", "talk1", "pair1", "prompt2"]
    assert "  step 1-dpo read it" in trace(chain.folder, "pair1")


def test_evaluated_items_are_told(chain):
    chain.evaluation(1, "sft", 1.0, count=1, id="prompt1")
    text = "\n".join(trace(chain.folder, "prompt1"))
    assert "1-eval-sft@1/items.jsonl:1  accuracy 1  “" in text


def test_topics_documents_and_templates_are_told_by_what_they_are(run):
    text = "Otters live by rivers. They eat fish."
    document = {"text": text, "source": "books"}
    run.lines(run.step("documents") / "documents.jsonl", [{**document, "text": "No."}, document])
    cut = record_id("Otters live by rivers.")  # only its beginning fitted into the prompt
    asked = conversation("Otters live by rivers. What do they like?")
    parents = [cut, "join/3@073dea94"]
    rows = [
        {"id": "p1", "conversation": asked, "lineage": lineage("", parents=parents)},
        {"id": "p2", "conversation": asked, "lineage": lineage("", parents=["Animals", "poem"])},
    ]
    run.lines(run.step("1-prompts") / "prompts.jsonl", rows)
    back = trace(run.folder, "p1")
    assert f"  {cut}  document of books  documents@1/documents.jsonl:2  “{text}”" in back
    assert "  join/3@073dea94  template" in back
    assert "  topic “Animals”" in trace(run.folder, "p2")
    assert "  asked for “poem”" in trace(run.folder, "p2")
    assert trace(run.folder, "Animals")[0] == "topic “Animals”"
    assert trace(run.folder, "Animals")[2].split()[0] == "p2"


def test_a_circle_of_parents_ends(run):
    rows = [dialogue("a", parents=["b"]), dialogue("b", parents=["a"])]
    run.lines(run.step("1-dialogues") / "d.jsonl", rows)
    lines = trace(run.folder, "a")
    assert sum(line.strip().startswith("b ") for line in lines) == 2  # once each way


def test_an_unknown_record_is_named(chain):
    with pytest.raises(UserError, match="'nowhere' is in no JSONL file"):
        trace(chain.folder, "nowhere")
