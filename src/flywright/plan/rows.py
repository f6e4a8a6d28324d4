"""A row of somebody's table of published training runs as a Job, and the time it took.

Needed: layers, hidden, heads, vocab, seq, gbs, gpus, gpu and one of iter_s, published_tflops,
published_mfu_pct. All else may be blank or missing: ffn (4 x hidden), kv_heads (heads), glu (0),
tp, pp, vpp, cp, mbs (1), precision (bf16), recompute (none), source; dp is the GPUs left.
"""

from collections.abc import Mapping

from flywright.errors import UserError
from flywright.plan.devices import GIB, named_in
from flywright.plan.job import Job, Precision, Recompute
from flywright.plan.software import fully_sharded, software_of
from flywright.spec import MeshSpec, ModelSpec

NEEDED = ("layers", "hidden", "heads", "vocab", "seq", "gbs", "gpus", "gpu")
TIMES = ("iter_s", "published_tflops", "published_mfu_pct")


def job_of(row: Mapping[str, str | None]) -> Job:
    """The job that a row describes. Raises UserError or ValueError naming what cannot be read.

    A batch that is no multiple of dp x micro-batch is rounded to one.
    """
    device = named_in(_text(row, "gpu"))
    tp, pp, context = (_count(row, name, 1) for name in ("tp", "pp", "cp"))
    gpus = _count(row, "gpus")
    dp, rest = divmod(gpus, tp * pp * context)  # some tables count cp ranks in dp, too
    if rest or not dp:
        raise UserError(f"{gpus} GPUs are no multiple of tp {tp} x pp {pp} x cp {context}")
    virtual = _count(row, "vpp", 1) if pp > 1 else 1
    spec = _spec(row, _count(row, "seq"))
    software = software_of(_text(row, "source"), device.name, sharded=tp == pp == 1 and dp > 1)
    whole = (2 + software.gradient_bytes) * spec.parameters / tp
    if pp == 1 < dp and not software.fully_sharded and whole > device.memory_gib * GIB:
        software = fully_sharded(software, device.name)  # nothing else can have run it
    batch = _count(row, "gbs")
    share = max(1, batch // dp)
    stages = pp if pp > 1 and software.torch_pipeline else share
    micro_batch = _count(row, "mbs", max(1, share // stages))
    return Job(
        spec,
        device,
        MeshSpec(pp=pp, tp=tp, dp=dp, virtual=virtual),
        max(1, round(batch / (micro_batch * dp))) * micro_batch * dp,
        micro_batch,
        spec.context_length,
        context,
        precision=_precision(_text(row, "precision")),
        recompute=_recompute(_text(row, "recompute")),
        software=software,
    )


def _precision(told: str) -> Precision:
    if any(map(str.isdigit, told)) and "8" not in told and "16" not in told:
        raise ValueError(f"precision {told!r} is neither of 16 nor of 8 bits")
    return "fp8" if "8" in told else "bf16"


def seconds_of(row: Mapping[str, str | None], job: Job) -> float:
    """Published seconds of an iteration, or what the published rate of work comes to.

    TFLOP/s of a run with full recomputation count the second forward pass, as papers of that time
    do; a model's FLOPs are SPEC 3.4's.
    """
    if said := _text(row, "iter_s"):
        return float(said)
    work = job.spec.flops_per_token(job.sequence) * job.batch * job.sequence / job.gpus
    if said := _text(row, "published_tflops"):
        return work * (4 / 3 if job.recompute == "full" else 1) / (float(said) * 1e12)
    if said := _text(row, "published_mfu_pct"):
        return work / (float(said) / 100 * job.peak_flops)
    raise UserError(f"none of {', '.join(TIMES)} is given")


def _text(row: Mapping[str, str | None], name: str) -> str:
    return (row.get(name) or "").strip()


def _count(row: Mapping[str, str | None], name: str, default: int = 0) -> int:
    """A whole number; where it is blank the default, and an error where there is none."""
    said = _text(row, name).replace(",", "")
    if not said or said.lower() in ("na", "n/a", "-", "none"):
        if default:
            return default
        raise UserError(f"{name} is blank")
    whole, _, rest = said.partition(".")
    if not whole.isdigit() or rest.strip("0"):
        raise UserError(f"{name} {said!r} is no whole number")
    return int(whole) or default


def _spec(row: Mapping[str, str | None], sequence: int) -> ModelSpec:
    heads, hidden = _count(row, "heads"), _count(row, "hidden")
    gated = _text(row, "glu").lower() in ("1", "1.0", "true", "yes", "swiglu")
    return ModelSpec(
        name=_text(row, "model"),
        vocab_size=_count(row, "vocab"),
        hidden_size=hidden,
        layers=_count(row, "layers"),
        heads=heads,
        kv_heads=_count(row, "kv_heads", heads),
        head_dim=_count(row, "head_dim", hidden // heads),
        ffn_size=_count(row, "ffn", 4 * hidden),
        context_length=sequence,
        rotary_fraction=1.0,
        mlp="swiglu" if gated else "squared_relu",
        norm="rmsnorm" if gated else "layernorm1p",
    )


def _recompute(said: str) -> Recompute:
    """`none/selective` of a table that does not tell is what most systems do: selective."""
    if said.lower().startswith(("full", "true", "uniform", "block")):
        return "full"
    return "selective" if "selective" in said.lower() else "none"
