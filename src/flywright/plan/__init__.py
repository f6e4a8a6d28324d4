"""Foretell before renting: will it fit, how long does it take, which layout (SPEC 3).

params_table(spec); search(spec, device("H100"), 6144, batch=2304); check_rows("rows.csv")
"""

from flywright.plan.check import check_rows
from flywright.plan.devices import device, peak_flops
from flywright.plan.job import Job
from flywright.plan.layout import lay_out, params_table, search

__all__ = ["Job", "check_rows", "device", "lay_out", "params_table", "peak_flops", "search"]
