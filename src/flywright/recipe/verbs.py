"""What the command line's smaller verbs do: open who answers, call the room, return rows.

A MODEL is a weights folder or the URL of an OpenAI-compatible server.
"""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flywright.ask import Completer, Sampling, gather
from flywright.errors import UserError
from flywright.evals.hub import data_folder
from flywright.evals.items import nobody
from flywright.evals.suite import run_tasks
from flywright.evals.tasks import task_named
from flywright.files import digest, folder_hash, read_json, write_text
from flywright.generate import Engine, RewardScorer
from flywright.generate.asking import Cutting
from flywright.model import RewardModel, open_meta, read_spec
from flywright.recipe import files
from flywright.recipe.answerers import REVISION, answering, engine, generator, scorer_of
from flywright.recipe.console import Teller
from flywright.recipe.settings import GeneratorSettings
from flywright.records import Conversation, Dialogue, Rating, weighted_reward
from flywright.sandbox import Sandbox, SandboxSettings
from flywright.serve import ServeSettings, create_app
from flywright.serve import listen as serving
from flywright.serve.guard import from_environment as api_keys
from flywright.spec import ModelSpec, preset
from flywright.tokenizer import Tokenizer


def open_model(model: str, cache_gib: float = 2.0) -> Completer:
    """A weights folder by the engine in this process; or a URL, URL#MODEL, by its client, with the
    key in FLYWRIGHT_API_KEY."""
    if model.startswith(("http://", "https://")):
        url, _, name = model.partition("#")
        key = "FLYWRIGHT_API_KEY"
        return generator(GeneratorSettings(model=url, model_at_endpoint=name, api_key_variable=key))
    if not Path(model).is_dir():
        raise UserError(f"{model}: neither a weights folder nor a URL")
    return engine(Path(model), cache_bytes=int(cache_gib * 2**30))


def run_evaluation(
    model: str,
    tasks: str,
    data: Path | None,
    out: Path,
    judge: str = "",
    reward: str = "",
    **how: Any,
) -> list[dict[str, Any]]:
    """`flywright eval`: rows of task, metric, mean, error and interval; `how`: see run_tasks."""
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UserError("eval: name the tasks, e.g. --tasks ifeval,gsm8k")
    wanted = [task_named(name) for name in names]  # refused before anything is loaded or written
    given = how["answers"] or how["judgments"]
    if not (model or given or reward) and any(t.ask is not nobody for t in wanted):
        raise UserError("eval: name a MODEL, or give answers with --responses")
    if Path(model).is_dir() and model and isinstance(open_meta(Path(model))[0], RewardModel):
        model, reward = "", reward or model
    completer, about = (None, {}) if how["answers"] or not model else _measured(model)
    judges = {
        "judge": open_model(judge) if judge else None,
        "scorer": scorer_of(reward) if reward else None,
        "sandbox": Sandbox(SandboxSettings()) if any(t.runs_code for t in wanted) else None,
    }
    with Teller(out / "log.txt") as teller:  # a bar a task, with its numbers so far
        files, told = data_folder(data, names), {"about": about, "begin": teller.begin}
        tasked = run_tasks(completer, names, files, out, **judges, **told, **how)
        results = asyncio.run(tasked)
    return [
        {"task": task, "metric": metric}
        | {"stderr": found.stderr.get(metric, {}).get("stderr"), **value}
        for task, found in results.items()
        for metric, value in found.metrics.items()
    ]


def _measured(model: str) -> tuple[Completer, dict[str, str]]:
    """A folder in fp32, asked as lm-evaluation-harness asks; and the hashes that name it."""
    opened = open_model(model)
    if not isinstance(opened, Engine):
        return opened, {"endpoint": model}
    config = read_json(Path(model) / "tokenizer_config.json", missing_ok=True)
    talk = str(config.get("chat_format_hash") or digest(config.get("chat_template")))
    weights = folder_hash(Path(model), REVISION)
    return Cutting(opened), {"weights": weights, "precision": "float32", "chat_format": talk}


def score_file(model: str, source: Path, target: Path) -> int:
    """Write each conversation's five attributes and weighted reward; returns how many.

    model: a reward model's folder, or a server's URL. source: dialogues or ratings in any form of
    docs/formats.md. Raises UserError where one of its rows has no answer to score: the scores would
    not be line for line.
    """
    reading = files.read(source, Dialogue, Rating)
    talks = [record.conversation for record in reading]
    if reading.dropped:
        raise UserError(f"{reading.line}: every row has to end with an answer")
    scorer = scorer_of(model)
    if isinstance(scorer, RewardScorer):
        found = scorer.score_many(talks)
    else:
        found = asyncio.run(gather(scorer.score, talks))
    rows = [{**scores, "reward": weighted_reward(scores)} for scores in found]
    write_text(target, "".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def open_chat(model: str, cache_gib: float) -> Callable[[str], str]:
    """A function that answers each text in one growing conversation, greedily."""
    completer = open_model(model, cache_gib)
    said: list[str] = []

    def answer(text: str) -> str:
        said.append(text)
        asked = completer.complete(Conversation.of(*said), Sampling(max_tokens=128))
        said.append(asyncio.run(asked).text)
        return said[-1]

    return answer


def serve_folder(
    model: Path,
    reward: Path | None,
    address: tuple[str, int],
    cache_gib: float,
    api_key_file: Path | None,
    how: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    """Serve a policy folder, a reward folder, or both, at host and port; `how` is `answering`'s."""
    keys = api_keys(os.environ, api_key_file)
    if reward is None and isinstance(open_meta(model)[0], RewardModel):
        reward = model
    policy = None if model == reward else model
    with answering(policy, reward, int(cache_gib * 2**30), **(how or {})) as who:
        if who is None:  # another rank serves
            return
        completer, scorer = who
        answerer = completer or scorer
        assert answerer is not None
        chosen = ServeSettings(
            model_name=model.name if completer else "",
            reward_name=reward.name if reward else "",
            context_tokens=answerer.context_tokens,
            api_key_hashes=keys,
            loopback=address[0] in ("localhost", "::1") or address[0].startswith("127."),
            **settings,
        )
        tokenizer = completer.tokenizer if completer else Tokenizer.load(model)
        serving.run(create_app(completer, tokenizer, scorer, chosen), *address)


def named_spec(name: str) -> ModelSpec:
    """A preset, or the spec of a weights folder."""
    return read_spec(Path(name)) if Path(name).is_dir() else preset(name)
