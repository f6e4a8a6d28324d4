"""A picture of a layout's pipeline schedule: every forward and backward of every rank in time."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from flywright.errors import UserError
from flywright.files import atomic_file
from flywright.plan.layout import Layout
from flywright.plan.schedule import timeline
from flywright.plan.time import schedule_arguments

FORWARD, BACKWARD = "#3b6ea5", "#d98a3d"
NUMBERED = 400  # boxes at most in which the micro-batch is written


def draw_schedule(layout: Layout, path: Path) -> None:
    """Write an .svg or .png. Raises UserError for any other ending."""
    if path.suffix not in (".svg", ".png"):
        raise UserError(f"{path}: a picture is written as .svg or .png")
    job = layout.job
    pp, virtual, *_ = arguments = schedule_arguments(job)
    spans = timeline(*arguments)
    numbered = len(spans) <= NUMBERED
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(12, 1.6 + 0.32 * pp), layout="constrained")
        axes = figure.add_subplot()
        for (forward, chunk, number), (start, end) in spans.items():
            axes.barh(
                chunk % pp, end - start, 0.84, start,
                color=FORWARD if forward else BACKWARD,
                alpha=0.45 + 0.55 * (1 + chunk // pp) / virtual,
                edgecolor="white", linewidth=0.6 if numbered else 0.1,
            )  # fmt: skip
            if numbered:
                where = ((start + end) / 2, chunk % pp)
                axes.text(*where, str(number), ha="center", va="center", fontsize=6, color="white")
        axes.set(xlabel="seconds", ylabel="pipeline rank", yticks=range(pp), ylim=(pp - 0.5, -0.5))
        axes.set_title(
            f"{job.spec.name} on {job.gpus} {job.device.name}: pp {pp} x {virtual} chunks, "
            f"{job.microbatches} micro-batches, bubble {layout.time.bubble:.1%}\n"
            f"blue forward, orange backward; the paler, the earlier a rank's chunk in the model",
            loc="left",
        )
        with atomic_file(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=150)
