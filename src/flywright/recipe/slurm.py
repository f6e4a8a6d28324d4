"""`flywright run X --slurm`: sbatch scripts, one for each size of the mesh's ramp, and submit.sh.

bash DIR/slurm/submit.sh --partition=gpu --account=me      # docs/clusters.md
"""

import shlex
from pathlib import Path

import jinja2

from flywright.errors import UserError
from flywright.files import write_text
from flywright.spec import MeshSpec

SUBMIT = """\
#!/bin/bash
# Submits {phases} phase(s), each after the one before; options are handed on to sbatch.
set -euo pipefail
after=()
for phase in {numbers}; do
  job=$(sbatch --parsable "$@" ${{after[@]+"${{after[@]}}"}} {folder}/phase-$phase.sh)
  echo "phase $phase: job ${{job%%;*}}"
  after=("--dependency=afterok:${{job%%;*}}" --kill-on-invalid-dep=yes)
done
"""


def write_scripts(
    recipe: Path, root: Path, mesh: MeshSpec, options: list[str], gpus_per_node: int = 8
) -> Path:
    """Write root/slurm/phase-N.sh and submit.sh; returns submit.sh.

    options: what else `flywright run` is given. A job has the ranks of its phase, one a GPU; each
    runs the same command, which ends where the ramp wants another size. Raises UserError where
    ranks do not fill machines.
    """
    folder = root.resolve() / "slurm"
    text = Path(__file__).with_name("slurm_phase.jinja").read_text("utf-8")
    template = jinja2.Template(text, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    sizes = [*(dp for _, dp in mesh.dp_ramp), mesh.dp]
    command = ["run", str(recipe.resolve()), "--out", str(root.resolve()), *options]
    for number, dp in enumerate(sizes, 1):
        phase = mesh.model_copy(update={"dp": dp})
        nodes, tasks = _machines(phase, gpus_per_node)
        script = template.render(
            name=shlex.quote(recipe.stem),
            phase=number,
            phases=len(sizes),
            nodes=nodes,
            tasks=tasks,
            mesh=f"pp {phase.pp} x dp {dp} x tp {phase.tp} = {phase.ranks} ranks",
            folder=shlex.quote(str(folder)),
            out=shlex.quote(str(root.resolve())),
            here=shlex.quote(str(Path.cwd())),
            command=shlex.join(command),
        )
        write_text(folder / f"phase-{number}.sh", script)
    numbers = " ".join(str(number + 1) for number in range(len(sizes)))
    submit = SUBMIT.format(phases=len(sizes), numbers=numbers, folder=shlex.quote(str(folder)))
    write_text(folder / "submit.sh", submit)
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
