"""What /metrics tells, in Prometheus' text format: requests, tokens, latencies, the engine's state.

It needs the `serve` extra; without it nothing is counted and /metrics says so. Every app has a
registry of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flywright.serve.problems import Problem

try:
    import prometheus_client as prometheus
except ImportError:  # the extra is not installed
    prometheus = None

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
COUNTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "requests": ("HTTP requests", ("route", "status")),
    "prompt_tokens": ("tokens of prompts", ()),
    "completion_tokens": ("tokens drawn", ()),
}
TIMED: dict[str, tuple[str, tuple[str, ...]]] = {
    "request_seconds": ("until the answer's end", ("route",)),
    "first_token_seconds": ("until a stream's first part", ()),
}


class Metrics:
    """Counters and histograms of one app."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        if prometheus is None:
            return
        self.registry = prometheus.CollectorRegistry()
        ours: dict[str, Any] = {"namespace": "flywright", "registry": self.registry}
        for name, told in COUNTED.items():
            self._kept[name] = prometheus.Counter(name, *told, **ours)
        for name, told in TIMED.items():
            self._kept[name] = prometheus.Histogram(name, *told, buckets=SECONDS, **ours)

    def add(self, name: str, value: float, *labels: str) -> None:
        """So many more of what is COUNTED, or one that took so long of what is TIMED."""
        if self._kept:
            one = self._kept[name].labels(*labels) if labels else self._kept[name]
            (one.inc if name in COUNTED else one.observe)(value)

    def watch(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Show the numbers of `state()` as gauges, as they are when somebody asks."""
        if self._kept:
            self.registry.register(_Gauges(state))

    def text(self) -> bytes:
        """The page. Raises Problem(501) without the extra."""
        if prometheus is None:
            raise Problem(501, "metrics need prometheus-client: install flywright[serve]")
        return prometheus.generate_latest(self.registry)


class _Gauges:
    def __init__(self, state: Callable[[], Mapping[str, Any]]):
        self._state = state

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        for name, value in self._state().items():
            if isinstance(value, int | float):
                yield GaugeMetricFamily(f"flywright_{name}", name.replace("_", " "), float(value))
