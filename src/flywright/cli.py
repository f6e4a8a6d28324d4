"""The door: `flywright VERB`. A verb's modules are imported only when it is called.

Exit status: 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Argument, Option

from flywright.errors import FlywrightError

app = typer.Typer(
    name="flywright",
    help="The Nemotron-4 alignment recipe: pretrain, reward, synth, SFT, DPO, RPO, eval, serve.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[list[str], Option("--set", help="dotted.key=value over the file's")]
CacheGib = Annotated[float, Option(min=0, help="keys and values of an engine, GiB a rank")]
LINGER_SECONDS = 10.0
ALL_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
AsJson = Annotated[bool, Option("--json", help="print JSON instead of a table")]


def main() -> None:
    """Run the command line; turn errors into one line and an exit status."""
    try:
        app(prog_name="flywright", standalone_mode=False)
    except FlywrightError as error:
        _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped; the same command goes on from here", 130)
    except OSError as error:
        _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # click's usage errors
            _fail(error.format_message(), 2)  # type: ignore[attr-defined]
        raise


def _fail(line: str, status: int) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        _let_the_first_tell(status)
    print(f"flywright: {line}", file=sys.stderr)
    raise SystemExit(status)


def _let_the_first_tell(status: int) -> None:
    """The first rank tells what all know; as it ends, torchrun or srun ends the others.

    A rank that is left alone tells its own."""
    if status in (0, 75):  # all have agreed
        raise SystemExit(status)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(status))
    time.sleep(LINGER_SECONDS)


def _table(rows: list[dict[str, Any]], as_json: bool, title: str = "") -> None:
    """Rows as a table or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None)
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:,.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def _columns(rows: list[dict[str, Any]]) -> None:
    """Plain columns; a cell that is true is a star, and its row is green on a terminal."""
    marks = {True: "*", False: ""}
    lines = [[marks[v] if isinstance(v, bool) else str(v) for v in row.values()] for row in rows]
    cells = [list(rows[0]) if rows else [], *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.secho(text.rstrip(), fg="green" if line[-1] == "*" else None)


@app.command()
def run(
    recipe: Annotated[str, Argument(help="a recipe file, or the name of one in recipes/")],
    out: Annotated[Path | None, Option(help="default: runs/RECIPE")] = None,
    seed: Annotated[int | None, Option(help="the run's seed")] = None,
    settings: Overrides = [],  # noqa: B006
    until: Annotated[str, Option(help="stop after this step")] = "",
    dry_run: Annotated[
        bool, Option("--dry-run", help="print the steps, or what each rank holds")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="what a dry run prints")] = False,
    slurm: Annotated[bool, Option("--slurm", help="only write sbatch scripts")] = False,
    gpus_per_node: Annotated[int, Option(min=1, help="of the scripts' machines")] = 8,
) -> None:
    """Walk a recipe's road: finished steps are skipped, a killed one goes on where it was."""
    from flywright.recipe.run import find_recipe, read_recipe, stage_rows, step_names
    from flywright.recipe.run import run as walk
    from flywright.recipe.settings import AlignSettings

    path = find_recipe(recipe)
    chosen = read_recipe(path, settings, seed)
    if dry_run and chosen.mesh.ranks > 1 and not isinstance(chosen, AlignSettings):
        _rehearse(chosen, path.stem, as_json)
        return
    if dry_run:
        names = step_names(chosen, until)
        print(json.dumps(names) if as_json else "\n".join(names))
        return
    root = out or Path("runs") / path.stem
    if slurm:
        from flywright.recipe.slurm import write_scripts

        told = [f"--set={one}" for one in settings] + ([] if seed is None else [f"--seed={seed}"])
        told += [f"--until={until}"] if until else []
        print(f"bash {write_scripts(path, root, chosen.mesh, told, gpus_per_node)}")
        return
    if walk(chosen, root, until) is None:
        return  # another rank tells
    _table(stage_rows(root), False, "every stage, on the same held-out prompts")
    if (root / "policy").exists():  # not where --until stopped before
        print(f"chat with it:  flywright chat {root / 'policy'}")


def _rehearse(recipe: Any, name: str, as_json: bool) -> None:
    """What each kind of rank holds and sends; status 1 where it does not fit."""
    from flywright.recipe.dry_run import dry_run, tables

    ranks, fault = dry_run(recipe)
    if as_json:
        _table([rank.as_dict() for rank in ranks], True)
    else:
        for title, rows in tables(ranks):
            _table(rows, False, f"{name} on {recipe.mesh.device}, {title}")
    if fault:
        _fail(f"{name} {fault}", 1)


def _training_verb(verb: str, text: str) -> None:
    def command(
        settings_file: Annotated[Path, Argument(metavar="SETTINGS.toml")],
        settings: Overrides = [],  # noqa: B006
    ) -> None:
        from flywright.recipe.single import train_one

        if told := train_one(verb, settings_file, settings):
            print(told)

    app.command(verb, help=text)(command)


for _verb, _text in {
    "tokenizer": "Train a tokenizer on your documents.",
    "data": "Filter and deduplicate your documents into token shards.",
    "pretrain": "Pretrain a model on your documents.",
    "reward": "Train a reward model on your ratings, or on pairs.",
    "sft": "Supervised fine-tuning on your dialogues.",
    "dpo": "Direct preference optimization on your comparisons.",
    "rpo": "Reward-aware preference optimization on your comparisons.",
}.items():
    _training_verb(_verb, _text)


@app.command()
def score(
    model: Annotated[str, Argument(help="a reward model's folder or a URL")],
    source: Annotated[Path, Argument(help="dialogues or ratings, in any form of docs/formats.md")],
    target: Path,
) -> None:
    """Five attributes and the weighted sum for each conversation of a JSONL file."""
    from flywright.recipe.verbs import score_file

    print(f"{score_file(model, source, target)} conversations scored into {target}")


@app.command("eval")
def evaluate(
    model: Annotated[str, Argument(help="a weights folder or a URL")] = "",
    tasks: Annotated[str, Option(help="names, comma-separated")] = "",
    data: Annotated[Path | None, Option(help="folder of the tasks' files, or hub:DIR")] = None,
    out: Annotated[Path, Option(help="where results.json goes")] = Path("eval"),
    limit: Annotated[int, Option(min=0, help="first N items of a subject; 0: all")] = 0,
    samples: Annotated[int, Option(min=1, help="answers to each prompt (pass@k)")] = 1,
    temperature: Annotated[float, Option(min=0, help="of the answers; 0 is greedy")] = 0.0,
    workers: Annotated[int, Option(min=1, help="requests under way at a time")] = 256,
    judge: Annotated[str, Option(help="who judges: a folder or a URL")] = "",
    reward: Annotated[str, Option(help="the reward model: a folder or a URL")] = "",
    responses: Annotated[Path | None, Option(help="score these answers instead")] = None,
    judgments: Annotated[
        Path | None, Option(help="what a judge said before; FILE#MODEL takes one model's")
    ] = None,
    compare: Annotated[tuple[Path, Path] | None, Option(help="two result folders, paired")] = None,
    html: Annotated[
        Path | None, Option(help="with --compare: a page of failures side by side")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model, score given answers, or compare two results."""
    from flywright.evals.compare import compare as apart
    from flywright.evals.pages import report
    from flywright.files import write_text
    from flywright.recipe.verbs import run_evaluation

    if compare:
        rows = [{"metric": name, **value} for name, value in apart(*compare).items()]
        if html:
            write_text(html, report(compare))
    else:
        how = {"limit": limit, "samples": samples, "temperature": temperature}
        how |= {"workers": workers, "answers": responses, "judgments": judgments}
        rows = run_evaluation(model, tasks, data, out, judge, reward, **how)
    if not as_json:  # one screen: subjects and kinds are in results.json and report.html
        rows = [row for row in rows if " (" not in row["metric"]]
    _table(rows, as_json)


@app.command()
def chat(model: str, cache_gib: CacheGib = 2.0) -> None:
    """Talk to a model in the terminal; an empty line or Ctrl-D ends."""
    from flywright.recipe.verbs import open_chat

    answer = open_chat(model, cache_gib)
    print("An empty line ends the conversation.")
    with suppress(EOFError):
        while (text := input("> ")).strip():
            print(answer(text))


@app.command()
def serve(
    model: Annotated[Path, Argument(help="a policy's folder, or a reward model's")],
    reward: Annotated[Path | None, Option(help="a reward model's folder")] = None,
    host: str = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535)] = 1424,
    api_key_file: Annotated[
        Path | None, Option(help="keys that let clients in; or FLYWRIGHT_API_KEYS")
    ] = None,
    cors: Annotated[list[str], Option(help="origin whose pages may ask")] = [],  # noqa: B006
    log_prompts: Annotated[bool, Option("--log-prompts", help="log what is asked")] = False,
    nemo_strict: Annotated[bool, Option("--nemo-strict", help="NeMo's own quirks")] = False,
    cache_gib: CacheGib = 2.0,
    tp: Annotated[int, Option(min=1, help="ranks that share each layer (torchrun)")] = 1,
    pp: Annotated[int, Option(min=1, help="ranks that share the layers out")] = 1,
    dtype: Annotated[str, Option(help="bf16, fp16 or fp32; default: as stored")] = "",
    int8: Annotated[bool, Option("--int8", help="layers in 8 bits (on a CPU)")] = False,
    guesses: Annotated[int, Option(min=0, max=16, help="tokens guessed ahead")] = 0,
    engine: Annotated[str, Option(help="embedded, or vllm")] = "embedded",
) -> None:
    """Serve a model over the OpenAI, NeMo and reward wires."""
    from flywright.recipe.verbs import serve_folder

    if engine not in ("embedded", "vllm"):
        _fail(f"--engine {engine}: embedded or vllm", 2)
    how = {"dtype": dtype, "int8": int8, "guesses": guesses, "tp": tp, "pp": pp}
    how["vllm"] = engine == "vllm"
    told = {"cors": tuple(cors), "log_prompts": log_prompts, "nemo_strict": nemo_strict}
    serve_folder(model, reward, (host, port), cache_gib, api_key_file, how, **told)


@app.command("fake-llm")
def fake_llm(
    port: int = 8000,
    seed: int = 0,
    fault: Annotated[list[str], Option(help="e.g. rate429=0.1")] = [],  # noqa: B006
    latency: Annotated[str, Option(help="seconds: 0.2, 0.1:0.3 or ~MEDIAN:SIGMA")] = "0",
    slots: Annotated[int, Option(min=0, help="answered at once, the rest wait; 0: all")] = 0,
) -> None:
    """A deterministic OpenAI-compatible endpoint for tests and rehearsals."""
    from flywright.serve.fake import run_fake

    run_fake(port, fault, seed, latency, slots)


@app.command()
def synth(
    flow: Annotated[str, Argument(help="prompts, dialogues, ..., filter or card")],
    settings_file: Annotated[Path, Argument(metavar="SETTINGS.toml")],
    settings: Overrides = [],  # noqa: B006
    workers: Annotated[int, Option(min=1, help="processes at the same records")] = 1,
    ray: Annotated[str, Option(metavar="ADDRESS", help="a Ray cluster they run on")] = "",
) -> None:
    """Run one synthetic-data flow against any endpoint or folder (docs/synth.md)."""
    from flywright.recipe.flow_run import run_one

    print(run_one(flow, settings_file, settings, workers, ray))


@app.command()
def annotate(
    database: Path,
    items: Annotated[Path | None, Option(help="JSONL of items to add")] = None,
    export: Annotated[Path | None, Option(help="write records here and stop")] = None,
    port: int = 8001,
) -> None:
    """A web page on which people rate answers or compare two blind."""
    from flywright import annotate as people

    if items is not None:
        print(f"{people.import_items(database, items)} items added to {database}")
    if export is not None:
        print(json.dumps(people.export(database, export)))
        return
    page = people.create_app(database)
    print(f"annotate at http://127.0.0.1:{port} (Ctrl-C stops)", flush=True)
    people.run(page, port=port)


@app.command("import")
def import_(source: Path, out: Path) -> None:
    """Turn a .nemo file or unpacked folder into a weights folder."""
    from flywright.recipe.importing import import_nemo

    print(import_nemo(source, out))


@app.command()
def export(
    model: Annotated[Path, Argument(help="a weights folder")],
    out: Path,
    dtype: Annotated[str, Option(help="bf16, fp16 or fp32; default: as stored")] = "",
    shard_gb: Annotated[float, Option(min=1e-3, help="at most so large a file, in GB")] = 5.0,
    fp8: Annotated[bool, Option("--fp8", help="the layers' matrices, as vLLM reads")] = False,
) -> None:
    """Write a weights folder for other tools; a reward model's bias is folded into its norm."""
    from flywright.model.export import export as write

    print(write(model, out, dtype, shard_gb, fp8))


@app.command()
def report(folder: Path) -> None:
    """Write a run's report anew from its artifacts."""
    from flywright.report.page import write_report

    print(write_report(folder))


@app.command()
def trace(
    folder: Annotated[Path, Argument(help="a run, or any folder of JSONL files")],
    record_id: Annotated[str, Argument(help="or one of --model, --template, --source")] = "",
    model: Annotated[str, Option(help="what came from this model?")] = "",
    template: Annotated[str, Option(help="NAME@HASH, or the hash: what came from it?")] = "",
    source: Annotated[str, Option(help="what came from this source?")] = "",
    write: Annotated[Path | None, Option(help="write the ids found, one a line")] = None,
    without: Annotated[Path | None, Option(help="write the files without them")] = None,
    as_json: AsJson = False,
) -> None:
    """Where a record came from and what came from it; or all that came from a model."""
    from flywright.report.trace import trace as walk
    from flywright.report.trace import traced

    asked = [one for one in (record_id, model, template, source) if one]
    if len(asked) != 1:
        _fail("trace: name a record id, or one of --model, --template and --source", 2)
    if record_id and as_json:
        print(json.dumps(traced(folder, record_id), ensure_ascii=False, indent=1))
        return
    if record_id:
        print("\n".join(walk(folder, record_id)))
        return
    from flywright.report.withdraw import touched, write_ids, write_without

    came = touched(folder, model, template, source)
    told = {"roles": came.roles, "files": came.counts(), "trained_on_it": came.trained()}
    if write is not None:
        told["ids_written"] = write_ids(came, write)
    if without is not None:
        told["lines_left_out"] = write_without(came, without)
    if as_json:
        print(json.dumps(told, ensure_ascii=False, indent=1))
        return
    _table(told.pop("files"), False, f"what came from {asked[0]}")
    print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.items() if value))


@app.command()
def look(
    path: Path,
    model: Annotated[Path, Option(help="the folder whose tokenizer reads it")],
    limit: Annotated[int, Option(min=1, help="how many records")] = 1,
    as_json: AsJson = False,
) -> None:
    """Records as the model sees them: tokens, mask, and how they are packed."""
    from flywright.recipe.look import look_at

    seen = look_at(path, model, limit)
    if as_json:
        print(json.dumps(seen, ensure_ascii=False, indent=1))
        return
    print(seen["file"])
    _columns(seen["tokens"])
    print(f"\n{seen['batch']}")
    _columns(seen["packing"])
    print("\n".join(seen["over_length"]))


@app.command(context_settings=ALL_ARGUMENTS)
def plan(context: typer.Context) -> None:
    """Will it fit, how long, which layout: params, layout or check."""
    from flywright.plan.commands import app as planner
    from flywright.recipe.verbs import named_spec

    planner(context.args, prog_name="flywright plan", standalone_mode=False, obj=named_spec)


if __name__ == "__main__":
    main()
