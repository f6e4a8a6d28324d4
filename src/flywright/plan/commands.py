"""`flywright plan params|layout|check`: the planner's tables, as JSON too, and its picture.

The context's object turns a SPEC, a preset or a weights folder, into a ModelSpec.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from flywright.errors import UserError
from flywright.plan.check import check_rows
from flywright.plan.devices import device as known_device
from flywright.plan.inference import inference_fit
from flywright.plan.job import Job, Precision, Recompute
from flywright.plan.layout import Layout, given, lay_out, params_table, search
from flywright.plan.software import software
from flywright.spec import DeviceSpec, MeshSpec, ModelSpec

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Spec = Annotated[str, Argument(help="a preset or a weights folder")]
AsJson = Annotated[bool, Option("--json", help="print JSON instead of a table")]
SERVED_BY = ("H200", "H100", "A100", "B200", "GB200")


@app.command()
def params(context: typer.Context, spec: Spec, as_json: AsJson = False) -> None:
    """Where a model's parameters are."""
    _show(params_table(context.obj(spec)), as_json, spec)


@app.command()
def check(rows: Annotated[Path, Argument(metavar="ROWS.csv")], as_json: AsJson = False) -> None:
    """Published training times beside what the planner says."""
    result = check_rows(rows).to_json()
    shown = ("model", "device", "gpus", "precision", "published_seconds", "predicted_seconds")
    shown += ("published_gib", "predicted_gib", "error")
    brief = [{name: row[name] for name in shown} for row in result["rows"]]
    _show(result if as_json else brief, as_json)
    if not as_json:
        print(*result["skipped"], sep="\n")
        print(f"mean absolute error {result['mape']:.1%} of {len(result['rows'])} rows")


@app.command()
def layout(
    context: typer.Context,
    spec: Spec,
    gpus: Annotated[int | None, Option(min=1, help="how many")] = None,
    batch: Annotated[int | None, Option(min=1, help="sequences in a global batch")] = None,
    device: Annotated[str, Option(help="H100, H200, A100, B200, GB200 ...")] = "H100",
    sequence: Annotated[int, Option(min=1, help="tokens of a sequence")] = 4096,
    precision: Annotated[Precision, Option(help="bf16 or fp8")] = "bf16",
    recompute: Annotated[Recompute | None, Option(help="default: whichever is best")] = None,
    mesh: Annotated[str, Option(help="this one: tp=8,pp=12,virtual=8,dp=64,cp=1,micro=1")] = "",
    tokens: Annotated[float, Option(min=0, help="to train on, e.g. 7.6e12")] = 0.0,
    profile: Annotated[str, Option(help="of the training software")] = "nemo-2025",
    link: Annotated[float, Option(min=0, help="GB/s a GPU inside a machine")] = 0.0,
    network: Annotated[float, Option(min=0, help="GB/s a GPU between machines")] = 0.0,
    limit: Annotated[int, Option(min=1, help="layouts shown")] = 8,
    picture: Annotated[Path | None, Option(help="the best one's schedule: .svg or .png")] = None,
    inference: Annotated[
        bool, Option("--inference", help="the least GPUs to answer batch requests at once")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The fastest layouts that fit, with time, MFU and memory; or the fit for inference."""
    model = context.obj(spec)
    if inference:
        fits = _fits(context, model)
        return _show(fits, as_json, f"{spec}: {batch or 1} x {sequence:,} tokens at once")
    if not batch or not (gpus or "dp=" in mesh):
        raise UserError("plan layout needs --batch and --gpus (or --mesh with dp, or --inference)")
    base = Job(
        model, _cluster(device, link, network), MeshSpec(), batch, sequence=sequence,
        precision=precision, recompute=recompute or "none", software=software(profile),
    )  # fmt: skip
    if mesh:
        found = [lay_out(given(base, mesh, gpus))]
    else:
        found = search(base, gpus or 0, recompute, limit)
    if picture:
        from flywright.plan.picture import draw_schedule

        draw_schedule(found[0], picture)
    rows = [each.row(tokens) for each in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    job = found[0].job
    title = f"{spec} on {job.gpus:,} {device}, {batch:,} x {sequence:,} tokens, {precision}"
    _show([_brief(row) for row in rows], False, title)
    _details(found[0], rows[0])


def _fits(context: typer.Context, model: ModelSpec) -> list[dict[str, Any]]:
    """The least GPUs of each device and precision, or of those that are named."""
    asked = {
        name: value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    read = {"spec", "inference", "as_json", "sequence", "batch", "device", "precision"}
    if unread := ", ".join(f"--{name}" for name in asked if name not in read):
        raise UserError(f"plan layout --inference finds the number of GPUs itself: omit {unread}")
    names = [asked["device"]] if "device" in asked else SERVED_BY
    devices = [known_device(name) for name in names]
    kinds: list[Precision] = [asked["precision"]] if "precision" in asked else ["bf16", "fp8"]
    size = context.params["sequence"], asked.get("batch", 1)
    tried = [inference_fit(model, each, kind, *size) for each in devices for kind in kinds]
    if not any(tried):
        raise UserError(f"{asked['device']} has no fp8")
    return [fit for fit in tried if fit]


def _cluster(name: str, link: float, network: float) -> DeviceSpec:
    device = known_device(name)
    given_rates = {"link_bandwidth": link * 1e9, "network_bandwidth": network * 1e9}
    return device.model_copy(update={key: rate for key, rate in given_rates.items() if rate})


def _brief(row: dict[str, Any]) -> dict[str, str]:
    """A row's headings and cells so short that a table fits 100 columns."""
    said = {name: str(row[name]) for name in ("tp", "pp", "virtual", "dp")}
    said |= {"mbs": str(row["micro_batch"]), "recompute": row["recompute"]}
    said |= {"s/iter": f"{row['seconds']:.3g}", "MFU": f"{row['mfu']:.1%}"}
    said |= {"causal": f"{row['mfu_causal']:.1%}", "bubble": f"{row['bubble']:.1%}"}
    said |= {"GiB": f"{row['memory_gib']:.1f}"}
    if "days" in row:
        said |= {"days": f"{row['days']:.1f}", "GPU-hours": f"{row['gpu_hours']:,.0f}"}
    return said


def _details(best: Layout, row: dict[str, Any]) -> None:
    """What the table has no room for, of the first layout."""
    parts = ", ".join(f"{part} {size:.1f}" for part, size in row["memory"].items() if size >= 0.05)
    fit = "fits" if row["fits"] else "DOES NOT FIT"
    sent = f"{row['messages']:,} of {row['message_bytes'] / 2**20:.1f} MiB"
    Console(highlight=False).print(
        f"The first layout, GiB by part: {parts}; it {fit} {best.job.device.memory_gib:g}.\n"
        f"Messages of one pipeline in an iteration: {sent}; "
        f"exchange over dp that nothing hides: {row['exchange_seconds']:.2f} s."
    )


def _show(rows: Any, as_json: bool, title: str = "") -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    for name in rows[0]:
        left = name in ("model", "part", "device")
        table.add_column(name.replace("_", " "), justify="left" if left else "right")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")
