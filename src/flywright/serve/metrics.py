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


class Metrics:
    """Counters and histograms of one app."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        if prometheus is None:
            return
        self.registry = prometheus.CollectorRegistry()
        ours: dict[str, Any] = {"namespace": "flywright", "registry": self.registry}
        counter, histogram = prometheus.Counter, prometheus.Histogram
        timed = {**ours, "buckets": SECONDS}
        self._kept = {
            "requests": counter("requests", "HTTP requests", ["route", "status"], **ours),
            "read": counter("prompt_tokens", "tokens of prompts", **ours),
            "written": counter("completion_tokens", "tokens drawn", **ours),
            "seconds": histogram("request_seconds", "until the answer's end", ["route"], **timed),
            "first": histogram("first_token_seconds", "until a stream's first part", **timed),
        }

    def request(self, route: str, status: int, seconds: float) -> None:
        """One request is over."""
        if self._kept:
            self._kept["requests"].labels(route, str(status)).inc()
            self._kept["seconds"].labels(route).observe(seconds)

    def read(self, tokens: int) -> None:
        """Tokens of a prompt that was taken."""
        if self._kept:
            self._kept["read"].inc(tokens)

    def written(self, tokens: int) -> None:
        """Tokens that were drawn."""
        if self._kept:
            self._kept["written"].inc(tokens)

    def first(self, seconds: float) -> None:
        """A stream's first part."""
        if self._kept:
            self._kept["first"].observe(seconds)

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
