"""Topic following, incapable tasks, executed tools, problems with truth, STEM parts."""

import asyncio
import gzip
import json
import re

import pytest

from flywright.ask import Scripted
from flywright.errors import UserError
from flywright.records import Conversation, Dialogue
from flywright.sandbox import Sandbox
from flywright.synth import Maker, incapable, problems, stem, tools, topic_following
from flywright.synth.flow import Dropped
from flywright.synth.topic_following import TopicFollowingSettings, rouge_l

TOPICS = TopicFollowingSettings(domains=("travel", "taxes"), scenarios=3, batch=3, turns=6)


def listed(prompt, sampling, what):
    count = int(re.search(r"\d+", prompt).group())
    words = ("alps", "bridge", "cellar", "dune", "elm", "ferry", "gate", "harbour", "inn", "jetty")
    texts = (
        f"{words[(sampling.seed + n) % 10]} {what} {sampling.seed % 997 + n}" for n in range(count)
    )
    return "\n".join(f"{n}. {text}" for n, text in enumerate(texts, 1))


def guide(prompt, sampling):
    text = prompt.last
    if text.startswith("Name"):
        return listed(text, sampling, "trip")
    if text.startswith("Write the instructions"):
        return "You talk about the trip and nothing else."
    if text.startswith("Write a whole talk"):
        turns = [
            f"{who}: turn {n} of {sampling.seed % 89}"
            for n in range(1, 4)
            for who in ("user", "bot")
        ]
        return "Here it is.\n" + "\n".join(turns) + "\nuser: one more"
    if "You are the bot" in text:
        return "Let us stay with the trip."
    rows = [
        {"turn": 2, "distractor": "By the way, who won the cup?"},
        {"turn": 1, "distractor": "and is my boss a fool?"},
        {"turn": 9, "distractor": "Nowhere?"},
        {"turn": 2, "distractor": "A second one?"},
        "not an object",
    ]
    return f"Sure:\n```json\n{json.dumps(rows)}\n```"


def topic_scenes(small, answer="refusal", given=(), completer=None):
    maker = Maker(completer or Scripted(guide, model="m"), small, seed=2)
    settings = TOPICS.model_copy(update={"answer": answer})
    return maker, asyncio.run(topic_following.scenes(maker, settings, given))


def test_distractors_stand_after_their_turn_and_are_declined(small):
    maker, made = topic_scenes(small)
    assert len(made) == 2 * 3 * 2
    talk = topic_following.dialogue_of(maker, made[0])
    assert talk.conversation.system == "You talk about the trip and nothing else."
    said = [message.content for message in talk.conversation.turns]
    assert said[2] == "Is my boss a fool?" and said[6] == "Who won the cup?"
    assert said[3] == said[7] == made[0].refusal and made[0].scenario in said[3]
    assert len(said) == 6 + 4 and said[8].startswith("turn 3")
    assert talk.lineage.template.startswith("tf_distractors@") and talk.lineage.answer_by == "model"
    _, led = topic_scenes(small, "redirect")
    assert led[0].away[0] == ("Is my boss a fool?", "Let us stay with the trip.")
    assert topic_following.balance(made)["travel"] == {"talks": 6, "on_topic": 18, "off_topic": 12}


def test_scenarios_are_unlike_each_other(small):
    def alike(prompt, sampling):
        if prompt.last.startswith("Name"):
            start = 0 if "none yet" in prompt.last else 2
            names = ["plan a short trip to the sea", "plan a short trip to a sea", "renew a pass"]
            names += ["pack for the desert", "find a lost bag", "plan a short trip to some sea"]
            return "\n".join(f"{n}. {name}" for n, name in enumerate(names[start : start + 3], 1))
        return guide(prompt, sampling)

    _, made = topic_scenes(small, completer=Scripted(alike))
    names = {scene.scenario for scene in made}
    assert names == {"plan a short trip to the sea", "renew a pass", "pack for the desert"}
    assert rouge_l("a b c d", "a x c d") == pytest.approx(0.75) and rouge_l("", "a") == 0.0


def test_a_topic_row_comes_back_as_it_was(small, tmp_path):
    _, made = topic_scenes(small)
    rows = [topic_following.row_of(scene) for scene in made]
    last = made[0].turns[3]
    assert rows[0]["distractors"][1] == {"bot turn": last, "distractor": "Who won the cup?"}
    assert len(rows[0]["conversation_with_distractors"]) == 10 and len(rows[0]["conversation"]) == 6
    path = tmp_path / "topics.jsonl"
    doubled = {**rows[0], "conversation": rows[0]["conversation"][:1] + rows[0]["conversation"]}
    path.write_text("\n".join(map(json.dumps, [*rows, doubled])))
    read, counts = topic_following.given(path)
    assert [(one.turns, one.away) for one in read] == [(one.turns, one.away) for one in made]
    assert counts["in"] == len(rows) + 1 and counts["left out: not in turn"] == 1
    silent = Scripted(lambda *_: pytest.fail("nobody has to be asked"))
    maker, again = topic_scenes(small, given=read, completer=silent)
    talk = topic_following.dialogue_of(maker, again[0])
    assert talk.conversation == topic_following.dialogue_of(maker, made[0]).conversation
    assert talk.lineage.answer_by == "human" and talk.lineage.model == ""
    path.write_text(json.dumps({name: rows[0][name] for name in rows[0] if name != "scenario"}))
    with pytest.raises(UserError, match=r"topics.jsonl:1: not a topic-following row.*scenario"):
        topic_following.given(path)


def test_the_order_in_which_topic_calls_end_changes_nothing(small, late):
    few = small.model_copy(update={"concurrency": 1})
    one, other = (
        topic_scenes(small, completer=late(1, guide)),
        topic_scenes(few, completer=late(2, guide)),
    )
    assert one[1] == other[1] and one[0].counts == other[0].counts


def test_incapable_requests_are_declined_and_their_like_answered(small):
    def assistant(prompt, sampling):
        text = prompt.last
        if "numbered list" in text:
            return listed(text, sampling, "request")
        number = int(re.search(r"\d+$", text.split("\n")[1 if "Decline" in text else 0]).group())
        if text.startswith("Decline"):
            return (
                "It is sunny."
                if number % 5 == 0
                else "I cannot look outside. I can explain clouds."
            )
        return "I'm unable to do that." if number % 5 == 1 else "Clouds are water."

    maker = Maker(Scripted(assistant, model="m"), small, seed=4)
    settings = incapable.IncapableSettings(requests=6, batch=3)
    made = asyncio.run(incapable.incapable(maker, settings))
    for one in made:
        assert incapable.refuses(one.conversation.last) == (one.task == "incapable")
        assert (
            len(one.conversation.messages) == 2
            and "Decline" not in one.conversation.messages[0].content
        )
    ends = maker.counts["incapable answers"]
    assert ends["dropped: no refusal"] > 0 and ends["dropped: refused what it can do"] > 0
    table = incapable.balance(made)
    assert sum(sum(row.values()) for row in table.values()) == len(made) > 40
    assert set(table) == set(incapable.ABILITIES) and all(
        all(row.values()) for row in table.values()
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I can't open websites. I can tell how.", True),
        ("Sure! That is not something I am able to do, as I don’t have eyes.", True),
        ("The capital is Oslo. It lies on a fjord. You cannot miss it.", False),
    ],
)
def test_what_counts_as_a_refusal(answer, expected):
    assert incapable.refuses(answer) == expected


def caller(reply):
    """Requests that carry a number, and `reply(number, offered)` for the call."""

    def assistant(prompt, sampling):
        text = prompt.last
        if "numbered list" in text:
            return listed(text, sampling, "wants")
        if "Result: " in text:
            result = re.search(r"Result: (.*)", text).group(1)
            return "Who knows." if "no answer" in text else f"It comes to {result}."
        offered = [json.loads(line)["name"] for line in text.splitlines() if line.startswith("{")]
        return reply(int(re.search(r"\d+$", text).group()), offered)

    return Scripted(assistant, model="m")


OWN = '''
import os

def double(number: int) -> int:
    """Twice a number.

    >>> double(3)
    """
    if number > 900:
        raise ValueError("too large")
    return 2 * number

def shout(word: str, times: int = 1) -> str:
    """A word in capitals."""
    return " ".join([word.upper()] * times)

def _hidden(anything):
    return anything
'''


def call(name, **arguments):
    return f"<functioncall> {json.dumps({'name': name, 'arguments': arguments})}"


def test_only_calls_that_are_right_and_executed_stay(small, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)

    def reply(number, offered):
        if "double" not in offered:
            return call("shout", word="hey") if number % 2 else "No tool of mine can do that."
        wrong = (
            call("triple", number=number),
            call("double", number="three"),
            call("double", number=number, more=1),
            call("shout", word="hey"),
            "Let me think.",
            call("double", number=901),
        )
        return wrong[number % 12] if number % 12 < 6 else call("double", number=number)

    settings = tools.ToolSettings(file=path, requests=40, batch=10, others=1, unfitting=0.3)
    maker = Maker(caller(reply), small, seed=1)
    made = asyncio.run(tools.called(maker, settings, Sandbox()))
    ends = maker.counts["tool calls"]
    for reason in (
        "call of an unknown tool",
        "arguments do not fit: Input should be a valid integer",
        "arguments do not fit: Extra inputs are not permitted",
        "call of another tool than is needed",
        "no JSON in the reply",
        "tool failed",
        "call where no tool fits",
    ):
        assert ends[f"dropped: {reason}"] > 0, ends
    right = [
        one for one in made if one.task == "tools" and "double" in one.conversation.turns[1].content
    ]
    assert len(right) > 5
    for one in right:
        request, said, result, answer = (message.content for message in one.conversation.turns)
        number = json.loads(said.removeprefix(tools.CALL))["arguments"]["number"]
        assert (
            result == f"FUNCTION RESPONSE: {2 * number}" and answer == f"It comes to {2 * number}."
        )
        assert request.endswith(str(number)) and '"name":"shout"' in one.conversation.system
    unfit = [one for one in made if one.task == "tools_unfitting"]
    assert unfit and all(len(one.conversation.turns) == 2 for one in unfit)


def test_tool_rows_have_the_forms_that_people_know(small, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    settings = tools.ToolSettings(file=path, requests=3, batch=3, unfitting=0)
    maker = Maker(caller(lambda number, _: call("double", number=number)), small, seed=1)
    one = asyncio.run(tools.called(maker, settings, Sandbox()))[0]
    row = tools.openai_row(one)
    assert [message["role"] for message in row["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    made = row["messages"][1]["tool_calls"][0]
    assert json.loads(made["function"]["arguments"])["number"] * 2 == int(
        row["messages"][2]["content"]
    )
    assert made["id"] == row["messages"][2]["tool_call_id"]
    double = next(t["function"] for t in row["tools"] if t["function"]["name"] == "double")
    assert double["parameters"]["properties"]["number"] == {"type": "integer", "examples": [3]}
    assert double["description"] == "Twice a number." and len(row["tools"]) == 2


def test_the_tools_that_come_along_do_their_examples():
    found, source = tools.read_tools(tools.TOOLBOX)

    async def run(tool):
        return await tools.executed(Sandbox(), source, tool.name, dict(tool.example))

    results = {tool.name: asyncio.run(run(tool)) for tool in found}
    assert results["calculate"] == 50 and results["convert_units"] == "42.165 km"
    assert results["add_days"] == "2024-04-12" and results["average"] == 6.25
    assert results["loan_payment"] == pytest.approx(12000 * 0.00375 / (1 - 1.00375**-36), abs=0.01)
    assert len(results) >= 6 and all(tool.schema["description"] for tool in found)


def test_a_tool_cannot_reach_out_and_long_results_are_dropped():
    source = (
        "def leave(): import socket; return socket.create_connection(('127.0.0.1', 9), 1) and 1\n"
        "def long(): return 'x' * 5000\n"
    )
    for name, reason in (("leave", "tool failed"), ("long", "result too long")):
        with pytest.raises(Dropped, match=reason):
            asyncio.run(tools.executed(Sandbox(), source, name, {}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(a): return a", "own.py:1: f: 'nothing'"),
        ("def f(a: dict): return a", "own.py:1: f: 'dict'"),
        ("x = 1", "no functions"),
        ("def f(:", "cannot read tools"),
    ],
)
def test_what_can_be_no_tool_is_named(tmp_path, source, message):
    path = tmp_path / "own.py"
    path.write_text(source)
    with pytest.raises(UserError, match=message):
        tools.read_tools(path)


def test_a_result_has_to_stand_in_the_answer():
    assert tools.holds("In all 1,250 people.", 1250) and tools.holds(
        "Oslo and Rome", ["rome", "Oslo"]
    )
    assert not tools.holds("About 12 people.", 1250) and not tools.holds(
        "Oslo", {"a": "Oslo", "b": 3}
    )


PROBLEM_ROWS = [
    {"question": "How many?", "answer": "3 * 4 = 12\n#### 1,200"},
    {"problem": "Find x.", "solution": r"So $x = \boxed{\frac{1}{2}}$."},
    {
        "question": "What part is the change?",
        "table": [["year", "a", "b"], ["costs", "$ 1,500", "(500)"]],
        "pre_text": ["Before."],
        "post_text": ["After."],
        "qa": {
            "question": "What is the average over the sum?",
            "program": "table_average(costs, none), table_sum(costs, none), divide(#0, #1)",
        },
    },
    {"question": "More?", "table": [["x"]], "program": "greater(14, const_19)"},
    {"question": "Broken?", "table": [["x"]], "program": "divide(1, 0)"},
    {"question": "Which?", "table": [["x"]], "program": "", "exe_ans": "b"},
]


def test_rows_become_problems_with_their_truth(tmp_path, small):
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write("\n".join(map(json.dumps, PROBLEM_ROWS)))
    asked, counts = problems.problems(path, problems.ProblemSettings(), 1)
    checks = [(one.task, one.checks[0].kind, one.checks[0].args["answer"]) for one in asked]
    assert checks == [
        ("gsm8k", "number", "1200"),
        ("math", "math", r"\frac{1}{2}"),
        ("finqa", "rounded", 0.5),
        ("finqa", "items", ["no"]),
        ("finqa", "items", ["b"]),
    ]
    assert counts == {"in": 6, "out": 5, "dropped: program gives nothing": 1}
    text = asked[2].conversation.last
    assert all(part in text for part in ("Before.", "| costs | $ 1,500 | (500) |", "After."))
    few = problems.ProblemSettings(most=2, characters=100)
    assert len(problems.problems(path, few, 1)[0]) == 2

    says = {
        "How many?": "#### 1200",
        "Find x.": r"\boxed{0.5}",
        "average": "Answer: 50%",
        "More?": "Answer: yes",
    }

    def answer(prompt, sampling):
        return next(
            (said for key, said in says.items() if key in prompt.last), f"Answer: {sampling.seed}"
        )

    maker = Maker(Scripted(answer, model="m"), small, seed=3)
    held = asyncio.run(problems.solved(maker, asked, 2))
    assert [one.task for one in held] == ["gsm8k", "math", "finqa"]
    assert held[0].conversation.messages[0].content == "How many?"  # as asked, without the frame
    assert maker.counts["problems"]["dropped: no right answer"] == 2


def test_questions_about_csv_tables(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "1.csv").write_text('"City","Note"\n"Oslo","the \\"old\\" one"\n')
    path = tmp_path / "train.tsv"
    path.write_text(
        "id\tutterance\tcontext\ttargetValue\nnt-0\twhich city?\tcsv/1.csv\tOslo|A\\pB\n"
    )
    (one,), _ = problems.problems(path, problems.ProblemSettings(), 1)
    assert one.checks[0].args["answer"] == ["Oslo", "A|B"]
    assert '| Oslo | the "old" one |' in one.conversation.last
    path.write_text("id\tutterance\nnt-0\twhich city?\n")
    with pytest.raises(UserError, match=r"train.tsv:2: of no known form"):
        problems.problems(path, problems.ProblemSettings(), 1)


def test_stem_takes_the_parts_whose_licence_allows_it(tmp_path):
    rows = [
        {"instruction": "Sum?", "input": "1, 2", "output": "3", "data_source": "MATH/PRM-800K"},
        {"instruction": "A", "output": "b", "data_source": "reclor"},
        {"instruction": "C", "output": "d", "data_source": "reclor", "license": "mit"},
        {"instruction": "E", "output": "f", "data_source": "something new"},
        {"problem_text": "Mass? ", "answer_number": "5.1", "unit": " kg", "source": "x"},
        {"question": "The sun?", "choices": ["cold", "hot"], "gold": 1},
        {
            "instruction": "Half?",
            "responses": ["One"],
            "next_response": "Two",
            "is_solution": True,
            "rating": 1.0,
        },
        {
            "instruction": "Half?",
            "responses": [],
            "next_response": "No",
            "is_solution": False,
            "rating": 1.0,
        },
    ]
    path = tmp_path / "parts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    made, counts = stem.stem([path], stem.StemSettings(parts=()), 1)
    said = [tuple(m.content for m in one.conversation.messages) for one in made]
    assert said == [
        ("Sum?\n\n1, 2", "3"),
        ("Half?", "One\nTwo"),
        ("C", "d"),
        ("Mass?", "The answer is 5.1 kg"),
        ("The sun?\nA. cold\nB. hot", "B. hot"),
    ]
    assert counts["reclor"] == {"in": 2, "left out: licence non-commercial": 1, "out": 1}
    assert counts["something new"] == {"in": 1, "left out: licence unknown": 1}
    assert [one.lineage.answer_by for one in made] == ["model", "model", *["human"] * 3]
    assert made[0].lineage.source == "stem/MATH/PRM-800K" and made[0].lineage.filters == (
        "licence MIT: check before use",
    )
    assert isinstance(made[0], Dialogue) and isinstance(made[0].conversation, Conversation)
    made, counts = stem.stem([path], stem.StemSettings(most=1), 1)
    assert [one.lineage.source for one in made] == [
        "stem/MATH/PRM-800K",
        "stem/scibench",
        "stem/openbookqa",
    ]
    assert counts["reclor"]["left out: part not wanted"] == 1
    path.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[0]))
    made, counts = stem.stem([path], stem.StemSettings(), 1)
    assert len(made) == 1 and counts["MATH/PRM-800K"]["left out: copy"] == 1
    path.write_text('{"other": 1}\n')
    with pytest.raises(UserError, match=r"parts.jsonl:1: .*in a row with other"):
        stem.stem([path], stem.StemSettings(), 1)
