"""Foretell before renting: will it fit, how long does it take, which layout (SPEC 3).

params_table(spec); search(spec, cluster("H100", 6144), batch=2304); check_rows("rows.csv")
"""

from flywright.plan.check import CheckResult, check_rows
from flywright.plan.devices import Cluster, cluster, device, device_names
from flywright.plan.job import Job
from flywright.plan.layout import Layout, lay_out, search
from flywright.plan.params import params_table

__all__ = [
    "CheckResult",
    "Cluster",
    "Job",
    "Layout",
    "check_rows",
    "cluster",
    "device",
    "device_names",
    "lay_out",
    "params_table",
    "search",
]
