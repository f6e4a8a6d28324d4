"""Foretell before renting: will it fit, how long does it take, which layout (SPEC 3).

params_table(spec); search(Job(spec, device("H100"), MeshSpec(), batch=2304), 6144);
check_rows("rows.csv"); inference_fit(spec, device("H200"))
"""

from flywright.plan.check import check_rows
from flywright.plan.devices import device, peak_flops
from flywright.plan.inference import inference_fit
from flywright.plan.job import Job
from flywright.plan.layout import lay_out, params_table, search

__all__ = ["Job", "check_rows", "device", "inference_fit", "lay_out", "params_table"]
__all__ += ["peak_flops", "search"]
