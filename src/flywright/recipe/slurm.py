"""`flywright run X --slurm`: sbatch scripts, one for each size of the mesh's ramp, and submit.sh.

bash DIR/slurm/submit.sh --partition=gpu --account=me      # docs/clusters.md
"""

import shlex
from pathlib import Path

import jinja2

from flywright.errors import UserError
from flywright.files import write_text
from flywright.spec import MeshSpec


def write_scripts(
    recipe: Path, root: Path, mesh: MeshSpec, options: list[str], gpus_per_node: int = 8
) -> Path:
    """Write root/slurm/phase-N.sh and submit.sh; returns submit.sh.

    options: what else `flywright run` is given. A job has the ranks of its phase, one a GPU; each
    runs the same command, which ends where the ramp wants another size. Raises UserError where
    ranks do not fill machines.
    """
    folder = root.resolve() / "slurm"
    scripts = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    given = {"folder": shlex.quote(str(folder)), "out": shlex.quote(str(root.resolve()))}
    sizes = [*(dp for _, dp in mesh.dp_ramp), mesh.dp]
    command = ["run", str(recipe.resolve()), "--out", str(root.resolve()), *options]
    for number, dp in enumerate(sizes, 1):
        phase = mesh.model_copy(update={"dp": dp})
        nodes, tasks = _machines(phase, gpus_per_node)
        script = scripts.get_template("slurm_phase.jinja").render(
            name=shlex.quote(recipe.stem),
            phase=number,
            phases=len(sizes),
            nodes=nodes,
            tasks=tasks,
            mesh=f"pp {phase.pp} x dp {dp} x tp {phase.tp} = {phase.ranks} ranks",
            here=shlex.quote(str(Path.cwd())),
            command=shlex.join(command),
            **given,
        )
        write_text(folder / f"phase-{number}.sh", script)
    numbers = " ".join(str(number + 1) for number in range(len(sizes)))
    submit = scripts.get_template("slurm_submit.jinja")
    told = submit.render(phases=len(sizes), numbers=numbers, **given)
    write_text(folder / "submit.sh", told)
    return folder / "submit.sh"


def _machines(mesh: MeshSpec, gpus_per_node: int) -> tuple[int, int]:
    """(machines, ranks on each)."""
    tasks = min(mesh.ranks, gpus_per_node)
    if mesh.ranks % tasks:
        raise UserError(
            f"mesh.dp {mesh.dp}: {mesh.ranks} ranks do not fill machines of {gpus_per_node} GPUs "
            "(--gpus-per-node)"
        )
    return mesh.ranks // tasks, tasks
