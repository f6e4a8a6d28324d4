"""Function calling with tools that are really executed (SPEC 6.8).

    tool -> requests -> the model's call, parsed and held against the tool's schema -> executed in
    the sandbox -> its result put back -> the model's answer, which has to hold it
    and for a share of the requests the fitting tool is not offered: then no call may be made

Tools are functions in a Python file, templates/toolbox.txt or the user's; read, never imported.
"""

import ast
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from flywright.ask.protocol import Completer
from flywright.errors import UserError
from flywright.files import canonical_json, seed_from
from flywright.records import Conversation, Dialogue, fault_of, record_id
from flywright.settings import Settings
from flywright.synth import parse
from flywright.synth.flow import Dropped
from flywright.synth.genetic import Runner
from flywright.synth.maker import Maker
from flywright.synth.wording import template

TOOLBOX = Path(__file__).parent / "templates" / "toolbox.txt"  # Python that runs in the sandbox
CALL, RESULT = "<functioncall> ", "FUNCTION RESPONSE: "  # as Glaive's data write them
_TYPES = {"int": int, "float": float, "str": str, "bool": bool}
_MARK = "result "


class ToolSettings(Settings):
    """Which tools, how many requests for each, and how many other tools are offered with it."""

    file: Path | None = Field(default=None, description="Python functions; none = our own few")
    requests: int = Field(default=1000, ge=1, description="for each tool")
    batch: int = Field(default=10, ge=1, description="requests asked for in one call")
    others: int = Field(default=2, ge=0, description="further tools offered")
    unfitting: float = Field(default=0.1, ge=0, le=1, description="share without the tool needed")


@dataclass(frozen=True)
class Tool:
    """A function: its name, what it does, and its arguments, by example and as a model."""

    name: str
    description: str
    arguments: type[BaseModel]
    example: Mapping[str, Any]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """{"name", "description", "parameters": JSON schema}, as OpenAI's tools have it."""
        parameters = self.arguments.model_json_schema()
        for name, about in parameters.get("properties", {}).items():
            about.pop("title", None)
            about |= {"examples": [self.example[name]]} if name in self.example else {}
        parameters.pop("title", None)
        return {"name": self.name, "description": self.description, "parameters": parameters}


def _type(node: ast.expr | None) -> Any:
    """The type that an annotation names. Raises KeyError for any but the known ones."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "list":
        return list[_type(node.slice)]
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
        values = ast.literal_eval(node.slice)
        return Literal[values if isinstance(values, tuple) else (values,)]
    return _TYPES[ast.unparse(node) if node else "nothing"]


def _tool(function: ast.FunctionDef) -> Tool:
    """The tool that a function is. Raises KeyError, ValueError or SyntaxError where it is none."""
    words, _, example = (ast.get_docstring(function) or "").partition(">>>")
    names = [argument.arg for argument in function.args.args]
    defaults = [ast.literal_eval(each) for each in function.args.defaults]
    needed = [...] * (len(names) - len(defaults))
    types = [_type(argument.annotation) for argument in function.args.args]
    fields: Any = dict(zip(names, zip(types, [*needed, *defaults], strict=True), strict=True))
    strict = ConfigDict(strict=True, extra="forbid")
    model = create_model(function.name, __config__=strict, **fields)
    shown: dict[str, Any] = {}
    if example:
        call = ast.parse(example.strip().splitlines()[0], mode="eval").body
        assert isinstance(call, ast.Call)
        shown = dict(zip(names, map(ast.literal_eval, call.args), strict=False))
        shown |= {each.arg or "": ast.literal_eval(each.value) for each in call.keywords}
    return Tool(function.name, " ".join(words.split()), model, shown)


def read_tools(path: Path) -> tuple[list[Tool], str]:
    """The public functions of a Python file as tools, and its text.

    Raises UserError naming the function that cannot be one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        body = ast.parse(text).body
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: cannot read tools from it: {error}") from None
    tools = []
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            try:
                tools.append(_tool(node))
            except (KeyError, ValueError, SyntaxError, AssertionError) as error:
                known = f"typed arguments ({', '.join(_TYPES)}, list[...], Literal[...])"
                message = f"{path}:{node.lineno}: {node.name}: {error}; a tool has {known}"
                raise UserError(message) from None
    if not tools:
        raise UserError(f"{path}: no functions in it, so no tools")
    return tools, text


def parsed(reply: str, tools: Sequence[Tool]) -> tuple[Tool, dict[str, Any]]:
    """The tool that a reply calls, and its arguments. Raises Dropped with what is wrong with it."""
    call = parse.json_in(reply, dict)
    tool = next((tool for tool in tools if tool.name == call.get("name")), None)
    if tool is None:
        raise Dropped("call of an unknown tool")
    arguments = call.get("arguments", {})
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        tool.arguments.model_validate(arguments)
    except ValidationError as error:
        why = fault_of(error).partition(": ")[2]
        raise Dropped(f"arguments do not fit: {why}") from None
    except ValueError:
        raise Dropped("arguments are no JSON") from None
    return tool, arguments


async def executed(runner: Runner, source: str, name: str, arguments: dict[str, Any]) -> Any:
    """What the tool gives, run in the sandbox. Raises Dropped where it fails or gives no JSON.

    The sandbox tells of errors only, in a line of limited length: the result leaves as one.
    """
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    test = f"raise Exception({_MARK!r} + __import__('json').dumps({name}({given})))"
    _, mark, rest = (await runner.run(source, [test])).error.partition(f"Exception: {_MARK}")
    if not mark:
        raise Dropped("tool failed")
    try:
        return json.JSONDecoder().raw_decode(rest)[0]
    except ValueError:
        raise Dropped("result too long") from None


def holds(answer: str, result: Any) -> bool:
    """Whether an answer states a result: every number and text in it, whatever is between."""
    if isinstance(result, list):
        return all(holds(answer, each) for each in result)
    if isinstance(result, dict):
        return all(holds(answer, each) for each in result.values())
    plain = answer.replace(",", "").casefold()
    return isinstance(result, bool) or str(result).removesuffix(".0").casefold() in plain


async def called(maker: Maker, settings: ToolSettings, runner: Runner) -> list[Dialogue]:
    """Dialogues (request, call, result, answer), or (request, answer) where no tool fits.

    The system message lists the tools. Whatever is wrong with a call drops it, counted by reason.
    """
    tools, source = read_tools(settings.file or TOOLBOX)

    async def ask_for(tool: Tool, _ask: Completer) -> list[tuple[Tool, str]]:
        wording = template("tools_requests")
        found: dict[str, None] = {}
        for number in range(-(-settings.requests // settings.batch)):
            shown = canonical_json(tool.schema) + f" ({number + 1})"  # or all calls would be one
            try:
                new, _ = await maker.ask_list(wording, settings.batch, tool=shown)
            except Dropped:
                continue
            found |= dict.fromkeys(new)
        return [(tool, text) for text in list(found)[: settings.requests]]

    async def converse(place: tuple[Tool, str], ask: Completer) -> list[Dialogue]:
        needed, request = place
        rng = random.Random(seed_from(maker.seed, needed.name, request))
        others = [tool for tool in tools if tool is not needed]
        fits = rng.random() >= settings.unfitting or not others
        offered = rng.sample(others, min(settings.others + (not fits), len(others)))
        offered = sorted([*offered, *[needed] * fits], key=lambda tool: tool.name)
        lines = "\n".join(canonical_json(tool.schema) for tool in offered)
        system = template("tools_system").text.format(tools=lines)
        wording = template("tools_call")
        question = wording.fill(system=system, request=request)
        said, sampling = await maker.say(ask, question, "call", request)
        if fits:
            tool, arguments = parsed(said, offered)
            if tool is not needed:
                raise Dropped("call of another tool than is needed")
            result = await executed(runner, source, tool.name, arguments)
            call = json.dumps({"name": tool.name, "arguments": arguments}, ensure_ascii=False)
            shown = json.dumps(result, ensure_ascii=False)
            question = template("tools_answer").fill(request=request, call=call, result=shown)
            answer, _ = await maker.say(ask, question, "answer", request)
            if not holds(answer, result):
                raise Dropped("answer without the result")
            turns = (request, CALL + call, RESULT + shown, answer)
        elif "functioncall" in said or said.lstrip().startswith("{"):
            raise Dropped("call where no tool fits")
        else:
            turns = (request, said)
        source_name = "tools" if fits else "tools_unfitting"
        lineage = maker.lineage(source_name, wording, sampling, (needed.name,), answer_by="model")
        conversation = Conversation.of(*turns, system=system)
        name = record_id("tools", needed.name, request)
        return [Dialogue(id=name, conversation=conversation, task=source_name, lineage=lineage)]

    requests = await maker.run("tool requests", ask_for, tools)
    return await maker.run("tool calls", converse, requests)


def openai_row(dialogue: Dialogue) -> dict[str, Any]:
    """The dialogue as OpenAI's chat API has it: {"messages", "tools"}."""
    messages: list[dict[str, Any]] = []
    for message in dialogue.conversation.turns:
        text = message.content
        if message.role == "assistant" and text.startswith(CALL):
            call = json.loads(text.removeprefix(CALL))
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
            made = {"id": "call_0", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
        elif message.role == "user" and text.startswith(RESULT):
            told = {"tool_call_id": "call_0", "content": text.removeprefix(RESULT)}
            messages.append({"role": "tool", **told})
        else:
            messages.append({"role": message.role, "content": text})
    lines = [line for line in dialogue.conversation.system.splitlines() if line.startswith("{")]
    tools = [{"type": "function", "function": json.loads(line)} for line in lines]
    return {"messages": messages, "tools": tools}
